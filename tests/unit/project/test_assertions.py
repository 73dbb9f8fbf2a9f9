"""Assertions that nothing can make fail, in the tests of the scenarios and the unit tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from loading import ROOT


def blind(tree: ast.AST) -> Iterator[str]:
    """The comparisons in assertions that hold for an empty output, or for every number."""
    for node in ast.walk(tree):
        for part in ast.walk(node.test) if isinstance(node, ast.Assert) else ():
            if not isinstance(part, ast.Compare) or len(part.ops) != 1:
                continue
            right, operator = part.comparators[0], part.ops[0]
            in_text = isinstance(operator, ast.In) and isinstance(right, ast.Constant) and isinstance(right.value, str)
            counted = isinstance(part.left, ast.Call) and ast.unparse(part.left.func).endswith(("len", "count"))
            least = isinstance(operator, ast.GtE) and isinstance(right, ast.Constant) and right.value == 0
            if in_text or (counted and least):
                yield f"{part.lineno}: {ast.unparse(part)}"


TESTS = sorted(path for top in ("molecule", "tests", "sample_app/tests") for path in (ROOT / top).rglob("*.py"))


def test_no_assertion_holds_for_nothing() -> None:
    """``output in ("done")`` is a test of a text, in which an empty output is found."""
    found = [f"{path.relative_to(ROOT)}:{line}" for path in TESTS for line in blind(ast.parse(path.read_text()))]
    assert found == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('assert said in ("done")', ["1: said in 'done'"]),
        ('assert ask(host).stdout in "done" or other', ["1: ask(host).stdout in 'done'"]),
        ("assert len(rows) >= 0", ["1: len(rows) >= 0"]),
        ("assert text.count('x') >= 0", ["1: text.count('x') >= 0"]),
        ('assert "done" in said', []),
        ('assert said in ("done",)', []),
        ("assert len(rows) > 0", []),
        ("assert least >= 0", []),
        ('found = said in "done"', []),
    ],
)
def test_a_blind_assertion_is_found(code: str, found: list[str]) -> None:
    assert list(blind(ast.parse(code))) == found
