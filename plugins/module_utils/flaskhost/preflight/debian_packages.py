"""The Debian packages that apps name: check them against the host's package lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..apps.schema import DEBIAN_PACKAGE
from .report import Place, Report, get, show

OPTIONS = ("build_packages", "system_packages")


def _named(variable: str, apps: Any) -> Iterator[tuple[Place, str]]:
    """Yield each name with its place."""
    for app, options in apps.items() if isinstance(apps, Mapping) else ():
        for option in OPTIONS:
            for index, name in enumerate(get(options, list, option) or []):
                if isinstance(name, str) and re.fullmatch(DEBIAN_PACKAGE, name):
                    yield (variable, app, option, index), name


def packages_to_look_up(apps: Any) -> list[str]:
    """Return the valid names of Debian packages in the apps, of any type."""
    return sorted({name for _place, name in _named("", apps)})


def check_debian_packages(report: Report, variable: str, apps: Mapping[Any, Any], unknown: Any) -> None:
    """Report the packages that the host's lists do not contain.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: the apps by name.
        unknown: their names, from the host.
    """
    for place, name in _named(variable, apps):
        if isinstance(unknown, list) and name in unknown and report.clean(place):
            problem = f"The package lists of the host have no Debian package {show(name)}."
            cure = "the name that 'apt-cache search' prints on the host (sudo apt-get update, if its lists are old)"
            report.add("unknown_debian_package", place, problem, cure)
