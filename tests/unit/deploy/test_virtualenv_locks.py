"""An environment holds what a lock file pins, and nothing that is added changes a version of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy.selection import Selection, find_fault, project_folder
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import GID
from virtualenv_workshop import PYPROJECT, Workshop, installed, version_of

EXTRAS = """
[project.optional-dependencies]
database = ["driver"]
[dependency-groups]
dev = ["toolbox"]
prod = ["mail"]
"""


@pytest.fixture
def stocked(workshop: Workshop) -> Workshop:
    """An index whose plugin depends on the project itself, and whose driver exists for two libraries."""
    for name, version in [("flask", "3.1.3"), ("library", "1.0"), ("library", "2.0"), ("gunicorn", "27.0.1")]:
        workshop.publish(name, version)
    for name in ("toolbox", "mail"):
        workshop.publish(name, "1.0")
    workshop.publish("plugin", "1.0", needs="shop")
    workshop.publish("driver", "1.0", needs="library")
    workshop.publish("driver", "2.0", needs="library>=2")
    return workshop


def lock(workshop: Workshop, *packages: str, more: str = "") -> Path:
    return workshop.lock(f"{PYPROJECT}dependencies = {json.dumps(packages)}\n{more}")


# -- uv.lock --------------------------------------------------------------------------------------------------------


def test_a_locked_package_can_depend_on_the_project_itself(stocked: Workshop) -> None:
    built = stocked.build(lock(stocked, "flask", "plugin"))
    assert installed(built) == {"flask": "3.1.3", "plugin": "1.0"}


def test_what_is_locked_is_not_resolved_anew(stocked: Workshop) -> None:
    """The lock overrides what a package says that it needs; uv knows how to read that, and pip does not."""
    override = '[tool.uv]\noverride-dependencies = ["library==1.0"]\n'
    requirements = lock(stocked, "driver==2.0", more=override)
    # Not in the release: the settings of uv would make a new resolution find the same.
    stocked.requirements(PYPROJECT + 'dependencies = ["driver==2.0"]\n', "pyproject.toml")
    assert installed(stocked.build(requirements)) == {"driver": "2.0", "library": "1.0"}


def test_a_locked_package_that_was_exchanged_is_refused(stocked: Workshop) -> None:
    requirements = lock(stocked, "flask")
    assert "hash = " in requirements.read_text(encoding="utf-8")
    stocked.forge("flask", "3.1.3")
    with pytest.raises(ReleaseError, match=r"(?i)hash"):
        stocked.build(requirements)


def test_locked_packages_without_hashes_are_installed_with_a_warning(stocked: Workshop) -> None:
    requirements = lock(stocked, "flask")
    text = re.sub(r', hash = "[^"]*"', "", requirements.read_text(encoding="utf-8"))
    requirements.write_text(text, encoding="utf-8")
    builder = stocked.builder()
    stocked.build(requirements, builder=builder)
    assert len(builder.warnings) == 1
    assert "uv.lock has no hashes for flask==3.1.3: installed unverified." in builder.warnings[0]


@pytest.mark.parametrize(
    ("selection", "packages"),
    [
        (Selection(), {"flask"}),
        (Selection(extras=("database",)), {"flask", "driver", "library"}),
        (Selection(groups=("prod",)), {"flask", "mail"}),
        (Selection(groups=("dev", "prod")), {"flask", "mail", "toolbox"}),
    ],
)
def test_extras_and_groups_of_the_lock_are_installed(
    stocked: Workshop, selection: Selection, packages: set[str]
) -> None:
    requirements = lock(stocked, "flask", more=EXTRAS)
    assert installed(stocked.build(requirements, builder=stocked.builder(selection=selection))).keys() == packages


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml"])
@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(extras=("databse",)), r"install.extras: pyproject.toml has no extra databse. Available: database."),
        (Selection(groups=("production",)), r"pyproject.toml has no group production. Available: dev, prod."),
    ],
)
def test_an_extra_that_does_not_exist_is_refused_with_those_that_do(
    stocked: Workshop, name: str, selection: Selection, message: str
) -> None:
    requirements = lock(stocked, "flask", more=EXTRAS).with_name(name)
    stocked.calls.clear()
    with pytest.raises(ReleaseError) as caught:
        stocked.build(requirements, builder=stocked.builder(selection=selection))
    assert re.search(message, caught.value.reason)
    assert stocked.calls == []


def test_extras_and_groups_without_a_lock(stocked: Workshop) -> None:
    text = f'{PYPROJECT}dependencies = ["flask"]\n{EXTRAS}'
    requirements = stocked.requirements(text, "pyproject.toml")
    selection = Selection(extras=("database",), groups=("prod",))
    built = stocked.build(requirements, builder=stocked.builder(selection=selection))
    assert installed(built).keys() == {"flask", "driver", "library", "mail"}


def test_a_requirements_file_has_no_extras(stocked: Workshop) -> None:
    builder = stocked.builder(selection=Selection(extras=("database",)))
    with pytest.raises(ReleaseError, match=r"requirements.txt has no extras: install.extras needs pyproject.toml"):
        stocked.build(stocked.requirements("flask\n"), builder=builder)


def test_a_member_of_a_workspace_gets_its_own_packages(stocked: Workshop) -> None:
    member = PYPROJECT.replace('"shop"', '"web"') + 'dependencies = ["mail"]\n'
    stocked.requirements(member, "services/web/pyproject.toml")
    requirements = lock(stocked, "flask", more='[tool.uv.workspace]\nmembers = ["services/*"]\n')
    built = stocked.builder().build(stocked.code / "services/web", requirements, [], "gunicorn==27.0.1")
    assert installed(built) == {"mail": "1.0"}
    assert installed(stocked.build(requirements)) == {"flask": "3.1.3"}


# -- other tools' locks ---------------------------------------------------------------------------------------------


def foreign_locks(workshop: Workshop) -> dict[str, str]:
    """Locks with flask and the plugin, with mail for another system, and with toolbox for development."""
    poetry, pdm, pylock, pipenv = "", "", "", {"default": {}, "dev": {}}
    for name, version in {"flask": "3.1.3", "mail": "1.0", "plugin": "1.0", "toolbox": "1.0"}.items():
        digest = workshop.digest(workshop.folder / f"index/{name}/{name}-{version}-py3-none-any.whl")
        head = f'name = "{name}"\nversion = "{version}"\n'
        files = f'files = [{{file = "x.whl", hash = "{digest}"}}]\n'
        marker = "sys_platform == 'win32'" if name == "mail" else ""
        group = "dev" if name == "toolbox" else ""
        poetry += f'[[package]]\n{head}groups = ["{group or "main"}"]\nmarkers = "{marker}"\n{files}'
        pdm += f'[[package]]\n{head}groups = ["{group or "default"}"]\nmarker = "{marker}"\n{files}'
        condition = f"'{group}' in dependency_groups" if group else marker
        wheel = f'{{name = "x.whl", url = "https://h.test/x.whl", hashes = {{sha256 = "{digest[7:]}"}}}}'
        pylock += f'[[packages]]\n{head}marker = "{condition}"\nwheels = [{wheel}]\n'
        pipenv[group or "default"][name] = {"version": f"=={version}", "hashes": [digest], "markers": marker}
    return {
        "poetry.lock": f'{poetry}[metadata]\nlock-version = "2.1"\n',
        "pdm.lock": '[metadata]\ngroups = ["default", "dev"]\nstrategy = ["inherit_metadata"]\n'
        f'lock_version = "4.5.1"\n{pdm}',
        "pylock.toml": f'lock-version = "1.0"\ncreated-by = "test"\ndependency-groups = ["dev"]\n{pylock}',
        "Pipfile.lock": json.dumps({"_meta": {"pipfile-spec": 6}, **pipenv}),
    }


def test_a_project_that_only_poetry_reads_is_refused_with_its_command(stocked: Workshop) -> None:
    requirements = stocked.requirements('[tool.poetry]\nname = "shop"\n', "pyproject.toml")
    with pytest.raises(ReleaseError) as caught:
        stocked.build(requirements)
    assert "[tool.poetry]" in caught.value.reason
    assert "poetry lock" in caught.value.cure


@pytest.mark.parametrize("name", ["poetry.lock", "pdm.lock", "pylock.toml", "Pipfile.lock"])
def test_a_lock_of_another_tool_is_installed_as_locked(stocked: Workshop, name: str) -> None:
    """The plugin depends on the project, so nothing is resolved; a group is installed only if it is named."""
    requirements = stocked.requirements(foreign_locks(stocked)[name], name)
    stocked.publish("flask", "3.2.0")
    builder = stocked.builder()
    assert installed(stocked.build(requirements, builder=builder)) == {"flask": "3.1.3", "plugin": "1.0"}
    assert builder.warnings == []
    built = stocked.build(requirements, builder=stocked.builder(selection=Selection(groups=("dev",))))
    assert installed(built).keys() == {"flask", "plugin", "toolbox"}
    with pytest.raises(ReleaseError, match=rf"extra_packages needs flask 3.2.0, but {name} pins flask 3.1.3"):
        stocked.build(requirements, ["flask==3.2.0"])
    stocked.forge("flask", "3.1.3")
    for folder in ("venvs", "cache"):
        (stocked.folder / folder).rename(stocked.folder / f"earlier-{folder}")
    with pytest.raises(ReleaseError, match=r"(?i)hash mismatch"):
        stocked.build(requirements)


def test_a_lock_of_another_tool_is_installed_from_a_wheelhouse(stocked: Workshop) -> None:
    requirements = stocked.requirements(foreign_locks(stocked)["pylock.toml"], "pylock.toml")
    folder = stocked.code / "wheels"
    for name, version, needs in [("flask", "3.1.3", ""), ("plugin", "1.0", "shop"), ("gunicorn", "27.0.1", "")]:
        stocked.wheel(folder, name, version, needs=needs)
    built = stocked.build(requirements, builder=stocked.builder(wheelhouse=folder))
    assert installed(built).keys() == {"flask", "plugin"}


POETRY_FOLDER = """
[[package]]
name = "lib"
version = "1"
groups = ["main"]
[package.source]
type = "directory"
url = "lib"
[metadata]
lock-version = "2.1"
"""


def test_an_environment_with_a_folder_of_the_source_is_not_shared(stocked: Workshop) -> None:
    keys = set()
    for release in ("1", "2"):
        folder = stocked.folder / "releases" / release / "src"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "poetry.lock").write_text(POETRY_FOLDER, encoding="utf-8")
        keys.add(stocked.key(folder / "poetry.lock"))
    assert len(keys) == 2


# -- what comes on top ----------------------------------------------------------------------------------------------


def test_an_extra_package_uses_the_locked_versions(stocked: Workshop) -> None:
    built = stocked.build(lock(stocked, "library==1.0"), ["driver==1.0"])
    assert installed(built) == {"library": "1.0", "driver": "1.0"}


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize(("extra", "version"), [("driver", "2.0"), ("library", "2.0")])
def test_an_extra_package_that_needs_another_version_is_refused(
    stocked: Workshop, extra: str, version: str, hashed: bool
) -> None:
    requirements = lock(stocked, "library==1.0")
    with pytest.raises(ReleaseError) as caught:
        stocked.build(requirements, [stocked.pinned(extra, version) if hashed else f"{extra}=={version}"])
    assert caught.value.reason == "extra_packages needs library 2.0, but uv.lock pins library 1.0."
    assert "uv add 'library==2.0'" in caught.value.cure


def test_what_the_lock_has_for_another_system_is_not_in_the_way(stocked: Workshop) -> None:
    stocked.publish("mail", "2.0")
    requirements = lock(stocked, "flask", "mail==1.0 ; sys_platform == 'win32'")
    assert installed(stocked.build(requirements, ["mail==2.0"])) == {"flask": "3.1.3", "mail": "2.0"}


def test_a_lock_without_packages(stocked: Workshop) -> None:
    built = stocked.build(lock(stocked), [stocked.pinned("mail", "1.0")])
    assert installed(built) == {"mail": "1.0"}


def test_extra_packages_with_hashes_beside_a_lock_without(stocked: Workshop) -> None:
    requirements = lock(stocked, "flask")
    text = re.sub(r', hash = "[^"]*"', "", requirements.read_text(encoding="utf-8"))
    requirements.write_text(text, encoding="utf-8")
    built = stocked.build(requirements, [stocked.pinned("mail", "1.0")])
    assert installed(built) == {"flask": "3.1.3", "mail": "1.0"}


def test_the_server_does_not_change_a_locked_version(stocked: Workshop) -> None:
    shelf = stocked.folder / "index/gunicorn"
    stocked.wheel(shelf, "gunicorn", "27.0.1", needs="library>=2")
    stocked.server_lock = f"{stocked.pinned('gunicorn', '27.0.1')}\n{stocked.pinned('library', '2.0')}"
    with pytest.raises(ReleaseError) as caught:
        stocked.build(lock(stocked, "library==1.0"))
    assert caught.value.reason == "gunicorn==27.0.1 needs library 2.0, but uv.lock pins library 1.0."


def test_an_older_server_in_a_lock_gives_way(stocked: Workshop) -> None:
    stocked.publish("gunicorn", "9.0.0")
    builder = stocked.builder()
    built = stocked.build(lock(stocked, "flask", "gunicorn==9.0.0"), builder=builder)
    assert version_of(built, "gunicorn") == "27.0.1"
    assert "uv.lock pins gunicorn 9.0.0" in builder.warnings[0]


# -- the project itself ---------------------------------------------------------------------------------------------


BACKEND = """
import os, zipfile
def build_wheel(folder, *args):
    # As setuptools does: a file beside the code.
    open("left-over", "w").close()
    name = "shop-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("shop/__init__.py", "version = '1'")
        wheel.writestr("shop-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: shop\\nVersion: 1\\n")
        wheel.writestr("shop-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("shop-1.dist-info/RECORD", "")
    return name
"""
#: Some backends install a package as editable by a wheel like this one, in which a path leads to the code.
EDITABLE = """
def build_editable(folder, *args):
    return build_wheel(folder)
"""
BUILD_SYSTEM = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.mark.parametrize("name", ["uv.lock", "requirements.txt", "pyproject.toml"])
def test_the_project_itself_is_installed_as_a_package(stocked: Workshop, name: str) -> None:
    stocked.requirements(BACKEND, "backend.py")
    requirements = stocked.requirements("flask\n")
    lock(stocked, "flask", more=BUILD_SYSTEM)
    built = stocked.build(requirements.with_name(name), builder=stocked.builder(selection=Selection(project=True)))
    assert installed(built) == {"flask": "3.1.3", "shop": "1"}
    assert version_of(built, "shop") == "1"
    assert not (stocked.code / "left-over").exists(), "the code is for reading only"
    assert not (built / "project").exists()
    assert [path for path in built.rglob("*.pth") if "shop" in path.name] == [], "not editable"


def test_packages_inside_the_source_are_built_from_a_copy_of_it(stocked: Workshop) -> None:
    """As above, the backend writes beside the code, which a host does not allow."""
    stocked.requirements(BACKEND, "vendor/backend.py")
    stocked.requirements(PYPROJECT + BUILD_SYSTEM, "vendor/pyproject.toml")
    stocked.requirements("-r ../pins.txt\n./vendor\n", "requirements/all.txt")
    requirements = stocked.requirements("flask==3.1.3\n", "pins.txt").with_name("requirements") / "all.txt"
    builder = stocked.builder()
    builder.top = stocked.code
    built = stocked.build(requirements, builder=builder)
    assert installed(built) == {"flask": "3.1.3", "shop": "1"}
    assert not (stocked.code / "vendor/left-over").exists()
    assert not (built / "code").exists()
    lockfile = stocked.requirements(
        '[metadata]\nlock-version = "2.1"\n[[package]]\nname = "shop"\nversion = "1"\ngroups = ["main"]\n'
        '[package.source]\ntype = "directory"\nurl = "vendor"\n',
        "poetry.lock",
    )
    assert installed(stocked.build(lockfile)) == {"shop": "1"}
    assert not (stocked.code / "vendor/left-over").exists()


@pytest.mark.parametrize(
    ("name", "text", "copied"),
    [
        ("requirements.txt", "./vendor\n", True),
        ("requirements.txt", "-e ./vendor\n", False),
        ("requirements.txt", "flask==3.1.3\n", False),
        (
            "pyproject.toml",
            PYPROJECT + 'dependencies = ["shop"]\n[tool.uv.sources]\nshop = { path = "vendor" }\n',
            True,
        ),
        (
            "pyproject.toml",
            PYPROJECT + 'dependencies = ["shop"]\n[tool.uv.sources]\nshop = { path = "vendor", editable = true }\n',
            False,
        ),
    ],
)
def test_only_code_that_stays_where_it_is_built_is_built_in_place(
    stocked: Workshop, name: str, text: str, copied: bool
) -> None:
    stocked.requirements(BACKEND + EDITABLE, "vendor/backend.py")
    stocked.requirements(PYPROJECT + BUILD_SYSTEM, "vendor/pyproject.toml")
    stocked.build(stocked.requirements(text, name))
    installs = [call for call in stocked.calls if "install" in call.command]
    assert any(call.properties["WorkingDirectory"][0].endswith("/code") for call in installs) is copied
    # A build that stays in place writes beside the code.
    code = str(stocked.code)
    writable = [call for call in installs if code in call.properties["ReadWritePaths"]]
    in_place = "vendor" in text and not copied
    assert len(writable) == in_place
    assert all(code in call.properties["BindPaths"] for call in writable)
    assert all(code in call.properties["BindReadOnlyPaths"] for call in installs if call not in writable)
    assert (stocked.code / "vendor/left-over").exists() is in_place


def test_what_an_editable_package_leaves_belongs_to_root(stocked: Workshop) -> None:
    stocked.requirements(BACKEND + EDITABLE, "backend.py")
    stocked.requirements(PYPROJECT + BUILD_SYSTEM, "pyproject.toml")
    stocked.build(stocked.requirements("-e .\nflask==3.1.3\n"))
    assert (stocked.code / "left-over").is_file()
    assert {stocked.owners[path] for path in stocked.owners if path.is_relative_to(stocked.code)} == {(0, GID)}
    assert stocked.code / "left-over" in stocked.owners


@pytest.mark.parametrize(
    ("leaves", "reason"),
    [
        ("os.symlink('/etc/passwd', 'users')", "users is a link to /etc/passwd, outside the source."),
        ("os.mkfifo('pipe')", "pipe is a device, a pipe or a socket."),
    ],
)
def test_what_an_editable_package_leaves_is_not_trusted(stocked: Workshop, leaves: str, reason: str) -> None:
    stocked.requirements(BACKEND.replace('open("left-over", "w").close()', leaves) + EDITABLE, "backend.py")
    stocked.requirements(PYPROJECT + BUILD_SYSTEM, "pyproject.toml")
    with pytest.raises(ReleaseError) as caught:
        stocked.build(stocked.requirements("-e .\n"))
    assert caught.value.reason == f"an editable package left behind what cannot be released: {reason}"


def test_root_reads_no_file_that_an_editable_package_has_replaced(stocked: Workshop) -> None:
    """A pipe in the place of the requirements file would stop the deploy for ever."""
    leaves = "os.remove('requirements.txt'); os.mkfifo('requirements.txt')"
    stocked.requirements(BACKEND.replace('open("left-over", "w").close()', leaves) + EDITABLE, "backend.py")
    stocked.requirements(PYPROJECT + BUILD_SYSTEM, "pyproject.toml")
    stocked.publish("mail", "1.0")
    with pytest.raises(ReleaseError, match=r"requirements\.txt is a device, a pipe or a socket"):
        stocked.build(stocked.requirements("-e .\nflask\n"), ["mail==1.0"])


def test_an_environment_with_the_project_is_not_shared(stocked: Workshop) -> None:
    keys = set()
    for release in ("1", "2"):
        folder = stocked.folder / "releases" / release / "src"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "uv.lock").write_text("version = 1\n", encoding="utf-8")
        keys.add(stocked.builder(selection=Selection(project=True)).key(folder / "uv.lock", [], "gunicorn==27.0.1"))
        keys.add(stocked.builder().key(folder / "uv.lock", [], "gunicorn==27.0.1"))
    assert len(keys) == 3


def test_a_folder_that_is_no_package_is_not_installed(stocked: Workshop) -> None:
    builder = stocked.builder(selection=Selection(project=True))
    with pytest.raises(ReleaseError, match=r"install.project: The app's folder is not a package"):
        stocked.build(stocked.requirements("flask\n"), builder=builder)


def test_the_project_is_the_apps_own_folder(tmp_path: Path) -> None:
    """A requirements file can be in a folder beside the code, and a project can have a setup.py only."""
    requirements = tmp_path / "requirements/production.txt"
    requirements.parent.mkdir()
    requirements.touch()
    fault = find_fault(Selection(project=True), requirements, tmp_path)
    assert fault is not None
    assert fault.option == "project"
    (tmp_path / "setup.py").touch()
    assert find_fault(Selection(project=True), requirements, tmp_path) is None
    assert project_folder(requirements, tmp_path) == tmp_path


def test_another_extra_is_another_environment(workshop: Workshop) -> None:
    requirements = workshop.requirements("version = 1\n", "uv.lock")
    selections = [None, Selection(extras=("a",)), Selection(groups=("a",)), Selection(extras=("b",))]
    keys = {workshop.builder(selection=item).key(requirements, [], "gunicorn==27.0.1") for item in selections}
    assert len(keys) == 4


# -- hostile locks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        '{ directory = "../../../other" }',
        '{ editable = "../../../other" }',
        '{ git = "http://h.test/a?rev=x#' + "a" * 40 + '" }',
        '{ git = "file:///srv/a?rev=x#' + "a" * 40 + '" }',
        '{ url = "http://h.test/lib-1.0-py3-none-any.whl" }',
        '{ path = "../../../lib-1.0-py3-none-any.whl" }',
        '{ url = "file:///etc/lib-1.0-py3-none-any.whl" }',
    ],
)
def test_a_lock_of_uvs_cannot_lead_out_of_the_source(stocked: Workshop, source: str) -> None:
    requirements = lock(stocked, "library==1.0")
    text = requirements.read_text(encoding="utf-8")
    text = re.sub(r'(name = "library"\nversion = "1.0"\nsource = ).*', lambda match: match[1] + source, text)
    if "path" not in source and "url" not in source:
        text = re.sub(r"wheels = \[[^\]]*library-1.0[^\]]*\]\n", "", text)
    requirements.write_text(text, encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"uv.lock contains .*(lib|other).*: (it|a|an) "):
        stocked.build(requirements)
