"""flaskhost-backup: what it understands of pgBackRest and restic, what it chooses, and what it says when they fail.

The outputs are those of pgBackRest 2.45 and restic 0.14, taken down where they were made to fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import migrate
from ansible.module_utils.flaskhost.programs import backup
from flaskhost_backup import (
    check,
    cli,
    counts,
    drill,
    hook,
    paths,
    pgbackrest,
    prepare,
    restic,
    restore_cluster,
    second_copy,
    sessions,
    state,
    status,
    targets,
    timelines,
    tools,
    wal,
)
from flaskhost_backup.config import BackupError, Cluster, Config, parse
from flaskhost_backup.explain import explain
from flaskhost_backup.result import Result
from flaskhost_backup.tools import Done

NOW = 1_795_311_000.0
SYSTEM = "7710797430735645469"
REST_LOGIN = {"RESTIC_REST_USERNAME": "web1", "RESTIC_REST_PASSWORD": "p@ss/word"}


def backup_item(label: str, stop: int, kind: str = "full", timeline: int = 1, first: int = 2) -> dict[str, Any]:
    return {
        "archive": {"start": f"{timeline:08X}{0:08X}{first:08X}", "stop": f"{timeline:08X}{0:08X}{first + 1:08X}"},
        "database": {"id": 1, "repo-key": 1},
        "error": False,
        "info": {"size": 23177582, "repository": {"delta": 2843728, "size": 2843728}},
        "label": label,
        "lsn": {"start": "0/2000028", "stop": "0/3000050"},
        "timestamp": {"start": stop - 2, "stop": stop},
        "type": kind,
    }


def info_text(*backups: dict[str, Any], code: int = 0, message: str = "ok") -> str:
    stanza = {
        "archive": [
            {"database": {"id": 1, "repo-key": 1}, "id": "15-1", "max": "00000002000000000000000A", "min": "1"}
        ],
        "backup": list(backups),
        "db": [{"id": 1, "repo-key": 1, "system-id": int(SYSTEM), "version": "15"}],
        "name": "main",
        "repo": [{"cipher": "aes-256-cbc", "key": 1, "status": {"code": code, "message": message}}],
        "status": {"code": code, "message": message},
    }
    return json.dumps([stanza])


def info(*backups: dict[str, Any]) -> pgbackrest.Info:
    return pgbackrest.parse_info(info_text(*backups))


def settings(folder: Path, **more: Any) -> Config:
    values: dict[str, Any] = {"host": "h1", "repository": str(folder / "repository"), "state": str(folder / "state")}
    values |= {"secrets": str(folder / "secrets"), "cache": str(folder / "cache"), **more}
    return parse(json.dumps(values))


CLUSTER = {"version": "15", "data": "/nowhere/main", "start": ["true"], "stop": ["true"]}

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


# --- What is chosen --------------------------------------------------------------------------------------------------

THREE = (
    backup_item("20261101-000000F", 1000),
    backup_item("20261101-000000F_20261102-000000D", 2000, "diff"),
    backup_item("20261103-000000F", 3000, timeline=2, first=9),
)


@pytest.mark.parametrize(
    ("target", "label"),
    [
        (targets.Target(), "20261103-000000F"),
        (targets.Target("time", "2500"), "20261101-000000F_20261102-000000D"),
        (targets.Target("time", "1500"), "20261101-000000F"),
        (targets.Target("backup", "20261101-000000F"), "20261101-000000F"),
        # Its timeline was left when the cluster was restored: a backup of the newer one does not lead to it.
        (targets.Target("point", "shop@r", {"at": 9000, "timeline": 1}), "20261101-000000F_20261102-000000D"),
    ],
)
def test_a_restore_begins_with_the_last_backup_before_its_target(target: targets.Target, label: str) -> None:
    assert targets.choose(info(*THREE), target).label == label


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (targets.Target("time", "999"), "There is no backup from before 1970-01-01 00:16:39 UTC; the first one was"),
        (targets.Target("backup", "20200101-000000F"), "There is no backup 20200101-000000F."),
    ],
)
def test_a_target_before_the_first_backup_is_refused(target: targets.Target, says: str) -> None:
    with pytest.raises(BackupError, match=says.replace(".", r"\.")):
        targets.choose(info(*THREE), target)
    with pytest.raises(BackupError, match="There is no backup yet"):
        targets.choose(info(), targets.Target())


def test_pgbackrest_is_told_the_very_point() -> None:
    backup = info(*THREE).backups[0]
    assert targets.arguments(backup, targets.Target("time", "1795310125.25")) == [
        "--set=20261101-000000F", "--type=time", "--target=2026-11-22 01:15:25.250000+00", "--target-action=promote",
    ]  # fmt: skip
    point = targets.Target("point", "shop@r", {"timeline": 3})
    assert targets.arguments(backup, point)[1:] == [
        "--type=name", "--target=shop@r", "--target-timeline=3", "--target-action=promote",
    ]  # fmt: skip
    assert targets.arguments(backup, targets.Target()) == ["--set=20261101-000000F", "--type=default"]


def test_a_restore_goes_along_the_timeline_that_the_cluster_is_on() -> None:
    """The defect D2: a restore was taken back, and the archive has a timeline 2 that nobody is on."""
    text = "1\t0/3000158\tbefore 2026-11-22 01:15:25+00\n\n2\t0/5000000\tno recovery target specified\n"
    assert timelines.parse_history(text) == {1: 0x3000158, 2: 0x5000000}
    one, two = backup_item("1F", 1000), backup_item("2F", 2000, timeline=2)
    on_one = timelines.Line(1)
    assert targets.choose(info(one, two), targets.Target(), on_one).label == "1F"
    assert targets.choose(info(one, two), targets.Target()).label == "2F"
    with pytest.raises(BackupError, match="timeline 1 of its log"):
        targets.choose(info(two), targets.Target(), on_one)
    first = info(one).backups[0]
    assert "--target-timeline=1" in targets.arguments(first, targets.Target(), on_one)
    assert "--target-timeline=1" in targets.arguments(first, targets.Target("time", "1500"), on_one)
    assert "--recovery-option=recovery_target_timeline=current" in targets.arguments(
        first, targets.Target("backup", "1F"), on_one
    )
    # A timeline that comes from another one; a backup of that which was taken after it was left leads elsewhere.
    on_three = timelines.Line(3, {1: 0x3000050})
    assert on_three.holds(first)
    assert not timelines.Line(3, {1: 0x3000049}).holds(first)
    assert not on_three.holds(info(two).backups[0])
    assert timelines.Line(3, None).holds(first), "what is not known keeps nobody from a restore"


def test_where_a_timeline_comes_from_is_read_from_the_repository(tmp_path: Path) -> None:
    class Backrest:
        def get(self, path: Path) -> str:
            assert str(path) == "archive/main/15-1/00000003.history"
            return "1\t0/3000158\tx\n"

    assert timelines.line(Backrest(), tmp_path, 3).left_at is None
    (tmp_path / "archive/main/15-1").mkdir(parents=True)
    (tmp_path / "archive/main/15-1/00000003.history").touch()
    assert timelines.line(Backrest(), tmp_path, 3).left_at == {1: 0x3000158}
    assert timelines.line(Backrest(), tmp_path, 1) == timelines.Line(1)
    assert timelines.recorded(tmp_path / "records") == 0
    timelines.remember(tmp_path / "records", 3)
    assert timelines.recorded(tmp_path / "records") == 3


def test_the_last_commits_are_taken_from_the_old_data_also_beside_a_timeline_that_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, cluster={**CLUSTER, "data": str(tmp_path / "main")})
    aside, archive = tmp_path / "aside", tmp_path / "repository/archive/main/15-1"
    for folder in (aside / "pg_wal", tmp_path / "main/pg_wal", archive / "x"):
        folder.mkdir(parents=True)
    names = ["000000010000000000000004", "000000010000000000000005"]
    for name in names:
        (aside / "pg_wal" / name).touch()
    for name in (names[0], "000000020000000000000005"):
        (archive / "x" / f"{name}-abc.zst").touch()
    copied: list[str] = []

    def run(command: list[Any], **_options: Any) -> Done:
        copied.append(Path(command[-2]).name)
        return Done(0, "", "")

    monkeypatch.setattr(wal.tools, "run", run)
    monkeypatch.setattr(wal, "control_data", lambda *_given: {"Database system identifier": SYSTEM})
    wal.salvage(config.need_cluster(), tmp_path / "repository", aside, info(), 1)
    assert copied == names
    copied.clear()
    wal.salvage(config.need_cluster(), tmp_path / "repository", aside, info(), 0)
    assert copied == [], "as the newest timeline of the archive has it"


def test_a_drill_goes_to_where_the_rows_were_counted() -> None:
    target = drill._target("L", {"point": "flaskhost-L", "timeline": 2})
    assert (target.kind, target.value) == ("point", "flaskhost-L")
    assert targets.choose(info(*THREE), target).label == "20261103-000000F"
    assert drill._target("L", {}).kind == "backup"


def test_a_release_is_found_by_its_name_and_app(tmp_path: Path) -> None:
    config, now = settings(tmp_path), state.State(tmp_path / "state")
    for app in ("blog", "shop"):
        now.add_point({"name": f"{app}@r1", "app": app, "release": "r1", "at": 5, "timeline": 1})
    assert targets.release_target(config, "shop", "r1").value == "shop@r1"
    with pytest.raises(BackupError, match="Known are: r1;"):
        targets.release_target(config, "shop", "r2")


def test_old_points_of_the_same_app_are_forgotten(tmp_path: Path) -> None:
    now = state.State(tmp_path)
    now.add_point({"name": "blog@r", "app": "blog"})
    for number in range(state.POINTS + 5):
        now.add_point({"name": f"shop@{number}", "app": "shop"})
    names = [item["name"] for item in now.points()]
    assert len(names) == state.POINTS + 1
    assert (names[0], names[1]) == ("blog@r", "shop@5")


# --- The log ---------------------------------------------------------------------------------------------------------


def archive(folder: Path, *names: str) -> Path:
    place = folder / "archive" / "main" / "15-1" / "0000000100000000"
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).touch()
    return folder


def test_a_gap_in_the_log_is_found(tmp_path: Path) -> None:
    names = [f"00000001{0:08X}{number:08X}-abc.zst" for number in (1, 2, 3, 6, 7)]
    archive(tmp_path, *names, "000000010000000000000004.partial-abc.zst", "000000010000000000000002.00000028.backup")
    new, old = pgbackrest.gaps(tmp_path, f"00000001{0:08X}{2:08X}")
    assert new == ["The write-ahead log has a gap: 2 segments from 000000010000000000000004 on are missing."]
    assert old == []
    # One that the newest backup does not need is no reason to fail.
    assert pgbackrest.gaps(tmp_path, f"00000001{0:08X}{6:08X}") == ([], new)


def test_the_log_goes_on_where_its_number_wraps(tmp_path: Path) -> None:
    archive(tmp_path, f"00000001{0:08X}{0xFF:08X}-a.zst", f"00000001{1:08X}{0:08X}-a.zst")
    archive(tmp_path, f"00000002{7:08X}{0:08X}-a.zst")
    assert pgbackrest.gaps(tmp_path) == ([], []), "and another timeline begins where it begins"


def test_a_restore_to_now_refuses_to_stop_at_a_gap_in_silence(tmp_path: Path) -> None:
    archive(tmp_path, *(f"00000001{0:08X}{number:08X}-a.zst" for number in (2, 3, 5)))
    backup = info(THREE[0]).backups[0]
    with pytest.raises(BackupError, match="accept_gap"):
        wal.need_no_gap(tmp_path, backup, accept=False)
    assert "is not in the database" in wal.need_no_gap(tmp_path, backup, accept=True)[0]


# --- What is said of failures ----------------------------------------------------------------------------------------

FAILURES = {
    "ERROR: [038]: unable to restore while PostgreSQL is running\n  HINT: presence of 'postmaster.pid'": (
        "PostgreSQL runs on the data", "systemctl stop postgresql",
    ),
    "ERROR: [029]: unable to load info\n FormatError: key/value found outside of section":
        ("The passphrase does not open the local repository.", "backup.passphrase"),
    "Fatal: wrong password or no key found": ("The passphrase does not open the local repository.", "site.yml"),
    "ERROR: [075]: unable to find backup set with stop time less than '2020-01-01 00:00:00+00'": (
        "There is no backup from before 2020-01-01 00:00:00+00.", "flaskhost-backup list",
    ),
    "ERROR: [075]: no backup set found to restore": ("The local repository holds no backup.", "flaskhost-backup full"),
    "FATAL:  recovery ended before configured recovery target was reached": ("The write-ahead log", "earlier time"),
    "subprocess ssh: ssh: connect to host 127.0.0.1 port 9: Connection refused\nFatal: unable to open repository": (
        "The local repository cannot be reached (Connection refused).", "flaskhost-backup copy",
    ),
    'Fatal: unable to open config file: Stat: Get "http://127.0.0.1:9/b": connect: connection refused':
        ("The local repository cannot be reached (connection refused).", "flaskhost-backup copy"),
    "Fatal: unable to open config file: Stat: The request signature we calculated does not match the signature you "
    "provided. Check your key and signing method.\nIs there a repository at the following location?":
        ("cannot be reached (request signature we calculated does not match)", "flaskhost-backup copy"),
    "Fatal: unable to open config file: Stat: The AWS Access Key Id you provided does not exist in our records.":
        ("cannot be reached (Access Key Id you provided does not exist)", "flaskhost-backup copy"),
    "client_loop: send disconnect: Broken pipe\nFatal: There were 3 errors": ("reached (Broken pipe)", "copy"),
    "ERROR: [026]: error restoring '/x/base/5/2838': actual checksum 'd1ec' does not match '4ba0'": (
        "The local repository is damaged", "flaskhost-backup full",
    ),
    "Pack ID does not match, want e61, got e99\nFatal: repository contains errors": ("is damaged", "second repository"),
    "WARN: unable to check pg1: [DbConnectError] unable to connect to 'dbname='postgres' port=5542'": (
        "PostgreSQL does not run.", "systemctl start postgresql",
    ),
    "unable to create lock in backend: repository is already locked by PID 880 on vm": ("Another run", "unlock"),
    "write /x: No space left on device": ("There is no room left for the local repository.", "df -h"),
    "ERROR: [028]: backup and archive info files exist but do not match the database": ("another cluster", "mv"),
    "pgbackrest: there is no such program": ("A program is missing", "site.yml"),
}  # fmt: skip


@pytest.mark.parametrize("text", FAILURES, ids=lambda text: text[:40])
def test_a_failure_is_one_sentence_and_the_next_command(text: str) -> None:
    says, cure = FAILURES[text]
    error = explain(Done(1, "", text), "The local repository")
    assert says in error.reason
    assert cure in error.cure
    assert "\n" not in str(error)


def test_what_nobody_knows_is_handed_on_in_one_line() -> None:
    error = explain(Done(7, "", "noise\nERROR: [999]: the moon\x1b[2J is\nmore"), "The local repository")
    assert error.reason == "The local repository: ERROR: [999]: the moon [2J is."


def test_what_cannot_be_decrypted_is_damaged_where_the_passphrase_is_known_to_be_right() -> None:
    done = Done(1, "", "ERROR: [029]: raised: [CryptoError] on retry after 0ms")
    assert "passphrase" in explain(done, "The local repository").reason
    assert "is damaged" in explain(done, "The local repository", opened=True).reason


def test_a_full_disk_is_told_whatever_the_program_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5})
    monkeypatch.setattr("flaskhost_backup.explain.shutil.disk_usage", lambda _path: usage)
    done = Done(1, "", "unable to create lock in backend")
    assert "no room left" in explain(done, "The local repository", tmp_path).reason


# --- What is remembered, and what is late ----------------------------------------------------------------------------


def test_a_run_that_failed_does_not_make_the_last_good_one_forgotten(tmp_path: Path) -> None:
    now = state.State(tmp_path)
    now.note("database", {"at": 1, "ok": True})
    now.note("database", {"at": 2, "ok": False, "problems": ["No."]})
    assert (now.read("database")["good"]["at"], now.read("database")["last"]["at"]) == (1, 2)
    (tmp_path / "database.json").write_text("{", encoding="utf-8")
    assert now.read("database") == {"last": {}, "good": {}}


def good(folder: Path, *kinds: str, at: float) -> None:
    for kind in kinds:
        state.State(folder / "state").note(kind, {"at": at, "ok": True, "problems": []})


def test_a_backup_that_is_late_is_told(tmp_path: Path) -> None:
    config = settings(tmp_path, cluster=CLUSTER, second="/elsewhere")
    good(tmp_path, "database", "files", "copy", "second_files", "drill", at=NOW)
    assert status.late(config, NOW + 600) == []
    after = status.late(config, NOW + 27 * 3600)
    assert [line.split(" is ")[0] for line in after] == [
        "The last backup of the database", "The last backup of the files",
        "The last copy of the files in the second repository", "The last copy of the database in the second repository",
    ]  # fmt: skip
    assert any("good drill" in line for line in status.late(config, NOW + 9 * 86400))


def test_a_new_host_has_its_time(tmp_path: Path) -> None:
    config = settings(tmp_path, cluster=CLUSTER)
    state.write_json(tmp_path / "state" / "since.json", {"at": NOW})
    assert status.late(config, NOW + 3600) == []
    assert "has never been made" in status.late(config, NOW + 27 * 3600)[0]


def test_a_new_login_of_the_second_repository_is_tried_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the run of site.yml that has set a wrong one ends well, and the next copy fails."""
    asked: list[str] = []

    class Store(restic.Restic):
        def make(self) -> bool:
            asked.append(self.repository)
            if "wrong" in login.read_text(encoding="utf-8"):
                raise BackupError("The second repository cannot be reached (401 Unauthorized).", "See to it.")
            return False

    monkeypatch.setattr(restic, "second", lambda config: Store(config, config.second, "The second repository"))
    config = settings(tmp_path, second="rest:https://store/h1/")
    login = tmp_path / "secrets" / "environment.json"
    login.parent.mkdir()
    config.files_repository.mkdir(parents=True)
    (config.files_repository / "config").touch()

    def set_login(text: str) -> Result:
        login.write_text(text, encoding="utf-8")
        os.utime(login, (NOW + len(asked), NOW + len(asked)))
        return prepare.prepare(config, dry=False, now=NOW)

    assert set_login("right").problems == []
    assert prepare.prepare(config, dry=False, now=NOW).changed is False
    assert len(asked) == 1
    for _run in range(2):
        assert "401" in set_login("wrong").problems[0]
    assert len(asked) == 3
    assert set_login("right").problems == []
    assert prepare.prepare(config, dry=False, now=NOW).changed is False


