"""Warn about release commands that look as if they delete data: a release command runs for each new release."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..deploy.procfile import read_procfile
from .report import get

#: Words of commands that delete all data and create it anew, in many apps: ``flask init-db`` of Flask's own tutorial
#: drops all tables.
_WORDS = re.compile(
    r"\b(?:(?:init|reset|recreate|clear|wipe)[-_]?(?:db|database)|drop[-_](?:all|db|database|tables?)"
    r"|(?:drop|truncate)\s+(?:database|schema|table)\b|truncate\b)",
    re.IGNORECASE,
)
#: Creates a migrations folder, which belongs into the repository; in a release it fails, or hides the real one.
_NEW_MIGRATIONS = re.compile(r"\bdb\s+init\b")
#: Maximum number of characters of a Procfile that are read.
_LONGEST = 64 * 1024


def release_warnings(apps: Any, project_dir: Path) -> list[str]:
    """Warn about commands that probably delete data. One after ``||`` has a condition, and is not told.

    Args:
        apps: the user's ``flask_apps``, of any type.
        project_dir: the base folder for a relative ``source.path``, on the control node.

    Returns:
        One sentence or two for each app with such a command; the line ``release`` of a Procfile is read only if the
        source is a folder on the control node.
    """
    found = []
    for name, app in apps.items() if isinstance(apps, dict) else ():
        variable, command = f"flask_apps.{name}.release_command", get(app, str, "release_command") or ""
        if not command:
            variable, command = f"flask_apps.{name}: the release line of its Procfile", _of_procfile(app, project_dir)
        match = _WORDS.search(command)
        if match and "||" not in command[: match.start()]:
            found.append(
                f"{variable}: {match[0]!r} often deletes all data, and the command runs for each new release. If it "
                "does, make it the setup_command, which runs only once."
            )
        elif _NEW_MIGRATIONS.search(command):
            found.append(
                f"{variable}: 'db init' creates a migrations folder. Run it once on your computer and commit the "
                "folder. The release command is 'flask db upgrade'."
            )
    return found


def _of_procfile(app: Any, project_dir: Path) -> str:
    """Return the release command of a Procfile on the control node; empty if there is none."""
    path, subdir = get(app, str, "source", "path"), get(app, str, "source", "subdir") or ""
    if not path:
        return ""
    try:
        with (project_dir / path / subdir / "Procfile").open(encoding="utf-8", errors="replace") as stream:
            return read_procfile(stream.read(_LONGEST)).get("release", "")
    except (OSError, ValueError):
        return ""
