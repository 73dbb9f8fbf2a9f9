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
