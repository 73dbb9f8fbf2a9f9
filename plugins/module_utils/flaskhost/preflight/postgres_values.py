"""The values of ``postgres_extra_settings``: check their form, and the results of PostgreSQL on the host."""

from __future__ import annotations

import re
from typing import Any

from .report import Report, Unreadable, closest, get, show

EXAMPLE = "postgres_extra_settings: {work_mem: 64MB}"
_EXAMPLE_LIBRARIES = "postgres_extra_settings: {shared_preload_libraries: pg_stat_statements}"
_NAME = re.compile(r"[a-z_]+(?:\.[a-z_]+)?")
#: https://www.postgresql.org/docs/current/config-setting.html, "Numeric with Unit".
_UNITS = frozenset("B kB MB GB TB us ms s min h d".split())
#: A number and a word: a value with a unit.
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*([A-Za-zµ%]+)\s*")
#: Hexadecimal and scientific numbers, whose letters are not units.
_PLAIN = re.compile(r"(?i)0x[0-9a-f]+|\d*\.?\d+e[+-]?\d+")
#: Settings that accept any text.
_TEXTS = re.compile(r"(?:cluster_name|application_name|.*_prefix|.*_command|.*_tag|.*_conninfo|.*_string|.*_names?|"
                    r".*_directory|.*_file|.*_library|.*_libraries)")  # fmt: skip
#: Settings that contain names of libraries.
LIBRARIES = ("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries")
#: The libraries of PostgreSQL's own contrib that have an effect when they are preloaded, in versions 13 to 18.
CONTRIB = frozenset(
    """
    amcheck auth_delay auto_explain basebackup_to_shell basic_archive pg_logicalinspect pg_overexplain pg_prewarm
    pg_stat_statements pg_trgm passwordcheck pgcrypto plpgsql postgres_fdw sepgsql test_decoding unaccent
    """.split()
)


def as_text(value: Any) -> str:
    """Convert a value to its text in the settings file."""
    if isinstance(value, str):
        return value
    return ("on" if value else "off") if isinstance(value, bool) else show(value)


def libraries(value: str) -> list[str]:
    """Return the library names in a setting such as ``shared_preload_libraries``, without quotes, folder and suffix."""
    names = (part.strip().strip('"').strip() for part in value.split(","))
    return [name.removeprefix("$libdir/").removesuffix(".so") for name in names if name]


def questions(settings: Any) -> dict[str, str]:
    """Return the settings that the host has to validate, as strings.

    Args:
        settings: the settings of the site.
    """
    given = get(settings, dict, "postgres_extra_settings") or {}
    return {
        name: as_text(value)
        for name, value in given.items()
        if isinstance(name, str)
        and _NAME.fullmatch(name)
        and isinstance(value, str | int | float)
        and not re.search(r"[\x00-\x1f\x7f]", as_text(value))
    }


def check_values(report: Report, settings: Any, packages: Any, answers: Any) -> None:
    """Check the values.

    Args:
        report: collects the problems.
        settings: the settings of the site.
        packages: the value of ``postgres_extra_packages``: packages that can contain further libraries.
        answers: the answers of PostgreSQL on the host: ``settings`` (for each name its error, or an empty string) and
            ``libraries`` (the names of all installed libraries). Empty if the host has no PostgreSQL.
    """
    said = get(answers, dict, "settings") or {}
    installed = {name for name in get(answers, list, "libraries") or [] if isinstance(name, str)}
    unread = isinstance(packages, Unreadable) or bool(packages)
    for name, value in questions(settings).items():
        place = ("postgres_extra_settings", name)
        if not report.clean(place):
            continue
        if name in LIBRARIES:
            known = installed or CONTRIB
            for library in libraries(value):
                if library in known or unread or library.startswith("/"):
                    continue
                near = closest(library, known & CONTRIB) or closest(library, known)
                hint = f" Did you mean {near}?" if near else " Add its package to postgres_extra_packages."
                where = "on the host" if installed else "in PostgreSQL, and postgres_extra_packages is empty"
                problem = f"There is no library {show(library)} {where}, so PostgreSQL would not start.{hint}"
                report.add("unknown_library", place, problem, _EXAMPLE_LIBRARIES)
                break
        elif (refusal := get(said, str, name)) is not None:
            if refusal:
                report.add("bad_setting_value", place, f"PostgreSQL on the host rejects it: {refusal}", _example(name))
        elif problem := _form_fault(name, value):
            report.add("bad_setting_value", place, problem, _example(name))


def _form_fault(name: str, value: str) -> str:
    unit = _NUMBER.fullmatch(value)
    if not unit or unit[1] in _UNITS or _TEXTS.fullmatch(name) or _PLAIN.fullmatch(value.strip()):
        return ""
    near = next((known for known in _UNITS if known.lower() == unit[1].lower()), "") or closest(unit[1], _UNITS)
    hint = f" Did you mean {near}?" if near else ""
    return f"{show(value)}: {unit[1]} is not a PostgreSQL unit (B, kB, MB, GB, TB; us, ms, s, min, h, d).{hint}"


def _example(name: str) -> str:
    return f"{EXAMPLE}  # valid values of {name}: https://www.postgresql.org/docs/current/runtime-config.html"
