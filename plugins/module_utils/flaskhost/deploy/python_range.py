"""The versions of Python that a project declares to support, and whether an app's Python is one of them.

The files are part of the source: each is read up to a limit, and a range that is not understood counts as met.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.flaskhost.deploy import lockfiles, source_files, toml
from ansible.module_utils.flaskhost.deploy.selection import LONGEST_LOCK, LONGEST_SETTINGS, project_folder

#: One condition of a range: PEP 440, and Poetry's caret and tilde. A pre-release counts as its release.
_CONDITION = re.compile(
    r"(?P<sign>===|==|!=|>=|<=|~=|>|<|\^|~)?\s*v?(?P<version>\d+(?:\.\d+){0,3})(?P<any>(?:\.[*xX])?)"
    # Possessive, as a separator can belong to either of two parts: else some forty of them would take for ever.
    r"(?:[._-]?(?:alpha|beta|a|b|c|rc|dev|post)[._-]?\d*)*+(?![\w.])"
)
#: Patch levels that are tried if only the minor version is known.
_PATCHES = range(60)
#: Minor versions of Python 3 that a message can suggest.
_MINORS = range(10, 21)
#: Characters of a range that is read. A longer one is not understood.
_LONGEST = 500
#: Characters of a range that a message shows.
_LONGEST_SHOWN = 60


class Fault(NamedTuple):
    """What is wrong with the version of Python, and the version to set; empty if none that Flaskhost supports fits."""

    problem: str
    better: str


def find_fault(requirements: Path | None, app_dir: Path, version: str, *, chosen: bool) -> Fault | None:
    """Find a range that an app's Python is outside of.

    Args:
        requirements: the file that pins the dependencies.
        app_dir: the app's folder.
        version: the app's Python, with or without the patch level.
        chosen: whether the option ``python`` sets it.

    Returns:
        The first problem; None if there is none.

    Raises:
        ReleaseError: a file is too long.
    """
    for name, text in declared(requirements, app_dir):
        if is_met(text, version):
            continue
        whose = "which the option python sets" if chosen else "the distribution's"
        shown = "".join(item if item.isprintable() else "?" for item in " ".join(text.split()))[:_LONGEST_SHOWN]
        problem = f"{name} requires Python {shown}, but on this host, the app would run with Python {version}, {whose}."
        return Fault(problem, _suggest(text, version))
    return None


def declared(requirements: Path | None, app_dir: Path) -> Iterator[tuple[str, str]]:
    """Return the ranges that a project declares: the file's name and the range, for each file that has one."""
    if requirements and (kind := lockfiles.kind(requirements.name)):
        text = _of_lock(kind, source_files.read_lock(requirements))
        if text:
            yield requirements.name, text
    project = app_dir / "pyproject.toml"
    if requirements and not project.is_file():
        project = project_folder(requirements, app_dir) / "pyproject.toml"
    if not project.is_file():
        return
    settings = source_files.read_toml(project, LONGEST_SETTINGS)
    for steps in (("project", "requires-python"), ("tool", "poetry", "dependencies", "python")):
        text = _text(settings, *steps)
        if text:
            yield project.name, text


def is_met(text: str, version: str) -> bool:
    """Check whether a version is inside of a range.

    Args:
        text: the range, such as ``>=3.11,<4`` or ``^3.11``.
        version: the version. Without a patch level, it is enough that some patch level is inside.
    """
    if len(text) > _LONGEST:
        return True
    numbers = tuple(map(int, version.split(".")))
    tried = [numbers] if len(numbers) > 2 else [(*numbers, patch) for patch in _PATCHES]
    return any(_is_inside(text, item) for item in tried)


def _is_inside(text: str, version: tuple[int, ...]) -> bool:
    return any(_meets_all(part, version) for part in text.split("||"))


def _meets_all(part: str, version: tuple[int, ...]) -> bool:
    if re.sub(r"[\s,*]+", "", _CONDITION.sub("", part)):
        return True
    return all(_meets(match, version) for match in _CONDITION.finditer(part))


def _meets(match: re.Match[str], version: tuple[int, ...]) -> bool:
    given = tuple(map(int, match["version"].split(".")))[:3]
    least = (*given, 0, 0)[:3]
    # Projects that write ==3.12 mean all of its patch levels.
    same = version[: len(given)] == given
    head = given[:-1] if len(given) > 1 else given
    return {
        "": same,
        "==": same,
        "===": same,
        "!=": not same if match["any"] else version != least,
        ">=": version >= least,
        "<=": version <= least or (same and len(given) > 1),
        ">": version > least,
        "<": version < least,
        "~=": version >= least and version[: len(head)] == head,
        "^": version >= least and version[0] == given[0],
        "~": version >= least and version[: len(given[:2])] == given[:2],
    }[match["sign"] or ""]


def _suggest(text: str, version: str) -> str:
    """Return the minor version inside of a range that is closest to a version; empty if there is none."""
    minor = int(version.split(".")[1])
    found = [item for item in _MINORS if item != minor and is_met(text, f"3.{item}")]
    return f"3.{min(found, key=lambda item: (abs(item - minor), -item))}" if found else ""


def _of_lock(kind: str, text: str) -> str:
    """Return the range in a lock file; empty if it has none. Only the part of the file that can have it is parsed."""
    if kind in ("uv.lock", "pylock.toml"):
        return _text(_parse(re.split(r"(?m)^\[", text, maxsplit=1)[0]), "requires-python")
    if kind not in ("poetry.lock", "pdm.lock"):
        return ""
    start = re.search(r"(?m)^\[metadata\]", text)
    metadata = _parse(re.split(r"(?m)^\[\[package\]\]", text[start.start() :], maxsplit=1)[0]) if start else {}
    if kind == "poetry.lock":
        return _text(metadata, "metadata", "python-versions")
    inner = metadata.get("metadata")
    targets = inner.get("targets") if isinstance(inner, dict) else None
    ranges = [_text(target, "requires_python") for target in targets] if isinstance(targets, list) else []
    return " || ".join(ranges) if all(ranges) else ""


def _parse(text: str) -> dict[str, Any]:
    try:
        return toml.loads(text[:LONGEST_LOCK])
    except toml.Damaged:
        return {}


def _text(data: Any, *steps: str) -> str:
    for step in steps:
        data = data.get(step) if isinstance(data, dict) else None
    return data if isinstance(data, str) else ""
