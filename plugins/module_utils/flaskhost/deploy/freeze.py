"""The freeze: a time in which nothing about an app, or about all of them, may be changed.

It is a file on each host, so that it holds for everybody, from whichever machine they come. Unlike the lock of a deploy
it is meant for people: it has a reason, and it ends by itself. Every verb that changes something calls :func:`check`.
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

#: The file: for each app, or for :data:`ALL`, ``reason``, ``until`` and ``since`` (seconds since 1970) and ``by``.
FREEZE = Path("/etc/flaskhost/freeze.json")
#: The name that stands for all apps.
ALL = "*"

#: What puts a freeze there, and lifts it.
PLAYBOOK = "ansible-playbook playbooks/freeze.yml"

_STEP = "Look for a freeze"


def check(app: str, path: Path = FREEZE, now: float | None = None, *, passed_by: str = "") -> None:
    """Refuse to go on where an app is frozen.

    Args:
        app: the app's name.
        path: the file.
        now: seconds since 1970; the present time when left out.
        passed_by: what the operator can say to go on all the same, for the message.

    Raises:
        ReleaseError: it is, or the file cannot be read: what cannot be known counts as frozen.
    """
    entries = active(path, now)
    # Both may be frozen, the app and all of them: told is the one that holds longest.
    name = max((item for item in (app, ALL) if item in entries), key=lambda item: entries[item]["until"], default="")
    if name:
        option = "" if name == ALL else f" -e app={name}"
        lift = f"lift it: {PLAYBOOK} -e freeze=off{option}"
        raise ReleaseError(
            _STEP,
            f"{app} is frozen {describe(entries[name])}",
            f"Add {passed_by} to go on all the same, or {lift}" if passed_by else f"Wait, or {lift}",
        )


def describe(entry: Mapping[str, Any]) -> str:
    """Say since when, by whom, why and until when a freeze is."""
    by = f" by {entry['by']}" if entry["by"] else ""
    reason = str(entry["reason"]).rstrip(".")
    return f"since {utc(entry['since'])}{by}: {reason}. It ends at {utc(entry['until'])}."


def utc(seconds: float) -> str:
    """A time as people read it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def active(path: Path = FREEZE, now: float | None = None) -> dict[str, dict[str, Any]]:
    """The freezes that hold; what has ended counts for nothing.

    Args:
        path: the file.
        now: seconds since 1970; the present time when left out.

    Returns:
        ``reason``, ``until``, ``since`` and ``by`` of each, by the app's name or :data:`ALL`.

    Raises:
        ReleaseError: the file is there and cannot be read.
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
            f"{path} cannot be read ({type(error).__name__}), so that everything counts as frozen.",
            f"Look at it, and remove it: {PLAYBOOK} -e freeze=off",
        ) from None
    return {name: item for name, item in entries.items() if item["until"] > now}


def _entry(item: Any) -> dict[str, Any]:
    times = {name: float(item[name]) for name in ("until", "since")}
    # A time that cannot be shown is none; not a number is neither before nor after now.
    for seconds in times.values():
        datetime.fromtimestamp(seconds, UTC)
    return {"reason": str(item["reason"]), **times, "by": str(item.get("by", ""))}


def put(
    app: str, *, reason: str, until: float, by: str, path: Path = FREEZE, now: float | None = None
) -> dict[str, Any]:
    """What the file has to hold for an app to be frozen; :func:`write` writes it.

    Args:
        app: the app's name, or :data:`ALL`.
        reason: why.
        until: when it ends, in seconds since 1970.
        by: who freezes it, as ``user@controller``.
        path: the file.
        now: seconds since 1970; the present time when left out.

    Returns:
        All entries. One that holds already for the same reason until the same time stays as it is; where only the end
        or the reason is another one, it holds since when it did.

    Raises:
        ReleaseError: the file is there and cannot be read.
    """
    now = time.time() if now is None else now
    entries = active(path, now)
    before = entries.get(app)
    if not before or (before["reason"], before["until"]) != (reason, until):
        entries[app] = {"reason": reason, "until": until, "since": before["since"] if before else now, "by": by}
    return entries


def lift(app: str, path: Path = FREEZE, now: float | None = None) -> dict[str, Any]:
    """What the file has to hold for an app not to be frozen by its own entry; :func:`write` writes it.

    Args:
        app: the app's name; :data:`ALL` lifts every freeze, those of single apps too, and a file that cannot be read.
        path: the file.
        now: seconds since 1970; the present time when left out.

    Returns:
        All entries that are left.

    Raises:
        ReleaseError: the file cannot be read, and holds more than what is to be lifted.
    """
    if app == ALL:
        return {}
    return {name: entry for name, entry in active(path, now).items() if name != app}


def render(entries: Mapping[str, Any]) -> str:
    """The text of the file; empty where nothing is frozen."""
    return json.dumps(entries, indent=2, sort_keys=True, ensure_ascii=False) + "\n" if entries else ""


def write(entries: Mapping[str, Any], path: Path = FREEZE) -> None:
    """Write the file, whole or not at all; without an entry there is none."""
    if not entries:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o755, exist_ok=True)
    # Everybody may know that a host is frozen.
    atomic.write(path, render(entries), mode=0o644)
