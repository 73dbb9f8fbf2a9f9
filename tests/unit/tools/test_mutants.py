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


def test_equivalent_mutants_are_mutants_of_the_code_with_a_reason() -> None:
    """A line whose code has changed would skip nothing, or hide another mutant later."""
    reason, *lines = mutants.EQUAL.read_text().splitlines()
    assert reason.startswith("# ")
    assert lines[0].startswith("# ")
    for line in (line for line in lines if not line.startswith("# ")):
        path = line.split("\t")[0]
        assert line in {item.key for item in mutants.mutants_of(path, (ROOT / path).read_text())}


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
        str(path.relative_to(ROOT))
        for top in ("plugins", "roles", "tests", "scripts")
        for path in (ROOT / top).rglob("*.py")
    )
    tests = mutants.Tests(files)
    assert "tests/unit/backup/test_drill.py" in tests.of("roles/backup/files/flaskhost_backup/drill.py")[:5]
    assert "tests/unit/deploy/test_release.py" in tests.of("plugins/module_utils/flaskhost/deploy/watch.py")
    of_apps = tests.of("plugins/module_utils/flaskhost/preflight/apps.py")
    assert of_apps[0] == "tests/unit/preflight/test_preflight_apps.py"
    # The reference of the options is in the guides, by a script.
    assert "tests/unit/project/test_guides.py" in tests.of("plugins/module_utils/flaskhost/apps/options.py")
    # These import only the package, whose own file imports the module.
    assert {"tests/unit/preflight/test_preflight.py", "tests/unit/preflight/test_preflight_hints.py"} <= {*of_apps[:20]}
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
    # A busy machine takes longer for the same tests.
    seconds = {**{name: 10 * took for name, took in seconds.items()}, "others": 8 * 600.0 - 1200}
    assert mutants.within(["near", "slow", "far", "farther"], seconds) == ["near", "far"]


def test_all_tests_run_the_nearest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(mutants, "_exit_code_of", lambda _copied, tests, *_rest: ran.append(tests) or codes.pop(0))
    codes = [0, 1]
    assert mutants._exit_code(Path(), ["a", "b", "c", "d", "e"], "", 9) == 1
    assert ran == [["a", "b", "c"], ["d", "e"]]
    codes = [2]
    assert mutants._exit_code(Path(), ["a", "b", "c", "d", "e"], "", 9) == 2
    codes = [0]
    assert mutants._exit_code(Path(), ["a"], "", 9) == 0
    assert ran[2:] == [["a", "b", "c"], ["a"]]


ADD = "plugins/modules/add.py"
TEST = "tests/unit/one/test_add.py"


def mutant_of(new: str) -> mutants.Mutant:
    """A mutant of the small project, whose sum becomes other code."""
    at = SMALL[ADD].index("a + b")
    return mutants.Mutant(ADD, 2, at, at + 5, "a + b", new)


@pytest.mark.parametrize(("new", "result"), [("a - b", "killed"), ("(", "killed"), ("b + a", "alive")])
def test_a_mutant_is_killed_by_a_red_test_and_by_nothing_else(small: Path, new: str, result: str) -> None:
    assert mutants.judge(mutant_of(new), small, [TEST], sys.executable, 60) == result
    assert (small / ADD).read_text() == SMALL[ADD]


@pytest.mark.parametrize(
    ("new", "limit"),
    [("[None for _ in iter(int, 1)]", 20), ("__import__('os').kill(__import__('os').getpid(), 9)", 300)],
)
def test_a_mutant_that_never_ends_or_dies_hangs(small: Path, new: str, limit: int) -> None:
    assert mutants.judge(mutant_of(new), small, [TEST], sys.executable, limit) == "hung"


@pytest.mark.parametrize(
    ("codes", "result", "limits"),
    [
        ([None, 0], "hung", [8, 4]),
        ([None, None, 0], "alive", [8, 4, 16]),
        ([None, None, 1], "killed", [8, 4, 16]),
        ([None, None, None, None, -9, 5], "unknown", [8, 4, 16, 8, 32, 16]),
    ],
)
def test_a_time_limit_kills_only_if_the_tests_end_in_half_of_it_without_the_mutant(
    small: Path, monkeypatch: pytest.MonkeyPatch, codes: list[int | None], result: str, limits: list[float]
) -> None:
    """On a busy machine, a time limit is no sign that the mutant was noticed."""
    given, mutated = [], []

    def end(copied: Path, _tests: list[str], _python: str, limit: float) -> int | None:
        given.append(limit)
        mutated.append((copied / ADD).read_text() != SMALL[ADD])
        return codes[len(given) - 1]

    monkeypatch.setattr(mutants, "_exit_code", end)
    assert mutants.judge(mutant_of("b + a"), small, [TEST], sys.executable, 8) == result
    assert given == limits
    assert mutated == [True, False, True, False, True, False][: len(limits)]


def test_a_killed_run_continues_unless_a_file_changed(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "journal"
    mutant, other = mutant_of("a - b"), mutant_of("b + a")
    journal = mutants.Journal(path, "first")
    journal.save("seconds", {"test": 1.5})
    journal.save(journal.name(mutant), "killed")
    path.write_text(path.read_text() + '\n{"name": "cut o')
    again = mutants.Journal(path, "first")
    assert again.entries == {"state": "first", "seconds": {"test": 1.5}, journal.name(mutant): "killed"}
    again.save(journal.name(other), "alive")
    assert mutants.Journal(path, "first").entries[journal.name(other)] == "alive"
    assert mutants.Journal(path, "second").entries == {"state": "second"}
    assert mutants.Journal(path, "first").entries == {"state": "first"}


def test_the_state_of_a_project_is_that_of_its_files(small: Path) -> None:
    before = mutants.state_of([ADD, TEST], small)
    assert mutants.state_of([ADD, TEST], small) == before != mutants.state_of([ADD], small)
    (small / TEST).write_text("")
    assert mutants.state_of([ADD, TEST], small) != before


def test_a_baseline_is_measured_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", small)
    journal = mutants.Journal(small / "journal", "x")
    red = "tests/unit/one/test_red.py"
    seconds, bad = mutants._baseline(journal, [TEST, red], list(SMALL), 1)
    assert (list(seconds), bad) == ([TEST], {red})
    monkeypatch.setattr(mutants, "measured", None)
    assert mutants._baseline(mutants.Journal(small / "journal", "x"), [TEST, red], [], 1) == (seconds, bad)


@pytest.mark.parametrize(
    ("results", "bad"),
    [
        (["killed"] * 9 + ["hung"], False),
        (["killed"] * 8 + ["alive"] * 2, True),
        (["hung"] * 8 + ["unknown"] * 2, True),
    ],
)
def test_a_hanging_mutant_is_killed_and_one_without_a_result_is_not(
    results: list[str], bad: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = [mutants.Mutant(ADD, line, 0, 1, "a", "b") for line in range(10)]
    assert mutants._tell(drawn, dict(zip(drawn, results, strict=True))) is bad
    hung = results.count("hung")
    assert (f", {hung} of them hung" in capsys.readouterr().out) is bool(hung)