def test_without_a_passphrase_it_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(tmp_path, enabled=False)
    assert prepare.prepare(config, dry=True, now=NOW).problems == [backup.UNSET]
    # By itself the host cannot know which of the two it is; a playbook can.
    (late,) = status.late(config, NOW)
    assert "is not set, or site.yml has not run" in late
    assert backup.why_off(late, "a passphrase").endswith("site.yml has not run since. Run site.yml.")
    assert backup.why_off(late, "").endswith("Put it into the vault (docs/backup.md), then run site.yml.")
    assert backup.why_off("No room.", "") == "No room."
    (tmp_path / "config.json").write_text(
        json.dumps({"host": "h1", "enabled": False, "state": str(tmp_path / "s"), "repository": str(tmp_path / "r")}),
        encoding="utf-8",
    )
    assert cli.main(["check", "--config", str(tmp_path / "config.json")]) == 1
    # A deploy tells that apart from a point that could not be noted.
    point = ["point", "--app", "shop", "--release", "r2", "--previous", "r1"]
    assert cli.main([*point, "--config", str(tmp_path / "config.json")]) == migrate.NO_BACKUPS
    assert "backup.passphrase is not set" in capsys.readouterr().err


def test_backups_on_this_host_alone_are_not_as_they_should_be(tmp_path: Path) -> None:
    good(tmp_path, "files", "copy", "second_files", "drill", at=NOW)
    alone = check.check(settings(tmp_path), NOW)
    assert (alone.problems, alone.lines) == ([], [backup.ONLY_HERE])
    assert status.status(settings(tmp_path), NOW).lines == [backup.ONLY_HERE]
    assert backup.shortcomings("passphrase", "") == [backup.ONLY_HERE]
    both = settings(tmp_path, second="/elsewhere")
    assert check.check(both, NOW).lines == ["All backups are as they should be."]
    assert status.status(both, NOW).lines == backup.shortcomings("passphrase", "/elsewhere") == []
    assert status.status(settings(tmp_path, enabled=False), NOW).lines == []


