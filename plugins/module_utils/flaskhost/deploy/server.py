"""The application server's settings and units, and which of their lines follow the host's memory and cores.

Such a figure changes whenever an app is added or removed, because all apps share the host. It does not make a new
release: the live release restarts with it in the other slot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

#: The lines whose figures :mod:`apps.sizing` computes, in gunicorn's settings and in the slots' units.
FIGURES = re.compile(r"^((?:workers|MemoryMax|MemorySwapMax) *=.*)\n?", re.MULTILINE)
#: The start command in a slot's unit.
COMMAND = re.compile(r"^ExecStart=(.*)$", re.MULTILINE)
#: The start command of a release whose record has none, because an earlier version of Flaskhost built it. It can only
#: be one of gunicorn.
FIRST_COMMAND = "{slots}/%i/venv/bin/gunicorn --config {slots}/%i/server.conf.py ${{FLASK_APP}}"
#: Part of its memory limit by which an app's share of the host can change without a restart. Adding an eighth app to
#: seven takes an eighth of each share.
SLACK = 0.2


def read(path: str | Path) -> str:
    """Read a file of the server's; empty if there is none."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def without_figures(paths: Iterable[str]) -> list[str]:
    """Return the texts of files without the lines that follow the host's size."""
    return [FIGURES.sub("", read(path)) for path in paths]


def figures(path: str) -> list[str]:
    """Return the lines of a file that follow the host's size."""
    return FIGURES.findall(read(path))


def command(unit: str) -> str:
    """Return the start command in the text of a slot's unit; empty if there is none."""
    found = COMMAND.search(unit)
    return found[1] if found else ""


def with_command(unit: str, wanted: str) -> str:
    """Return the text of a slot's unit with another start command."""
    return COMMAND.sub(lambda _found: f"ExecStart={wanted}", unit)


def is_enough(old: int, new: int, follows_host: bool) -> bool:
    """Check whether an app can go on with its memory limit until its next release.

    Args:
        old: the limit with which it runs, in MB.
        new: the limit that it should have, in MB.
        follows_host: whether the new limit is the app's share of the host; if not, the user has set it.
    """
    return old == new or (follows_host and abs(new - old) <= SLACK * old)
