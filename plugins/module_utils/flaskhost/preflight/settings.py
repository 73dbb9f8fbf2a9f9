"""The settings of the site: administrators, openings of the firewall, the time zone."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from ..app_model import Option
from .report import Report, Unreadable, closest, get, show, type_name
from .rules import ADMIN_OPTIONS, EXAMPLE_ADMIN, EXAMPLE_RULE, FIREWALL_OPTIONS
from .schema import check_options, wrong_type

_EXAMPLE_TIMEZONE = "timezone: Europe/Stockholm"


def check_settings(report: Report, settings: Any) -> None:
    """Check all settings. One that is empty is not set: a site may have no administrators beside the log-in.

    Args:
        report: where problems go.
        settings: the settings by their names, as :func:`report.read` gives them.
    """
    if settings is None or isinstance(settings, Unreadable):
        return
    if not isinstance(settings, dict):
        problem = f"The settings have to be a mapping of names to values, and are {type_name(settings)}."
        report.add("not_a_mapping", ("settings",), problem, _EXAMPLE_TIMEZONE)
        return
    for name, value in settings.items():
        if name not in SETTINGS:
            near = closest(name, SETTINGS)
            hint = f" Did you mean {near}?" if near else ""
            report.add("unknown_setting", (name,), f"There is no such setting.{hint}", f"one of: {', '.join(SETTINGS)}")
        elif value is not None and value not in ("", []) and not isinstance(value, Unreadable):
            SETTINGS[name](report, value)


def _check_admin_users(report: Report, value: Any) -> None:
    seen: dict[Any, int] = {}
    for index, user in _entries(report, "admin_users", value, ADMIN_OPTIONS, EXAMPLE_ADMIN):
        first = seen.setdefault(get(user, str, "name") or index, index)
        if first != index:
            problem = f"The user is there already, at [{first}]. Put all keys into one entry."
            report.add("duplicate_admin", ("admin_users", index, "name"), problem, EXAMPLE_ADMIN)


def _check_firewall_allow(report: Report, value: Any) -> None:
    seen: dict[Any, int] = {}
    for index, rule in _entries(report, "firewall_allow", value, FIREWALL_OPTIONS, EXAMPLE_RULE):
        port, protocol = get(rule, int, "port"), get(rule, str, "protocol") or "tcp"
        first = seen.setdefault((port, protocol) if port else index, index)
        if first != index:
            problem = f"The port is there already, at [{first}]. Put all networks into one entry."
            report.add("duplicate_port", ("firewall_allow", index, "port"), problem, EXAMPLE_RULE)


def _check_timezone(report: Report, value: Any) -> None:
    known = _time_zones()
    if not isinstance(value, str):
        report.add("wrong_type", ("timezone",), wrong_type(value, "str"), _EXAMPLE_TIMEZONE)
    elif known and value not in known:
        city = next((name for name in sorted(known) if name.lower().endswith(f"/{value.lower()}")), "")
        near = city or closest(value, known)
        hint = f" Did you mean {near}?" if near else ""
        problem = f"{show(value)} is not a time zone of the tz database.{hint}"
        report.add("unknown_timezone", ("timezone",), problem, f"timezone: {near}" if near else _EXAMPLE_TIMEZONE)


#: The checks of the settings, by the setting's name.
SETTINGS: dict[str, Callable[[Report, Any], None]] = {
    "admin_users": _check_admin_users,
    "firewall_allow": _check_firewall_allow,
    "timezone": _check_timezone,
}


def _entries(
    report: Report, name: str, value: Any, options: dict[str, Option], example: str
) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Check a list of mappings, and hand out those that are mappings."""
    if not isinstance(value, list):
        report.add("wrong_type", (name,), wrong_type(value, "list"), example)
        return
    for index, entry in enumerate(value):
        if isinstance(entry, dict):
            check_options(report, (name, index), (name,), entry, options)
            yield index, entry
        elif not isinstance(entry, Unreadable):
            report.add("wrong_type", (name, index), wrong_type(entry, "options"), example)


@cache
def _time_zones() -> frozenset[str]:
    """The time zones that the controller knows; empty where it has no tz database."""
    try:
        return frozenset(zoneinfo.available_timezones())
    except OSError:
        return frozenset()
