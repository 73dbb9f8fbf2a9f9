"""The one way to put a file or a link in place: made beside it, then renamed, so that it is there whole or not at all.

What stands beside it is hidden and has an ending of its own: no program that reads all files of a folder (nginx, sshd,
systemd, cron) takes it for one of them. A run that was killed leaves it, and the next one replaces it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write(
    path: Path,
    text: str,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    judge: Callable[[Path], None] | None = None,
    errors: str = "strict",
) -> None:
    """Write a file. It is on the disk before it has its name, and nobody can read it before it has its mode.

    Args:
        path: the file; its folder exists. A link in its place is replaced, not followed.
        text: what it holds.
        mode: its permissions, whatever the umask.
        owner: the numbers of its user and group; those of the process if not given.
        judge: is handed the new file before it is put in place, and raises an error to keep the old one.
        errors: how characters are written that UTF-8 does not have; see :func:`open`.
    """
    beside = _beside(path)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors=errors) as stream:
            stream.write(text)
            stream.flush()
            # By the descriptor: in a folder of a service's own its user could put a link in the place of the name.
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        if judge:
            judge(beside)
        os.replace(beside, path)  # noqa: PTH105 - the same call, and the one that this rests on
    finally:
        beside.unlink(missing_ok=True)


def link(path: Path, target: str | Path) -> bool:
    """Point a symbolic link elsewhere; tell whether it was another before."""
    if path.is_symlink() and str(path.readlink()) == str(target):
        return False
    beside = _beside(path)
    beside.symlink_to(target)
    os.replace(beside, path)  # noqa: PTH105 - as above
    return True


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk: the host may be reset the next moment. Links are skipped."""
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
