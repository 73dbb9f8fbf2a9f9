"""Running other programs: as the right user, with an environment of our own, and no secret in an argument."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from flaskhost_backup.config import BackupError

#: Where programs are looked for.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


#: Before a command: it ends when this process does. What restores must not go on when it was killed and is run again.
TOGETHER = ("setpriv", "--pdeathsig", "TERM", "--")
#: The flag of renameat2(2), from linux/fs.h.
RENAME_EXCHANGE = 2


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


def identity(user: str) -> dict[str, Any]:
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
    out: IO[bytes] | None = None,
    lend: Sequence[int] = (),
) -> Done:
    """Run a program and wait for it.

    Args:
        command: the program and its arguments.
        user: who runs it; root when empty.
        env: variables beside those of :func:`environment`.
        data: what it reads from its standard input.
        timeout: seconds until it is ended; None for no limit.
        stream: an open file that it reads in the place of ``data``.
        out: an open file that it writes to; :attr:`Done.out` is then empty.
        lend: open files that it gets under the same numbers.

    Returns:
        How it has ended; 127 where it is not there, 124 where it took too long.
    """
    source: dict[str, Any] = {"stdin": stream} if stream else {"input": data or ""}
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are ours
            [*TOGETHER, *(str(item) for item in command)],
            check=False,
            stdout=out or subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(lend),
            text=True,
            errors="replace",
            cwd="/",
            env=environment(user, env),
            **source,
            timeout=timeout,
            umask=0o077,
            **identity(user),
        )
    except FileNotFoundError as error:
        return Done(127, "", f"{error.filename or command[0]}: there is no such program")
    except subprocess.TimeoutExpired as error:
        # What it has complained of until then says why. It is bytes, whatever was asked for.
        said = (error.stderr or b"").decode(errors="replace")
        return Done(124, "", f"{said}\n{Path(command[0]).name} has not ended after {timeout:.0f} s".strip())
    if done.returncode == 127 and "setpriv: failed to execute" in done.stderr:
        return Done(127, "", f"{command[0]}: there is no such program")
    return Done(done.returncode, done.stdout or "", done.stderr)


@contextlib.contextmanager
def in_memory(text: str) -> Iterator[int]:
    """A file that is in no folder, for a program to read as ``/proc/self/fd/N``."""
    number = os.memfd_create("flaskhost-backup")
    try:
        with open(number, "w", encoding="utf-8", closefd=False) as stream:
            stream.write(text)
        yield number
    finally:
        os.close(number)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders of the same folder change names in one step, so that neither name is ever without one.

    Args:
        one: the first; an absolute path.
        other: the second, beside it.

    Returns:
        False, with nothing changed, on a file system that cannot do it (renameat2(2), RENAME_EXCHANGE).

    Raises:
        OSError: it is not possible, with the system's reason.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with parent(one) as above:
        if libc.renameat2(above, os.fsencode(one.name), above, os.fsencode(other.name), RENAME_EXCHANGE) == 0:
            return True
    number = ctypes.get_errno()
    if number in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


@contextlib.contextmanager
def parent(path: Path) -> Iterator[int]:
    """Open the folder that a path is in, without following a link of anybody's but root's.

    For what root makes, moves or removes in a folder of another user, who could put a link into its way: the work is
    then done by the name in that folder (``dir_fd``).

    Args:
        path: an absolute path.

    Raises:
        BackupError: there is a link of another one's on the way.
    """
    descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    left, links = list(path.parent.parts[1:]), 0
    try:
        while left:
            name = left.pop(0)
            try:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError as error:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if not stat.S_ISLNK(status.st_mode):
                    raise
                links += 1
                if status.st_uid or links > 20:
                    raise BackupError(f"{path.parent} leads over a link that is not root's: {name}.") from error
                target = os.readlink(name, dir_fd=descriptor)
                left = [item for item in Path(target).parts if item != "/"] + left
                inner = os.open("/", os.O_RDONLY | os.O_DIRECTORY) if target.startswith("/") else os.dup(descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(path: Path, user: str) -> None:
    """Make a folder that belongs to a user, in a folder that may belong to that user too."""
    entry = pwd.getpwnam(user)
    with parent(path) as above:
        os.mkdir(path.name, 0o700, dir_fd=above)
        descriptor = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            os.fchown(descriptor, entry.pw_uid, entry.pw_gid)
        finally:
            os.close(descriptor)


def head(path: Path, size: int, start: int = 0) -> str:
    """Some of a file that another user may have replaced by something else; nothing of what is no plain file.

    Args:
        path: the file.
        size: bytes at most.
        start: where to begin.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                stream.seek(start)
                return stream.read(size).decode(errors="replace")
    return ""


def json_lines(text: str) -> list[dict[str, Any]]:
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
