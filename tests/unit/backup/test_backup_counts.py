"""The rows that are counted: what is missing is found, and what could not be counted is not held against a backup."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from flaskhost_backup import (
    counts,
)
from flaskhost_backup.config import BackupError


class FakeServer:
    """A cluster with some tables, and the rows that each has; its superuser is never asked for them."""

    def __init__(self, rows: dict[str, dict[str, int]], fails: str = "") -> None:
        self.rows, self.fails = rows, fails

    def databases(self) -> list[str]:
        return list(self.rows)

    @contextlib.contextmanager
    def tenant(self, database: str) -> Iterator[FakeLogin]:
        if database == self.fails:
            raise BackupError("It refuses.")
        yield FakeLogin(self.rows[database])


class FakeLogin:
    """A session role in one of its databases."""

    def __init__(self, rows: dict[str, int]) -> None:
        self.rows = rows

    def ask_lines(self, sql: str, _timeout: float = 0) -> list[str]:
        if sql == counts.TABLES:
            return [json.dumps([*name.split("."), True, True]) for name in self.rows]
        name = sql.split('ONLY "')[1].replace('"."', ".").rstrip('";')
        return [str(self.rows[name])]


RECORD = {"exact": True, "databases": {"shop": {"public.entry": 3, "public.none": 0, "public.slow": None}}}


def test_the_same_rows_are_well() -> None:
    server = FakeServer({"shop": {"public.entry": 3, "public.none": 0, "public.slow": 9}})
    assert counts.compare(RECORD, server) == ([], 2)


@pytest.mark.parametrize(
    ("rows", "exact", "says"),
    [
        ({"public.entry": 2, "public.none": 0, "public.slow": 1}, True, "has 2 rows, and had 3"),
        ({"public.none": 0, "public.slow": 1}, True, "public.entry of shop is missing"),
        ({"public.entry": 0, "public.none": 0, "public.slow": 1}, False, "is empty, and had 3"),
    ],
)
def test_a_row_that_is_missing_is_found(rows: dict[str, int], exact: bool, says: str) -> None:
    problems, _compared = counts.compare({**RECORD, "exact": exact}, FakeServer({"shop": rows}))
    assert len(problems) == 1
    assert says in problems[0]


def test_counts_that_are_not_exact_are_not_held_against_it() -> None:
    server = FakeServer({"shop": {"public.entry": 4, "public.none": 1, "public.slow": 1}})
    assert counts.compare({**RECORD, "exact": False}, server) == ([], 2)
    assert counts.compare(RECORD, FakeServer({}))[0] == ["The database shop is missing."]


def test_a_database_that_refuses_does_not_keep_the_others_from_being_compared() -> None:
    record = {"exact": True, "databases": {"evil": {"public.x": 1}, "shop": {"public.entry": 3}}}
    server = FakeServer({"evil": {"public.x": 1}, "shop": {"public.entry": 2}}, fails="evil")
    problems, compared = counts.compare(record, server)
    assert compared == 1
    assert [item.split(".")[0] for item in problems] == ["It refuses", "The table public"]


@pytest.mark.parametrize("loose", [{"shop": None}, {"shop": ["public.entry"]}])
def test_rows_that_could_not_be_locked_are_not_held_against_it(loose: dict[str, list[str] | None]) -> None:
    record = {"exact": False, "databases": {"shop": {"public.entry": 3}}, "loose": loose}
    assert counts.compare(record, FakeServer({"shop": {"public.entry": 4}})) == ([], 1)
