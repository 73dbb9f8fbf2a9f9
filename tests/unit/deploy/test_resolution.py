"""What a requirements file leaves open is decided once, and kept until the file changes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import resolution
from ansible.module_utils.flaskhost.deploy.selection import Selection
from virtualenv_workshop import PYPROJECT, Workshop, installed


@pytest.fixture
def stocked(workshop: Workshop) -> Workshop:
    for name, version in [("library", "1.0"), ("gunicorn", "27.0.1"), ("driver", "1.0")]:
        workshop.publish(name, version)
    workshop.publish("flask", "3.1.3", needs="library")
    return workshop


def test_the_next_environment_has_the_versions_of_the_first(stocked: Workshop) -> None:
    requirements = stocked.requirements("flask>=3\n")
    builder = stocked.builder()
    assert installed(stocked.build(requirements, builder=builder)) == {"flask": "3.1.3", "library": "1.0"}
    (warning,) = builder.warnings
    assert warning.startswith("requirements.txt does not pin the version of flask. This host keeps")
    assert "uv pip compile --generate-hashes" in warning
    stocked.publish("flask", "3.2.0", needs="library")
    stocked.publish("library", "2.0")
    built = stocked.build(requirements, ["driver==1.0"])
    assert installed(built) == {"flask": "3.1.3", "library": "1.0", "driver": "1.0"}
    built = stocked.build(stocked.requirements("flask>=3.0\n"))
    assert installed(built) == {"flask": "3.2.0", "library": "2.0"}


def test_versions_that_are_gone_are_chosen_anew_with_a_warning(stocked: Workshop) -> None:
    requirements = stocked.requirements("flask>=3\n")
    stocked.build(requirements)
    (stocked.folder / "index/flask/flask-3.1.3-py3-none-any.whl").unlink()
    stocked.publish("flask", "3.2.0")
    builder = stocked.builder()
    assert installed(stocked.build(requirements, ["driver==1.0"], builder))["flask"] == "3.2.0"
    assert "can no longer be installed" in builder.warnings[0]


def test_dependencies_of_pinned_packages_are_kept_without_a_warning(stocked: Workshop) -> None:
    requirements = stocked.requirements("flask==3.1.3\n")
    builder = stocked.builder()
    stocked.build(requirements, builder=builder)
    assert builder.warnings == []
    stocked.publish("library", "2.0")
    assert installed(stocked.build(requirements, ["driver==1.0"]))["library"] == "1.0"


def test_nothing_is_kept_of_a_file_that_pins_everything(stocked: Workshop) -> None:
    stocked.build(stocked.requirements("flask==3.1.3\nlibrary==1.0\n"))
    assert not (stocked.folder / "resolved").exists()


def test_a_pyproject_is_kept_too(stocked: Workshop) -> None:
    requirements = stocked.requirements(PYPROJECT + 'dependencies = ["flask>=3"]\n', "pyproject.toml")
    builder = stocked.builder()
    stocked.build(requirements, builder=builder)
    assert "run 'uv lock'" in builder.warnings[0]
    stocked.publish("flask", "3.2.0", needs="library")
    assert installed(stocked.build(requirements, ["driver==1.0"]))["flask"] == "3.1.3"


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("flask", ["flask"]),
        ("Flask >= 3, < 4 ; python_version > '3'", ["Flask"]),
        ("flask~=3.1", ["flask"]),
        ("flask==3.*", ["flask"]),
        ("flask[async]", ["flask"]),
        ("flask==3.1.3", []),
        ("flask[async] == 3.1.3 ; python_version > '3'", []),
        ("flask===3.1.3", []),
        ("flask==3.1.3 --hash=sha256:00", []),
        ("flask==3.1.3  # why", []),
        ("flask @ https://h.test/flask.whl", []),
        ("-r base.txt", []),
        ("--index-url https://h.test", []),
        ("./lib", []),
        ("lib/thing", []),
        ("https://h.test/x.whl", []),
    ],
)
def test_what_is_not_pinned(line: str, names: list[str]) -> None:
    texts = {Path("requirements.txt"): f"# {line}\n\n{line}\n"}
    assert resolution.unpinned(resolution.direct_requirements(texts, Selection())) == names


def test_a_constraint_pins_as_well() -> None:
    texts = {Path("requirements.txt"): "flask\n-c pins.txt\n", Path("pins.txt"): "Flask==3.1.3\n"}
    assert resolution.unpinned(resolution.direct_requirements(texts, Selection())) == []


def test_extras_and_groups_count_if_they_are_installed() -> None:
    text = PYPROJECT + 'dependencies = ["a==1", "b"]\n[project.optional-dependencies]\nx = ["c"]\ny = ["d"]\n'
    texts = {Path("pyproject.toml"): text + '[dependency-groups]\ng = ["e", {include-group = "h"}]\nh = ["f"]\n'}
    chosen = Selection(extras=("x",), groups=("g",))
    assert resolution.unpinned(resolution.direct_requirements(texts, chosen)) == ["b", "c", "e"]


@pytest.mark.parametrize("text", ["not = [toml", "project = 7", "[project]\ndependencies = 7", "x = " + "[" * 9999])
def test_a_damaged_pyproject_names_nothing(text: str) -> None:
    assert resolution.direct_requirements({Path("pyproject.toml"): text}, Selection()) == []


def test_few_files_are_kept(tmp_path: Path) -> None:
    for number in range(25):
        resolution.write(tmp_path / f"resolved/{number:02}.txt", {"flask": "3.1.3"})
    names = {path.name for path in (tmp_path / "resolved").iterdir()}
    assert len(names) == 20
    assert "24.txt" in names


@pytest.mark.parametrize("unit", ["a", " ", "[", "a[", "=", "a ", "\\\n"])
def test_no_requirement_keeps_root_busy(unit: str) -> None:
    texts = {Path("requirements.txt"): "a" + unit * (1_000_000 // len(unit))}
    began = time.monotonic()
    resolution.unpinned(resolution.direct_requirements(texts, Selection()))
    assert time.monotonic() - began < 10
