"""Rules about Debian packages."""

from __future__ import annotations

import re

from ...apps.schema import DEBIAN_PACKAGE
from ..report import Fault, show


def debian_package(value: str) -> Fault | None:
    """Check the name of a Debian package: only a name, because root passes it to apt."""
    if re.fullmatch(DEBIAN_PACKAGE, value):
        return None
    for found, problem in (
        (value.startswith("-"), "is an option of apt. Write only the names of packages."),
        ("==" in value, "is a Python package. Those belong in the lock file, or in extra_packages."),
        (re.search(r"[=/]", value), "names a version or a release. apt installs the version of the host's Debian."),
        (":" in value, "names an architecture. apt installs packages for the host's own."),
        (re.search(r"[\s,;]", value), "is more than one name, or contains a space. Write one name per entry."),
        (re.search(r"[*?\[\]^]", value), "is a pattern. Write the name of each package."),
        (value != value.lower(), "has capital letters, which names of Debian packages do not have."),
        (re.search(r"[+-]$", value), "ends in a sign that apt reads as an instruction."),
    ):
        if found:
            return Fault("bad_debian_package", f"{show(value)} {problem}")
    return Fault("bad_debian_package", f"{show(value)} is not the name of a Debian package.")
