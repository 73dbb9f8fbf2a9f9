"""Run another program with a time limit."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

#: The shell's exit statuses for a program that does not exist, and for timeout(1).
MISSING, TIMED_OUT = 127, 124
#: Maximum number of bytes of a program's error output that are kept. A tenant's function can print warnings without end
#: (``RAISE WARNING``), which psql and pg_restore pass on there.
LONGEST_ERRORS = 1024**2


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
        Its exit status, its output and the end of its error output. The status is :data:`MISSING` if it cannot be
        started, and :data:`TIMED_OUT` if it was killed at the time limit.
    """
    if stream is not None:
        source: dict[str, Any] = {"stdin": stream}
    else:
        source = {"stdin": subprocess.DEVNULL} if data is None else {"input": data.encode("utf-8", "replace")}
    errors = bytearray()
    try:
        with end_of(errors) as error_output:
            done = subprocess.run(
                [*before, *(str(item) for item in command)],
                check=False,
                stdout=out or subprocess.PIPE,
                stderr=error_output,
                pass_fds=tuple(pass_fds),
                cwd="/",
                env=dict(environment),
                timeout=timeout,
                umask=0o077,
                **source,
                **(identity or {}),
            )
    except subprocess.TimeoutExpired:
        # Its error output until then explains why.
        return TIMED_OUT, "", f"{_text(errors)}\n{Path(command[0]).name} timed out after {timeout:g} s.".strip()
    except OSError as error:
        return MISSING, "", f"{command[0]}: {error.strerror}"
    return done.returncode, _text(done.stdout), _text(errors)


@contextmanager
def end_of(kept: bytearray) -> Iterator[int]:
    """Provide a descriptor for a program's output, of which only the end is kept.

    Args:
        kept: receives the last :data:`LONGEST_ERRORS` bytes. They are complete after the block.
    """
    reader, writer = os.pipe()

    def read() -> None:
        with os.fdopen(reader, "rb", buffering=0) as stream:
            while data := stream.read(65536):
                kept.extend(data)
                del kept[:-LONGEST_ERRORS]

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    # A program that was killed can have left others behind that still have the descriptor, so it is not waited for.
    wait: float | None = 1.0
    try:
        yield writer
        wait = None
    finally:
        os.close(writer)
        thread.join(wait)


def _text(data: bytes | bytearray | None) -> str:
    return (data or b"").decode("utf-8", "replace")
