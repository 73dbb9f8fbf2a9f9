"""Access files and folders by descriptor, so that no link is followed on the way, even if one appears meanwhile.

For root's work below a folder that another user can write, or that another user's link can lead to. A path that is
checked first and used afterwards can lead elsewhere in between.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: More links than this on the way to a file count as a loop.
_MOST_LINKS = 20
#: Bytes of the messages of rm(1) that are read.
_LONGEST_MESSAGE = 1000


@contextmanager
def folder(top: Path, inside: PurePath | str = "", make: bool = False) -> Iterator[int]:
    """Open a folder below another one, one component at a time, without following links.

    Args:
        top: the starting folder; its parent folders are trusted.
        inside: the folder, relative to ``top``.
        make: whether to create missing components, with mode 0755.

    Yields:
        Its descriptor, which is closed at the end.

    Raises:
        OSError: a component does not exist, is a link, or is not a folder.
    """
    descriptor = os.open(top, _FOLDER)
    try:
        for name in PurePath(inside).parts:
            if name in ("..", "/"):
                raise NotADirectoryError(errno.ENOTDIR, "leads out of the folder", str(top / inside))
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=descriptor)
            below = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


class ForeignLink(OSError):
    """A link in the path belongs to another user than root."""


@contextmanager
def parent(path: Path) -> Iterator[int]:
    """Open the folder of a path. Links on the way are followed only if they belong to root.

    For files that root creates, renames or removes in a folder of another user, who could replace a folder on the way
    by a link. Use the file's name with the descriptor (``dir_fd``).

    Args:
        path: an absolute path.

    Yields:
        The descriptor of its folder, which is closed at the end.

    Raises:
        ForeignLink: a link on the way belongs to another user.
        OSError: a folder on the way does not exist.
    """
    descriptor = os.open("/", _FOLDER)
    left, links = list(path.parent.parts[1:]), 0
    try:
        while left:
            name = left.pop(0)
            try:
                inner = os.open(name, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if not stat.S_ISLNK(status.st_mode):
                    raise
                links += 1
                if status.st_uid or links > _MOST_LINKS:
                    text = f"the link {name!r} in its path does not belong to root"
                    raise ForeignLink(errno.ELOOP, text, str(path.parent)) from error
                target = os.readlink(name, dir_fd=descriptor)
                left = [item for item in PurePath(target).parts if item != "/"] + left
                inner = os.open("/" if target.startswith("/") else ".", _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def regular_file(name: str | Path, parent: int | None = None) -> Iterator[int]:
    """Open a file for reading, unless it is a link, a pipe, a device or anything else.

    Args:
        name: the file's name.
        parent: the descriptor of its folder; None if ``name`` is a path whose folders are trusted.

    Yields:
        Its descriptor, which is closed at the end.

    Raises:
        OSError: it does not exist, or is not a regular file.
    """
    # Without O_NONBLOCK, opening a pipe would block.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(name))
        yield descriptor
    finally:
        os.close(descriptor)


class Entry(NamedTuple):
    """What :func:`walk` finds.

    Attributes:
        name: its name.
        path: its path, relative to the top folder.
        folder: the descriptor of its folder, open until the next entry.
        is_folder: whether it is a folder, and not a link to one.
    """

    name: str
    path: str
    folder: int
    is_folder: bool


class TooDeep(OSError):
    """Folders are nested deeper than the caller allows."""


def walk(top: Path, deepest: int) -> Iterator[Entry]:
    """Yield everything below a folder, each folder before its contents. No link is followed.

    The memory does not grow with the number of entries. os.walk() and os.fwalk() read a whole folder before they return
    its first entry, and a hostile build can create millions.

    Args:
        top: the folder.
        deepest: maximum number of nested folders. Two descriptors are open for each.

    Raises:
        TooDeep: a folder is nested deeper. It was yielded before.
        OSError: a folder cannot be read.
    """
    yield from _below(os.open(top, _FOLDER), "", deepest)


def _below(folder: int, place: str, deepest: int) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = Entry(entry.name, place + entry.name, folder, entry.is_dir(follow_symlinks=False))
                yield found
                if not found.is_folder:
                    continue
                if not deepest:
                    raise TooDeep(errno.ELOOP, "is nested too deep", found.path)
                inner = os.open(found.name, _FOLDER, dir_fd=folder)
                yield from _below(inner, f"{found.path}/", deepest - 1)
    finally:
        os.close(folder)


def remove(name: str, parent: int) -> None:
    """Remove a file, a link or a folder with its contents. Do nothing if it does not exist.

    Args:
        name: its name.
        parent: the descriptor of its folder.

    Raises:
        OSError: it cannot be removed. Part of its contents can be gone.
    """
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        os.unlink(name, dir_fd=parent)
        return
    # Not shutil.rmtree(), which needs memory for each entry of a folder and a descriptor for each level. rm(1) does
    # not, and follows no links either.
    command = ["/bin/rm", "--recursive", "--force", "--", f"/proc/self/fd/{parent}/{name}"]
    with subprocess.Popen(command, pass_fds=(parent,), stderr=subprocess.PIPE) as process:
        # Only the first messages: there can be one for each file.
        said = process.stderr.read(_LONGEST_MESSAGE).decode("utf-8", "replace") if process.stderr else ""
    if process.returncode:
        reason = said.partition("\n")[0].replace(f"/proc/self/fd/{parent}/", "") or f"status {process.returncode}"
        raise OSError(errno.EIO, f"cannot be removed: {reason}", name)


def remove_path(path: Path) -> None:
    """Remove a file, a link or a folder with its contents, whose folder can belong to another user; see :func:`parent`.

    Do nothing if it does not exist.
    """
    if os.path.lexists(path):
        with parent(path) as above:
            remove(path.name, above)
