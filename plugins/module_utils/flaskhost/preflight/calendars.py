"""Calendar events of timers: check them against the grammar of systemd.time(7), then with the host's systemd."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from .report import Place, Report, get, show, snippet

EXAMPLE_TIMER = 'timers: {nightly: {command: flask purge, on_calendar: "*-*-* 03:00"}}'
_DAY = r"(?:mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs(?:day)?|r)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
_DAYS = re.compile(rf"(?i){_DAY}(?:(?:\.\.|-|,){_DAY})*,?")
_SHORTHAND = frozenset("minutely hourly daily monthly weekly yearly annually quarterly semiannually biannually".split())
#: The characters of dates and times.
_NUMBERS = re.compile(r"[\d*,./:~-]+")
#: A time zone, for a control node without a tz database.
_ZONE = re.compile(r"UTC|[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)+")
_BACKUP = ("full", "diff", "drill")


def fault(value: str) -> str:
    """Find errors in an expression of systemd.time(7) without systemd.

    Args:
        value: the expression.

    Returns:
        What is wrong; empty if the host has to decide.
    """
    words = value.split()
    if not words:
        return "The calendar event is empty."
    for index, word in enumerate(words):
        if _NUMBERS.fullmatch(word) or (index == 0 and (_DAYS.fullmatch(word) or word.lower() in _SHORTHAND)):
            continue
        zones = time_zones()
        if index and index == len(words) - 1 and (word in zones if zones else _ZONE.fullmatch(word)):
            continue
        return f"{show(value)} is not a calendar event of systemd: {show(word)} is unknown."
    return ""


def expressions(variable: str, apps: Any, settings: Any) -> Iterator[tuple[Place, str]]:
    """Yield the calendar event of each timer with its place.

    Args:
        variable: the name of the apps' variable.
        apps: the apps.
        settings: the settings of the site.
    """
    for name, app in apps.items() if isinstance(apps, dict) else ():
        for timer, options in (get(app, dict, "timers") or {}).items():
            if value := get(options, str, "on_calendar"):
                yield (variable, name, "timers", timer, "on_calendar"), value
    for option in _BACKUP:
        if value := get(settings, str, "backup", option):
            yield ("backup", option), value


def check_calendars(report: Report, variable: str, apps: Any, settings: Any, answers: Mapping[Any, Any]) -> None:
    """Check the calendar events against the answers of the host's systemd.

    Args:
        report: collects the problems.
        variable: the name of the apps' variable.
        apps: the apps.
        settings: the settings of the site.
        answers: systemd's error for each expression; empty for a valid one.
    """
    for place, value in expressions(variable, apps, settings):
        said = get(answers, str, value)
        if said and report.clean(place):
            problem = f"systemd on the host rejects this calendar event: {said}."
            example = snippet(place, "*-*-* 03:00") if place[0] == "backup" else EXAMPLE_TIMER
            report.add("bad_calendar", place, problem, f"{example}  # to check one: systemd-analyze calendar")


@cache
def time_zones() -> frozenset[str]:
    """Return the time zones in the control node's tz database; empty if it has none."""
    try:
        return frozenset(zoneinfo.available_timezones())
    except OSError:
        return frozenset()
