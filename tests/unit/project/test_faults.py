"""docs/faults.md: each row names tests that exist, and each test of the scenario faults stands in it."""

from __future__ import annotations

import pytest
from named_tests import ROOT, TEST, functions_of, missing, rows

GUIDE = ROOT / "docs" / "faults.md"
COLUMNS = 6


def test_the_table_is_read() -> None:
    assert len(rows(GUIDE)) > 20


@pytest.mark.parametrize("row", rows(GUIDE), ids=lambda row: row[0][:40])
def test_row_is_whole_and_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == COLUMNS, row
    assert all(row), row
    assert TEST.findall(row[-1]), row[-1]
    assert missing(row[-1]) == []


def test_every_test_of_the_scenario_stands_in_the_table() -> None:
    named = {name for row in rows(GUIDE) for file, name in TEST.findall(row[-1]) if file.startswith("faults/")}
    assert named == {name for path in (ROOT / "molecule/faults/tests").glob("test_*.py") for name in functions_of(path)}


def test_readme_sends_its_reader_there() -> None:
    assert "(docs/faults.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
