"""A scrub counts as done only if it ran to its end in one transaction, and that transaction is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from flaskhost_backup import scrubs
from flaskhost_backup.config import BackupError
from flaskhost_backup.tools import Done

ROOT = Path(__file__).resolve().parents[3]


class Connection:
    """What answers in the place of psql."""

    database = "shop_restoring"

    def __init__(self, out: str, status: int = 0, err: str = "", ended: str = "committed") -> None:
        self.done, self.ended = Done(status, out, err), ended
        self.pinned: list[dict[str, Any]] = []
        self.given: list[str] = []

    def pinning(self, **settings: Any) -> Connection:
        self.pinned.append(settings)
        return self

    def run(self, sql: str, timeout: float | None) -> Done:
        assert timeout is None
        self.given.append(sql)
        return self.done

    def ask(self, sql: str) -> list[list[str]]:
        self.given.append(sql)
        return [[self.ended]]


def test_a_scrub_that_was_committed() -> None:
    connection = Connection("741\n741\n")
    scrubs.run(connection, "UPDATE people SET email = ''")
    assert connection.pinned == [{"search_path": None}], "its names are found as everywhere"
    assert "'741'" in connection.given[1]


@pytest.mark.parametrize(
    "answer",
    [
        Connection(""),
        Connection("741\n"),
        Connection("741\n742\n"),
        Connection("741\n741\n741\n"),
        Connection("\n\n"),
        Connection("done done"),
        Connection("741\n741\n", status=3, err="ERROR:  division by zero"),
        Connection("741\n741\n", ended="aborted"),
        Connection("741\n741\n", ended="in progress"),
        Connection("741\n741\n", ended=""),
    ],
    ids=lambda answer: repr((answer.done.out, answer.done.status, answer.ended)),
)
def test_whatever_else_is_answered_is_no_scrub(answer: Connection) -> None:
    with pytest.raises(BackupError) as caught:
        scrubs.run(answer, "UPDATE people SET email = ''")
    assert "scrub" in caught.value.reason.lower()
    assert caught.value.cure


def test_the_text_stands_between_quotes_that_it_cannot_end() -> None:
    first, second = Connection("1\n1\n"), Connection("1\n1\n")
    for connection in (first, second):
        scrubs.run(connection, "x $sql$; \\q -- comment")
    assert first.given[0] != second.given[0], "the tag is another one each time"
    script = scrubs.script("x -- comment", "0123")
    assert "EXECUTE $sql0123$\nx -- comment\n$sql0123$;" in script
    assert script.index("BEGIN;") < script.index("DO $do0123$") < script.index("COMMIT;")


@pytest.mark.parametrize("content", [b"UPDATE people\0SET", b"UPDATE \xff"])
def test_a_file_that_is_no_sql_is_refused_before_anything_is_done(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scrub.sql"
    path.write_bytes(content)
    with pytest.raises(BackupError):
        scrubs.read(path)


def test_the_dump_is_encrypted_before_it_leaves_the_source() -> None:
    """The key is in no argument, no environment and no log, and every copy is deleted at the end."""
    plays = yaml.safe_load((ROOT / "playbooks/clone.yml").read_text())
    block = next(task for task in plays[-1]["tasks"] if "block" in task)
    users = [task for task in block["block"] if "__clone_secret" in str(task)]
    assert len(users) == 2
    for task in users:
        shell = task["ansible.builtin.shell"]
        assert shell["stdin"] == "{{ __clone_secret }}" and "__clone_secret" not in shell["cmd"]
        assert task["no_log"] is True and "environment" not in task
    assert "flaskhost-backup give-out" in users[0]["ansible.builtin.shell"]["cmd"].split("|")[0]
    assert "--file" not in users[0]["ansible.builtin.shell"]["cmd"]
    made = {task["register"] for task in block["block"] if "ansible.builtin.tempfile" in task}
    deleted = {task["ansible.builtin.file"]["path"].strip("{} ").removesuffix(".path") for task in block["always"]}
    assert made == deleted
    assert len(made) == 3
