"""Reading what a user wrote, collecting its problems, and the words that messages are made of."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ..apps.options import APP_OPTIONS

#: A problem as the caller gets it: ``kind`` (stable, for tests), ``path``, ``problem``, ``example``.
Problem = dict[str, str]
#: The steps to a value: names of keys and indexes of lists.
Place = tuple[Any, ...]

#: Deeper than any option goes; a YAML anchor that holds itself has no end.
_DEEPEST = 12
#: More than any site needs; a few lines of YAML anchors can stand for a billion.
_MOST_VALUES = 20_000
#: A number that is longer than any size in bytes is not one (and Python refuses to print one of 5,000 digits).
_LARGEST = 1 << 60
#: Control characters but for the line end.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
#: What Ansible says of a template that failed, where it cannot hold the value of a secret.
_HARMLESS_REASON = re.compile(r"['\w .\[\]-]+ (?:is undefined|has no attribute '?\w+'?)")


def make_problem(kind: str, path: str, problem: str, example: str) -> Problem:
    """Put a problem together; nothing in it can move a terminal's cursor, or fail to be printed."""
    texts = {"kind": kind, "path": path, "problem": problem, "example": example}
    return {name: _CONTROL.sub("?", text.encode("utf-8", "replace").decode()) for name, text in texts.items()}


class Fault(NamedTuple):
    """What a rule about one value has found; without an example the option's own is shown."""

    kind: str
    problem: str
    example: str = ""


@dataclass(frozen=True)
class Unreadable:
    """A value that Ansible could not work out, because a variable is undefined or a template of it fails.

    Attributes:
        reason: what Ansible says; empty once it has been reported.
    """

    reason: str = ""


@dataclass
class Report:
    """Collects the problems, and puts them into the order of what the user wrote.

    Attributes:
        roots: the variables and other first steps, in their order.
        apps: the names of the apps, in their order.
        found: the problems with their places.
        values: how many values have been read.
    """

    roots: list[str]
    apps: list[Any] = field(default_factory=list)
    found: list[tuple[Place, Problem]] = field(default_factory=list)
    values: int = 0

    def add(self, kind: str, place: Place, problem: str, example: str) -> None:
        """Take in one problem."""
        self.found.append((place, make_problem(kind, path_text(place), problem, example)))

    def clean(self, place: Place) -> bool:
        """Whether nothing is wrong at or below a place."""
        return not any(found[: len(place)] == place for found, _problem in self.found)

    def problems(self) -> list[Problem]:
        """All problems: of the apps in the order of the mapping and of the schema, of the settings, of the host."""
        options = list(APP_OPTIONS)

        def order(entry: tuple[Place, Problem]) -> tuple[int, ...]:
            root, *steps = entry[0]
            app = _position(self.apps, steps[0]) if steps else -1
            option = _position(options, steps[1]) if len(steps) > 1 else -1
            return _position(self.roots, root), app, option

        return [problem for _place, problem in sorted(self.found, key=order)]


# --- Reading ---------------------------------------------------------------------------------------------------------


def read_item(values: Any, index: Any) -> Any:
    """Read one value of a list or mapping of Ansible's, whose templates are worked out when they are read.

    Args:
        values: the list or mapping.
        index: the index or key.

    Returns:
        The value, or an :class:`Unreadable` that says why there is none.
    """
    try:
        return values[index]
    except Exception as error:  # noqa: BLE001, RUF100 - a template fails in as many ways as there are lookups
        return Unreadable(str(error).removeprefix("A captured exception marker was tripped: ") or type(error).__name__)


def read(report: Report, place: Place, value: Any, depth: int = 0) -> Any:
    """Copy a value into plain dictionaries and lists, and report each part that Ansible cannot work out.

    Args:
        report: where problems go.
        place: the steps to the value.
        value: the value, as Ansible hands it over.
        depth: how many steps below the whole.

    Returns:
        The copy. An :class:`Unreadable` stands for what cannot be worked out.
    """
    report.values += 1
    if isinstance(value, Unreadable):
        if value.reason:
            _add_unreadable(report, place or ("settings",), " ".join(value.reason.split()).rstrip("."))
        return Unreadable()
    if not isinstance(value, (Mapping, list, tuple)):
        return _plain(value)
    if depth > _DEEPEST or report.values > _MOST_VALUES:
        if report.clean(place[:2]):
            shown = "is nested too deeply, or holds itself" if depth > _DEEPEST else "holds too many values"
            report.add("too_deep", place, f"It {shown}.", "the same without YAML anchors (& and *)")
        return Unreadable()
    steps = list(value) if isinstance(value, Mapping) else range(len(value))
    items = ((_plain(step), read(report, (*place, _plain(step)), read_item(value, step), depth + 1)) for step in steps)
    return dict(items) if isinstance(value, Mapping) else [item for _step, item in items]


