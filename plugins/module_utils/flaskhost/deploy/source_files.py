"""The files in an app's source that decide which packages are installed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.deploy import lockfiles, toml
from ansible.module_utils.flaskhost.deploy.selection import LONGEST_LOCK, LONGEST_SETTINGS
from ansible.module_utils.flaskhost.deploy.sources.archives import read_text
from ansible.module_utils.flaskhost.host.runner import ReleaseError

#: The files that can pin the dependencies, in order. Many repositories have a requirements.txt beside the lock file of
#: another tool than uv: for them, Flaskhost has always used it.
CANDIDATES = ("uv.lock", "requirements.txt", *lockfiles.FORMATS, "pyproject.toml")
#: Maximum number of lines that include another file. All files together can be as long as one lock file.
_MOST_INCLUDED = 200
#: Patterns, by the file's name, of entries that install code from the source itself (`-e .`, `./library`, a path
#: source). The project itself in its own lock does not count.
LOCAL_CODE = {
    "uv.lock": re.compile(r'source = \{ (?:editable|directory|path) = "(?!\.")'),
    "pyproject.toml": re.compile(r"[{,]\s*(?:path|workspace)\s*=|@\s*file:"),
    "": re.compile(
        r"^[ \t]*(?:-e|--editable|(?:[\w.,\[\]-]+\s*@\s*)?(?:file:|\.{0,2}/|\.\s*(?:[\[;#]|$))|[\w.-]+/)", re.MULTILINE
    ),
}
#: Entries of a requirements file or a pyproject.toml that uv installs as editable: as links to the source.
EDITABLE = re.compile(r"^[ \t]*(?:-e|--editable)|[{,]\s*(?:editable\s*=\s*true|workspace\s*=)", re.MULTILINE)


def find_requirements(folder: Path, named: str = "", top: Path | None = None) -> Path | None:
    """Find the file that pins the dependencies.

    Args:
        folder: the app's folder.
        named: the file that the user's options name, relative to ``folder`` or to ``top``.
        top: the folder of the whole source, searched second.

    Returns:
        The file, or None. A pyproject.toml without dependencies (only tool settings) does not count.
    """
    for place in [folder, top] if top and top != folder else [folder]:
        for name in [named] if named else CANDIDATES:
            path = place / name
            if path.is_file() and (path.name != "pyproject.toml" or named or _has_dependencies(path)):
                return path
    return None


def _has_dependencies(path: Path) -> bool:
    try:
        return bool(toml.loads(read_lock(path, LONGEST_SETTINGS)).get("project", {}).get("dependencies"))
    except (toml.Damaged, AttributeError):
        return False


def read_lock(path: Path, longest: int = LONGEST_LOCK) -> str:
    """Read a file of the source that pins dependencies, up to a maximum number of bytes."""
    return read_text(path, longest, "Build the virtual environment")


def find_wheelhouse(folder: Path, named: str, top: Path | None = None) -> Path | None:
    """Find the folder of packages from which an environment is built offline.

    Args:
        folder: the app's folder.
        named: the folder that the user's options name, relative to ``folder`` or to ``top``; empty for none.
        top: the folder of the whole source, searched second.

    Returns:
        The folder; None if none is named.

    Raises:
        ReleaseError: the folder does not exist, or contains no packages.
    """
    if not named:
        return None
    found = next((place / named for place in (folder, top or folder) if (place / named).is_dir()), None)
    if found and packages_in(found):
        return found
    problem = "has no package (.whl, .tar.gz, .zip)" if found else "is not in the source"
    raise ReleaseError(
        "Build the virtual environment",
        f"the wheelhouse {named} {problem}.",
        "Correct wheelhouse, or add the packages to that folder ('pip download --dest', 'pip wheel --wheel-dir') and "
        "commit it.",
    )


def packages_in(wheelhouse: Path) -> list[Path]:
    """Return the packages in a wheelhouse, sorted by name: wheels, and source archives to build wheels from."""
    return sorted(path for path in wheelhouse.iterdir() if path.name.endswith((".whl", ".tar.gz", ".zip")))


def uv_settings(requirements: Path, app_dir: Path) -> list[str]:
    """Return uv's inputs besides the lock: settings in the code tree and, for a uv.lock, the project's groups.

    uv reads uv.toml or [tool.uv] in pyproject.toml from the folder where it runs, or the nearest parent that has one.
    All of them count here: one that uv ignores costs an extra environment, but a missed one would give a wrong one.
    """
    found: list[str] = []
    for start in dict.fromkeys((requirements.parent, app_dir)):
        for place in (start, *start.parents):
            project = read_toml(place / "pyproject.toml")
            groups = project.get("dependency-groups") if requirements.name == "uv.lock" else None
            tool = project.get("tool")
            settings = [read_toml(place / "uv.toml"), tool.get("uv") if isinstance(tool, dict) else None, groups]
            # Without the folder's name, which differs in each release.
            found += [json.dumps(item, sort_keys=True, default=str) for item in settings if item]
    return found


def read_toml(path: Path, longest: int = LONGEST_SETTINGS) -> dict[str, Any]:
    """Read a TOML file; return the text of a damaged one, and an empty mapping if the file does not exist."""
    try:
        text = read_lock(path, longest)
    except OSError:
        return {}
    try:
        return toml.loads(text)
    except toml.Damaged:
        return {"damaged": text}


def read_all(requirements: Path, top: Path | None = None) -> dict[Path, str]:
    """Return the content of the file that pins the dependencies, and of the files that it includes; see `included`."""
    return {path: read_lock(path) for path in [requirements, *included(requirements, top)]}


def included(requirements: Path, top: Path | None = None) -> list[Path]:
    """Return the files that a requirements file includes with -r or -c, recursively and without duplicates.

    Raises:
        ReleaseError: a file is outside of the source, where root could read what the app cannot; or there are too many.
    """
    found: list[Path] = []
    lines = length = 0
    inside = (top or requirements.parent).resolve()
    queue = [] if requirements.suffix in (".lock", ".toml") else [requirements]
    while queue:
        here = queue.pop()
        text = read_lock(here)
        length += len(text)
        for line in text.splitlines():
            match = re.match(r"\s*(?:-[rc][\s=]*|--(?:requirement|constraint)[\s=]+)(\S+)", line)
            if not match or "://" in match.group(1):
                continue
            lines += 1
            if lines > _MOST_INCLUDED:
                break
            path = Path(os.path.realpath(here.parent / match.group(1)))
            if not path.is_relative_to(inside):
                raise ReleaseError(
                    "Build the virtual environment",
                    f"{here.name} includes {match.group(1)}, which is outside the source.",
                    "Add that file to the source, and include it by its path there.",
                )
            if path.is_file() and path not in found and path != requirements.resolve():
                found.append(path)
                queue.append(path)
        if lines > _MOST_INCLUDED or length > LONGEST_LOCK:
            raise ReleaseError(
                "Build the virtual environment",
                f"{requirements.name} includes more than {_MOST_INCLUDED} files or {LONGEST_LOCK >> 20} MB.",
                "Put the packages into fewer files.",
            )
    return sorted(found)
