"""docs/faults.md: each row names tests that exist, and each test of the scenario faults stands in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs" / "faults.md"
#: A test as the table names it: its file below molecule/, or tests/unit/ where no host is needed, and its function.
NAMED = re.compile(r"`((?:[a-z_]+/)+test_\w+\.py)::(test_\w+)`")
COLUMNS = 6


def rows() -> list[list[str]]:
    """The cells of the table's rows, without its head."""
    lines = [line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "fault"]


def functions_of(path: Path) -> set[str]:
    """The names of a file's tests."""
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in found if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_table_is_read() -> None:
    assert len(rows()) > 20


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_row_is_whole_and_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == COLUMNS, row
    assert all(row), row
    named = NAMED.findall(row[-1])
    assert named, row[-1]
    for file, name in named:
        path = ROOT / (file if file.startswith("tests/unit/") else f"molecule/{file}")
        assert path.is_file(), file
        assert name in functions_of(path), f"{file}::{name}"


def test_every_test_of_the_scenario_stands_in_the_table() -> None:
    named = {name for row in rows() for file, name in NAMED.findall(row[-1]) if file.startswith("faults/")}
    assert named == {name for path in (ROOT / "molecule/faults/tests").glob("test_*.py") for name in functions_of(path)}


def test_readme_sends_its_reader_there() -> None:
    assert "(docs/faults.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
