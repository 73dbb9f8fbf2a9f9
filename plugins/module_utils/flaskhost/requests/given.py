"""Read the variables that an operator sets with ``-e``, in the same way for all playbooks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: In YAML, on is true, and JSON has true; on a command line, all of them are strings.
ON = ("on", "true", "yes", "1")
OFF = ("off", "false", "no", "0")
#: The name of a release.
RELEASE = re.compile(r"\d{8}T\d{6}Z-[0-9a-zA-Z._-]{1,40}")


class Refused(ValueError):
    """A variable is invalid. The text names the variable and the fix."""


def text(given: Mapping[str, Any], name: str) -> str:
    """Return a variable as text; empty if it is not set."""
    value = given.get(name)
    return "" if value is None else str(value).strip()


def require_all_words(given: Mapping[str, Any], name: str) -> None:
    """Refuse a value that lost its end.

    The shell strips the quotes of ``-e version="v1 x"``, and Ansible then ends the value at the space and puts the rest
    into ``_raw_params``. Half a value must not be used. The rest is not shown, because it could belong to a secret.

    Args:
        given: the variables, with ``_raw_params``.
        name: the variable that most likely contains a space, for the example.
    """
    if text(given, "_raw_params"):
        cure = f"Quote the value twice: -e \"{name}='...'\""
        raise Refused(f"{name}: words were lost, because -e ends a value at a space. {cure}")


def switch(given: Mapping[str, Any], name: str, default: bool) -> bool:
    """Return a variable that is on or off."""
    word = text(given, name).lower()
    if word and word not in ON + OFF:
        fix = f"Example: -e {name}={'off' if default else 'on'}"
        raise Refused(f"{name}: {text(given, name)!r} is neither on nor off. {fix}")
    return word in ON if word else default


def seconds(given: Mapping[str, Any], name: str, default: int) -> int:
    """Return a variable that is a time limit."""
    number = text(given, name)
    if number and not re.fullmatch(r"0*[1-9][0-9]{0,8}", number):
        raise Refused(f"{name}: {number!r} is not a number of seconds. Example: -e {name}={default}")
    return int(number or default)


def release(given: Mapping[str, Any]) -> str:
    """Return the variable ``release``."""
    name = text(given, "release")
    if name and not RELEASE.fullmatch(name):
        raise Refused(f"release: {name!r} is not a release name such as 20261121T101500Z-1a2b3c4. See status.yml.")
    return name


def app(given: Mapping[str, Any], apps: Any) -> str:
    """Return the variable ``app``."""
    name = text(given, "app")
    if name and name not in names(apps):
        raise Refused(f"app: there is no app {name!r} in flask_apps. Available: {listed(apps)}.")
    return name


def names(apps: Any) -> list[str]:
    """Return the names in ``flask_apps``, or none if it is not a mapping."""
    return sorted(str(name) for name in apps) if isinstance(apps, Iterable) and not isinstance(apps, str) else []


def listed(apps: Any) -> str:
    """Return the names in ``flask_apps`` for a message."""
    return ", ".join(names(apps)) or "none"
