"""An environment holds what its lock says, is built once for it, and is whole or is not used."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import stat
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import virtualenv
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import BUILD_GID, BUILD_UID, GID, UID, USER, Unit, fake_owners, run_command, tree, unsandboxed

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
SERVER = "gunicorn==27.0.1"
PYPROJECT = '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'

# -- which file pins the dependencies -------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def test_the_most_exact_file_is_found_first(tmp_path: Path) -> None:
    write(tmp_path, pyproject_toml=PYPROJECT + 'dependencies = ["flask"]\n')
    assert virtualenv.find_requirements(tmp_path) == tmp_path / "pyproject.toml"
    write(tmp_path, requirements_txt="flask==3.1.3\n")
    assert virtualenv.find_requirements(tmp_path) == tmp_path / "requirements.txt"
    write(tmp_path, uv_lock="version = 1\n")
    assert virtualenv.find_requirements(tmp_path) == tmp_path / "uv.lock"


def test_the_apps_own_folder_comes_before_the_top(tmp_path: Path) -> None:
    app = tmp_path / "services/shop"
    write(tmp_path, uv_lock="", services__shop__requirements_txt="")
    assert virtualenv.find_requirements(app, top=tmp_path) == app / "requirements.txt"
    (app / "requirements.txt").unlink()
    assert virtualenv.find_requirements(app, top=tmp_path) == tmp_path / "uv.lock"
    assert virtualenv.find_requirements(app) is None


def test_the_file_that_the_user_names_is_the_one(tmp_path: Path) -> None:
    app = tmp_path / "shop"
    write(tmp_path, shop__uv_lock="", shop__requirements__production_txt="", requirements__dev_txt="")
    assert virtualenv.find_requirements(app, "requirements/production.txt", tmp_path) == (
        app / "requirements/production.txt"
    )
    assert virtualenv.find_requirements(app, "requirements/dev.txt", tmp_path) == tmp_path / "requirements/dev.txt"
    assert virtualenv.find_requirements(app, "requirements/missing.txt", tmp_path) is None


@pytest.mark.parametrize(
    "content", ["[tool.ruff]\n", PYPROJECT, PYPROJECT + "dependencies = []\n", "not = [toml", "\xff"]
)
def test_a_pyproject_without_dependencies_pins_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "pyproject.toml").write_text(content, encoding="latin-1")
    assert virtualenv.find_requirements(tmp_path) is None
    assert virtualenv.find_requirements(tmp_path, "pyproject.toml") == tmp_path / "pyproject.toml"


def test_a_folder_of_that_name_is_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").mkdir()
    assert virtualenv.find_requirements(tmp_path) is None


# -- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("27.0.1", (27, 0, 1)), ("27", (27,)), ("27.0.1rc1", (27, 0, 1)), ("2.0.post1", (2, 0)), ("", ()), ("dev", ())],
)
def test_the_numbers_of_a_version(version: str, numbers: tuple[int, ...]) -> None:
    assert virtualenv.version_tuple(version) == numbers


def test_versions_are_compared_as_numbers() -> None:
    mixed = ["27.0.10", "100.0", "27.0", "", "9.9", "27.0.1", "23.0.0"]
    in_order = ["", "9.9", "23.0.0", "27.0", "27.0.1", "27.0.10", "100.0"]
    assert sorted(mixed, key=virtualenv.version_tuple) == in_order


def test_the_installed_version(tmp_path: Path) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    for name in ("gunicorn-23.0.0.dist-info", "uWSGI-2.0.31.dist-info", "gunicorn_extra-1.0.dist-info"):
        (packages / name).mkdir(parents=True)
    assert virtualenv.installed_version(tmp_path, "gunicorn") == "23.0.0"
    assert virtualenv.installed_version(tmp_path, "uwsgi") == "2.0.31"
    assert virtualenv.installed_version(tmp_path, "waitress") == ""
    assert virtualenv.installed_version(tmp_path / "missing", "gunicorn") == ""


# -- the name of an environment -------------------------------------------------------------------------------------


class Workshop:
    """A builder with real uv, a package index in a folder, and a release's code."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.owners = fake_owners(monkeypatch)
        self.calls: list[Unit] = []
        self.server_lock = ""
        self.code = folder / "releases/1/src"
        self.code.mkdir(parents=True)
        for variable in [name for name in os.environ if name.startswith(("UV_", "PIP_", "VIRTUAL_ENV"))]:
            monkeypatch.delenv(variable)

    def builder(self, python: str = sys.executable, uv: str = UV, wheelhouse: Path | None = None) -> virtualenv.Builder:
        return virtualenv.Builder(
            unsandboxed(self.calls),
            user=USER,
            code=self.code,
            folder=self.folder / "venvs",
            cache=self.folder / "cache/shop",
            uv=uv,
            python=python,
            index_url=f"file://{self.folder}/index",
            wheelhouse=wheelhouse,
            server_lock=self.server_lock or self.pinned("gunicorn", "27.0.1"),
        )

    def pinned(self, name: str, version: str) -> str:
        """A package as a lock has it: with the hash of its file in the index, or of nothing if there is none."""
        wheel = self.folder / f"index/{name}/{name}-{version}-py3-none-any.whl"
        digest = hashlib.sha256(wheel.read_bytes() if wheel.exists() else b"").hexdigest()
        return f"{name}=={version} --hash=sha256:{digest}"

    def publish(self, name: str, version: str, needs: str = "") -> None:
        """Put a package into the index: a module of its name that knows its version."""
        shelf = self.folder / "index" / name
        self.wheel(shelf, name, version, needs=needs)
        links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(shelf.glob("*.whl")))
        (shelf / "index.html").write_text(links, encoding="utf-8")

    def wheel(self, folder: Path, name: str, version: str, build: str = "", needs: str = "") -> Path:
        """Make a package: a module of its name that knows its version and, if it has one, its build."""
        folder.mkdir(parents=True, exist_ok=True)
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += f"Requires-Dist: {needs}\n" if needs else ""
        wheel = folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{name}/__init__.py", f"version = {version + build!r}\n")
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(
                f"{info}/RECORD", f"{name}/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
            )
        return wheel

    def requirements(self, text: str, name: str = "requirements.txt") -> Path:
        path = self.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def build(
        self, requirements: Path, extra: list[str] | None = None, builder: virtualenv.Builder | None = None
    ) -> Path:
        return (builder or self.builder()).build(self.code, requirements, extra or [], SERVER)

    def forge(self, name: str, version: str) -> None:
        """Exchange a package in the index for another one of the same name and version."""
        self.wheel(self.folder / "index" / name, name, version, build="-forged")

    def key(self, requirements: Path, extra: list[str] | None = None, server: str = SERVER) -> str:
        return self.builder().key(requirements, extra or [], server)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    # A host has none; make sets it for this machine's own programs.
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    return Workshop(tmp_path, monkeypatch)


