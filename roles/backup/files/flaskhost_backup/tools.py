"""Running other programs: as the right user, with an environment of our own, and no secret in an argument."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.flaskhost.host import command as system
from ansible.module_utils.flaskhost.host import tree

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
        return lines[-1][:300] if lines else f"it ended with status {self.status} and printed nothing"


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
    status, text, errors = system.run(
        command,
        environment=environment(user, env),
        before=TOGETHER,
        timeout=timeout,
        data=data,
        stream=stream,
        out=out,
        pass_fds=lend,
        identity=identity(user),
    )
    if status == system.MISSING and "setpriv: failed to execute" in errors:
        return Done(status, "", f"{command[0]}: there is no such program")
    return Done(status, text, errors)


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
    """Open the folder that a path is in; see :func:`tree.parent`.

    Args:
        path: an absolute path.

    Raises:
        BackupError: a link on the way belongs to another user than root.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(tree.parent(path))
        except tree.ForeignLink as error:
            raise BackupError(f"{error.filename} cannot be used: {error.strerror}.") from error
        yield descriptor


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
    with (
        contextlib.suppress(OSError),
        tree.regular_file(path) as descriptor,
        open(descriptor, "rb", closefd=False) as stream,
    ):
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
