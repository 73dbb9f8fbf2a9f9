"""The drill: whatever one of its checks finds makes it fail, and says what, where and what to do.

PostgreSQL's programs and restic are scripts that answer as the real ones do, taken down from PostgreSQL 15 and 17 and
restic 0.14; that the real ones find a real damage is shown by molecule/backup/tests/test_drill.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flaskhost_backup import drill, sessions, tools
from flaskhost_backup.config import BackupError, Config, parse
from flaskhost_backup.pgbackrest import Backup, Info, Verified
from flaskhost_backup.sources import Source
from flaskhost_backup.targets import Target
from flaskhost_backup.tools import Done

NOW = 1_795_311_000.0
ME = pwd.getpwuid(os.geteuid()).pw_name
NEWEST = Backup(
    "20261122-011444F", "full", int(NOW) - 60, int(NOW) - 50, "0/2000028", "0/3000050", 23177582, 2843728, False, "7", 1
)
SEGMENT = "000000010000000000000005"

WHOLE = {
    "pg_amcheck": "exit 0",
    "pg_checksums": "echo 'Checksum operation completed'; echo 'Bad checksums:  0'",
    "psql": "cat > /dev/null; echo t",
    "restic": "echo 'no errors were found'",
}
SNAPSHOT = [{"short_id": "aa", "time": "2026-11-22T01:14:44Z", "hostname": "h1", "tags": ["files"], "paths": ["/srv"]}]
DAMAGED_INDEX = """echo 'btree index "guestbook.public.entry_pkey":'
echo '    ERROR:  item order invariant violated for index "entry_pkey"'
exit 2"""
DAMAGED_PAGE = """echo 'pg_checksums: error: checksum verification failed in file "base/5/1259_fsm", block 2' >&2
echo 'Checksum operation completed'
echo 'Bad checksums:  1'
echo 'Data checksum version: 1'
exit 1"""
DAMAGED_PACK = """echo 'error for tree 47:'  >&2
echo 'Fatal: repository contains errors' >&2
exit 1"""


class Host:
    """A host whose drill finds nothing, until one of its programs is told to.

    Args:
        folder: where all of it is.
        monkeypatch: pytest's.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        for name, script in WHOLE.items():
            self.tool(name, script)
        (folder / "secrets").mkdir()
        (folder / "secrets/passphrase").write_text("x")
        settings = {
            "host": "h1", "repository": str(folder / "repository"), "state": str(folder / "state"),
            "secrets": str(folder / "secrets"), "cache": str(folder / "cache"), "apps": [],
            "assertions": {"guestbook": "SELECT count(*) > 0 FROM entry"},
            "cluster": {
                "version": "15", "data": str(folder / "main"), "start": ["true"], "stop": ["true"], "user": ME,
                "programs": str(self.bin),
            },
        }  # fmt: skip
        self.config: Config = parse(json.dumps(settings))
        self.config.records.mkdir(parents=True)
        self.record: dict[str, Any] = {"exact": True, "databases": {"guestbook": {"public.entry": 3}}}
        self.differs: list[str] = []
        self.verified, self.unusable = Verified({}), False
        self.refuses: Target | None = None
        self.open, self.removed = ["guestbook"], False
        monkeypatch.setattr(drill, "source", self._source)
        monkeypatch.setattr(drill, "Scratch", lambda *_arguments: self)
        monkeypatch.setattr(drill, "into_scratch", lambda *_arguments: NEWEST)
        monkeypatch.setattr(drill, "place", self._place)
        monkeypatch.setattr(drill, "_between", lambda *_arguments: NOW - 30)
        monkeypatch.setattr(drill, "scratch_arguments", lambda _scratch, _backup, target, _line: [target.kind])
        monkeypatch.setattr(drill.counts, "compare", lambda _record, _server: (self.differs, 1))
        monkeypatch.setattr(tools, "SEARCH_PATH", f"{self.bin}:{tools.SEARCH_PATH}")
        (folder / "snapshots").write_text(json.dumps(SNAPSHOT))

    def tool(self, name: str, script: str) -> None:
        """Say what a program does."""
        path = self.bin / name
        if name == "restic":
            script = f'case "$*" in *snapshots*) cat {self.folder}/snapshots; exit;; esac\n{script}'
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def drill(self) -> tuple[bool, str, list[str]]:
        """Hold it: whether all is well, what it has found, and what it says."""
        (self.config.records / f"{NEWEST.label}.json").write_text(json.dumps(self.record))
        result = drill.drill(self.config, "local", NOW)
        assert self.removed, "the scratch cluster goes, whatever is found"
        return result.data["drill"]["ok"], " ".join(result.problems), result.lines

    @contextlib.contextmanager
    def _source(self, _config: Config, _where: str) -> Iterator[Source]:
        yield Source(self, self.folder / "repository")

    # -- pgBackRest, the scratch cluster and its server ---------------------------------------------------------------

    def info(self) -> Info:
        return Info(True, "", (NEWEST,), "7", "15", "")

    def verify(self) -> Verified:
        return self.verified

    def _place(self, *_arguments: object) -> None:
        if self.unusable:
            raise BackupError("A checksum is wrong.")

    def restore(self, _data: Path, *arguments: str) -> None:
        if self.refuses and self.refuses.kind in arguments:
            raise BackupError("The log ends too early.")

    @property
    def cluster(self) -> Any:
        return self.config.need_cluster()

    @property
    def server(self) -> Host:
        return self

    @property
    def data(self) -> Path:
        return self.folder / "scratch"

    def databases(self) -> list[str]:
        return self.open

    def add_amcheck(self, _database: str, _role: str) -> Done:
        return Done(0, "", "")

    @contextlib.contextmanager
    def tenant(self, database: str, **_options: Any) -> Iterator[sessions.Login]:
        yield sessions.Login(self.cluster, self.folder, 5433, "flaskhost_session_1", database, "x")

    def start(self, _seconds: float) -> None: ...
    def stop(self) -> None: ...

    def remove(self) -> None:
        self.removed = True


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_whole_backup_passes_and_each_check_says_that_it_was_made(host: Host) -> None:
    well, found, said = host.drill()
    assert (well, found) == (True, "")
    for line in (
        "1 tables compared: the same number of rows.", "pg_amcheck found no damage", "1 of your assertions are true.",
        "All page checksums are correct.", "The restore to now succeeded.", "The restore to 2026-", "is intact.",
        "All is well",
    ):  # fmt: skip
        assert any(line in item for item in said), line


