"""Preflight: the Python that an app asks for, and whether its code supports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.preflight.python_versions import DISTRIBUTIONS
from ansible.module_utils.flaskhost.preflight.report import Unreadable
from preflight_cases import GOOD_FACTS, PYTHON_RANGE, A, found, good_apps, problems_of
from rendering import load_filters


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A project's folder with one app, which supports two versions of Python."""
    for name, text in (
        ("web/shop/__init__.py", "def create_app():\n    return None\n"),
        ("web/shop/static/a.css", ""),
        ("web/pyproject.toml", '[project]\nname = "shop"\nrequires-python = ">=3.12,<3.14"\n'),
        ("requirements.txt", ""),
    ):
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def problems(source: Path, release: Any = "12", runs_apps: bool = True, **changes: Any) -> list[Any]:
    apps = good_apps({"source": {"path": "code", "subdir": "web"}, **changes})
    facts = GOOD_FACTS | {"distribution_major_version": release}
    return preflight.find_problems(apps, {}, facts, source, runs_apps=runs_apps)


def test_the_distributions_python_is_compared_with_the_code(source: Path) -> None:
    (problem,) = problems(source)
    assert (problem["kind"], problem["path"]) == (PYTHON_RANGE, "flask_apps.shop.python")
    assert problem["problem"] == (
        "pyproject.toml requires Python >=3.12,<3.14, but on this host, the app would run with Python 3.11, the "
        "distribution's."
    )
    assert problem["example"] == 'python: "3.12"'
    assert problems(source, "13") == []
    assert problems(source, **yaml.safe_load(problem["example"])) == []


@pytest.mark.parametrize(
    ("wanted", "fine"), [("3.12", True), ("3.12.7", True), ("3.13", True), ("3.14", False), ("3.11.9", False)]
)
def test_the_version_of_the_option_is_compared_with_the_code(source: Path, wanted: str, fine: bool) -> None:
    told = problems(source, python=wanted)
    assert found(told) == (set() if fine else {(PYTHON_RANGE, "flask_apps.shop.python")})
    assert all(f"Python {wanted}, which the option python sets." in problem["problem"] for problem in told)


def test_a_range_that_no_version_meets(source: Path) -> None:
    (source / "code/web/pyproject.toml").write_text('[project]\nrequires-python = ">=4"\n', encoding="utf-8")
    (problem,) = problems(source)
    assert problem["example"] == "a range in the source that contains 3.11"


def test_a_host_without_apps_or_of_another_release_says_nothing(source: Path) -> None:
    assert problems(source, runs_apps=False) == []
    assert {problem["kind"] for problem in problems(source, "99")} == {"unsupported_release"}
    (problem,) = preflight.find_problems(
        good_apps({"source": {"path": "code", "subdir": "web"}, "python": "3.14"}), {}, {}, source
    )
    assert problem["kind"] == PYTHON_RANGE


def test_the_filter_says_whether_the_host_runs_apps(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [good_apps({"source": {"path": str(source / "code"), "subdir": "web"}, "database": False})]
    check = load_filters()["flask_app_problems"]
    assert found(check(values, ["flask_apps"], GOOD_FACTS)) == {(PYTHON_RANGE, "flask_apps.shop.python")}
    assert check(values, ["flask_apps"], GOOD_FACTS, runs_apps=False) == []


def test_each_supported_release_has_a_python() -> None:
    releases = preflight.host.DISTRIBUTIONS["Debian"]
    assert DISTRIBUTIONS.keys() == {*releases}


@pytest.mark.parametrize("wanted", ["3.10", "3.12", "3.13.7", "3.14.10", ""])
def test_a_version_in_order(wanted: str) -> None:
    assert problems_of(python=wanted) == set()


@pytest.mark.parametrize(
    ("wanted", "kind", "words"),
    [
        (3.12, "wrong_type", "Write it in quotes."),
        (3, "wrong_type", "Write it in quotes."),
        ("python3.12", "malformed", 'python: "3.12"'),
        ("Python 3.12.4", "malformed", 'python: "3.12.4"'),
        (">=3.12", "malformed", 'python: "3.12"'),
        ("3.12.*", "malformed", 'python: "3.12"'),
        ("3.9", "malformed", "too old: the app server needs 3.10"),
        ("2.7", "malformed", "too old"),
        ("3", "malformed", "too old"),
        ("3.15.0rc1", "malformed", "not a final release"),
        ("pypy3.11", "malformed", "not a final release"),
        ("/usr/bin/python3", "malformed", "not a final release"),
        ("../../etc", "malformed", "not a final release"),
        ("3.12; x", "malformed", "not a final release"),
        ("3.12\n", "control_character", 'python: "3.12"'),
    ],
)
def test_another_text_is_no_version(project: Path, wanted: Any, kind: str, words: str) -> None:
    (problem,) = preflight.find_problems(good_apps({"python": wanted}), {}, GOOD_FACTS, project)
    assert (problem["kind"], problem["path"]) == (kind, A + "python")
    assert words in f"{problem['problem']} {problem['example']}"


def test_a_version_that_cannot_be_evaluated_is_told_once(source: Path) -> None:
    assert {problem["kind"] for problem in problems(source, python=Unreadable("'x' is undefined"))} == {"undefined"}
    assert {problem["kind"] for problem in problems(source, python=3.14)} == {"wrong_type"}


@pytest.mark.parametrize("name", ["python_mirror", "python_downloads_json_url"])
@pytest.mark.parametrize(
    ("value", "fine"),
    [
        ("https://packages.internal.test/python-build-standalone/releases/download", True),
        ("file:///srv/mirror", True),
        ("http://127.0.0.1:3141/python", True),
        ("", True),
        ("http://packages.internal.test/python", False),
        ("https://ada:hunter2@packages.internal.test/", False),
        ("file://srv/mirror", False),
        ("file:///srv/../etc", False),
        ("file:///srv/a b", False),
        ("/srv/mirror", False),
        ("--config-file=/etc/shadow", False),
        ("https://packages.example.com/python", False),
    ],
)
def test_the_urls_of_a_mirror(name: str, value: str, fine: bool) -> None:
    assert problems_of(options={name: value}) == (set() if fine else {("bad_option", name)})
