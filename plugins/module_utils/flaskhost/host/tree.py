"""Access files and folders by descriptor, so that no link is followed on the way, even if one appears meanwhile.

For root's work below a folder that another user can write, or that another user's link can lead to. A path that is
checked first and used afterwards can lead elsewhere in between.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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


@contextmanager
def regular_file(name: str, parent: int) -> Iterator[int]:
    """Open a file for reading, unless it is a link, a pipe, a device or anything else.

    Args:
        name: the file's name.
        parent: the descriptor of its folder.

    Yields:
        Its descriptor, which is closed at the end.

    Raises:
        OSError: it does not exist, or is not a regular file.
    """
    # Without O_NONBLOCK, opening a pipe would block.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", name)
        yield descriptor
    finally:
        os.close(descriptor)


def remove(name: str, parent: int) -> None:
    """Remove a file, a link or a folder with its contents. Do nothing if it does not exist.

    Args:
        name: its name.
        parent: the descriptor of its folder.
    """
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        try:
            shutil.rmtree(name, dir_fd=parent)
        except (RecursionError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EMFILE:
                raise
            # Python's function needs a file descriptor for each level. rm(1) does not, and follows no links either.
            command = ["/bin/rm", "--recursive", "--force", "--", f"/proc/self/fd/{parent}/{name}"]
            subprocess.run(command, check=True, pass_fds=(parent,))  # noqa: S603 - the arguments are trusted
    else:
        os.unlink(name, dir_fd=parent)
