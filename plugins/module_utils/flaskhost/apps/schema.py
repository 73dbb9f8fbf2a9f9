"""How an option is described, the patterns that several options share, and how defaults are filled in."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Option:
    """One option of an app, or of a setting of the site.

    Attributes:
        type: ``str``, ``int``, ``bool``, ``list`` (of strings), ``dict`` (free keys, scalar values),
            ``options`` (the keys of ``options``) or ``mapping`` (free keys, each with the keys of ``options``).
        default: what the record gets where the user says nothing. ``None`` means: computed, or found.
        required: whether the user must say something.
        description: one sentence for the documentation.
        example: a value that works, shown in every message about the option.
        choices: the values allowed, where they are few.
        pattern: a regular expression that a string (or each string of a list) must match whole.
        minimum: the smallest integer allowed.
        maximum: the largest integer allowed.
        options: the keys of an ``options`` or ``mapping`` type.
    """

    type: str
    description: str
    example: Any
    default: Any = None
    required: bool = False
    choices: tuple[Any, ...] = ()
    pattern: str = ""
    minimum: int | None = None
    maximum: int | None = None
    options: dict[str, Option] = field(default_factory=dict)


#: A pinned package as a requirements file has it, and the hashes that may follow, on lines of their own too.
PINNED = r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9,._-]+\])?==[A-Za-z0-9.+!_-]+"

HASH = r"(?:[\s\\]+--hash=sha256:[0-9a-f]{64})"

RELATIVE_PATH = r"(?!/)(?!.*(?:^|/)\.\.(?:/|$))[^\x00-\x1f\s\"'\\$;{}]+"

URL_PATH = r"/[^\s\"'\\$;{}?#]*"


def with_defaults(value: dict[str, Any], options: dict[str, Option]) -> dict[str, Any]:
    """Fill in the default of every option that ``value`` leaves out.

    Args:
        value: what the user wrote; not changed.
        options: the schema to fill in from.

    Returns:
        A new mapping with exactly the schema's keys, nested ones included.
    """
    filled: dict[str, Any] = {}
    for name, option in options.items():
        given = value.get(name)
        if option.type == "options":
            filled[name] = with_defaults(given or {}, option.options)
        elif option.type == "mapping":
            filled[name] = {key: with_defaults(item or {}, option.options) for key, item in (given or {}).items()}
        else:
            filled[name] = copy.deepcopy(option.default if given is None else given)
    return filled


def as_text(value: Any) -> str:
    """A scalar as an environment variable has it: YAML's true and false in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)