def test_the_hook_is_told_what_is_wrong_and_nobody_else(tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text(
        f'#!/bin/sh\n(echo "$FLASKHOST_HOST $FLASKHOST_VERB $FLASKHOST_PROBLEM"; cat) > {tmp_path}/told\n'
    )
    script.chmod(0o755)
    config = settings(tmp_path, hook=[str(script)])
    assert hook.call_hook(config, "full", Result()) == ""
    assert not (tmp_path / "told").exists()
    assert hook.call_hook(config, "full", Result(problems=["Full."])) == ""
    first, second = (tmp_path / "told").read_text().splitlines()
    assert first == "h1 full Full."
    assert json.loads(second) == {"host": "h1", "verb": "full", "problems": ["Full."]}
    assert "hook" in hook.call_hook(settings(tmp_path, hook=["/nowhere"]), "full", Result(problems=["x"]))


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
    with pytest.raises(BackupError, match="Another run holds"):
        restic.local(settings(tmp_path)).check()
    assert calls.read_text().split() == ["check", "unlock", "check"], "a lock of a run that works stays"


def test_two_runs_do_not_work_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with state.lock("full", path), pytest.raises(BackupError, match="full, process"):  # noqa: SIM117 - the order counts
        with state.lock("drill", path, 0.0, lambda _seconds: None):
            pass
    with state.lock("drill", path, 0.0):
        pass


def test_a_restore_waits_for_no_deploy(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with state.held([path]), pytest.raises(BackupError, match="A deploy holds"):  # noqa: SIM117 - the order counts
        with state.held([path]):
            pass


def test_nothing_is_replaced_unless_somebody_says_so() -> None:
    with pytest.raises(BackupError, match="--confirm h1"):
        cli._confirmed("shop", "h1", "the cluster")
    cli._confirmed("h1", "h1", "the cluster")


# --- Taking back -----------------------------------------------------------------------------------------------------


def test_a_restore_that_was_killed_is_taken_back(tmp_path: Path) -> None:
    data, aside = tmp_path / "main", tmp_path / "main.before-x"
    aside.mkdir()
    (aside / "PG_VERSION").write_text("15")
    data.mkdir()
    (data / "half").touch()
    config = settings(tmp_path, cluster={**CLUSTER, "data": str(data)})
    restore_cluster.Progress(config).note(data=str(data), aside=str(aside), new=True, running=False, units=[])
    assert "in its place again" in restore_cluster.settle(config).says
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]
    assert not aside.exists()
    assert restore_cluster.settle(config).says == "", "and once is enough"


def test_one_that_was_killed_before_anything_moved_loses_nothing(tmp_path: Path) -> None:
    data = tmp_path / "main"
    data.mkdir()
    (data / "PG_VERSION").write_text("15")
    config = settings(tmp_path, cluster={**CLUSTER, "data": str(data)})
    # The name was noted, and the rename never came.
    restore_cluster.Progress(config).note(data=str(data), aside=str(tmp_path / "main.before-x"), running=False)
    restore_cluster.settle(config)
    assert (data / "PG_VERSION").exists()


def test_what_is_put_aside_never_lands_on_another(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / "main"
        folder.mkdir()
        (folder / str(number)).touch()
        expected = restore_cluster._next(folder, "x")
        assert str(paths.move_aside(folder, "x")) == expected
    assert len(list(tmp_path.iterdir())) == 3


# --- Counting --------------------------------------------------------------------------------------------------------


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
    assert counts.compare(RECORD, server) == ([], 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "exact", "says"),
    [
        ({"public.entry": 2, "public.none": 0, "public.slow": 1}, True, "has 2 rows, and had 3"),
        ({"public.none": 0, "public.slow": 1}, True, "public.entry of shop is missing"),
        ({"public.entry": 0, "public.none": 0, "public.slow": 1}, False, "is empty, and had 3"),
    ],
)
def test_a_row_that_is_missing_is_found(rows: dict[str, int], exact: bool, says: str) -> None:
    problems, _compared = counts.compare({**RECORD, "exact": exact}, FakeServer({"shop": rows}))  # type: ignore[arg-type]
    assert len(problems) == 1
    assert says in problems[0]


def test_counts_that_are_not_exact_are_not_held_against_it() -> None:
    server = FakeServer({"shop": {"public.entry": 4, "public.none": 1, "public.slow": 1}})
    assert counts.compare({**RECORD, "exact": False}, server) == ([], 2)  # type: ignore[arg-type]
    assert counts.compare(RECORD, FakeServer({}))[0] == ["The database shop is missing."]  # type: ignore[arg-type]


def test_a_database_that_refuses_does_not_keep_the_others_from_being_compared() -> None:
    record = {"exact": True, "databases": {"evil": {"public.x": 1}, "shop": {"public.entry": 3}}}
    server = FakeServer({"evil": {"public.x": 1}, "shop": {"public.entry": 2}}, fails="evil")
    problems, compared = counts.compare(record, server)  # type: ignore[arg-type]
    assert compared == 1
    assert [item.split(".")[0] for item in problems] == ["It refuses", "The table public"]


@pytest.mark.parametrize("loose", [{"shop": None}, {"shop": ["public.entry"]}])
def test_rows_that_could_not_be_locked_are_not_held_against_it(loose: dict[str, list[str] | None]) -> None:
    record = {"exact": False, "databases": {"shop": {"public.entry": 3}}, "loose": loose}
    assert counts.compare(record, FakeServer({"shop": {"public.entry": 4}})) == ([], 1)  # type: ignore[arg-type]


# --- Who connects, and what root does in folders of others ----------------------------------------------------------


def test_nothing_but_the_helpers_starts_a_client_of_postgresql() -> None:
    root = Path(__file__).resolve().parents[3]
    starts = re.compile(r"""["'/](?:psql|pg_dump|pg_dumpall|pg_restore|pg_amcheck|vacuumdb|reindexdb)["']""")
    found = {
        str(path.relative_to(root))
        for folder in ("roles", "plugins")
        for path in (root / folder).rglob("*.py")
        if starts.search(path.read_text(encoding="utf-8"))
    }
    assert found == {
        "roles/backup/files/flaskhost_backup/sessions.py",  # the helper
        "roles/backup/files/flaskhost_backup/dumps.py",  # names programs that the helper starts
        "roles/backup/files/flaskhost_backup/drill.py",  # likewise
        # The superuser, in the database postgres only: functions of shared memory, and the names in shared catalogs.
        "roles/postgres/files/flaskhost_postgres_limits.py",
        "plugins/module_utils/flaskhost/postgres/psql.py",  # the helper of the modules
        "plugins/module_utils/flaskhost/deploy/database.py",  # as the app's own user
        "plugins/modules/postgres_upgrade.py",  # vacuumdb, which analyzes as the tables' owners, as autovacuum does
    }


def test_every_setting_of_a_tenant_is_pinned() -> None:
    login = sessions.Login(Cluster("17", Path("/x"), (), ()), Path("/s"), 5432, "flaskhost_session_1", "shop", "secret")
    options = login.variables["PGOPTIONS"]
    for item in ("search_path= ", "role=none", "row_security=off", "standard_conforming_strings=on",
                 "default_transaction_isolation=read\\ committed", "transaction_timeout=0"):  # fmt: skip
        assert f"-c {item}" in options
    assert "log_statement" not in options, "only a superuser may set it"
    assert (
        "transaction_timeout"
        not in dataclasses.replace(login, cluster=Cluster("15", Path("/x"), (), ())).variables["PGOPTIONS"]
    )


def test_root_follows_no_link_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "real" / "main").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.lchown(tmp_path / "link", 65534, 65534) if os.geteuid() == 0 else pytest.skip("needs root")
    for do in (
        lambda: tools.make_folder(tmp_path / "link" / "new", "nobody"),
        lambda: paths.remove(tmp_path / "link" / "main"),
        lambda: paths.move_aside(tmp_path / "link" / "main", "x"),
    ):
        with pytest.raises(BackupError, match="not root's"):
            do()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["main"]
    os.lchown(tmp_path / "link", 0, 0)
    tools.make_folder(tmp_path / "link" / "new", "nobody")
    assert (tmp_path / "real" / "new").stat().st_uid == 65534
    # What lies in a folder that is removed may be a link too.
    (tmp_path / "real" / "main" / "out").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    paths.remove(tmp_path / "real" / "main")
    assert (tmp_path / "kept").is_dir()
    (tmp_path / "pid").symlink_to("/etc/passwd")
    assert tools.head(tmp_path / "pid", 64) == ""


