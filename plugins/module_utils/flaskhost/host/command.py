"""Run another program with a time limit."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

#: The shell's exit statuses for a program that does not exist, and for timeout(1).
MISSING, TIMED_OUT = 127, 124


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    before: Sequence[str] = (),
    timeout: float | None = None,
    data: str | None = None,
    stream: IO[bytes] | None = None,
    out: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    identity: Mapping[str, Any] | None = None,
) -> tuple[int, str, str]:
    """Run a program in the root folder and wait for it. Its files are readable only by their owner.

    Args:
        command: the program and its arguments, which must not contain a secret.
        environment: all environment variables.
        before: a program that starts the command, with its arguments, such as setpriv(1).
        timeout: time limit in seconds; None for no limit.
        data: its standard input.
        stream: an open file for its standard input, instead of ``data``.
        out: an open file for its standard output.
        pass_fds: descriptors that it inherits.
        identity: the options ``user``, ``group`` and ``extra_groups`` of :class:`subprocess.Popen`.

    Returns:
        Its exit status, output and error output: :data:`MISSING` if it cannot be started, :data:`TIMED_OUT` if it was
        killed at the time limit.
    """
    if stream is not None:
        source: dict[str, Any] = {"stdin": stream}
    else:
        source = {"stdin": subprocess.DEVNULL} if data is None else {"input": data.encode("utf-8", "replace")}
    try:
        done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
            [*before, *(str(item) for item in command)],
            check=False,
            stdout=out or subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(pass_fds),
            cwd="/",
            env=dict(environment),
            timeout=timeout,
            umask=0o077,
            **source,
            **(identity or {}),
        )
    except subprocess.TimeoutExpired as error:
        # Its error output until then explains why.
        return TIMED_OUT, "", f"{_text(error.stderr)}\n{Path(command[0]).name} timed out after {timeout:g} s.".strip()
    except OSError as error:
        return MISSING, "", f"{command[0]}: {error.strerror}"
    return done.returncode, _text(done.stdout), _text(done.stderr)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