def version_of(environment: Path, package: str) -> str:
    command = [f"{environment}/bin/python", "-I", "-c", f"import {package}; print({package}.version)"]
    return run_command(command, check_rc=True)[1].strip()


def test_the_same_question_has_the_same_name(workshop: Workshop) -> None:
    requirements = workshop.requirements("flask==3.1.3\n")
    name = workshop.key(requirements, ["a==1", "b==2"])
    assert len(name) == 16
    assert name == workshop.key(requirements, ["b==2", "a==1"])
    next_release = workshop.folder / "releases/2/src/requirements.txt"
    next_release.parent.mkdir(parents=True)
    next_release.write_bytes(requirements.read_bytes())
    assert name == workshop.key(next_release, ["a==1", "b==2"])


def test_the_name_changes_with_all_that_decides_what_is_in_it(workshop: Workshop) -> None:
    requirements = workshop.requirements("-r more/base.txt\n-cmore/pins.txt\nflask==3.1.3\n")
    base = workshop.requirements("click==8\n", "more/base.txt")
    names = [workshop.key(requirements)]
    names.append(workshop.key(requirements, ["a==1"]))
    names.append(workshop.key(requirements, server="gunicorn==28.0.0"))
    other = workshop.requirements(requirements.read_text(encoding="utf-8"), "requirements-prod.txt")
    names.append(workshop.key(other))
    names.append(workshop.builder(python="/bin/echo").key(requirements, [], SERVER))
    workshop.requirements("-r more/base.txt\n-cmore/pins.txt\nflask==3.1.4\n")
    names.append(workshop.key(requirements))
    base.write_text("click==9\n", encoding="utf-8")
    names.append(workshop.key(requirements))
    workshop.requirements("idna==1\n", "more/pins.txt")
    names.append(workshop.key(requirements))
    base.write_text("click==9\n--requirement=deeper.txt\n", encoding="utf-8")
    workshop.requirements("x==1\n", "more/deeper.txt")
    names.append(workshop.key(requirements))
    workshop.requirements("x==2\n", "more/deeper.txt")
    names.append(workshop.key(requirements))
    assert len(set(names)) == len(names)


def test_files_that_take_each_other_in_come_to_an_end(workshop: Workshop) -> None:
    requirements = workshop.requirements("-r sub/a.txt\n")
    workshop.requirements("-r ../requirements.txt\n-r b.txt\n", "sub/a.txt")
    workshop.requirements("-r ../sub/a.txt\n-r missing.txt\n", "sub/b.txt")
    assert len(workshop.key(requirements)) == 16


@pytest.mark.parametrize("line", ["-r {outside}", "-c ../../../outside.txt", "-r link.txt", "-r /proc/kmsg"])
def test_root_reads_no_file_outside_of_the_source(workshop: Workshop, line: str) -> None:
    outside = workshop.folder / "outside.txt"
    outside.write_text("secret==1\n", encoding="utf-8")
    (workshop.code / "link.txt").symlink_to(outside)
    requirements = workshop.requirements(line.format(outside=outside) + "\n")
    with pytest.raises(ReleaseError, match="outside of the source"):
        workshop.key(requirements)


@pytest.mark.parametrize("name", ["requirements.txt", "uv.lock"])
def test_a_lock_that_fills_the_memory_is_refused(workshop: Workshop, name: str) -> None:
    requirements = workshop.requirements("flask==3.1.3\n", name)
    with requirements.open("r+b") as stream:
        stream.truncate(8 * 1024**3)
    with pytest.raises(ReleaseError, match=f"{name} is longer than 16384 KB"):
        workshop.key(requirements)