def _plain(value: Any) -> Any:
    """A text without Ansible's tags, which make it a class of its own; anything else as it is."""
    return str.__str__(value) if isinstance(value, str) else value


def _add_unreadable(report: Report, place: Place, reason: str) -> None:
    if re.search("decrypt|vault exception", reason):
        problem = "It is encrypted by ansible-vault, and the password to read it is missing or wrong."
        cure = "the same command with --ask-vault-pass, or with --vault-password-file and the file that holds it"
        report.add("vault_locked", place, problem, cure)
        return
    guarded = any(step in ("secrets", "env", "source", "tls") for step in place[2:3]) or place[:1] == ("acme",)
    if guarded and not _HARMLESS_REASON.fullmatch(reason):
        reason = "its template fails, and the reason is not shown since it may hold the value"
    cure = "a value, or a template that gives one"
    if name := re.match(r"'(\w+)' is undefined", reason):
        reason = f"the variable {name[1]} is not defined"
        cure = f"{name[1]}: its value, in the inventory's group_vars/all (a secret in vault.yml, by ansible-vault)"
    report.add("undefined", place, f"Its value cannot be worked out: {reason}.", cure)


def get(value: Any, wanted: type, *steps: str) -> Any:
    """The value at the end of the steps, where it has the wanted type; else None. A boolean is not a number here."""
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value if isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)) else None


def get_number(value: Any, *steps: str) -> int | None:
    """The whole number at the end of the steps, where it is one that a size can be; else None."""
    number = get(value, int, *steps)
    return number if number is not None and abs(number) < _LARGEST else None


def path_parts(path: str) -> tuple[str, ...]:
    """The steps of a path in a file system, without the root."""
    return tuple(part for part in PurePosixPath(path).parts if part != "/")


def _position(names: list[Any], name: Any) -> int:
    """The index of a name; behind all where it is not one of them. (1 and True are equal, and not the same name.)"""
    return next((index for index, known in enumerate(names) if known == name and type(known) is type(name)), len(names))


# --- Words -----------------------------------------------------------------------------------------------------------


def closest(value: Any, known: Iterable[Any]) -> str:
    """The known name that is most like the value; empty where none is."""
    text = str(value)[:80] if isinstance(value, str) else ""
    return next(iter(difflib.get_close_matches(text, [str(name) for name in known], 1, 0.7)), "")


def type_name(value: Any) -> str:
    """What a value is, in a user's words."""
    if value is None:
        return "empty"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a mapping",
    }
    return next((name for kind, name in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def show(value: Any) -> str:
    """A value as a message has it: on one line, not too long, and without the password that a URL may hold."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        return "the value"
    text = re.sub(r"//[^/\s]*@", "//***@", text)
    return text if len(text) <= 80 else f"{text[:76]}..."


def path_text(place: Place) -> str:
    """The steps to a value as a user writes them: ``flask_apps.shop.domains[1]``."""
    text = ""
    for step in place:
        if isinstance(step, str) and re.fullmatch(r"[\w-]{1,60}", step):
            text += f".{step}" if text else step
        else:
            text += f"[{step}]" if type(step) is int and abs(step) < _LARGEST else f"[{show(step)}]"
    return text


def snippet(where: Place, value: Any) -> str:
    """A value at its place as a line of YAML: ``limits: {memory: 512}``."""
    first, *rest = where
    for step in reversed(rest):
        value = {step: value}
    return f"{first}: {_yaml(value)}"


def _yaml(value: Any) -> str:
    """A value in YAML's flow style, quoted only where it has to be."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/][\w./@+=-]*( [\w./@+=-]+)*", value):
        return value if value.lower() not in ("true", "false", "yes", "no", "on", "off", "null") else f'"{value}"'
    return json.dumps(value, ensure_ascii=False, default=str)