# --- The rest --------------------------------------------------------------------------------------------------------


def test_a_program_that_is_not_there_or_hangs_is_no_stack_trace() -> None:
    assert tools.run(["/nowhere/program"]).status == 127
    assert tools.run(["sleep", "5"], timeout=0.1).status == 124


def test_a_scratch_cluster_reaches_nothing_of_the_real_one(tmp_path: Path) -> None:
    from flaskhost_backup.cluster import Scratch  # noqa: PLC0415 - only here

    scratch = Scratch(Cluster("15", tmp_path, (), ()), tmp_path / "scratch", 5434)
    told = scratch.settings()
    assert (told["archive_mode"], told["listen_addresses"], told["primary_conninfo"]) == ("off", "", "")
    assert told["unix_socket_directories"] == str(tmp_path / "scratch" / "socket")


@pytest.mark.parametrize("text", ["", "[]", '{"host": "h", "cluster": {"version": "15"}}', '{"host": "h", "more": 1}'])
def test_a_broken_configuration_is_one_sentence(text: str) -> None:
    with pytest.raises(BackupError, match="cannot be read"):
        parse(text)


def test_a_failed_hand_over_is_told_and_stops_no_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Silent:
        def ask(self, sql: str) -> list[list[str]]:
            asked.append(sql)
            return []

        def hand_over(self, *, seconds: float) -> str:
            raise BackupError(f"PostgreSQL has not handed over its write-ahead log for {seconds:.0f} s.")

    (said,) = wal.hand_over(Silent())  # type: ignore[arg-type]
    assert said.startswith("What was committed last may be missing: PostgreSQL has not handed over")
    (said,) = wal.hand_over(Silent(), "It was taken from the old data")  # type: ignore[arg-type]
    assert said.startswith("It was taken from the old data: PostgreSQL")
    monkeypatch.setattr(Silent, "hand_over", lambda *_a, **_o: "000000010000000000000001")
    assert wal.hand_over(Silent()) == []  # type: ignore[arg-type]
    # Without a commit after it, a restore to a time would not know that it has come to its end.
    assert asked == ["SELECT pg_current_xact_id()"] * 3


def test_a_program_that_is_missing_or_takes_too_long_is_told_apart() -> None:
    assert (tools.run(["no-such-program"]).status, tools.run(["no-such-program"]).last) == (
        127,
        "no-such-program: there is no such program",
    )
    slow = tools.run(["sleep", "5"], timeout=0.2)
    assert (slow.status, slow.last) == (124, "sleep has not ended after 0 s")
    assert tools.run(["sh", "-c", "exit 127"]).status == 127


def test_what_a_program_writes_is_for_root_alone_and_what_is_no_text_stops_nothing(tmp_path: Path) -> None:
    assert tools.run(["sh", "-c", f"touch {tmp_path}/made; mkdir {tmp_path}/folder"]).status == 0
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "made", tmp_path / "folder")] == [0o600, 0o700]
    assert tools.run(["sh", "-c", "printf 'a\\377b'"]).out == "a\ufffdb"
    assert tools.run(["cat"], data="given").out == "given"
    assert tools.run(["cat"]).out == ""
    with (tmp_path / "out").open("wb") as out:
        assert tools.run(["sh", "-c", "echo here"], out=out).out == ""
    assert (tmp_path / "out").read_text() == "here\n"
