"""Give a folder to a build account for a build, and take it over again: then everything in it belongs to root."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.flaskhost.host import tree


class Unfit(Exception):
    """A folder contains what root does not take over. The message is a sentence about it."""


def lend(top: Path, account: int, deepest: int) -> None:
    """Give a folder and everything in it to an account. Groups and modes stay.

    Args:
        top: a folder in which only root can write so far.
        account: the account's user ID.
        deepest: maximum number of nested folders, which has been checked.
    """
    for entry in tree.walk(top, deepest):
        os.chown(entry.name, account, -1, dir_fd=entry.folder, follow_symlinks=False)
    # Last: until then, the account cannot get at what is below.
    os.chown(top, account, -1)


def reclaim(
    top: Path,
    account: int,
    group: int,
    mode: Callable[[int], int],
    *,
    deepest: int,
    most: int = 0,
    hard_links: bool = False,
) -> None:
    """Give a folder and everything in it to root, after systemd has ended all processes of the account.

    Even so, no link is followed.

    Args:
        top: the folder; its parent folder belongs to root.
        account: the ID of the user whose folder it was.
        group: the group that everything gets.
        mode: returns the new permissions of a file or folder for its mode.
        deepest: maximum number of nested folders.
        most: maximum number of entries; 0 for no limit.
        hard_links: whether hard links are allowed. The caller then checks that all names of a file are in the folder.

    Raises:
        Unfit: the folder exceeds a limit, or contains what does not belong to the account.
    """
    # Top-down: a folder belongs to root before it is read, so that nobody can replace its contents meanwhile.
    os.chown(top, 0, group)
    top.chmod(mode(top.stat().st_mode))
    count = 0
    try:
        for entry in tree.walk(top, deepest):
            count += 1
            if most and count > most:
                raise Unfit(f"it has more than {most} files.")
            _reclaim(entry, account, group, mode, hard_links)
    except tree.TooDeep:
        raise Unfit(f"its folders are nested more than {deepest} levels deep.") from None


def _reclaim(entry: tree.Entry, account: int, group: int, mode: Callable[[int], int], hard_links: bool) -> None:
    name, here = entry.name, entry.folder
    status = os.stat(name, dir_fd=here, follow_symlinks=False)
    linked = stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and not hard_links
    if status.st_uid not in (account, 0) or linked:
        # Another name of a foreign file, which chown would give to root too.
        raise Unfit(f"{name} is a hard link, or belongs to another user.")
    os.chown(name, 0, group, dir_fd=here, follow_symlinks=False)
    wanted = mode(status.st_mode)
    if not stat.S_ISLNK(status.st_mode) and stat.S_IMODE(status.st_mode) != wanted:
        os.chmod(name, wanted, dir_fd=here)
