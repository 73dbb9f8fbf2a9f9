"""What restores have put aside: it is found, measured and named with the command that removes it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from flaskhost_backup import aside, status
from flaskhost_backup.config import Config, parse
from flaskhost_backup.tools import Done

MARK = "20261121T101500Z"
AT = 1795256100.0


class Server:
    """A PostgreSQL that answers the one question."""

    rows: tuple[tuple[str, int, bool], ...] = ()
    status = 0

    def __init__(self, _cluster: object) -> None:
        pass

    def run(self, _sql: str, _timeout: float) -> Done:
        return Done(self.status, "".join(f"{json.dumps(row)}\n" for row in self.rows), "")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(aside, "Server", Server)
    monkeypatch.setattr(Server, "rows", ())
    settings = {
        "host": "h1", "repository": str(tmp_path / "backup"), "state": str(tmp_path / "state"),
        "secrets": str(tmp_path / "secrets"), "apps": [{"name": "shop", "data": str(tmp_path / "shop/data")}],
        "cluster": {"version": "17", "data": str(tmp_path / "pg/main"), "start": ["true"], "stop": ["true"]},
    }  # fmt: skip
    return parse(json.dumps(settings))


def test_folders_are_found_and_measured(config: Config, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(os.urandom(1_000_000))
    for name in ("pg/main", "backup/postgres", "shop/data"):
        (tmp_path / name).mkdir(parents=True)
        folder = tmp_path / f"{name}.before-{MARK}"
        (folder / "below").mkdir(parents=True)
        (folder / "below/file").write_bytes(os.urandom(100_000))
        (folder / "link").symlink_to(outside)
    (tmp_path / f"shop/data.before-{MARK}-2").mkdir()
    (tmp_path / "shop/data.before-lunch").mkdir()
    found = aside.find(config).things
    assert sorted(Path(thing.name).relative_to(tmp_path).as_posix() for thing in found) == [
        f"backup/postgres.before-{MARK}", f"pg/main.before-{MARK}", f"shop/data.before-{MARK}",
        f"shop/data.before-{MARK}-2",
    ]  # fmt: skip
    for thing in found:
        assert thing.at == AT
        assert thing.remove == f"sudo rm -r {thing.name}"
        assert thing.bytes == 0 if thing.name.endswith("-2") else 100_000 <= thing.bytes < 200_000


def test_a_database_that_was_put_aside_is_found(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "rows", (("shop", 9_000_000, False), (f"shop_before_{MARK.lower()}", 8_000_000, False)))
    found = aside.find(config)
    (thing,) = found.things
    assert (thing.bytes, thing.at) == (8_000_000, AT)
    assert thing.remove == f"sudo -u postgres dropdb shop_before_{MARK.lower()}"
    assert not found.problems


def test_an_empty_database_beside_its_rows_is_a_problem(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    before = f"shop_before_{MARK.lower()}"
    monkeypatch.setattr(Server, "rows", (("shop", 7_000_000, True), (before, 8_000_000, False)))
    (problem,) = aside.find(config).problems
    assert problem.startswith(f"The database shop is empty. A restore kept its previous data in {before}")
    assert problem.endswith(f"sudo -u postgres psql {before}")
    result = status.status(config, AT)
    assert problem in result.problems
    assert result.data["aside"][0]["name"] == before
    assert result.lines[0].startswith(f"Kept by a restore: {before}, 8.0 MB, from 2026-11-21 10:15:00 UTC.")


def test_a_postgresql_that_does_not_run_is_no_end(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "status", 2)
    assert aside.find(config) == aside.Found((), ())
