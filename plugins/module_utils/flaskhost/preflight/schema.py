"""Check one option against the schema: type, required, choices, pattern, range, and unknown keys."""

from __future__ import annotations

import re
from typing import Any

from ..apps.schema import Option
from .calendars import EXAMPLE_TIMER
from .report import Place, Report, Unreadable, closest, show, snippet, type_name
from .rules import RULES
from .rules.access import EXAMPLE_EGRESS, EXAMPLE_RULE
from .rules.domains import EXAMPLE_DOMAIN
from .rules.source import EXAMPLE_REPO
from .rules.ssh_keys import EXAMPLE_ADMIN

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: The schema's types in Python, and in words for messages.
_TYPES: dict[str, tuple[Any, str]] = {
    "str": (str, "a string"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "list": (list, "a list"),
    "dict": (dict, "a mapping of names to values"),
    "options": (dict, "a mapping"),
    "mapping": (dict, "a mapping of names to mappings"),
}
#: The options that can have several lines.
_MULTILINE: frozenset[Place] = frozenset(
    {
        ("admin_users", "keys"),
        ("source", "key"),
        ("source", "known_hosts"),
        ("tls", "certificate"),
        ("tls", "key"),
        ("acme", "root"),
        ("acme", "dns", "package"),
        ("extra_packages",),
        ("backup", "second", "ssh_key"),
        ("backup", "second", "known_hosts"),
    }
)
#: Examples to use instead of the schema's, whose names no real server can have.
_EXAMPLES: dict[Place, Any] = {
    ("source",): {"path": "sample_app"},
    ("source", "repo"): EXAMPLE_REPO["repo"],
}


def check_options(
    report: Report, place: Place, where: Place, value: dict[Any, Any], options: dict[str, Option]
) -> None:
    """Check a mapping against its schema.

    Args:
        report: collects the problems.
        place: the steps to the mapping in the user's input.
        where: the steps to the mapping in the schema.
        value: the mapping.
        options: the schema.
    """
    for key in value:
        if key not in options:
            report.add("unknown_key", (*place, key), *_unknown_key(key, where, options))
    for name, option in options.items():
        given = value.get(name)
        here, there = (*place, name), (*where, name)
        if given is None or (option.required and given in ("", [])):
            if option.required:
                shown = "is empty" if name in value else "is missing"
                report.add("missing", here, f"It {shown}. {option.description}", _example(there, option))
        elif not isinstance(given, Unreadable) and not (given == "" and option.default == ""):
            _check_value(report, here, there, given, option)


def wrong_type(value: Any, wanted: str) -> str:
    """Return the message for a value of the wrong type. The value itself is not shown, because it can be anything."""
    hint = ""
    if wanted == "str" and isinstance(value, (bool, int, float)):
        hint = " Write it in quotes."
    elif wanted in ("int", "bool") and isinstance(value, str):
        hint = " Write it without quotes." if re.fullmatch(r"\s*(?:\d+|true|false|yes|no)\s*", value, re.I) else ""
    elif wanted == "list" and isinstance(value, str):
        hint = " Write it in square brackets, or as lines that begin with a dash."
    return f"Must be {_TYPES[wanted][1]}, but is {type_name(value)}.{hint}"


def _check_value(report: Report, place: Place, where: Place, value: Any, option: Option) -> None:
    if not isinstance(value, _TYPES[option.type][0]) or (option.type == "int" and isinstance(value, bool)):
        report.add("wrong_type", place, wrong_type(value, option.type), _example(where, option))
    elif option.type == "options":
        check_options(report, place, where, value, option.options)
    elif option.type == "mapping":
        _check_mapping(report, place, where, value, option)
    elif option.type == "list":
        _check_list(report, place, where, value, option)
    elif option.type != "dict":
        _check_scalar(report, place, where, value, option)


def _check_list(report: Report, place: Place, where: Place, value: list[Any], option: Option) -> None:
    seen: dict[str, int] = {}
    for index, item in enumerate(value):
        here = (*place, index)
        if isinstance(item, str):
            _check_scalar(report, here, where, item, option)
            first = seen.setdefault(item.strip().casefold(), index)
            if first != index:
                kind = "duplicate_domain" if where == ("domains",) else "duplicate_item"
                report.add(kind, here, f"Already listed, at [{first}].", "the list without this entry")
        elif not isinstance(item, Unreadable):
            report.add("wrong_type", here, wrong_type(item, "str"), _example(where, option))


def _check_mapping(report: Report, place: Place, where: Place, value: dict[Any, Any], option: Option) -> None:
    """Check the entries. Their names are checked elsewhere, and are not part of the steps in the schema."""
    for name, item in value.items():
        if isinstance(item, dict):
            check_options(report, (*place, name), where, item, option.options)
        elif not isinstance(item, Unreadable):
            report.add("wrong_type", (*place, name), wrong_type(item, "options"), _example(where, option))


def _check_scalar(report: Report, place: Place, where: Place, value: Any, option: Option) -> None:
    """Check a text or number: first for known mistakes in this option, then against the schema."""
    kind, problem, example = "", "", _example(where, option)
    if isinstance(value, str) and _CONTROL.search(value) and where not in _MULTILINE:
        kind = "control_character"
        problem = "Contains a line break or another control character. Write it on one line."
    elif (rule := RULES.get(where)) and (fault := rule(value)):
        kind, problem, example = fault.kind, fault.problem, fault.example or example
    elif option.pattern and not re.fullmatch(option.pattern, value):
        kind, problem = "malformed", f"{show(value)} is not valid. {option.description}"
    elif option.choices and value not in option.choices:
        near = closest(value, option.choices)
        hint = f" Did you mean {near}?" if near else ""
        kind, problem = "wrong_choice", f"{show(value)} is not one of {', '.join(map(str, option.choices))}.{hint}"
        example = snippet(where, near) if near and len(where) == 1 else example
    elif option.minimum is not None and value < option.minimum:
        kind, problem = "out_of_range", f"{show(value)} is less than {option.minimum}. {option.description}"
    elif option.maximum is not None and value > option.maximum:
        kind, problem = "out_of_range", f"{show(value)} is more than {option.maximum}. {option.description}"
    if kind:
        report.add(kind, place, problem, example)


def _unknown_key(key: Any, where: Place, options: dict[str, Option]) -> tuple[str, str]:
    """Return the problem and an example for a key that the schema does not contain."""
    known = f"one of: {', '.join(options)}"
    if not isinstance(key, str):
        return "There is no such option. The name of an option is a string.", known
    for name, option in options.items():
        if key in option.options:
            return f"This option belongs in {name}.", snippet((*where, name, key), option.options[key].example)
    near = closest(key, options)
    if near:
        return f"There is no such option. Did you mean {near}?", _example((*where, near), options[near])
    return "There is no such option.", known


def _example(where: Place, option: Option) -> str:
    """Return the example of an option as a line of YAML."""
    whole = {
        "domains": EXAMPLE_DOMAIN,
        "admin_users": EXAMPLE_ADMIN,
        "firewall_allow": EXAMPLE_RULE,
        "firewall_egress_allow": EXAMPLE_EGRESS,
        "timers": EXAMPLE_TIMER,
    }.get(where[0])
    return whole or snippet(where, _EXAMPLES.get(where, option.example))
