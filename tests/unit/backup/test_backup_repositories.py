"""flaskhost-backup: what it understands of pgBackRest and restic, and how it treats their repositories.

The outputs are those of pgBackRest 2.45 and restic 0.14.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from backup_settings import CLUSTER, NOW, SYSTEM, backup_item, info, info_text, settings
from flaskhost_backup import (
    cli,
    pgbackrest,
    restic,
    second_copy,
    state,
    targets,
    tools,
)
from flaskhost_backup.config import BackupError
from flaskhost_backup.tools import Done

REST_LOGIN = {"RESTIC_REST_USERNAME": "web1", "RESTIC_REST_PASSWORD": "p@ss/word"}


# --- What is read ----------------------------------------------------------------------------------------------------


def test_pgbackrests_answer_is_understood() -> None:
    found = info(backup_item("20261122-011444F", 1795310086))
    assert (found.there, found.system, found.version, found.newest_wal) == (
        True,
        SYSTEM,
        "15",
        "00000002000000000000000A",
    )
    backup = found.backups[0]
    assert (backup.label, backup.kind, backup.stop, backup.size, backup.timeline) == (
        "20261122-011444F", "full", 1795310086, 23177582, 1,
    )  # fmt: skip
    missing = (
        '[{"archive":[],"backup":[],"cipher":"aes-256-cbc","db":[],"name":"main","repo":[{"cipher":"aes-256-cbc",'
        '"key":1,"status":{"code":1,"message":"missing stanza path"}}],"status":{"code":1,"lock":{"backup":'
        '{"held":false}},"message":"missing stanza path"}}]'
    )
    assert not pgbackrest.parse_info(missing).there


def test_a_host_that_moved_to_another_major_version_goes_on_copying(tmp_path: Path) -> None:
    text = json.loads(info_text())
    text[0]["db"].append({"id": 2, "repo-key": 1, "system-id": 42, "version": "17"})
    found = pgbackrest.parse_info(json.dumps(text))
    assert (found.system, found.version, found.former) == ("42", "17", (SYSTEM,))
    config = settings(tmp_path, cluster=CLUSTER, second="/elsewhere")
    held = [restic.Snapshot(id="aa", at=NOW, host="h1", tags=("database", f"system-{SYSTEM}"), paths=("/x",))]

    class Second:
        def snapshots(self, _tag: str, _hosts: list[str]) -> list[restic.Snapshot]:
            return held

    second_copy._need_same_cluster(config, Second(), found)
    another = pgbackrest.parse_info(info_text().replace(SYSTEM, "43"))
    with pytest.raises(BackupError, match="another cluster"):
        second_copy._need_same_cluster(config, Second(), another)
    # Who restores it into the place of the other has said that it is the one.
    state.State(config.state).note("restore", {"at": NOW, "ok": True, "system": "43"})
    second_copy._need_same_cluster(config, Second(), another)


def test_another_second_repository_is_looked_into_before_anything_is_copied(tmp_path: Path) -> None:
    """What was copied to the first one says nothing of what is in the other."""
    first, other = (settings(tmp_path, cluster=CLUSTER, second=name) for name in ("/first", "/other"))

    class Second:
        def snapshots(self, _tag: str, _hosts: list[str]) -> list[restic.Snapshot]:
            return [restic.Snapshot(id="aa", at=NOW, host="h1", tags=("database", "system-77"), paths=("/x",))]

    note = {"at": NOW, "ok": True, "system": SYSTEM}
    state.State(first.state).note("copy", {**note, "repository": "/first"})
    second_copy._need_same_cluster(first, Second(), info())
    with pytest.raises(BackupError, match="another cluster"):
        second_copy._need_same_cluster(other, Second(), info())
    # One that an earlier version has noted names none.
    state.State(first.state).note("copy", note)
    second_copy._need_same_cluster(first, Second(), info())


@pytest.mark.parametrize(
    ("repository", "variables", "expected"),
    [
        ("rest:https://h/x/", {}, "rest:https://h/x/"),
        ("rest:https://h/x/", REST_LOGIN, "rest:https://web1:p%40ss%2Fword@h/x/"),
        ("s3:https://h/x", REST_LOGIN, "s3:https://h/x"),
        ("/elsewhere", REST_LOGIN, "/elsewhere"),
    ],
)
def test_the_login_for_a_rest_server_comes_from_the_variables(
    repository: str, variables: dict[str, str], expected: str
) -> None:
    assert restic.with_login(repository, variables) == expected


def test_restics_snapshots_are_understood() -> None:
    text = json.dumps(
        [
            {
                "time": "2026-11-22T01:15:25.118616885Z", "hostname": "h1", "paths": ["/srv/shop/data"],
                "tags": ["database", "system-77"], "id": "fd5da33871", "short_id": "fd5da338",
            },
            {"time": "2026-11-22T03:15:25+02:00", "hostname": "h1", "paths": ["/x"], "id": "aa", "short_id": "aa"},
        ]
    )  # fmt: skip
    found = restic.parse_snapshots(text)
    assert [item.id for item in found] == ["aa", "fd5da338"], "the oldest first, whatever the zone"
    assert found[1].system == "77"
    assert found[1].at == pytest.approx(1795310125.118616)
    assert restic.parse_snapshots("null") == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-22 01:15:25", 1795310125),
        ("2026-11-22T01:15:25", 1795310125),
        ("2026-11-22 01:15:25 UTC", 1795310125),
        ("2026-11-22T03:15:25+02:00", 1795310125),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, seconds: int) -> None:
    assert targets.parse_time(text, NOW) == seconds


@pytest.mark.parametrize("text", ["yesterday", "2030-01-01", "10:15"])
def test_what_is_no_time_or_still_to_come_is_refused(text: str) -> None:
    with pytest.raises(BackupError) as refused:
        targets.parse_time(text, NOW)
    assert refused.value.cure


# --- What is not reached, or locked ----------------------------------------------------------------------------------


#: restic from 0.17 on, where a store that speaks HTTP is down: it tries again for a quarter of an hour.
RETRYING = """#!/bin/sh
echo "$*" >> {folder}/calls
echo "Stat(<config/>) returned error, retrying after 1s: dial tcp 127.0.0.1:9: connect: connection refused" >&2
exec sleep 900
"""


def test_a_store_that_is_down_is_told_soon_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "restic"
    program.write_text(RETRYING.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setattr(tools, "SEARCH_PATH", f"{tmp_path}:{tools.SEARCH_PATH}")
    monkeypatch.setattr(restic, "REACH_SECONDS", 0.5)
    monkeypatch.setattr(state, "lock", lambda *_given: pytest.fail("others wait for it"))
    config = tmp_path / "config.json"
    given = {"host": "h1", "cluster": CLUSTER, "second": "s3:https://store/b/h1", "state": str(tmp_path / "state")}
    config.write_text(json.dumps({**given, "repository": str(tmp_path / "repository")}), encoding="utf-8")
    assert cli.main(["copy", "--config", str(config)]) == 1
    assert "The second repository cannot be reached (connection refused)" in capsys.readouterr().err
    assert "cannot be reached" in state.State(tmp_path / "state").read("copy")["last"]["problems"][0]
    assert (tmp_path / "calls").read_text() == "cat config --no-lock\n"


@pytest.mark.parametrize(
    ("repository", "asked"),
    [("s3:https://store/b/h1", 1), ("rest:https://store/h1/", 1), ("sftp:a@b:/c", 0), ("/srv/elsewhere", 0)],
)
def test_a_store_is_asked_first_where_restic_would_go_on_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: str, asked: int
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(tools, "run", lambda command, **_options: calls.append(command) or Done(0, "", ""))
    restic.Restic(settings(tmp_path), repository, "The second repository").reach()
    assert len(calls) == asked


#: restic, as it answers beside the lock of a run that was killed; it is there until somebody unlocks.
LOCKED = """#!/bin/sh
echo "$1" >> calls
[ "$1" = unlock ] && rm -f lock
[ -e lock ] || exit 0
echo "unable to create lock in backend: repository is already locked by PID 14616 on vm by root" >&2
exit 11
"""


def test_the_lock_of_a_killed_run_keeps_no_later_run_from_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, calls = tmp_path / "restic", tmp_path / "calls"
    text = LOCKED.replace(">> calls", f">> {calls}").replace("-f lock", f"-f {tmp_path}/lock")
    program.write_text(text.replace("-e lock", f"-e {tmp_path}/lock"))
    program.chmod(0o755)
    monkeypatch.setattr(tools, "SEARCH_PATH", f"{tmp_path}:{tools.SEARCH_PATH}")
    (tmp_path / "lock").touch()
    restic.local(settings(tmp_path)).check()
    assert calls.read_text().split() == ["check", "unlock", "check"]
    calls.unlink()
    (tmp_path / "lock").touch()
    program.write_text(program.read_text().replace("rm -f", "true"))
    with pytest.raises(BackupError, match="Another run has locked"):
        restic.local(settings(tmp_path)).check()
    assert calls.read_text().split() == ["check", "unlock", "check"], "a lock of a run that works stays"
