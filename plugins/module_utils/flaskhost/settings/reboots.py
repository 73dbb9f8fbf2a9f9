"""When each host reboots by itself, so that no two hosts do so at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: Minutes between two hosts: a reboot with all services takes less.
APART = 20
_DAY = 24 * 60


def reboot_time(hosts: Iterable[str], host: str, variables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return when a host can reboot.

    Args:
        hosts: all hosts of the inventory, in its order.
        host: the host's own name.
        variables: each host's variables; only ``reboot_time`` is used, and only of the host and those before it.

    Returns:
        The host's ``reboot_time``. If an earlier host already has this time, the next one in steps of 20 minutes that
        no earlier host has. Empty if the host does not reboot by itself.
    """
    taken: set[int] = set()
    for name in hosts:
        minutes = _minutes(variables[name], host == name)
        if minutes is None:
            if name == host:
                return str(variables[name].get("reboot_time") or "")
            continue
        # With more hosts than steps in a day, some share a time.
        for _step in range(_DAY // APART):
            if minutes not in taken:
                break
            minutes = (minutes + APART) % _DAY
        if name == host:
            return f"{minutes // 60:02}:{minutes % 60:02}"
        taken.add(minutes)
    return ""


def _minutes(known: Mapping[str, Any], own: bool) -> int | None:
    """Return a host's time in minutes; None if it is unset or invalid, which preflight reports."""
    try:
        value = str(known.get("reboot_time") or "")
    except Exception:  # noqa: BLE001, RUF100 - a template fails in as many ways as there are lookups
        if own:
            raise
        return None
    return int(value[:2]) * 60 + int(value[3:]) if re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value) else None