@pytest.mark.parametrize(
    ("program", "script", "says", "unsaid"),
    [
        ("pg_amcheck", DAMAGED_INDEX, 'index "entry_pkey"', "pg_amcheck found no damage"),
        ("pg_amcheck", "echo 'pg_amcheck: error: connection failed' >&2; exit 1", "connection failed", "pg_amcheck f"),
        ("pg_checksums", DAMAGED_PAGE, '"base/5/1259_fsm", block 2', "All page checksums are correct"),
        (
            "psql",
            "cat > /dev/null; echo f",
            "backup.assertions.guestbook returned 'f' instead of true",
            "of your assertions are",
        ),
        ("psql", "cat > /dev/null", "backup.assertions.guestbook returned 'nothing'", "of your assertions are true"),
        ("psql", "cat > /dev/null; echo 'ERROR:  no relation' >&2; exit 3", "failed: ERROR", "of your assertions are"),
        ("restic", DAMAGED_PACK, "The local repository of files", "is intact."),
    ],
)
def test_what_one_check_finds_makes_the_drill_fail(
    host: Host, program: str, script: str, says: str, unsaid: str
) -> None:
    host.tool(program, script)
    well, found, said = host.drill()
    assert not well
    assert says in found
    assert not any(unsaid in line for line in said), said
    assert any("found a problem" in line for line in said)


def test_a_row_that_is_missing_a_database_that_is_missing_and_no_files_make_it_fail(host: Host) -> None:
    host.differs, host.open = ["The table public.entry has 2 rows, and had 3."], []
    (host.folder / "snapshots").write_text("[]")
    well, found, _said = host.drill()
    assert not well
    for line in ("has 2 rows, and had 3", "the backup contains no database guestbook", "contains no files yet"):
        assert line in found


@pytest.mark.parametrize("target", [Target(), Target("time", str(NOW - 30))])
def test_a_restore_that_fails_makes_it_fail(host: Host, target: Target) -> None:
    host.refuses = target
    well, found, said = host.drill()
    assert not well
    assert f"The restore {target.text} failed: The log ends too early." in found
    assert sum(line.startswith("The restore ") and "succeeded." in line for line in said) == 1


def test_rows_that_could_not_be_counted_make_it_fail_and_a_backup_without_a_record_is_said(host: Host) -> None:
    host.record["failed"] = {"ledger": "locked"}
    assert "The rows of ledger were not counted" in host.drill()[1]
    host.record = {}
    well, _found, said = host.drill()
    assert well
    assert any("none are compared" in line for line in said)


@pytest.mark.parametrize(
    ("verified", "says"),
    [
        (
            Verified({}, rest=("archiveId: 15-1, total WAL checked: 3, total valid WAL: 2",)),
            "total valid WAL: 2. Create",
        ),
        (Verified({}, (SEGMENT,)), "Nothing after it can be restored. Create a new backup: sudo flaskhost-backup full"),
    ],
)
def test_a_damaged_repository_makes_it_fail(host: Host, verified: Verified, says: str) -> None:
    host.verified = verified
    well, found, _said = host.drill()
    assert not well
    assert says in found


def test_a_damaged_backup_makes_it_fail_where_it_cannot_be_restored(host: Host) -> None:
    host.verified = Verified({NEWEST.label: "checksum invalid: 1", "20261101-000000F": "missing manifest"})
    well, _found, said = host.drill()
    assert well
    assert any("You can use it. To delete it: Create a new backup" in line for line in said)
    assert any("20261101-000000F is incomplete" in line for line in said)
    host.unusable = True
    well, found, said = host.drill()
    assert not well
    assert f"sudo flaskhost-backup forget {NEWEST.label}" in found
    assert not any("the same number of rows" in line for line in said), "it is not restored once more"


def test_a_cluster_without_checksums_is_said(host: Host) -> None:
    host.tool("pg_checksums", "echo 'pg_checksums: error: data checksums are not enabled in cluster' >&2; exit 1")
    well, _found, said = host.drill()
    assert well
    assert any("no page checksums" in line for line in said)
