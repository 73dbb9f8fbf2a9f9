"""Accounts of programs: found on a host by their names, homes and shells, and told apart from those of people."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

#: The groups by which people may become root.
ADMINISTRATORS = ("sudo", "wheel")
#: sshd takes other characters for patterns and the ends of names.
_NAME = re.compile(r"[a-z_][a-z0-9_-]*")


def matching(patterns: Iterable[Mapping[str, str]], users: Iterable[Any] | None = None) -> list[str]:
    """Find accounts that cannot be a person's: those without a shell that fit a pattern.

    Args:
        patterns: each with ``name`` and ``home``, where ``*`` stands for anything but a slash; one of them may be
            missing.
        users: all users of the host; asked for when left out.

    Returns:
        Their names, sorted.
    """
    found = set()
    for user in pwd.getpwall() if users is None else users:
        if not _NAME.fullmatch(user.pw_name) or PurePosixPath(user.pw_shell).name not in ("nologin", "false"):
            continue
        for pattern in patterns:
            name, home = pattern.get("name") or "*", pattern.get("home") or ""
            # Not PurePath.match() for the name alone: it would match the end of it.
            if PurePosixPath("/", user.pw_name).match(f"/{name}") and (
                not home or PurePosixPath(user.pw_dir).match(home)
            ):
                found.add(user.pw_name)
    return sorted(found)


def administrators(users: Iterable[Any] | None = None, groups: Iterable[Any] | None = None) -> list[str]:
    """Find the accounts that may become root, or are root.

    Args:
        users: all users of the host; asked for when left out.
        groups: all groups; asked for when left out.

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
