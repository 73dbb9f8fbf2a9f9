"""The versions of Python that a project supports, as its files say, and what is said of one that it does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import source_files
from ansible.module_utils.flaskhost.deploy.python_range import declared, find_fault, is_met
from virtualenv_workshop import write


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=3.11", "3.11 3.11.0 3.13.2", "3.10 3.10.14"),
        (">=3.11,<3.13", "3.11 3.12.9", "3.13 3.10"),
        (">= 3.11 , < 3.13", "3.12", "3.13.0"),
        (">3.11", "3.11.2 3.12", "3.11.0 3.10"),
        (">3.11.5", "3.11 3.11.6", "3.11.5"),
        ("<=3.12", "3.12 3.12.7 3.11", "3.13"),
        ("<3.12.4", "3.12 3.12.3", "3.12.4 3.13"),
        ("==3.12.*", "3.12 3.12.9", "3.13 3.11"),
        ("==3.12", "3.12.9", "3.13"),
        ("==3.12.3", "3.12 3.12.3", "3.12.4"),
        ("!=3.12.*,>=3.11", "3.11 3.13", "3.12 3.12.4"),
        ("!=3.12.4", "3.12 3.12.3", "3.12.4"),
        ("~=3.11", "3.11 3.13.1", "3.10"),
        ("~=3.11.4", "3.11 3.11.9", "3.11.3 3.12"),
        ("^3.11", "3.11 3.13", "3.10"),
        ("^3.11.4", "3.11 3.12.0", "3.11.3"),
        ("~3.11", "3.11 3.11.9", "3.12 3.10"),
        ("3.11.*", "3.11.9", "3.12"),
        ("3.11", "3.11.9", "3.12"),
        ("~3.10 || ^3.12", "3.10 3.12 3.13", "3.11"),
        (">=3.13.0rc1", "3.13 3.13.0", "3.12"),
        (">=3.11,<4.0.dev0", "3.13", "3.10"),
        ("*", "3.10 3.13", ""),
        ("", "3.10", ""),
        (">=3.11 <3.13", "3.12", "3.13"),
        ("whatever this is", "3.10 3.13", ""),
        (">=3.99; nonsense", "3.10", ""),
        (">=2.7,!=3.0.*,!=3.1.*", "3.10 3.13", ""),
    ],
)
def test_what_a_range_contains(text: str, inside: str, outside: str) -> None:
    assert [version for version in inside.split() if not is_met(text, version)] == []
    assert [version for version in outside.split() if is_met(text, version)] == []


UV = 'version = 1\nrequires-python = ">=3.12"\nresolution-markers = [\n    "x",\n]\n\n[[package]]\nname = "a"\n'
PYLOCK = 'lock-version = "1.0"\nrequires-python = ">=3.12"\n\n[[packages]]\nname = "a"\n'
POETRY = '[[package]]\nname = "a"\npython-versions = ">=3.99"\n\n[metadata]\nlock-version = "2.1"\n'
PDM = '[metadata]\nlock_version = "4.5.0"\n\n[[metadata.targets]]\nrequires_python = ">=3.12"\n\n[[package]]\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("uv.lock", UV),
        ("pylock.toml", PYLOCK),
        ("pylock.web.toml", PYLOCK),
        ("poetry.lock", f'{POETRY}python-versions = ">=3.12"\n'),
        ("pdm.lock", PDM),
        ("pyproject.toml", '[project]\nrequires-python = ">=3.12"\n'),
        ("pyproject.toml", '[tool.poetry.dependencies]\npython = ">=3.12"\n'),
    ],
)
def test_each_file_that_has_a_range_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert list(declared(tmp_path / name, tmp_path)) == [(name, ">=3.12")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("uv.lock", "version = 1\n\n[[package]]\nrequires-python = '>=3.99'\n"),
        ("poetry.lock", POETRY),
        ("pdm.lock", f"{PDM}\n"[:30]),
        ("pdm.lock", PDM.replace('requires_python = ">=3.12"', "a = 1")),
        ("pdm.lock", "[metadata]\ntargets = 1\n"),
        ("Pipfile.lock", '{"_meta": {"requires": {"python_version": "3.12"}}}'),
        ("requirements.txt", "flask==3.1.3\n"),
        ("pyproject.toml", "[project]\nrequires-python = 3\n"),
        ("pyproject.toml", "project = 1\n[tool]\npoetry = 2\n"),
        ("pyproject.toml", "not [toml"),
        ("uv.lock", "not = [toml"),
    ],
)
def test_a_file_without_a_range_has_none(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert list(declared(tmp_path / name, tmp_path)) == []


def test_the_project_counts_beside_the_file_that_pins(tmp_path: Path) -> None:
    write(tmp_path, requirements_txt="", pyproject_toml='[project]\nrequires-python = ">=3.12"\n')
    assert list(declared(tmp_path / "requirements.txt", tmp_path)) == [("pyproject.toml", ">=3.12")]
    assert list(declared(None, tmp_path)) == [("pyproject.toml", ">=3.12")]
    # The lock file at the top of a workspace, whose member has a range of its own.
    write(tmp_path, web__pyproject_toml='[project]\nrequires-python = ">=3.13"\n')
    (tmp_path / "uv.lock").write_text(UV, encoding="utf-8")
    assert list(declared(tmp_path / "uv.lock", tmp_path / "web")) == [
        ("uv.lock", ">=3.12"),
        ("pyproject.toml", ">=3.13"),
    ]


@pytest.mark.parametrize(
    ("text", "version", "better"),
    [(">=3.12", "3.11", "3.12"), ("<3.13", "3.13.5", "3.12"), ("~3.10 || ~3.12", "3.11", "3.12"), (">=4", "3.11", "")],
)
def test_the_closest_version_that_fits_is_suggested(tmp_path: Path, text: str, version: str, better: str) -> None:
    write(tmp_path, pyproject_toml=f"[project]\nrequires-python = '{text}'\n")
    fault = find_fault(None, tmp_path, version, chosen=False)
    assert fault
    assert fault.better == better
    assert fault.problem == (
        f"pyproject.toml requires Python {text}, but on this host, the app would run with Python {version}, the "
        "distribution's."
    )
    chosen = find_fault(None, tmp_path, version, chosen=True)
    assert chosen
    assert chosen.problem.endswith(", which the option python sets.")


def test_what_a_repository_writes_is_bounded(tmp_path: Path) -> None:
    write(tmp_path, pyproject_toml=f'[project]\nrequires-python = ">=3.99,\\u001b[2J{">=3.1," * 900}"\n')
    assert find_fault(None, tmp_path, "3.11", chosen=False) is None
    write(tmp_path, pyproject_toml=f'[project]\nrequires-python = ">=3.99,\\n{">=3.1, " * 60}"\n')
    fault = find_fault(None, tmp_path, "3.11", chosen=False)
    assert fault
    assert len(fault.problem) < 250
    assert fault.problem.isprintable()
    (tmp_path / "pyproject.toml").write_text("#" * (17 << 20), encoding="utf-8")
    with pytest.raises(source_files.ReleaseError, match="is longer than"):
        find_fault(None, tmp_path, "3.11", chosen=False)


@pytest.mark.parametrize(
    "text",
    [">=3.1" + "a." * 100 + "x", ">=3." + "1" * 5000, " || ".join([">=3.99"] * 100_000), ">=" + " " * 10**6 + "x"],
)
def test_no_range_keeps_root_busy(text: str) -> None:
    began = time.process_time()
    assert is_met(text, "3.11")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("text", [">=3.12a1", ">=3.12.0alpha1", ">=3.12.0.post1.dev2", ">=3.12rc1,<4"])
def test_a_pre_release_counts_as_its_release(text: str) -> None:
    assert is_met(text, "3.12")
    assert not is_met(text, "3.11")
