"""flaskhost-backup: what it says when pgBackRest, restic or PostgreSQL fail.

The outputs are those of pgBackRest 2.45 and restic 0.14, taken down where they were made to fail.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from flaskhost_backup.explain import explain
from flaskhost_backup.tools import Done

FAILURES = {
    "ERROR: [038]: unable to restore while PostgreSQL is running\n  HINT: presence of 'postmaster.pid'": (
        "PostgreSQL is running on the data", "systemctl stop postgresql",
    ),
    "ERROR: [029]: unable to load info\n FormatError: key/value found outside of section":
        ("backup.passphrase is not the passphrase of the local repository.", "created with"),
    "Fatal: wrong password or no key found": (
        "backup.passphrase is not the passphrase of the local repository.", "site.yml",
    ),
    "ERROR: [075]: unable to find backup set with stop time less than '2020-01-01 00:00:00+00'": (
        "There is no backup from before 2020-01-01 00:00:00+00.", "flaskhost-backup list",
    ),
    "ERROR: [075]: no backup set found to restore": (
        "The local repository contains no backup.", "flaskhost-backup full",
    ),
    "FATAL:  recovery ended before configured recovery target was reached": ("The WAL ends before", "earlier time"),
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
        "PostgreSQL is not running.", "systemctl start postgresql",
    ),
    "unable to create lock in backend: repository is already locked by PID 880 on vm": ("Another run", "unlock"),
    "write /x: No space left on device": ("The disk of the local repository is full.", "df -h"),
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
    assert "The disk of the local repository is full." in explain(done, "The local repository", tmp_path).reason
