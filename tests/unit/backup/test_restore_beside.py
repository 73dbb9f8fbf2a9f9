"""A restore into a separate cluster: what it asks of the running one, and what it tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from backup_settings import CLUSTER, NOW, backup_item, info, settings
from flaskhost_backup import restore_beside
from flaskhost_backup.result import Result
from flaskhost_backup.sources import Request
from flaskhost_backup.targets import Target


class Beside:
    """The steps of a restore, and whether PostgreSQL runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, running: bool) -> None:
        self.running, self.steps = running, list[str]()
        self.info = info(backup_item("20261120-000000F", int(NOW) - 100))
        monkeypatch.setattr(restore_beside, "Server", lambda _cluster: self)
        monkeypatch.setattr(restore_beside, "source", self.source)
        monkeypatch.setattr(restore_beside, "hand_over", self.hand_over)
        monkeypatch.setattr(restore_beside, "need_whole_log", lambda *_arguments: self.steps.append("look for gaps"))
        monkeypatch.setattr(restore_beside, "into_scratch", self.into_scratch)

    def runs(self) -> bool:
        return self.running

    @contextmanager
    def source(self, *_arguments: Any) -> Iterator[Any]:
        yield SimpleNamespace(info=lambda: self.info, line="current")

    def hand_over(self, _server: Any) -> list[str]:
        self.steps.append("hand over")
        return ["The last commits may be missing: it was busy."]

    def into_scratch(self, *_arguments: Any) -> Any:
        self.steps.append("restore")
        return self.info.backups[0]


def ask(folder: Path, where: str) -> Result:
    config = settings(folder, cluster=CLUSTER)
    return restore_beside.beside(config, Request(lambda _found: Target(), where, "", None, 60.0, NOW))


def test_a_running_cluster_hands_over_its_log_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Beside(monkeypatch, running=True)
    result = ask(tmp_path, "local")
    assert there.steps == ["hand over", "look for gaps", "restore"]
    assert result.changed
    assert "The last commits may be missing: it was busy." in result.lines
    assert result.data["beside"] == {
        "at": NOW, "socket": str(tmp_path / "state/beside/socket"), "port": restore_beside.BESIDE_PORT
    }  # fmt: skip


@pytest.mark.parametrize(("running", "where"), [(False, "local"), (True, "second")])
def test_nothing_is_asked_of_a_cluster_that_cannot_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: bool, where: str
) -> None:
    there = Beside(monkeypatch, running=running)
    ask(tmp_path, where)
    assert there.steps == ["look for gaps", "restore"]
