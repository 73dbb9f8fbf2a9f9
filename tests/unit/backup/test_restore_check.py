"""What a restore is asked before visitors see a maintenance page: it can be done, or it is refused with a cure."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.programs import backup
from fakes import tree
from flaskhost_backup import restore_check, targets
from flaskhost_backup.cli import _parser
from flaskhost_backup.config import App, BackupError
from flaskhost_backup.pgbackrest import Info
from test_restore_kills import IMPOSSIBLE, World


@pytest.fixture(params=["local", "second"])
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> World:
    found = World(tmp_path, monkeypatch, second=request.param == "second")
    monkeypatch.setattr(restore_check, "source", lambda *_given, whole: found._source())
    monkeypatch.setattr(restore_check, "Server", lambda _cluster: found)
    return found


def test_a_restore_that_can_be_done_changes_nothing(world: World) -> None:
    # The copy of the second repository is fetched beside them, and removed by source() itself.
    places = [world.data, world.repository]
    before = [tree(place) for place in places]
    result = restore_check.check(world.config, world.request())
    assert result.lines == ["The database can be restored to now, from the backup F."]
    assert not result.changed
    assert [tree(place) for place in places] == before
    assert not world.config.state.exists()
    assert world.running
    assert world.apps_run


@pytest.mark.parametrize("database", ["", "shop"])
def test_a_time_that_cannot_be_restored_is_refused(world: World, database: str) -> None:
    with pytest.raises(BackupError, match="no backup from before"):
        restore_check.check(world.config, world.request(IMPOSSIBLE), database)
    assert world.running


def test_one_database_needs_a_postgresql_that_runs(world: World) -> None:
    world.running = False
    with pytest.raises(BackupError, match="PostgreSQL is not running") as caught:
        restore_check.check(world.config, world.request(), "shop")
    assert "sudo systemctl start postgresql" in caught.value.cure
    restore_check.check(world.config, world.request())


def test_a_deploy_that_is_under_way_is_not_interrupted(world: World) -> None:
    lock = world.folder / "deploy.lock"
    config = replace(world.config, apps=(App("shop", world.folder / "data", lock=lock),))
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        for database in ("", "shop"):
            with pytest.raises(BackupError, match="A deploy has locked"):
                restore_check.check(config, world.request(), database)
        restore_check.check(config, world.request(), "blog")


@pytest.mark.parametrize("copied", [False, True])
def test_a_hint_names_the_second_repository_only_if_there_is_one(copied: bool) -> None:
    empty = Info(True, "", (), "42", "15", "", copied=copied)
    with pytest.raises(BackupError) as caught:
        targets.choose(empty, targets.Target())
    assert ("from=second" in caught.value.cure) is copied


def test_what_replaces_data_goes_on_without_its_controller() -> None:
    for arguments in (["restore", "--confirm=h1"], ["restore-files", "--app=shop", "--confirm=shop"]):
        command = backup.apart(arguments, 7)
        assert command[0] == "systemd-run"
        assert "--unit=flaskhost-restore-7" in command
        assert command[-1] == "--"
        assert not backup.apart([*arguments, "--check"], 7)
    # The cluster beside the real one would end with its unit.
    assert not backup.apart(["restore", "--beside"], 7)
    assert not backup.apart(["list"], 7)


def test_the_program_is_run_in_its_unit() -> None:
    seen: list[Any] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        seen.extend(command)
        return 0, json.dumps({"changed": True}), ""

    backup.ask(run, ["restore", "--confirm=h1"], backup.apart(["restore", "--confirm=h1"], 7))
    assert seen[seen.index("--") + 1 :] == [backup.PROGRAM, "restore", "--confirm=h1", "--json"]


@pytest.mark.parametrize(
    "arguments", [["restore", "--to", "2026-11-21", "--check"], ["restore-files", "--app", "shop", "--check"]]
)
def test_the_program_knows_the_question(arguments: list[str]) -> None:
    assert _parser().parse_args(arguments).check
