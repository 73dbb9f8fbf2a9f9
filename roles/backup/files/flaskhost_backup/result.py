"""The result of a run, for people and for programs, and how the parts of a run are recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.flaskhost.host.failures import system_error

from flaskhost_backup.config import BackupError
from flaskhost_backup.state import State


@dataclass
class Result:
    """The result of a run.

    Attributes:
        changed: whether anything on the host changed, or would.
        lines: the output for people, line by line.
        problems: what is wrong, a sentence each.
        data: the output for programs.
    """

    changed: bool = False
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the result as an object that JSON can hold."""
        return {"changed": self.changed, "lines": self.lines, "problems": self.problems, **self.data}


def do_part(result: Result, state: State, kind: str, now: float, do: Callable[[], tuple[str, dict[str, Any]]]) -> None:
    """Run one part of a backup and record how it went. A part that fails does not stop the others.

    Args:
        result: receives the part's line, its problems, and its entry.
        state: the program's state, in which the entry is recorded.
        kind: the name of the part.
        now: seconds since 1970.
        do: runs the part; returns a line and an entry.
    """
    state.note(kind, run_part(result, kind, now, do))


def run_part(result: Result, kind: str, now: float, do: Callable[[], tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Run one part of a backup without recording it. Takes the arguments of :func:`do_part`, and returns the entry."""
    began = time.monotonic()
    problems: list[str] = []
    line = ""
    entry: dict[str, Any] = {}
    try:
        line, entry = do()
        result.lines.append(line)
    except BackupError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"A file or connection failed: {system_error(error)}.")
    entry |= {"at": now, "ok": not problems, "seconds": round(time.monotonic() - began, 1), "problems": problems}
    result.data[kind] = entry
    result.problems += problems
    return entry
