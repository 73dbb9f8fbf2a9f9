"""Run other programs: as the right user, with a fixed environment, and without secrets in arguments."""

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

#: The PATH of all programs.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


#: Prefix of a command that ends with this process: a killed restore must not continue while it is run again.
TOGETHER = ("setpriv", "--pdeathsig", "TERM", "--")
#: The flag of renameat2(2), from linux/fs.h.
RENAME_EXCHANGE = 2


@dataclass(frozen=True)
class Done:
    """The result of a program.

    Attributes:
        status: its exit status.
        out: its output.
        err: its error output.
    """

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both outputs, to look for the cause of a failure."""
        return f"{self.err}\n{self.out}".strip()

    @property
    def last(self) -> str:
        """The last error, on one line."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"it ended with status {self.status} and printed nothing"


def identity(user: str) -> dict[str, Any]:
    """Return the arguments that run a child process as a user; none if this process already is that user.

    Args:
        user: the user's name; empty for the current user.
    """
    if not user:
        return {}
    entry = pwd.getpwnam(user)
    if entry.pw_uid == os.geteuid():
        return {}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def environment(user: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a minimal environment, without any variables of the login."""
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
        user: the user who runs it; root if empty.
        env: variables in addition to those of :func:`environment`.
        data: its standard input.
        timeout: time limit in seconds; None for no limit.
        stream: an open file for its standard input, instead of ``data``.
        out: an open file for its output; :attr:`Done.out` is empty then.
        lend: open files that it inherits with the same numbers.

    Returns:
        Its result: status 127 if it does not exist, 124 if it exceeded the time limit.
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
    """Provide a file without a name, which a program reads as ``/proc/self/fd/N``."""
    number = os.memfd_create("flaskhost-backup")
    try:
        with open(number, "w", encoding="utf-8", closefd=False) as stream:
            stream.write(text)
        yield number
    finally:
        os.close(number)


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in the same parent folder atomically, so that both names always exist.

    Args:
        one: the first folder; an absolute path.
        other: the second folder, next to it.

    Returns:
        False, with nothing changed, if the file system does not support it (renameat2(2), RENAME_EXCHANGE).

    Raises:
        OSError: the exchange failed.
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
    """Open the parent folder of a path; see :func:`tree.parent`.

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
    """Create a folder for a user, in a parent folder that may belong to that user too."""
    entry = pwd.getpwnam(user)
    with parent(path) as above:
        os.mkdir(path.name, 0o700, dir_fd=above)
        descriptor = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            os.fchown(descriptor, entry.pw_uid, entry.pw_gid)
        finally:
            os.close(descriptor)


def head(path: Path, size: int, start: int = 0) -> str:
    """Read a part of a file that another user can replace; empty if it is not a regular file.

    Args:
        path: the file.
        size: maximum number of bytes.
        start: the position to start at.
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
    """Parse the JSON objects of an output, one per line. Other lines are left out."""
    found = []
    for line in text.splitlines():
        try:
            item = json.loads(line)
        except ValueError:
            continue
        if isinstance(item, dict):
            found.append(item)
    return found
