"""Which file pins an app's dependencies, and what is in the name of the environment that is built for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import source_files, virtualenv
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from virtualenv_workshop import PYPROJECT, SERVER, Workshop, write

# -- which file pins the dependencies -------------------------------------------------------------------------------


def test_the_most_exact_file_is_found_first(tmp_path: Path) -> None:
    write(tmp_path, pyproject_toml=PYPROJECT + 'dependencies = ["flask"]\n')
    assert source_files.find_requirements(tmp_path) == tmp_path / "pyproject.toml"
    write(tmp_path, requirements_txt="flask==3.1.3\n")
    assert source_files.find_requirements(tmp_path) == tmp_path / "requirements.txt"
    write(tmp_path, uv_lock="version = 1\n")
    assert source_files.find_requirements(tmp_path) == tmp_path / "uv.lock"


def test_the_apps_own_folder_comes_before_the_top(tmp_path: Path) -> None:
    app = tmp_path / "services/shop"
    write(tmp_path, uv_lock="", services__shop__requirements_txt="")
    assert source_files.find_requirements(app, top=tmp_path) == app / "requirements.txt"
    (app / "requirements.txt").unlink()
    assert source_files.find_requirements(app, top=tmp_path) == tmp_path / "uv.lock"
    assert source_files.find_requirements(app) is None


def test_the_file_that_the_user_names_is_the_one(tmp_path: Path) -> None:
    app = tmp_path / "shop"
    write(tmp_path, shop__uv_lock="", shop__requirements__production_txt="", requirements__dev_txt="")
    assert source_files.find_requirements(app, "requirements/production.txt", tmp_path) == (
        app / "requirements/production.txt"
    )
    assert source_files.find_requirements(app, "requirements/dev.txt", tmp_path) == tmp_path / "requirements/dev.txt"
    assert source_files.find_requirements(app, "requirements/missing.txt", tmp_path) is None


@pytest.mark.parametrize(
    "content", ["[tool.ruff]\n", PYPROJECT, PYPROJECT + "dependencies = []\n", "not = [toml", "\xff"]
)
def test_a_pyproject_without_dependencies_pins_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "pyproject.toml").write_text(content, encoding="latin-1")
    assert source_files.find_requirements(tmp_path) is None
    assert source_files.find_requirements(tmp_path, "pyproject.toml") == tmp_path / "pyproject.toml"


def test_a_folder_of_that_name_is_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").mkdir()
    assert source_files.find_requirements(tmp_path) is None


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
    with pytest.raises(ReleaseError, match="outside the source"):
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
    assert bool(source_files.LOCAL_CODE["pyproject.toml"].search(text)) == local


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
    with pytest.raises(ReleaseError, match="/bin/false failed"):
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


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "".join(f"-rmore/{number}\n" for number in range(1000))},
        {"requirements.txt": "-r more/1\n" * 1000},
        {"requirements.txt": "-r a.txt\n-r b.txt\n-r c.txt\n", **dict.fromkeys(["a.txt", "b.txt", "c.txt"], "#" * 900)},
        {"requirements.txt": "-r a.txt\n", "a.txt": "-r b.txt\n" + "#" * 900, "b.txt": "-r c.txt\n" + "#" * 900},
    ],
    ids=["many files", "many lines", "many bytes", "many bytes in a chain"],
)
def test_files_that_include_each_other_do_not_fill_roots_memory(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    monkeypatch.setattr(source_files, "LONGEST_LOCK", 1500)
    for number in range(1000):
        (workshop.code / "more").mkdir(exist_ok=True)
        (workshop.code / "more" / str(number)).touch()
    for name, text in files.items():
        (workshop.code / name).write_text(text)
    with pytest.raises(ReleaseError, match="includes more than 200 files or"):
        source_files.included(workshop.code / "requirements.txt")
