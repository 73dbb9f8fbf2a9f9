"""Running other programs: as the right user, with an environment of our own, and no secret in an argument."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

#: Where programs are looked for.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


#: Before a command: it ends when this process does. What restores must not go on when it was killed and is run again.
TOGETHER = ("setpriv", "--pdeathsig", "TERM", "--")


@dataclass(frozen=True)
class Done:
    """How a program has ended.

    Attributes:
        status: its exit status.
        out: what it has written.
        err: what it has complained of.
    """

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both, for a look at what went wrong."""
        return f"{self.err}\n{self.out}".strip()

    @property
    def last(self) -> str:
        """The last thing that it complained of, on one line."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"it ended with status {self.status} and said nothing"


def identity(user: str) -> dict[str, object]:
    """The arguments by which a child becomes a user; none where this process is that user already.

    Args:
        user: the user's name; empty for the user that this is.
    """
    if not user:
        return {}
    entry = pwd.getpwnam(user)
    if entry.pw_uid == os.geteuid():
        return {}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def environment(user: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small environment: nothing that the one who logged in has set leaks into it."""
    home = pwd.getpwnam(user).pw_dir if user else "/root"
    return {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": home, "TZ": "UTC", **(more or {})}


def run(
    command: Sequence[str | Path],
    *,
    user: str = "",
    env: Mapping[str, str] | None = None,
    data: str | None = None,
    timeout: float | None = None,
    stream: IO[bytes] | None = None,
) -> Done:
    """Run a program and wait for it.

    Args:
        command: the program and its arguments.
        user: who runs it; root when empty.
        env: variables beside those of :func:`environment`.
        data: what it reads from its standard input.
        timeout: seconds until it is ended; None for no limit.
        stream: an open file that it reads in the place of ``data``.

    Returns:
        How it has ended; 127 where it is not there, 124 where it took too long.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are ours
            [*TOGETHER, *(str(item) for item in command)],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=environment(user, env),
            **({"stdin": stream} if stream else {"input": data or ""}),
            timeout=timeout,
            umask=0o077,
            **identity(user),  # type: ignore[arg-type]
        )
    except FileNotFoundError as error:
        return Done(127, "", f"{error.filename or command[0]}: there is no such program")
    except subprocess.TimeoutExpired:
        return Done(124, "", f"{Path(command[0]).name} has not ended after {timeout:.0f} s")
    if done.returncode == 127 and "setpriv: failed to execute" in done.stderr:
        return Done(127, "", f"{command[0]}: there is no such program")
    return Done(done.returncode, done.stdout, done.stderr)


def json_lines(text: str) -> list[dict[str, object]]:
    """The objects of an output that has one in each line; what is none is left out."""
    found = []
    for line in text.splitlines():
        try:
            item = json.loads(line)
        except ValueError:
            continue
        if isinstance(item, dict):
            found.append(item)
    return found
