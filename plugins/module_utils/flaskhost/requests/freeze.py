"""Parse the request of playbooks/freeze.yml: who freezes what, why, and until when."""

from __future__ import annotations

import getpass
import math
import os
import re
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ..deploy.freeze import ALL, PLAYBOOK, utc
from . import given as read
from .given import Refused

#: Days. A longer freeze has been forgotten, or should be a change to who is allowed to deploy.
LONGEST_DAYS = 90

_EXAMPLE = f"{PLAYBOOK} -e reason=audit -e hours=12"
_EXAMPLE_UNTIL = "-e until=2026-12-01T08:00"


def operator() -> str:
    """Return the user who runs the playbook and the control node's name, such as ``ada@laptop``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container can run with a user ID that has no name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname().partition('.')[0]}"


def request(given: Mapping[str, Any], apps: Iterable[str], now: float) -> dict[str, Any]:
    """Parse an operator's request to ``playbooks/freeze.yml``.

    Args:
        given: the variables ``app``, ``reason``, ``hours``, ``until`` and ``freeze``; unset variables are empty. Also
            ``_raw_params``, into which Ansible puts the words of ``-e`` that belong to no variable.
        apps: the names of the apps.
        now: current time in seconds since 1970.

    Returns:
        ``problem`` (empty if there is none), ``says`` (the result, shown at the end of the run) and the options of
        flask_freeze: ``app``, ``state``, ``reason``, ``ends`` (seconds since 1970) and ``by``.
    """
    try:
        options = _request(given, sorted(apps), now)
    except Refused as error:
        return {"problem": f"{error} Nothing has been changed."}
    return {"problem": "", "says": _says(options), "by": operator(), **options}


def _says(options: Mapping[str, Any]) -> str:
    who, option = ("All apps", "") if options["app"] == ALL else (options["app"], f" -e app={options['app']}")
    verb = "are" if options["app"] == ALL else "is"
    if options["state"] == "absent":
        return f"{who} {verb} no longer frozen."
    until = f"until {utc(options['ends'])}: {options['reason'].rstrip('.')}"
    return f"{who} {verb} frozen {until}. To lift the freeze: {PLAYBOOK} -e freeze=off{option}"


def _request(given: Mapping[str, Any], apps: list[str], now: float) -> dict[str, Any]:
    read.require_all_words(given, "reason")
    app = ALL if read.text(given, "app") in ("", "all", ALL) else read.app(given, apps)
    if not read.switch(given, "freeze", True):
        return {"app": app, "state": "absent", "reason": "", "ends": 0.0}
    reason = " ".join(str(given.get("reason") or "").split())
    if not reason:
        raise Refused(f"reason: missing. Deploys that are refused show it. Example: {_EXAMPLE}")
    return {"app": app, "state": "present", "reason": reason, "ends": _end(given, now)}


def _end(given: Mapping[str, Any], now: float) -> float:
    """Return the end of the freeze in seconds since 1970, rounded up to the minute for ``hours``."""
    hours, until = read.text(given, "hours"), read.text(given, "until")
    if bool(hours) == bool(until):
        said = "both are set" if hours else "none is set"
        raise Refused(f"hours or until: set one of them to end the freeze; {said}. Example: {_EXAMPLE_UNTIL}")
    name, end = ("hours", _after(hours, now)) if hours else ("until", _time(until))
    if end <= now:
        raise Refused(f"{name}: the freeze would end in the past, at {utc(end)}. Name a time after {utc(now)}.")
    if end > now + LONGEST_DAYS * 86400:
        raise Refused(f"{name}: the freeze would end at {utc(end)}. The maximum is {LONGEST_DAYS} days from now.")
    return end


def _after(hours: str, now: float) -> float:
    if not re.fullmatch(r"\d{1,5}(?:\.\d{1,4})?", hours) or not float(hours):
        raise Refused(f"hours: {hours!r} is not a number of hours. Example: -e hours=12")
    return math.ceil((now + float(hours) * 3600) / 60) * 60.0


def _time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        # Times without an offset are UTC, as in everything that Flaskhost prints.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        problem = f"until: {text!r} is not a time. Example: {_EXAMPLE_UNTIL} (UTC), or with an offset such as +01:00."
        raise Refused(problem) from None
