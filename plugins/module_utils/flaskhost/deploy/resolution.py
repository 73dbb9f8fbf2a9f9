"""The versions that uv chose for a requirements file without exact pins, kept until the file changes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.deploy import toml
from ansible.module_utils.flaskhost.deploy.pins import logical_lines, normalized
from ansible.module_utils.flaskhost.deploy.selection import Selection
from ansible.module_utils.flaskhost.host import atomic

#: Maximum number of kept files for an app.
_MOST = 20
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)[ \t]*(?:\[[^\]\n]{0,500}\])?[ \t]*(?P<rest>[^\n]*)")
_EXACT = re.compile(r"={2,3}[ \t]*[A-Za-z0-9.+!_-]+[ \t]*(?:[;#\\]|--hash|$)")


def direct_requirements(texts: dict[Path, str], selection: Selection) -> list[str]:
    """Return the requirements that the files of an app name.

    Args:
        texts: the content of a requirements file and of those that it includes, or of a pyproject.toml.
        selection: the extras and groups that are installed, too.
    """
    found: list[str] = []
    for path, text in texts.items():
        found += _of_project(text, selection) if path.name == "pyproject.toml" else logical_lines(text)
    return [entry for entry in found if re.match(r"[A-Za-z0-9]", entry)]


def _of_project(text: str, selection: Selection) -> list[str]:
    try:
        data = toml.loads(text)
        project = data["project"]
        tables = [
            [project.get("dependencies", [])],
            [part for name, part in project.get("optional-dependencies", {}).items() if name in selection.extras],
            [part for name, part in data.get("dependency-groups", {}).items() if name in selection.groups],
        ]
        entries: list[Any] = [entry for table in tables for part in table for entry in part]
    except (toml.Damaged, KeyError, TypeError, AttributeError):
        return []
    return [entry for entry in entries if isinstance(entry, str)]


def names(requirements: Iterable[str]) -> set[str]:
    """Return the normalized names of the packages that requirements name."""
    return {normalized(match["name"]) for match in map(_REQUIREMENT.match, requirements) if match}


def unpinned(requirements: Iterable[str]) -> list[str]:
    """Return the names of the packages for which no requirement has an exact version or a URL."""
    named: dict[str, str] = {}
    exact: set[str] = set()
    for entry in requirements:
        if match := _REQUIREMENT.match(entry):
            name, rest = normalized(match["name"]), match["rest"]
            named.setdefault(name, match["name"])
            if _EXACT.match(rest) or rest.startswith(("@", "/", ":")):
                exact.add(name)
    return [shown for name, shown in named.items() if name not in exact]


def read(path: Path) -> list[str]:
    """Return the kept versions, as lines of a requirements file; empty if there are none."""
    try:
        return path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return []


def write(path: Path, versions: dict[str, str]) -> None:
    """Keep the versions that were installed. Remove the oldest files of an app that has many."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    atomic.write(path, "".join(f"{name}=={version}\n" for name, version in sorted(versions.items())))
    files = sorted(path.parent.glob("*.txt"), key=lambda file: file.stat().st_mtime)
    for old in files[:-_MOST]:
        old.unlink()


def warning(requirements: str, packages: list[str], path: Path) -> str:
    """Return the warning about packages without an exact version, with the command that pins them."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    command = (
        "uv lock"
        if requirements == "pyproject.toml"
        else f"uv pip compile --generate-hashes --python-version {python} --output-file pinned.txt {requirements}"
    )
    more = f" and {len(packages) - 5} more" if packages[5:] else ""
    cure = "" if requirements == "pyproject.toml" else ", and set requirements to pinned.txt"
    return (
        f"{requirements} does not pin the version of {', '.join(packages[:5])}{more}. This host keeps the installed "
        f"versions in {path} until {requirements} changes. Other hosts can install newer ones. To pin them all, run "
        f"'{command}'{cure}."
    )