@pytest.mark.parametrize(
    ("name", "unit"), [("requirements.txt", "\n"), ("pyproject.toml", "{"), ("pyproject.toml", ",")]
)
def test_no_lock_keeps_root_busy(workshop: Workshop, name: str, unit: str) -> None:
    """A regular expression that begins anew at each character and reads to the end takes hours."""
    requirements = workshop.requirements(unit * 1_000_000, name)
    began = time.monotonic()
    workshop.key(requirements)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ('lib = { path = "../lib" }', True),
        ('lib = {editable = true, path="../lib"}', True),
        ("lib = { workspace = true }", True),
        ('dependencies = ["lib @ file:///lib"]', True),
        ('lib = { git = "https://example.com/path" }', False),
    ],
)
def test_local_code_in_a_project_is_seen(text: str, local: bool) -> None:
    assert bool(virtualenv._LOCAL_CODE["pyproject.toml"].search(text)) == local


def test_included_files_count_whatever_the_first_one_is_called(workshop: Workshop) -> None:
    requirements = workshop.requirements("-r base.txt\n", "requirements.production")
    workshop.requirements("a==1\n", "base.txt")
    before = workshop.key(requirements)
    workshop.requirements("a==2\n", "base.txt")
    assert workshop.key(requirements) != before


LOCAL = {
    "requirements.txt": [
        "-e .",
        "-e ./lib",
        "--editable=lib",
        "flask==3.1.3\n.",
        ".[prod]",
        "./lib",
        "../lib",
        "lib/thing",
        "/srv/wheels/thing.whl",
        "file:///srv/wheels/thing.whl",
        "thing @ file:///srv/wheels/thing.whl",
        "thing @ ./lib",
        "-r base.txt",
    ],
    "uv.lock": ['source = { editable = "lib" }', 'source = { directory = "../lib" }', 'source = { path = "a.whl" }'],
    "pyproject.toml": ['lib = { path = "lib" }', "lib = { workspace = true }", 'dependencies = ["lib @ file:///lib"]'],
}
SHARED = {
    "requirements.txt": [
        "flask==3.1.3 \\\n    --hash=sha256:0e/1\n# see docs/readme ./x\n--extra-index-url https://example.com/a",
        "thing @ https://example.com/thing.whl",
        "thing @ git+https://example.com/thing.git@v1",
        "--find-links ./wheels",
        "a.b==1 ; python_version < '3.12'",
    ],
    "uv.lock": ['source = { editable = "." }', 'source = { virtual = "." }', 'source = { registry = "https://x.org" }'],
    "pyproject.toml": ['dependencies = ["flask"]', '[tool.ruff]\nsrc = ["."]\n', 'x = { git = "https://x.org/path" }'],
}


@pytest.mark.parametrize(
    ("name", "text", "shared"),
    [(name, text, False) for name, texts in LOCAL.items() for text in texts]
    + [(name, text, True) for name, texts in SHARED.items() for text in texts],
)
def test_an_environment_with_the_releases_own_code_is_not_shared(
    workshop: Workshop, name: str, text: str, shared: bool
) -> None:
    keys = set()
    for release in ("1", "2"):
        folder = workshop.folder / "releases" / release / "src"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "base.txt").write_text("-e .\n", encoding="utf-8")
        (folder / name).write_text(f"{text}\n", encoding="utf-8")
        keys.add(workshop.key(folder / name))
    assert len(keys) == (1 if shared else 2)


def test_an_interpreter_that_does_not_run_is_said_so(workshop: Workshop) -> None:
    with pytest.raises(ReleaseError, match="/bin/false does not run"):
        workshop.builder(python="/bin/false").key(workshop.requirements(""), [], SERVER)


def test_settings_of_uv_in_the_tree_decide_too(workshop: Workshop) -> None:
    for name in ("uv.lock", "requirements.txt"):
        requirements = workshop.requirements("version = 1\n" if name == "uv.lock" else "flask\n", name)
        keys = [workshop.key(requirements)]
        for pyproject in ("[tool.uv]\nno-binary = true\n", "[tool.uv]\nno-binary = false\n"):
            workshop.requirements(pyproject, "pyproject.toml")
            keys.append(workshop.key(requirements))
        workshop.requirements("no-build = true\n", "uv.toml")
        keys.append(workshop.key(requirements))
        for path in ("pyproject.toml", "uv.toml"):
            (workshop.code / path).unlink()
        assert workshop.key(requirements) == keys[0]
        assert len(set(keys)) == 4


def test_settings_above_the_lock_and_beside_the_app_count(workshop: Workshop) -> None:
    app = workshop.code / "services/shop"
    app.mkdir(parents=True)
    requirements = workshop.requirements("flask\n", "requirements/production.txt")
    workshop.publish("gunicorn", "27.0.1")
    builder, keys = workshop.builder(), set()
    keys.add(builder.key(requirements, [], SERVER, app))
    workshop.requirements("[tool.uv]\nno-binary = true\n", "pyproject.toml")
    keys.add(builder.key(requirements, [], SERVER, app))
    workshop.requirements("no-build = true\n", "services/shop/uv.toml")
    keys.add(last := builder.key(requirements, [], SERVER, app))
    assert len(keys) == 3
    workshop.publish("flask", "3.1.3")
    assert builder.build(app, requirements, [], SERVER).name == last


