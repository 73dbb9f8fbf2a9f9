"""Existing users and groups of a host, by name."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable
from typing import Any


def accounts(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Look up users and groups by name, also in a directory service that the host uses.

    Args:
        names: the names.

    Returns:
        For each name of an existing user or group: ``home`` (``None`` without a user), and ``group``, whether a group
        of that name exists that is not the user's primary group.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        user = _look_up(pwd.getpwnam, name)
        group = _look_up(grp.getgrnam, name)
        if user or group:
            foreign = group is not None and (user is None or user.pw_gid != group.gr_gid)
            found[name] = {"home": user.pw_dir if user else None, "group": foreign}
    return found


def _look_up(function: Any, name: str) -> Any:
    try:
        return function(name)
    except (KeyError, ValueError):
        return None
