"""The mutants of scripts/mutants.py: what is changed in a piece of code, and which tests judge it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import mutants


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("x = a < b", ["x = (a <= b)"]),
        ("x = a in b", ["x = (a not in b)"]),
        ("x = a and b or c", ["x = ((a and b) and c)", "x = (a or b) or c"]),
        ("x = not a", ["x = (a)"]),
        ("x = a + 3", ["x = (a - 3)", "x = a + 4"]),
        ("x = 'ä' + b", []),
        ("x = f'{a + b}'", []),
        ("x = True", ["x = False"]),
        ("x = a if b else c", ["x = (c if b else a)"]),
        ("f(\n  x)", ["pass"]),
        ("def f(a: int = 3) -> int:\n    return a", ["def f(a: int = 3) -> int:\n    return None"]),
        ("def f():\n    'A text.'\n    return ''", []),
    ],
)
def test_one_thing_is_changed(code: str, changed: list[str]) -> None:
    found = [item.applied(code.encode()).decode() for item in mutants.mutants_of("a.py", code)]
    assert sorted(found) == sorted(changed)
    for text in found:
        ast.parse(text)


def test_a_sample_is_the_same_each_time_and_has_some_of_each_package() -> None:
    found = [
        mutants.Mutant(f"{package}/a.py", line, 0, 1, "a", "b")
        for package, lines in (("plugins/modules", 1000), ("roles/backup/files", 50))
        for line in range(lines)
    ]
    drawn = mutants.sample(found, 100, 1)
    assert drawn == mutants.sample(found, 100, 1) != mutants.sample(found, 100, 2)
    of_backup = [item for item in drawn if item.path.startswith("roles/backup")]
    assert len(of_backup) == mutants.FEWEST
    assert len(drawn) == 95 + mutants.FEWEST


def test_the_nearest_tests_judge_and_every_module_is_judged() -> None:
    files = sorted(
        str(path.relative_to(ROOT)) for top in ("plugins", "roles", "tests") for path in (ROOT / top).rglob("*.py")
    )
    tests = mutants.Tests(files)
    assert "tests/unit/backup/test_drill.py" in tests.of("roles/backup/files/flaskhost_backup/drill.py")[:5]
    assert "tests/unit/deploy/test_release.py" in tests.of("plugins/module_utils/flaskhost/deploy/watch.py")
    unseen = [name for name in files if mutants.package_of(name) and name[-11:] != "__init__.py" and not tests.of(name)]
    assert unseen == []


SMALL = {
    "plugins/modules/add.py": "def add(a, b):\n    return a + b\n",
    "tests/unit/one/test_add.py": "import sys\nsys.path.insert(0, 'plugins/modules')\nfrom add import add\n"
    "def test_add():\n    assert add(2, 1) == 3\n",
    "tests/unit/one/test_red.py": "def test_red():\n    assert False\n",
    "tests/unit/one/test_broken.py": "import no_such_module\n",
    "tests/unit/one/test_empty.py": "",
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A project with one module, one green test of it, and three files that judge nothing."""
    for name, text in SMALL.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_is_red_anyway_judges_nothing(small: Path) -> None:
    """Else each mutant near a red test would count as killed."""
    tests = [name for name in SMALL if "test_" in name]
    seconds, red = mutants.measured(small, tests, sys.executable, 1)
    assert list(seconds) == ["tests/unit/one/test_add.py"]
    assert red == {*tests} - {*seconds}
    assert mutants.within(tests, seconds) == ["tests/unit/one/test_add.py"]


def test_nearest_tests_are_chosen_up_to_a_minute() -> None:
    """A survivor would else run for longer than any time limit, which would pass for a kill."""
    seconds = {"near": 20.0, "slow": 50.0, "far": 30.0, "farther": 20.0}
    assert mutants.within(["near", "slow", "far", "farther"], seconds) == ["near", "far"]
    assert mutants.within(["slow", "near"], seconds, 10) == ["slow"]


@pytest.mark.parametrize(("new", "killed"), [("a - b", True), ("b + a", False)])
def test_a_mutant_is_killed_by_a_red_test_and_by_nothing_else(small: Path, new: str, killed: bool) -> None:
    source = SMALL["plugins/modules/add.py"]
    at = source.index("a + b")
    mutant = mutants.Mutant("plugins/modules/add.py", 2, at, at + 5, "a + b", new)
    assert mutants.judge(mutant, small, ["tests/unit/one/test_add.py"], sys.executable, 60) is killed
    assert (small / mutant.path).read_text() == source


def test_a_mutant_that_never_ends_is_killed(small: Path) -> None:
    source = SMALL["plugins/modules/add.py"]
    at = source.index("return")
    mutant = mutants.Mutant("plugins/modules/add.py", 2, at, at, "", "\n    while a:\n        pass\n    ")
    assert mutants.judge(mutant, small, ["tests/unit/one/test_add.py"], sys.executable, 3)
