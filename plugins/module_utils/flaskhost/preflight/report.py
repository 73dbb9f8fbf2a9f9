"""Read the user's input, collect its problems, and format messages."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ..apps.options import APP_OPTIONS
from ..host.redact import redact

#: A problem for the caller: ``kind`` (stable, for tests), ``path``, ``problem``, ``example``.
Problem = dict[str, str]
#: The steps to a value: keys and list indexes.
Place = tuple[Any, ...]

#: Deeper than any option. A YAML anchor that contains itself is endless.
_DEEPEST = 12
#: More than any site needs. A few lines of YAML anchors can stand for a billion values.
_MOST_VALUES = 20_000
#: Larger numbers cannot be sizes in bytes (and Python refuses to print a number of 5,000 digits).
_LARGEST = 1 << 60
#: Control characters except the line break.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
#: Ansible's error for a failed template, in forms that cannot contain the value of a secret.
_HARMLESS_REASON = re.compile(r"['\w .\[\]-]+ (?:is undefined|has no attribute '?\w+'?)")


def make_problem(kind: str, path: str, problem: str, example: str) -> Problem:
    """Build a problem whose texts can always be printed and contain no control characters for a terminal."""
    texts = {"kind": kind, "path": path, "problem": problem, "example": example}
    return {name: _CONTROL.sub("?", text.encode("utf-8", "replace").decode()) for name, text in texts.items()}


class Fault(NamedTuple):
    """The result of a rule about one value; without an example, the option's own is shown."""

    kind: str
    problem: str
    example: str = ""


@dataclass(frozen=True)
class Unreadable:
    """A value that Ansible could not evaluate, because a variable is undefined or its template fails.

    Attributes:
        reason: Ansible's error; empty once it has been reported.
    """

    reason: str = ""


@dataclass
class Report:
    """Collects the problems and sorts them in the order of the user's input.

    Attributes:
        roots: the variables and other first steps, in order.
        apps: the names of the apps, in order.
        found: the problems with their places.
        values: number of values that have been read.
    """

    roots: list[str]
    apps: list[Any] = field(default_factory=list)
    found: list[tuple[Place, Problem]] = field(default_factory=list)
    values: int = 0

    def add(self, kind: str, place: Place, problem: str, example: str) -> None:
        """Add a problem."""
        self.found.append((place, make_problem(kind, path_text(place), problem, example)))

    def clean(self, place: Place) -> bool:
        """Check whether there is no problem at or below a place."""
        return not any(found[: len(place)] == place for found, _problem in self.found)

    def problems(self) -> list[Problem]:
        """Return all problems: of the apps in the order of the mapping and the schema, of the settings, of the host."""
        options = list(APP_OPTIONS)

        def order(entry: tuple[Place, Problem]) -> tuple[int, ...]:
            root, *steps = entry[0]
            app = _position(self.apps, steps[0]) if steps else -1
            option = _position(options, steps[1]) if len(steps) > 1 else -1
            return _position(self.roots, root), app, option

        return [problem for _place, problem in sorted(self.found, key=order)]


# --- Reading ---------------------------------------------------------------------------------------------------------


def read_item(values: Any, index: Any) -> Any:
    """Read one value of a list or mapping from Ansible, whose templates are evaluated when they are read.

    Args:
        values: the list or mapping.
        index: the index or key.

    Returns:
        The value, or an :class:`Unreadable` with the reason.
    """
    try:
        return values[index]
    except Exception as error:  # noqa: BLE001, RUF100 - a template fails in as many ways as there are lookups
        return Unreadable(str(error).removeprefix("A captured exception marker was tripped: ") or type(error).__name__)


def read(report: Report, place: Place, value: Any, depth: int = 0) -> Any:
    """Copy a value into plain dictionaries and lists, and report each part that Ansible cannot evaluate.

    Args:
        report: collects the problems.
        place: the steps to the value.
        value: the value, as passed by Ansible.
        depth: number of steps below the top.

    Returns:
        The copy, with an :class:`Unreadable` in place of each part that cannot be evaluated.
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
            shown = "is nested too deeply, or contains itself" if depth > _DEEPEST else "contains too many values"
            report.add("too_deep", place, f"The value {shown}.", "the same without YAML anchors (& and *)")
        return Unreadable()
    steps = list(value) if isinstance(value, Mapping) else range(len(value))
    items = ((_plain(step), read(report, (*place, _plain(step)), read_item(value, step), depth + 1)) for step in steps)
    return dict(items) if isinstance(value, Mapping) else [item for _step, item in items]


def _plain(value: Any) -> Any:
    """Return a string without Ansible's tags, which make it a class of its own; other values unchanged."""
    return str.__str__(value) if isinstance(value, str) else value


