"""Rules about workers and scheduled commands: names, commands and times."""

from __future__ import annotations

import re
from typing import Any

from ...deploy.procfile import NOT_PROCESSES, TIMER_PREFIX
from ..calendars import EXAMPLE_TIMER
from ..calendars import fault as calendar_fault
from ..report import Fault, show, type_name


def unit_name_fault(name: Any) -> str:
    """Check the name of a timer or process, which becomes a unit and a file name; empty if it is valid."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", name):
        return "Not a valid name. It becomes a unit name: at most 31 of a to z, digits, _ and -, with a letter first."
    return ""


def process_name_fault(name: Any) -> str:
    """Check the name of a process; empty if it is valid."""
    if fault := unit_name_fault(name):
        return fault
    if name in NOT_PROCESSES:
        other = {"web": "Flaskhost starts the app server itself", "release": "use the option release_command"}
        return f"{name} is not a background process: {other[name]}."
    return f"Names that start with {TIMER_PREFIX} are reserved for timers." if name.startswith(TIMER_PREFIX) else ""


def process_command_fault(command: Any) -> str:
    """Check the command of a process; empty if it is valid."""
    if not isinstance(command, str):
        return f"Must be a command, but is {type_name(command)}."
    if re.search(r"[\x00-\x1f\x7f]", command):
        return "Contains a line break or another control character. Write it on one line."
    return ""


def on_calendar(value: str) -> Fault | None:
    """Check the time of a timer, as far as possible without systemd. The host checks the rest."""
    if re.fullmatch(r"\s*@\w+\s*|\s*(?:[\d*/,-]+\s+){4}[\w*/,-]+\s*", value):
        problem = f"{show(value)} has the format of cron, but timers need the format of systemd (man systemd.time)."
        return Fault("cron_time", problem, EXAMPLE_TIMER)
    return calendar(value)


def calendar(value: str) -> Fault | None:
    """Check a time by the grammar of systemd."""
    problem = calendar_fault(value)
    return Fault("bad_calendar", problem) if problem else None
