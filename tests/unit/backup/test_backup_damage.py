"""What a killed backup leaves, and how the drill tells a damaged backup from one that can be used.

The outputs are those of pgBackRest 2.45, taken down where files of a repository were damaged.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flaskhost_backup import drill, forget, leftovers, pgbackrest
from flaskhost_backup.config import BackupError, Config, parse
from flaskhost_backup.pgbackrest import Backup, Info, Verified
from flaskhost_backup.result import Result
from flaskhost_backup.sources import Source

FULL, DIFF, NEW = "20261124-134616F", "20261124-134616F_20261124-134635D", "20261125-021500F"
SEGMENT = "0000000100000000000000A2"
LOG = f"""\
2026-11-24 13:46:41.954 P00   INFO: verify command begin 2.45: --exec-id=12009-00d976fa --stanza=main
2026-11-24 13:46:42.260 P01   INFO: invalid checksum '15-1/0000000100000000/{SEGMENT}-82215ad9.zst'
2026-11-24 13:46:42.892 P01   INFO: invalid checksum '{FULL}/pg_data/base/5/2838.zst'
"""
RESULT = f"""\
stanza: main
status: error
  archiveId: 15-1, total WAL checked: 5, total valid WAL: 4
    checksum invalid: 1
  backup: {FULL}, status: invalid, total files checked: 984, total valid files: 983
    checksum invalid: 1
  backup: {DIFF}, status: invalid, total files checked: 984, total valid files: 982
    missing: 1, checksum invalid: 1