def test_groups_of_the_project_decide_what_is_taken_from_its_lock_and_nothing_else_does(workshop: Workshop) -> None:
    lock = workshop.requirements("version = 1\n", "uv.lock")
    groups = '[dependency-groups]\nmail = ["x"]\n[tool.uv]\ndefault-groups = ["mail"]\n'
    workshop.requirements(PYPROJECT + groups, "pyproject.toml")
    key = workshop.key(lock)
    workshop.requirements(PYPROJECT.replace("shop", "other") + groups + "[tool.ruff]\nx = 1\n", "pyproject.toml")
    assert workshop.key(lock) == key
    workshop.requirements(PYPROJECT + groups.replace('["x"]', '["x", "y"]'), "pyproject.toml")
    assert workshop.key(lock) != key
    # Of no interest to a requirements.txt beside it, nor is a file that is damaged.
    requirements = workshop.requirements("flask\n")
    workshop.requirements("[dependency-groups]\na = []\n", "pyproject.toml")
    key = workshop.key(requirements)
    for text in ("[dependency-groups]\nb = []\n", "not = [toml", "tool = 1\n"):
        workshop.requirements(text, "pyproject.toml")
        assert workshop.key(requirements) == key


# -- building, with the real uv -------------------------------------------------------------------------------------


def test_the_environment_has_the_lock_the_extras_and_the_server(workshop: Workshop) -> None:
    for name, version in [("flask", "3.1.3"), ("flask", "3.1.4"), ("driver", "1.0"), ("gunicorn", "27.0.1")]:
        workshop.publish(name, version)
    builder = workshop.builder()
    built = workshop.build(workshop.requirements("flask==3.1.3\n"), ["driver==1.0"], builder)
    assert list(built.glob("lib/python3*/site-packages/flask/__pycache__/*.pyc"))
    assert version_of(built, "flask") == "3.1.3"
    assert version_of(built, "driver") == "1.0"
    assert version_of(built, "gunicorn") == "27.0.1"
    assert builder.warnings == []
    assert virtualenv.is_whole(built)


