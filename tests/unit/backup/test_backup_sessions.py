"""A permanent connection to a database, whose owner decides what functions in it print."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flaskhost_backup import sessions
from flaskhost_backup.config import BackupError


def connect(script: str) -> sessions.Session:
    """A session with a shell script in the place of psql."""
    cluster = SimpleNamespace(user="")
    login: Any = SimpleNamespace(cluster=cluster, variables={}, database="shop", psql=lambda: ["sh", "-c", script])
    return sessions.Session(login)


#: Answers as psql does: what \echo says, after a line of a result.
ANSWERS = """while read -r line; do case $line in '\\echo '*) echo 42; echo "${line#* }";; esac; done"""


def test_a_result_is_returned() -> None:
    session = connect(ANSWERS)
    assert session.do("SELECT 42;") == session.do("SELECT 42;") == ["42"]
    session.close()


@pytest.mark.parametrize("warning", ["WARNING:  of a tenant's function\\n", "x"], ids=["lines", "one line"])
def test_warnings_without_end_do_not_fill_roots_memory(monkeypatch: pytest.MonkeyPatch, warning: str) -> None:
    monkeypatch.setattr(sessions, "LONGEST_RESULT", 1024**2)
    session = connect(f'while printf "{warning * 100}"; do :; done')
    with pytest.raises(BackupError, match=r"The result has more than 1 MB\.") as caught:
        session.do("SELECT 42;", timeout=30)
    assert len(str(caught.value)) < 10_000
    assert session.process.wait(10)
    session.close()
