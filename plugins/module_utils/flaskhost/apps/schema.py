"""The description of an option, the patterns that several options share, and the code that fills in defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Option:
    """One option of an app, or of a setting of the site.

    Attributes:
        type: ``str``, ``int``, ``bool``, ``list`` (of strings), ``dict`` (free keys, scalar values),
            ``options`` (the keys of ``options``) or ``mapping`` (free keys, each with the keys of ``options``).
        default: value in the record if the user does not set the option. ``None`` means computed or detected.
        required: whether the user must set the option.
        description: one sentence for the documentation.
        example: a valid value, shown in every message about the option.
        choices: the allowed values, if there are only a few.
        pattern: a regular expression that must match the whole string (or each string of a list).
        minimum: the smallest allowed integer.
        maximum: the largest allowed integer.
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


#: A pinned package as in a requirements file. Its hashes can follow, also on lines of their own.
PINNED = r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9,._-]+\])?==[A-Za-z0-9.+!_-]+"

HASH = r"(?:[\s\\]+--hash=sha256:[0-9a-f]{64})"

#: The name of an extra or of a dependency group (PEP 685, PEP 735).
CHOICE = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"

#: The name of a Debian package (Debian Policy, 5.6.1). apt reads a + or - at the end as an instruction. Only names such
#: as g++ end in ++.
DEBIAN_PACKAGE = r"[a-z0-9][a-z0-9+.-]*[a-z0-9]|[a-z0-9][a-z0-9.-]*\+\+"

RELATIVE_PATH = r"(?!/)(?!.*(?:^|/)\.\.(?:/|$))[^\x00-\x1f\s\"'\\$;{}]+"

URL_PATH = r"/[^\s\"'\\$;{}?#]*"


def with_defaults(value: dict[str, Any], options: dict[str, Option]) -> dict[str, Any]:
    """Fill in the default of every option that ``value`` does not set.

    Args:
        value: the user's options; not changed.
        options: the schema with the defaults.

    Returns:
        A new mapping with exactly the schema's keys, including nested keys.
    """
    filled: dict[str, Any] = {}
    for name, option in options.items():
        given = value.get(name)
        if option.type == "options":
            filled[name] = with_defaults(given or {}, option.options)
        elif option.type == "mapping":
            filled[name] = {key: with_defaults(item or {}, option.options) for key, item in (given or {}).items()}
        else:
            filled[name] = plain_copy(option.default if given is None else given)
    return filled


def plain_copy(value: Any) -> Any:
    """Copy nested mappings and lists.

    Not with copy.deepcopy: Ansible's mappings and lists refer to the whole templating engine, which it would copy too.
    """
    if isinstance(value, Mapping):
        return {key: plain_copy(item) for key, item in value.items()}
    return [plain_copy(item) for item in value] if isinstance(value, list) else value


def as_text(value: Any) -> str:
    """Convert a scalar to the text of an environment variable: booleans become ``true`` and ``false``."""
    return str(value).lower() if isinstance(value, bool) else str(value)