def test_what_uv_runs_has_the_apps_rights_only(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    built = workshop.build(workshop.requirements(""))
    assert [Path(call.command[0]).name for call in workshop.calls] == ["uv"] * 3
    for call in workshop.calls:
        assert call.properties["ReadWritePaths"] == [str(built), str(workshop.folder / "cache/shop")]
        assert call.properties["WorkingDirectory"] == [str(workshop.code)]
        assert call.properties["ProtectSystem"] == ["strict"]
        assert call.properties["NoNewPrivileges"] == ["yes"]
        assert call.environment["UV_CACHE_DIR"] == str(workshop.folder / "cache/shop")
        assert call.environment["UV_PYTHON_DOWNLOADS"] == "never"
        # Of the app's it has the code alone, and of other apps nothing; nor has it a socket of the host's.
        assert {f"{workshop.folder.parent}:ro", f"{workshop.folder}/cache:ro", "/run:ro"} < {
            *call.properties["TemporaryFileSystem"]
        }
        assert str(workshop.code) in call.properties["BindReadOnlyPaths"]
        temporary = workshop.folder / "tmp/build"
        assert call.properties["BindPaths"] == [
            f"{temporary}:/tmp",
            f"{temporary}:/var/tmp",
            str(built),
            str(workshop.folder / "cache/shop"),
        ]
        assert not temporary.exists(), "it is gone when the environment is whole"
        assert stat.S_IMODE(temporary.parent.stat().st_mode) == 0o700
        assert call.properties["SupplementaryGroups"] == [USER]
        assert call.properties["AppArmorProfile"] == [f"-flask-{USER}_build"]
        assert "ReadOnlyPaths" not in call.properties, "one path can be one thing: /run is empty"


@pytest.mark.parametrize("user", ["a", "shop", "a" * 31, "a" * 30 + "b"])
def test_the_account_that_builds_is_no_apps(user: str) -> None:
    account = virtualenv.build_account(user)
    assert re.fullmatch(r"[a-z][a-z0-9-]*_[a-z0-9_]*build", account), "no app's name has an underscore"
    assert len(account) <= 32
    assert virtualenv.build_account("a" * 31) != virtualenv.build_account("a" * 30 + "b")


def test_the_account_is_created_with_the_first_build(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.publish("gunicorn", "27.0.1")
    known, builder, made = pwd.getpwnam, workshop.builder(), []
    monkeypatch.setattr(pwd, "getpwnam", lambda name: known(name if made else "no-such-account"))
    run = builder.run

    def useradd(args: list[str], **options: object) -> tuple[int, str, str]:
        if args[0] != "useradd":
            return run(args, **options)
        made.append(args)
        return 0, "", ""

    builder.run = useradd
    assert virtualenv.is_whole(workshop.build(workshop.requirements(""), builder=builder))
    (command,) = made
    assert command[-1] == "shop_build"
    assert {"--system", "--user-group", "--no-create-home", "/usr/sbin/nologin"} <= {*command}


def test_a_cache_of_the_apps_own_user_is_not_used(workshop: Workshop) -> None:
    """An earlier version of Flaskhost built as that user."""
    workshop.publish("gunicorn", "27.0.1")
    poisoned = workshop.folder / "cache/shop/wheels/poison"
    poisoned.mkdir(parents=True)
    os.chown(workshop.folder / "cache/shop", UID, GID)
    workshop.build(workshop.requirements(""))
    assert not poisoned.exists()


def test_a_build_from_a_wheelhouse_has_no_network(workshop: Workshop) -> None:
    folder = workshop.code / "wheels"
    workshop.wheel(folder, "gunicorn", "27.0.1")
    workshop.build(workshop.requirements(""), builder=workshop.builder(wheelhouse=folder))
    assert all(call.properties["PrivateNetwork"] == ["yes"] for call in workshop.calls)


def test_a_finished_environment_is_roots(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    before = os.umask(0o002)
    try:
        built = workshop.build(workshop.requirements(""))
    finally:
        os.umask(before)
    everything = [built, *built.rglob("*")]
    given = {path: workshop.owners[path] for path in everything if path.name != virtualenv.MARK}
    assert given == dict.fromkeys(given, (0, 0))
    assert [path for path in everything if not path.is_symlink() and path.lstat().st_mode & 0o022] == []
    assert workshop.owners[workshop.folder / "cache/shop"] == (BUILD_UID, BUILD_GID)


def test_a_whole_environment_is_left_alone(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    requirements = workshop.requirements("")
    built = workshop.build(requirements)
    before = tree(built)
    workshop.calls.clear()
    assert workshop.build(requirements) == built
    assert workshop.calls == []
    assert tree(built) == before


def test_an_interrupted_environment_is_built_anew(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    requirements = workshop.requirements("")
    built = workshop.build(requirements)
    (built / virtualenv.MARK).unlink()
    next(built.glob("lib/python3*/site-packages/gunicorn/__init__.py")).unlink()
    (built / "left-over").touch()
    assert workshop.build(requirements) == built
    assert version_of(built, "gunicorn") == "27.0.1"
    assert not (built / "left-over").exists()


def test_an_environment_that_a_package_has_marked_is_built_anew(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    requirements = workshop.requirements("")
    planted = workshop.folder / "venvs" / workshop.key(requirements)
    planted.mkdir(parents=True)
    (planted / virtualenv.MARK).touch()
    os.chown(planted, UID, GID)
    assert not virtualenv.is_whole(planted)
    assert version_of(workshop.build(requirements), "gunicorn") == "27.0.1"


def test_the_mark_is_not_written_through_a_link(workshop: Workshop) -> None:
    target = workshop.folder / "venvs/x"
    target.mkdir(parents=True)
    (target / virtualenv.MARK).symlink_to(workshop.folder / "nologin")
    workshop.builder()._seal(target)
    assert not (workshop.folder / "nologin").exists()
    assert not (target / virtualenv.MARK).is_symlink()
    assert virtualenv.is_whole(target)


def test_nothing_that_a_package_left_stays_writable(workshop: Workshop) -> None:
    target = workshop.folder / "venvs/x"
    (target / "lib").mkdir(parents=True)
    for name, mode in (("lib/open.py", 0o666), ("lib/suid", 0o4755), ("lib/plain.py", 0o644)):
        (target / name).touch()
        (target / name).chmod(mode)
    (target / "lib").chmod(0o777)
    outside = workshop.folder / "outside"
    outside.touch()
    outside.chmod(0o666)
    (target / "lib/link").symlink_to(outside)
    workshop.builder()._seal(target)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*")}
    assert modes["open.py"] == modes["plain.py"] == 0o644
    assert modes["suid"] == modes["lib"] == 0o755
    assert modes["link"] == 0o666
    assert outside not in workshop.owners


def nest(folder: Path, levels: int = 3000) -> None:
    """Folders in each other, deeper than a path can be long."""
    folder.mkdir(parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    for _level in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_folders_in_each_other_are_refused_and_removed(workshop: Workshop) -> None:
    target = workshop.folder / "venvs/deep"
    nest(target)
    with pytest.raises(ReleaseError, match=r"more than 100 deep"):
        workshop.builder()._seal(target)
    virtualenv.remove(target)
    assert not target.exists()


def test_what_a_build_has_left_does_not_keep_the_next_one_from_starting(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    nest(workshop.folder / "tmp/build")
    assert virtualenv.is_whole(workshop.build(workshop.requirements("")))


def test_an_environment_that_is_removed_in_part_is_not_whole(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.publish("gunicorn", "27.0.1")
    built = workshop.build(workshop.requirements(""))

    def killed(_path: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(virtualenv.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        virtualenv.remove(built)
    assert built.exists()
    assert not virtualenv.is_whole(built)


def test_a_server_that_is_not_the_one_of_the_lock_is_refused(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    builder, requirements = workshop.builder(), workshop.requirements("")
    workshop.forge("gunicorn", "27.0.1")
    with pytest.raises(ReleaseError, match="Hash mismatch"):
        workshop.build(requirements, builder=builder)
    # Installed by its hash, the same one is not in the way.
    assert version_of(workshop.build(requirements), "gunicorn") == "27.0.1-forged"


def test_what_the_server_depends_on_is_in_its_lock_or_is_refused(workshop: Workshop) -> None:
    for name in ("gunicorn", "helper"):
        workshop.publish(name, "27.0.1")
    shelf = workshop.folder / "index/gunicorn"
    workshop.wheel(shelf, "gunicorn", "27.0.1", needs="helper")
    with pytest.raises(ReleaseError, match="no trusted hash was provided for: `helper`"):
        workshop.build(workshop.requirements(""))
    workshop.server_lock = "\n".join(workshop.pinned(name, "27.0.1") for name in ("gunicorn", "helper"))
    assert version_of(workshop.build(workshop.requirements("")), "helper") == "27.0.1"


@pytest.mark.parametrize("lock", ["", "gunicorn==27.0.10 --hash=sha256:00", "# gunicorn==27.0.1"])
def test_a_server_without_hashes_is_not_installed(workshop: Workshop, lock: str) -> None:
    workshop.publish("gunicorn", "27.0.1")
    builder = workshop.builder()
    builder.server_lock = lock
    with pytest.raises(ReleaseError, match=r"gunicorn==27.0.1 has no hashes"):
        workshop.build(workshop.requirements(""), builder=builder)
    assert workshop.calls == []


def test_an_older_server_in_the_lock_gives_way_and_the_play_says_so(workshop: Workshop) -> None:
    for version in ("9.0.0", "27.0.1"):
        workshop.publish("gunicorn", version)
    builder = workshop.builder()
    built = workshop.build(workshop.requirements("gunicorn==9.0.0\n"), builder=builder)
    assert version_of(built, "gunicorn") == "27.0.1"
    assert len(builder.warnings) == 1
    assert "requirements.txt pins gunicorn 9.0.0" in builder.warnings[0]
    assert "gunicorn==27.0.1" not in builder.warnings[0]


@pytest.mark.parametrize("version", ["27.0.1", "100.0"])
def test_an_equal_or_newer_server_in_the_lock_is_kept(workshop: Workshop, version: str) -> None:
    workshop.publish("gunicorn", version)
    builder = workshop.builder()
    built = workshop.build(workshop.requirements(f"gunicorn=={version}\n"), builder=builder)
    assert version_of(built, "gunicorn") == version
    assert builder.warnings == []


def test_a_lock_of_uvs_is_installed_as_it_is_and_without_the_project(workshop: Workshop) -> None:
    for name, version in [("flask", "3.1.3"), ("toolbox", "1.0"), ("gunicorn", "27.0.1")]:
        workshop.publish(name, version)
    text = PYPROJECT + 'dependencies = ["flask>=3"]\n[dependency-groups]\ndev = ["toolbox"]\n'
    workshop.requirements(text, "pyproject.toml")
    cache = {"UV_CACHE_DIR": str(workshop.folder / "cache/lock"), "UV_PYTHON": sys.executable}
    lock = [UV, "lock", "--quiet", "--default-index", f"file://{workshop.folder}/index"]
    run_command(lock, check_rc=True, cwd=str(workshop.code), environ_update=cache)
    workshop.publish("flask", "3.2.0")
    before = tree(workshop.code)
    built = workshop.build(workshop.code / "uv.lock")
    assert version_of(built, "flask") == "3.1.3"
    packages = {path.name for path in built.glob("lib/python3*/site-packages/*.dist-info")}
    assert packages == {"flask-3.1.3.dist-info", "gunicorn-27.0.1.dist-info"}
    assert tree(workshop.code) == before


def test_a_pyproject_is_installed_without_the_project(workshop: Workshop) -> None:
    for name, version in [("flask", "3.1.3"), ("gunicorn", "27.0.1")]:
        workshop.publish(name, version)
    built = workshop.build(workshop.requirements(PYPROJECT + 'dependencies = ["flask"]\n', "pyproject.toml"))
    packages = {path.name for path in built.glob("lib/python3*/site-packages/*.dist-info")}
    assert packages == {"flask-3.1.3.dist-info", "gunicorn-27.0.1.dist-info"}


def test_an_environment_that_cannot_be_built_is_said_why_and_is_not_used(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    requirements = workshop.requirements("no-such-package==1.0\n")
    for _ in range(2):
        with pytest.raises(ReleaseError) as caught:
            workshop.build(requirements)
        assert caught.value.step == "Build the environment"
        assert "uv pip ended with" in caught.value.reason
        assert "no-such-package" in caught.value.reason
    assert not virtualenv.is_whole(workshop.folder / "venvs" / workshop.key(requirements))


@pytest.mark.parametrize("folder", ["venvs", "cache"])
def test_a_full_disk_is_no_fault_of_the_lock(workshop: Workshop, folder: str) -> None:
    place = workshop.folder / folder
    place.mkdir()
    workshop.publish("gunicorn", "27.0.1")
    workshop.publish("large", "1.0")
    with zipfile.ZipFile(next((workshop.folder / "index/large").glob("*.whl")), "a") as wheel:
        wheel.writestr("large/data", os.urandom(2 * 1024**2))
    if run_command(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)])[0]:
        pytest.skip("needs a disk of its own to fill")
    try:
        with pytest.raises(ReleaseError) as caught:
            workshop.build(workshop.requirements("large==1.0\n"))
    finally:
        run_command(["umount", str(place)], check_rc=True)
    assert "No space left on device" in caught.value.reason
    assert "Make room" in caught.value.cure
    assert "Correct the lock" not in caught.value.cure


def test_a_long_output_is_cut_to_its_last_lines(workshop: Workshop) -> None:
    uv = workshop.folder / "uv"
    uv.write_text("#!/bin/sh\nseq 100\necho the reason >&2\nexit 2\n", encoding="utf-8")
    uv.chmod(0o755)
    with pytest.raises(ReleaseError) as caught:
        workshop.build(workshop.requirements(""), builder=workshop.builder(uv=str(uv)))
    assert caught.value.reason.startswith("uv venv ended with 2:\n87\n")
    assert caught.value.reason.endswith("\nthe reason")


# -- extra packages with hashes -------------------------------------------------------------------------------------


@pytest.fixture
def stocked(workshop: Workshop) -> Workshop:
    """An index with what an app, its driver and its server need; the driver needs a library that the lock has."""
    for name, version in [("flask", "3.1.3"), ("library", "1.0"), ("library", "2.0"), ("gunicorn", "27.0.1")]:
        workshop.publish(name, version)
    workshop.publish("driver", "1.0", needs="library")
    return workshop


def hashed_lock(workshop: Workshop) -> Path:
    return workshop.requirements(f"{workshop.pinned('flask', '3.1.3')}\n{workshop.pinned('library', '1.0')}\n")


def test_extra_packages_with_hashes_are_verified_together_with_the_lock(stocked: Workshop) -> None:
    builder = stocked.builder()
    entry = stocked.pinned("driver", "1.0").replace(" --hash", " \\\n    --hash") + "\n"
    built = stocked.build(hashed_lock(stocked), [entry], builder)
    assert (version_of(built, "driver"), version_of(built, "library")) == ("1.0", "1.0")
    assert builder.warnings == []


def test_an_extra_package_that_was_exchanged_is_refused(stocked: Workshop) -> None:
    entry = stocked.pinned("driver", "1.0")
    stocked.forge("driver", "1.0")
    for lock in (hashed_lock(stocked), stocked.requirements("flask==3.1.3\nlibrary==1.0\n", "plain.txt")):
        with pytest.raises(ReleaseError, match="Hash mismatch"):
            stocked.build(lock, [entry])


def test_what_an_extra_package_with_hashes_depends_on_has_hashes_too(stocked: Workshop) -> None:
    lock = stocked.requirements(stocked.pinned("flask", "3.1.3") + "\n")
    entry = stocked.pinned("driver", "1.0")
    with pytest.raises(ReleaseError, match="no trusted hash was provided for: `library`"):
        stocked.build(lock, [entry])
    built = stocked.build(lock, [entry, stocked.pinned("library", "2.0")])
    assert version_of(built, "library") == "2.0"


def test_extra_packages_without_hashes_beside_a_lock_with_some_are_installed_with_a_warning(stocked: Workshop) -> None:
    builder = stocked.builder()
    built = stocked.build(hashed_lock(stocked), ["driver==1.0"], builder)
    assert version_of(built, "driver") == "1.0"
    assert len(builder.warnings) == 1
    assert "installed unverified: driver==1.0. requirements.txt has hashes." in builder.warnings[0]
    # The cure is a command that prints what to write.
    command = builder.warnings[0].rpartition("output of: ")[2].replace("uv pip", f"{UV} pip")
    printed = run_command(["sh", "-c", f"{command} --index-url file://{stocked.folder}/index -q"], check_rc=True)[1]
    entries = ["".join(part) for part in re.findall(r"(?m)^(\S+)((?: \\\n +--hash=\S+)+)", printed)]
    assert [entry.split("==")[0] for entry in entries] == ["driver", "library"]
    builder = stocked.builder()
    lock = stocked.requirements(stocked.pinned("flask", "3.1.3") + "\n")
    assert version_of(stocked.build(lock, entries, builder), "driver") == "1.0"
    assert builder.warnings == []


def test_extra_packages_beside_a_lock_without_hashes_need_none(stocked: Workshop) -> None:
    builder = stocked.builder()
    stocked.build(stocked.requirements("flask==3.1.3\n"), ["driver==1.0"], builder)
    assert builder.warnings == []


# -- a wheelhouse ---------------------------------------------------------------------------------------------------


def test_the_wheelhouse_is_found_in_the_app_or_at_the_top(tmp_path: Path) -> None:
    app = tmp_path / "services/shop"
    write(tmp_path, vendor__x_whl="", services__shop__app_py="")
    assert virtualenv.find_wheelhouse(app, "vendor", tmp_path) == tmp_path / "vendor"
    write(app, vendor__x_whl="")
    assert virtualenv.find_wheelhouse(app, "vendor", tmp_path) == app / "vendor"
    assert virtualenv.find_wheelhouse(app, "", tmp_path) is None


def test_a_wheelhouse_that_is_missing_or_empty_is_told_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"vendor/wheels is not in the source") as caught:
        virtualenv.find_wheelhouse(tmp_path, "vendor/wheels")
    assert "wheelhouse" in caught.value.cure
    write(tmp_path, vendor__wheels__README_md="")
    with pytest.raises(ReleaseError, match=r"vendor/wheels holds no package"):
        virtualenv.find_wheelhouse(tmp_path, "vendor/wheels")


@pytest.fixture
def wheelhouse(workshop: Workshop) -> Path:
    folder = workshop.code / "vendor/wheels"
    for name, version in [("flask", "3.1.3"), ("driver", "1.0"), ("gunicorn", "27.0.1")]:
        workshop.wheel(folder, name, version)
    return folder


def test_everything_comes_out_of_the_wheelhouse_and_nothing_from_the_index(
    workshop: Workshop, wheelhouse: Path
) -> None:
    workshop.publish("flask", "3.9.0")
    workshop.publish("gunicorn", "28.0.0")
    builder = workshop.builder(wheelhouse=wheelhouse)
    built = workshop.build(workshop.requirements("flask\n"), ["driver==1.0"], builder)
    found = {name: version_of(built, name) for name in ("flask", "driver", "gunicorn")}
    assert found == {"flask": "3.1.3", "driver": "1.0", "gunicorn": "27.0.1"}
    assert all(call.environment["UV_OFFLINE"] == "1" for call in workshop.calls)
    assert not any("UV_DEFAULT_INDEX" in call.environment for call in workshop.calls)


def test_an_index_that_the_requirements_name_is_not_asked(workshop: Workshop, wheelhouse: Path) -> None:
    workshop.publish("flask", "3.9.0")
    requirements = workshop.requirements(f"--index-url file://{workshop.folder}/index\nflask\n")
    built = workshop.build(requirements, builder=workshop.builder(wheelhouse=wheelhouse))
    assert version_of(built, "flask") == "3.1.3"


@pytest.mark.parametrize("missing", ["flask", "gunicorn"])
def test_what_is_not_in_the_wheelhouse_is_named(workshop: Workshop, wheelhouse: Path, missing: str) -> None:
    workshop.publish("flask", "3.1.3")
    workshop.publish("gunicorn", "27.0.1")
    next(wheelhouse.glob(f"{missing}-*")).unlink()
    with pytest.raises(ReleaseError) as caught:
        workshop.build(workshop.requirements("flask==3.1.3\n"), builder=workshop.builder(wheelhouse=wheelhouse))
    assert missing in caught.value.reason
    assert "wheelhouse wheels" in caught.value.cure


def test_a_lock_of_uvs_is_installed_from_the_wheelhouse(workshop: Workshop, wheelhouse: Path) -> None:
    workshop.requirements(PYPROJECT + 'dependencies = ["flask>=3"]\n', "pyproject.toml")
    cache = {"UV_CACHE_DIR": str(workshop.folder / "cache/lock"), "UV_PYTHON": sys.executable}
    index = workshop.folder / "index/flask"
    workshop.publish("flask", "3.1.3")
    lock = [UV, "lock", "--quiet", "--default-index", f"file://{workshop.folder}/index"]
    run_command(lock, check_rc=True, cwd=str(workshop.code), environ_update=cache)
    shutil.copy(next(index.glob("*.whl")), wheelhouse)
    shutil.rmtree(index)
    built = workshop.build(workshop.code / "uv.lock", builder=workshop.builder(wheelhouse=wheelhouse))
    assert version_of(built, "flask") == "3.1.3"
    assert version_of(built, "gunicorn") == "27.0.1"


def test_the_content_of_the_wheelhouse_is_part_of_the_name(workshop: Workshop, wheelhouse: Path) -> None:
    def key(folder: Path | None) -> str:
        return workshop.builder(wheelhouse=folder).key(requirements, [], SERVER)

    requirements = workshop.requirements("flask\n")
    first = key(wheelhouse)
    assert first != key(None)
    assert first == key(shutil.copytree(wheelhouse, workshop.folder / "releases/2/src/vendor/wheels"))
    (wheelhouse / "README.md").touch()
    assert first == key(wheelhouse)
    workshop.wheel(wheelhouse, "flask", "3.1.3", build="+1")
    before = next(wheelhouse.glob("flask*")).stat().st_size
    second = key(wheelhouse)
    workshop.wheel(wheelhouse, "flask", "3.1.3", build="+2")
    assert next(wheelhouse.glob("flask*")).stat().st_size == before
    assert len({first, second, key(wheelhouse)}) == 3


def test_a_mark_of_the_builder_does_not_outlast_a_run_that_is_killed(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is root's from the beginning of the seal on; what is in it is not yet."""
    target = workshop.folder / "venvs/planted"
    (target / "lib").mkdir(parents=True)
    (target / virtualenv.MARK).touch()
    for path in (target, target / "lib", target / virtualenv.MARK):
        workshop.owners[path] = (UID, GID)
    given = os.chown

    def killed(path: Path, *numbers: int, **options: bool) -> None:
        if path != target:
            raise KeyboardInterrupt
        given(path, *numbers, **options)

    monkeypatch.setattr(os, "chown", killed)
    with pytest.raises(KeyboardInterrupt):
        workshop.builder()._seal(target)
    assert workshop.owners[target] == (0, 0)
    assert not virtualenv.is_whole(target)


def test_a_mark_that_is_not_roots_counts_for_nothing(workshop: Workshop) -> None:
    target = workshop.folder / "venvs/planted"
    target.mkdir(parents=True)
    (target / virtualenv.MARK).touch()
    assert virtualenv.is_whole(target)
    workshop.owners[target / virtualenv.MARK] = (UID, GID)
    assert not virtualenv.is_whole(target)


def test_a_second_name_of_another_file_is_not_given_to_root(workshop: Workshop) -> None:
    """Where fs.protected_hardlinks is off, a package that is built could name any file of the same disk."""
    target = workshop.folder / "venvs/linked"
    target.mkdir(parents=True)
    (workshop.folder / "shadow").write_text("secret", encoding="utf-8")
    (target / "shadow").hardlink_to(workshop.folder / "shadow")
    with pytest.raises(ReleaseError, match="is a hard link"):
        workshop.builder()._seal(target)
    assert target / "shadow" not in workshop.owners