"""
END = "2026-11-24 13:46:43.121 P00   INFO: verify command end: completed successfully (1168ms)\n"


def settings(folder: Path) -> Config:
    values: dict[str, Any] = {"host": "h1", "repository": str(folder / "repository"), "state": str(folder / "state")}
    cluster = {"version": "15", "data": str(folder / "main"), "start": ["true"], "stop": ["true"], "user": "root"}
    return parse(json.dumps({**values, "cluster": cluster, "pgbackrest": str(folder / "pgbackrest.conf")}))


def backup(label: str, first_wal: str = SEGMENT) -> Backup:
    return Backup(label, "full", 1, 2, "0/1", "0/2", 3, 4, False, "7", 1, first_wal)


def info(*labels: str) -> Info:
    return Info(True, "", tuple(backup(label) for label in labels), "7", "15", SEGMENT)


class Backrest:
    """A repository; its backups in ``broken`` do not restore."""

    def __init__(self, damage: Verified, *labels: str, broken: tuple[str, ...] = ()) -> None:
        self.damage, self.labels, self.broken, self.restored = damage, labels, broken, []

    def verify(self) -> Verified:
        return self.damage

    def info(self) -> Info:
        return info(*self.labels)


def judged(
    monkeypatch: pytest.MonkeyPatch,
    backrest: Backrest,
    *,
    fetched: bool = False,
    newest: Backup | None = None,
    here: tuple[str, ...] | None = None,
) -> tuple[bool, Result]:
    def place(_scratch: Any, found: Any, wanted: Backup, _target: Any) -> None:
        found.backrest.restored.append(wanted.label)
        if wanted.label in found.backrest.broken:
            raise BackupError("base/5/2838 does not match.")

    class Scratch:
        def remove(self) -> None:
            pass

    monkeypatch.setattr(drill, "place", place)
    found = Source(backrest, Path("/nowhere"), fetched=Path("/fetched") if fetched else None)
    result = Result()
    here = info(*here if here is not None else backrest.labels).backups
    return drill._whole(found, Scratch(), newest or backup(NEW), here, result), result


def test_what_pgbackrest_finds_is_understood() -> None:
    for text in (LOG + RESULT + END, LOG + "2026-11-24 13:46:43.116 P00   INFO: " + RESULT + RESULT + END):
        found = pgbackrest.parse_verify(text)
        assert found.backups == {FULL: "checksum invalid: 1", DIFF: "missing: 1, checksum invalid: 1"}
        assert found.segments == (SEGMENT,)
        assert found.rest == ()
    bare = pgbackrest.parse_verify("stanza: main\nstatus: error\n  No usable backup.info file\n" + END)
    assert bare == Verified({}, (), ("No usable backup.info file",))
    unnamed = pgbackrest.parse_verify(RESULT)
    assert unnamed.rest == ("archiveId: 15-1, total WAL checked: 5, total valid WAL: 4, checksum invalid: 1",)


def test_a_backup_that_restores_whole_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    usable, result = judged(monkeypatch, Backrest(Verified({NEW: "checksum invalid: 1"}), FULL, NEW))
    assert usable
    assert result.problems == []
    assert f"the backup {NEW} as invalid (checksum invalid: 1)" in result.lines[0]
    assert "You can use it" in result.lines[0]


@pytest.mark.parametrize("fetched", [False, True])
def test_a_damaged_backup_is_named_with_a_cure(monkeypatch: pytest.MonkeyPatch, fetched: bool) -> None:
    damage = Verified({FULL: "checksum invalid: 1"})
    usable, result = judged(monkeypatch, Backrest(damage, FULL, NEW, broken=(FULL,)), fetched=fetched)
    assert usable, "the newest one is another"
    says = f"The backup {FULL} is damaged (checksum invalid: 1) and cannot be restored: base/5/2838 does not match."
    assert result.problems[0].startswith(says)
    cure = f"sudo flaskhost-backup full; sudo flaskhost-backup forget {FULL}"
    assert result.problems[0].endswith(cure + ("; sudo flaskhost-backup copy" if fetched else ""))


def test_a_damaged_backup_that_is_only_in_the_copy_goes_with_the_next_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    backrest = Backrest(Verified({FULL: "checksum invalid: 1"}), FULL, NEW, broken=(FULL,))
    _usable, result = judged(monkeypatch, backrest, fetched=True, here=(NEW,))
    assert result.problems[0].endswith(
        "deleted it already. The next copy deletes it in the second repository: sudo flaskhost-backup copy"
    )


def test_the_newest_backup_is_not_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    usable, _result = judged(monkeypatch, Backrest(Verified({NEW: "missing: 1"}), NEW, broken=(NEW,)))
    assert not usable


def test_what_a_killed_backup_left_is_no_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    backrest = Backrest(Verified({FULL: "invalid"}), NEW)
    usable, result = judged(monkeypatch, backrest)
    assert (usable, result.problems, backrest.restored) == (True, [], [])
    assert "is incomplete" in result.lines[0]


def test_a_new_backup_makes_up_for_a_damaged_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    damage = Verified({}, (SEGMENT,))
    _usable, result = judged(monkeypatch, Backrest(damage, NEW))
    assert "Create a new backup: sudo flaskhost-backup full" in result.problems[0]
    later = backup(NEW, SEGMENT[:-1] + "3")
    _usable, result = judged(monkeypatch, Backrest(damage, NEW), newest=later)
    assert result.problems == []
    assert SEGMENT in result.lines[0]


def test_the_only_full_backup_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, gone = settings(tmp_path), []
    labels = [FULL, DIFF]
    monkeypatch.setattr(pgbackrest.PgBackRest, "info", lambda _self: info(*labels))
    monkeypatch.setattr(pgbackrest.PgBackRest, "expire", lambda _self, label: gone.append(label))
    config.records.mkdir(parents=True)
    for label in (FULL, DIFF, NEW):
        (config.records / f"{label}.json").touch()
    with pytest.raises(BackupError, match="only full backup"):
        forget.forget(config, FULL)
    with pytest.raises(BackupError, match=r"The backup \S+ does not exist"):
        forget.forget(config, "20200101-000000F")
    assert gone == []
    labels.append(NEW)
    assert forget.forget(config, FULL).data["forgotten"] == [FULL, DIFF]
    assert gone == [FULL]
    assert [path.stem for path in config.records.iterdir()] == [NEW]


def test_no_process_of_a_killed_run_writes_beside_the_next_one(tmp_path: Path) -> None:
    """The defect D6: a worker of the killed backup and one of the repeated backup wrote the same file."""
    config = settings(tmp_path)
    ours, others = f"--config={config.pgbackrest}", "--config=/etc/another.conf"
    lines = [(ours, "backup"), (ours, "backup:local"), (ours, "restore:local")]
    stay = [(others, "backup:local"), (ours, "info"), (ours, "archive-get")]
    waits = "import sys, time; print(flush=True); time.sleep(60)"
    shell = ["/bin/bash", "-c", 'exec -a pgbackrest "$0" "$@"', sys.executable, "-c", waits]
    started = [subprocess.Popen([*shell, *words], stdout=subprocess.PIPE) for words in lines + stay]
    try:
        for process in started:
            process.stdout.readline()
        leftovers.end_left(config, time.sleep)
        # A zombie until its parent, this test, asks for it.
        assert [process.wait(5) for process in started[:3]] == [-9] * 3
        assert [process.poll() for process in started[3:]] == [None] * 3
        leftovers.end_left(config, lambda _seconds: pytest.fail("there is nothing to wait for"))
    finally:
        for process in started:
            process.kill()
            process.wait()
