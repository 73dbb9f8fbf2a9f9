"""Put files and links in place atomically: written next to the target, then renamed. All other code uses this module.

The temporary file is hidden and has a suffix of its own, so that no program that reads all files of a folder (nginx,
sshd, systemd, cron) reads it. A killed run leaves it behind, and the next one replaces it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write(
    path: Path,
    content: str | bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    judge: Callable[[Path], None] | None = None,
    errors: str = "strict",
) -> None:
    """Write a file atomically. It is on the disk before it gets its name, and unreadable before it gets its mode.

    Args:
        path: the file, in an existing folder. A link in its place is replaced, not followed.
        content: the content; a text is written as UTF-8.
        mode: the permissions, independent of the umask.
        owner: the numeric IDs of its user and group; those of the process if None.
        judge: receives the new file before it is put in place, and raises an error to keep the old one.
        errors: error handler for characters that UTF-8 cannot encode; see :func:`open`.
    """
    beside = _beside(path)
    try:
        create(beside, content, mode=mode, owner=owner, errors=errors)
        if judge:
            judge(beside)
        os.replace(beside, path)  # noqa: PTH105 - the atomic call that all of this depends on
    finally:
        beside.unlink(missing_ok=True)


def create(
    path: Path,
    content: str | bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    errors: str = "strict",
) -> None:
    """Create a file that no program reads yet, such as one in a folder that is renamed afterwards.

    Args:
        path: the file, which must not exist.
        content: see :func:`write`, also for the other arguments.
        mode: the permissions.
        owner: its user and group.
        errors: error handler.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content if isinstance(content, bytes) else content.encode("utf-8", errors))
        stream.flush()
        # By descriptor: in a folder of a service, the service's user could replace the name with a link.
        if owner is not None:
            os.fchown(stream.fileno(), *owner)
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())


def link(path: Path, target: str | Path) -> bool:
    """Point a symbolic link to a target. Return whether it changed."""
    if path.is_symlink() and str(path.readlink()) == str(target):
        return False
    beside = _beside(path)
    beside.symlink_to(target)
    os.replace(beside, path)  # noqa: PTH105 - as above
    return True


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk before a possible reset. Links are skipped."""
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    beside = path.with_name(f".{path.name}.partial")
    beside.unlink(missing_ok=True)
    return beside
