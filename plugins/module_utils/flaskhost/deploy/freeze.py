"""The freeze: a period in which nothing about an app, or about all apps, can be changed.

A freeze is a file on each host, so it applies to everyone, from every control node. Unlike the lock of a deploy, it is
meant for people: it has a reason, and it expires. Every command that changes something calls :func:`check`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError

#: For each app, or for :data:`ALL`: ``reason``, ``until`` and ``since`` (seconds since 1970) and ``by``.
FREEZE = Path("/etc/flaskhost/freeze.json")
#: The key for all apps.
ALL = "*"

#: The command that freezes apps and lifts a freeze.
PLAYBOOK = "ansible-playbook playbooks/freeze.yml"

_STEP = "Check for a freeze"


def check(app: str, path: Path = FREEZE, now: float | None = None, *, passed_by: str = "") -> None:
    """Raise an error if an app is frozen.

    Args:
        app: the app's name.
        path: the file.
        now: current time in seconds since 1970; read from the clock if None.
        passed_by: the option that overrides the freeze, for the message.

    Raises:
        ReleaseError: the app is frozen, or the file cannot be read: an unreadable file counts as a freeze.
    """
    entries = active(path, now)
    # The app itself and all apps can both be frozen: report the freeze that ends last.
    name = max((item for item in (app, ALL) if item in entries), key=lambda item: entries[item]["until"], default="")
    if name:
        option = "" if name == ALL else f" -e app={name}"
        lift = f"lift the freeze: {PLAYBOOK} -e freeze=off{option}"
        raise ReleaseError(
            _STEP,
            f"{app} is frozen {describe(entries[name])}",
            f"Add {passed_by} to continue despite the freeze, or {lift}"
            if passed_by
            else f"Wait until it ends, or {lift}",
        )


def describe(entry: Mapping[str, Any]) -> str:
    """Describe a freeze: since when, by whom, why and until when."""
    by = f" by {entry['by']}" if entry["by"] else ""
    reason = str(entry["reason"]).rstrip(".")
    return f"since {utc(entry['since'])}{by}: {reason}. It ends at {utc(entry['until'])}."


def utc(seconds: float) -> str:
    """Format a time for messages."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def active(path: Path = FREEZE, now: float | None = None) -> dict[str, dict[str, Any]]:
    """Return the active freezes, without those that have expired.

    Args:
        path: the file.
        now: current time in seconds since 1970; read from the clock if None.

    Returns:
        ``reason``, ``until``, ``since`` and ``by`` of each freeze, by the app's name or :data:`ALL`.

    Raises:
        ReleaseError: the file exists but cannot be read.
    """
    now = time.time() if now is None else now
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        entries = {str(name): _entry(item) for name, item in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ReleaseError(
            _STEP,
            f"{path} cannot be read ({type(error).__name__}), so all apps count as frozen.",
            f"Check the file, then remove it: {PLAYBOOK} -e freeze=off",
        ) from None
    return {name: item for name, item in entries.items() if item["until"] > now}


def _entry(item: Any) -> dict[str, Any]:
    times = {name: float(item[name]) for name in ("until", "since")}
    # Reject times that cannot be displayed; NaN is neither before nor after now.
    for seconds in times.values():
        datetime.fromtimestamp(seconds, UTC)
    return {"reason": str(item["reason"]), **times, "by": str(item.get("by", ""))}


def put(
    app: str, *, reason: str, until: float, by: str, path: Path = FREEZE, now: float | None = None
) -> dict[str, Any]:
    """Return the entries of the file with an app frozen; :func:`write` writes them.

    Args:
        app: the app's name, or :data:`ALL`.
        reason: why.
        until: the end, in seconds since 1970.
        by: who freezes it, as ``user@controller``.
        path: the file.
        now: current time in seconds since 1970; read from the clock if None.

    Returns:
        All entries. An active freeze with the same reason and end stays unchanged. If only the end or the reason
        differs, ``since`` stays unchanged.

    Raises:
        ReleaseError: the file exists but cannot be read.
    """
    now = time.time() if now is None else now
    entries = active(path, now)
    before = entries.get(app)
    if not before or (before["reason"], before["until"]) != (reason, until):
        entries[app] = {"reason": reason, "until": until, "since": before["since"] if before else now, "by": by}
    return entries


def lift(app: str, path: Path = FREEZE, now: float | None = None) -> dict[str, Any]:
    """Return the entries of the file without an app's own freeze; :func:`write` writes them.

    Args:
        app: the app's name; :data:`ALL` lifts all freezes, including those of single apps and an unreadable file.
        path: the file.
        now: current time in seconds since 1970; read from the clock if None.

    Returns:
        All remaining entries.

    Raises:
        ReleaseError: the file cannot be read, and only one app's freeze is lifted.
    """
    if app == ALL:
        return {}
    return {name: entry for name, entry in active(path, now).items() if name != app}


def render(entries: Mapping[str, Any]) -> str:
    """Return the text of the file; empty if nothing is frozen."""
    return json.dumps(entries, indent=2, sort_keys=True, ensure_ascii=False) + "\n" if entries else ""


def write(entries: Mapping[str, Any], path: Path = FREEZE) -> None:
    """Write the file atomically, or remove it if there are no entries."""
    if not entries:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o755, exist_ok=True)
    # All users can read that a host is frozen.
    atomic.write(path, render(entries), mode=0o644)
