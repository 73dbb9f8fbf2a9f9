"""The freeze: a time in which nothing about an app, or about all of them, may be changed.

It is a file on each host, so that it holds for everybody, from whichever machine they come. Unlike the lock of a deploy
it is meant for people: it has a reason, and it ends by itself. Every verb that changes something calls :func:`check`.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.runner import ReleaseError

#: The file: for each app, or for :data:`ALL`, ``reason``, ``until`` and ``since`` (seconds since 1970) and ``by``.
FREEZE = Path("/etc/flaskhost/freeze.json")
#: The name that stands for all apps.
ALL = "*"
#: Days. A freeze that lasts longer has been forgotten, or should be a change of who may deploy.
LONGEST_DAYS = 90

_STEP = "Look for a freeze"
_PLAYBOOK = "ansible-playbook playbooks/freeze.yml"
_EXAMPLE = f"{_PLAYBOOK} -e reason=audit -e hours=12"
_EXAMPLE_UNTIL = "-e until=2026-12-01T08:00"


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
        lift = f"lift it: {_PLAYBOOK} -e freeze=off{option}"
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
            f"Look at it, and remove it: {_PLAYBOOK} -e freeze=off",
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
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        # Whatever umask there is: everybody may know that a host is frozen.
        os.fchmod(descriptor, 0o644)
        stream.write(render(entries))
        stream.flush()
        os.fsync(descriptor)
    partial.replace(path)


# --- The operator's side ---------------------------------------------------------------------------------------------


def operator() -> str:
    """Who runs this, on which machine: ``ada@laptop``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number that nobody has given a name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname().partition('.')[0]}"


def request(given: Mapping[str, Any], apps: Iterable[str], now: float) -> dict[str, Any]:
    """Understand what an operator has asked of ``playbooks/freeze.yml``.

    Args:
        given: the variables ``app``, ``reason``, ``hours``, ``until`` and ``freeze``; one that is not set is empty. And
            ``lost``: the words that Ansible did not understand, which it puts into ``_raw_params``.
        apps: the names of the apps.
        now: seconds since 1970.

    Returns:
        ``problem`` (empty when all is well), ``says`` (what is done, for the end of the run) and the options of
        flask_freeze: ``app``, ``state``, ``reason``, ``ends`` (seconds since 1970) and ``by``.
    """
    try:
        options = _request(given, sorted(apps), now)
    except ValueError as error:
        return {"problem": f"{error} Nothing has been changed."}
    return {"problem": "", "says": _says(options), "by": operator(), **options}


def _says(options: Mapping[str, Any]) -> str:
    who, option = ("All apps", "") if options["app"] == ALL else (options["app"], f" -e app={options['app']}")
    verb = "are" if options["app"] == ALL else "is"
    if options["state"] == "absent":
        return f"{who} {verb} not frozen any more."
    until = f"until {utc(options['ends'])}: {options['reason'].rstrip('.')}"
    return f"{who} {verb} frozen {until}. Lift it earlier: {_PLAYBOOK} -e freeze=off{option}"


def _request(given: Mapping[str, Any], apps: list[str], now: float) -> dict[str, Any]:
    if given.get("lost"):
        # The shell takes the quotes of -e reason="big sale" away, and Ansible then ends the value at the space.
        raise ValueError(
            f"{given['lost']!r} belongs to no variable, since -e ends a value at a space. "
            "Put quotes into the quotes: -e \"reason='big sale'\"."
        )
    app = str(given.get("app") or "all").strip()
    app = ALL if app in ("all", ALL) else app
    if app != ALL and app not in apps:
        raise ValueError(f"app: there is no app {app!r}. There are: {', '.join(apps)}; without app all are meant.")
    if not _switch(given.get("freeze", "")):
        return {"app": app, "state": "absent", "reason": "", "ends": 0.0}
    reason = " ".join(str(given.get("reason") or "").split())
    if not reason:
        raise ValueError(f"reason: say why, for whoever is refused a deploy: {_EXAMPLE}")
    return {"app": app, "state": "present", "reason": reason, "ends": _end(given, now)}


def _switch(value: Any) -> bool:
    word = str(value).strip().lower()
    if word in ("", "on", "true", "yes"):
        return True
    if word in ("off", "false", "no"):
        return False
    raise ValueError(f"freeze: it is {value!r}, and can be on or off: {_PLAYBOOK} -e freeze=off")


def _end(given: Mapping[str, Any], now: float) -> float:
    """When the freeze is to end, in seconds since 1970, to the minute."""
    hours, until = (str(given.get(name) if given.get(name) is not None else "").strip() for name in ("hours", "until"))
    if bool(hours) == bool(until):
        said = "both are given" if hours else "none is given"
        raise ValueError(f"hours or until: one of them says when the freeze ends, and {said}: {_EXAMPLE_UNTIL}")
    name, end = ("hours", _after(hours, now)) if hours else ("until", _time(until))
    if end <= now:
        raise ValueError(f"{name}: the freeze would have ended already, at {utc(end)}; it is {utc(now)}.")
    if end > now + LONGEST_DAYS * 86400:
        raise ValueError(f"{name}: the freeze would end at {utc(end)}, and may last {LONGEST_DAYS} days at most.")
    return end


def _after(hours: str, now: float) -> float:
    if not re.fullmatch(r"\d{1,5}(?:\.\d{1,4})?", hours) or not float(hours):
        raise ValueError(f"hours: {hours!r} is not a number of hours: -e hours=12")
    return math.ceil((now + float(hours) * 3600) / 60) * 60.0


def _time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        # Without an offset UTC is meant, as everywhere in what Flaskhost prints.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        problem = f"until: {text!r} is not a time: {_EXAMPLE_UNTIL} (UTC), or with +01:00 at the end."
        raise ValueError(problem) from None
