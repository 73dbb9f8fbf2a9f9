"""Find the accounts of programs on a host by their names, homes and shells, and distinguish them from people's."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

#: The groups whose members can become root.
ADMINISTRATORS = ("sudo", "wheel")
#: sshd treats other characters as patterns or separators.
_NAME = re.compile(r"[a-z_][a-z0-9_-]*")


def matching(patterns: Iterable[Mapping[str, str]], users: Iterable[Any] | None = None) -> list[str]:
    """Find accounts that cannot belong to a person: accounts without a login shell that match a pattern.

    Args:
        patterns: each with ``name`` and ``home``, in which ``*`` matches anything but a slash; one of them can be
            missing.
        users: all users of the host; read from the host if None.

    Returns:
        Their names, sorted.
    """
    found = set()
    for user in pwd.getpwall() if users is None else users:
        if not _NAME.fullmatch(user.pw_name) or PurePosixPath(user.pw_shell).name not in ("nologin", "false"):
            continue
        for pattern in patterns:
            name, home = pattern.get("name") or "*", pattern.get("home") or ""
            # Not PurePath.match() with only the name: it would match the end of a path.
            if PurePosixPath("/", user.pw_name).match(f"/{name}") and (
                not home or PurePosixPath(user.pw_dir).match(home)
            ):
                found.add(user.pw_name)
    return sorted(found)


def administrators(users: Iterable[Any] | None = None, groups: Iterable[Any] | None = None) -> list[str]:
    """Find the accounts that are root or can become root.

    Args:
        users: all users of the host; read from the host if None.
        groups: all groups; read from the host if None.

    Returns:
        Their names, sorted.
    """
    trusted = [group for group in (grp.getgrall() if groups is None else groups) if group.gr_name in ADMINISTRATORS]
    numbers = {group.gr_gid for group in trusted}
    found = {name for group in trusted for name in group.gr_mem}
    for user in pwd.getpwall() if users is None else users:
        if user.pw_uid == 0 or user.pw_gid in numbers:
            found.add(user.pw_name)
    return sorted(found)
