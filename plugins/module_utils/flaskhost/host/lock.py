"""Lock files: one run at a time. The kernel releases a lock when the process that holds it ends, however it ends.

All other code uses this module to take a lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

#: Seconds between two attempts to take a lock.
PAUSE = 0.25


class Busy(Exception):
    """Another process holds the lock.

    Args:
        holder: the text of :func:`holder`.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def open_file(path: Path, *, create: bool = True) -> IO[str]:
    """Open a lock file for reading and writing. Anyone who can open the file can hold the lock, so nobody else can.

    Args:
        path: the file, in an existing folder. The folder can be one that everybody can write to.
        create: whether to create a missing file.

    Raises:
        OSError: the file cannot be opened, is a link or no regular file, or belongs to another user.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "belongs to another user", str(path))
        os.fchmod(descriptor, 0o600)
        return os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")
    except BaseException:
        os.close(descriptor)
        raise


def acquire(stream: IO[str], *, shared: bool = False) -> bool:
    """Take the lock of an open file; return False if another process holds it.

    Args:
        stream: the open file.
        shared: whether other processes can take it too, if they share it.
    """
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def hold(path: Path, verb: str, seconds: float, pause: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: the lock file.
        verb: what this run does, for anyone who finds the lock taken.
        seconds: maximum time to wait for the lock.
        pause: sleeps for a number of seconds; replaced in tests.

    Raises:
        Busy: another process still holds the lock after that time.
    """
    with open_file(path) as stream:
        waited = 0.0
        while not acquire(stream):
            if waited >= seconds:
                raise Busy(_holder(stream))
            pause(PAUSE)
            waited += PAUSE
        stream.seek(0)
        stream.truncate(0)
        stream.write(json.dumps({"verb": verb, "process": os.getpid(), "since": time.time()}) + "\n")
        stream.flush()
        yield


def holder(path: Path) -> str:
    """Return who holds a lock, such as ``full, process 4711, since 2027-01-15 10:30:05 UTC``; empty if nobody does.

    Args:
        path: the lock file.
    """
    try:
        with open_file(path, create=False) as stream:
            return "" if acquire(stream) else _holder(stream)
    except OSError:
        return ""


def _holder(stream: IO[str]) -> str:
    try:
        stream.seek(0)
        found = json.loads(stream.read(1000))
        since = datetime.fromtimestamp(found["since"], UTC)
        return f"{found['verb']}, process {found['process']}, since {since:%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, KeyError, TypeError, OSError):
        # The other process has the lock, and has not written yet.
        return "another run"