def _add_unreadable(report: Report, place: Place, reason: str) -> None:
    if re.search("decrypt|vault exception", reason):
        problem = "The value is encrypted with ansible-vault, and the vault password is missing or wrong."
        cure = "the same command with --ask-vault-pass, or with --vault-password-file FILE"
        report.add("vault_locked", place, problem, cure)
        return
    guarded = any(step in ("secrets", "env", "files", "source", "tls") for step in place[2:3]) or place[:1] == ("acme",)
    if guarded and not _HARMLESS_REASON.fullmatch(reason):
        reason = "its template fails; the reason is not shown, because it could contain the value"
    cure = "a value, or a template that works"
    if name := re.match(r"'(\w+)' is undefined", reason):
        reason = f"the variable {name[1]} is not defined"
        cure = f"{name[1]}: its value, in the inventory's group_vars/all (secrets: in vault.yml, with ansible-vault)"
    report.add("undefined", place, f"The value cannot be evaluated: {reason}.", cure)


def get(value: Any, wanted: type, *steps: str) -> Any:
    """Return the value at the end of the steps if it has the wanted type, else None. Booleans are not numbers."""
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value if isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)) else None


def get_number(value: Any, *steps: str) -> int | None:
    """Return the integer at the end of the steps if it can be a size, else None."""
    number = get(value, int, *steps)
    return number if number is not None and abs(number) < _LARGEST else None


def path_parts(path: str) -> tuple[str, ...]:
    """Return the steps of a file system path, without the root."""
    return tuple(part for part in PurePosixPath(path).parts if part != "/")


def _position(names: list[Any], name: Any) -> int:
    """Return the index of a name, or the length if it is missing. (1 and True are equal, but not the same name.)"""
    return next((index for index, known in enumerate(names) if known == name and type(known) is type(name)), len(names))


# --- Words -----------------------------------------------------------------------------------------------------------


def closest(value: Any, known: Iterable[Any]) -> str:
    """Return the known name that is most similar to the value; empty if none is."""
    text = str(value)[:80] if isinstance(value, str) else ""
    return next(iter(difflib.get_close_matches(text, [str(name) for name in known], 1, 0.7)), "")


def type_name(value: Any) -> str:
    """Return the type of a value in words for a message."""
    if value is None:
        return "empty"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "a mapping",
    }
    return next((name for kind, name in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def show(value: Any) -> str:
    """Format a value for a message: on one line, shortened, and without what may be a secret."""
    try:
        text = json.dumps(redact(value) if isinstance(value, str) else value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        return "the value"
    text = re.sub(r"//[^/\s]*@", "//***@", text)
    return text if len(text) <= 80 else f"{text[:76]}..."


def path_text(place: Place) -> str:
    """Format the steps to a value as users write them: ``flask_apps.shop.domains[1]``."""
    text = ""
    for step in place:
        if isinstance(step, str) and re.fullmatch(r"[\w-]{1,60}", step):
            text += f".{step}" if text else step
        else:
            text += f"[{step}]" if type(step) is int and abs(step) < _LARGEST else f"[{show(step)}]"
    return text


def snippet(where: Place, value: Any) -> str:
    """Format a value at its place as a line of YAML: ``limits: {memory: 512}``."""
    first, *rest = where
    for step in reversed(rest):
        value = {step: value}
    return f"{first}: {_yaml(value)}"


def _yaml(value: Any) -> str:
    """Format a value in YAML's flow style, quoted only if necessary."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/][\w./@+=-]*( [\w./@+=-]+)*", value):
        return value if value.lower() not in ("true", "false", "yes", "no", "on", "off", "null") else f'"{value}"'
    return json.dumps(value, ensure_ascii=False, default=str)
