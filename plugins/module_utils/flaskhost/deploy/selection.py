"""The option ``install``: which extras and groups of a project are installed, and whether the project itself is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.flaskhost.deploy import lockfiles, toml
from ansible.module_utils.flaskhost.deploy.pins import STEP, normalized
from ansible.module_utils.flaskhost.deploy.sources.archives import read_text
from ansible.module_utils.flaskhost.host.runner import ReleaseError

#: Maximum bytes of a lock file, and of a project's settings: root reads both into memory.
LONGEST_LOCK, LONGEST_SETTINGS = 16 * 1024**2, 1024**2


@dataclass(frozen=True)
class Selection:
    """What is installed besides a project's dependencies.

    Attributes:
        extras: its extras (optional dependencies).
        groups: its dependency groups.
        project: whether the project itself is installed as a package.
    """

    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    project: bool = False

    @classmethod
    def from_options(cls, options: dict[str, Any] | None) -> Selection:
        """Return the selection of the option ``install``."""
        given = options or {}
        return cls(tuple(given.get("extras") or ()), tuple(given.get("groups") or ()), bool(given.get("project")))

    def __bool__(self) -> bool:
        return bool(self.extras or self.groups or self.project)


class Fault(NamedTuple):
    """A problem with the option ``install``.

    Attributes:
        option: the part of the option, such as ``extras``.
        problem: what is wrong.
        cure: what works.
    """

    option: str
    problem: str
    cure: str


def find_fault(selection: Selection, requirements: Path, app_dir: Path) -> Fault | None:
    """Check that a project has the extras, the groups and the package that the option ``install`` names.

    Args:
        selection: the option.
        requirements: the file that pins the dependencies.
        app_dir: the app's folder.

    Returns:
        The first problem; None if there is none.

    Raises:
        ReleaseError: the lock file is damaged.
    """
    folder = project_folder(requirements, app_dir)
    name, (extras, groups) = requirements.name, _declared(requirements, folder)
    for option, wanted, known in (("extras", selection.extras, extras), ("groups", selection.groups, groups)):
        if wanted and known is None:
            problem = f"{name} has no {option}: install.{option} needs pyproject.toml or a lock file."
            return Fault(option, problem, f"Remove install.{option}, and list the packages in {name}.")
        missing = [item for item in wanted if normalized(item) not in (known or ())]
        if missing and known is not None:
            available = f"Available: {', '.join(sorted(known))}." if known else "It has none."
            problem = f"{_source(name)} has no {'extra' if option == 'extras' else 'group'} {missing[0]}. {available}"
            return Fault(
                option, problem, f"Correct install.{option}, or add {missing[0]} to the project and lock again."
            )
    if selection.project and not _is_project(folder):
        problem = f"The app's folder is not a package: {folder.name or 'it'} has neither pyproject.toml nor setup.py."
        return Fault("project", problem, "Remove install.project: the app then runs from its folder.")
    return None


def project_folder(requirements: Path, app_dir: Path) -> Path:
    """Return the folder of the project that a lock file belongs to: the app's own, if that is a project."""
    return app_dir if _is_project(app_dir) else requirements.parent


def _is_project(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("pyproject.toml", "setup.py"))


def _source(name: str) -> str:
    return "pyproject.toml" if name == "uv.lock" else name


def _declared(requirements: Path, folder: Path) -> tuple[set[str] | None, set[str] | None]:
    """Return the names of the project's extras and groups; None for what the file cannot have."""
    name = requirements.name
    if name in ("uv.lock", "pyproject.toml"):
        project = read_project(folder)
        groups = {*_keys(project, "dependency-groups")} | {
            "dev" for key in _keys(project, "tool", "uv") if key == "dev-dependencies"
        }
        extras = {*_keys(project, "project", "optional-dependencies")}
        return {*map(normalized, extras)}, {*map(normalized, groups)}
    if not lockfiles.kind(name):
        return None, None
    extras, groups = lockfiles.declared(name, read_text(requirements, LONGEST_LOCK, STEP))
    return (None if name == "Pipfile.lock" else extras), groups


def _keys(data: Any, *steps: str) -> list[str]:
    for step in steps:
        data = data.get(step) if isinstance(data, dict) else None
    return list(data) if isinstance(data, dict) else []


def read_project(folder: Path) -> dict[str, Any]:
    """Return a project's settings; empty if there are none.

    Raises:
        ReleaseError: pyproject.toml is damaged.
    """
    path = folder / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        return toml.loads(read_text(path, LONGEST_SETTINGS, STEP))
    except toml.Damaged as error:
        raise ReleaseError(STEP, f"pyproject.toml is damaged: {error}.", "Correct it.") from None


def check_project(requirements: Path) -> None:
    """Check that a pyproject.toml that is to be installed from lists its dependencies where uv reads them.

    Raises:
        ReleaseError: it has the form of Poetry before 2.0.
    """
    if requirements.name != "pyproject.toml":
        return
    project = read_project(requirements.parent)
    if "project" not in project and "poetry" in _keys(project, "tool"):
        raise ReleaseError(
            STEP,
            "pyproject.toml lists its dependencies in [tool.poetry], which only Poetry reads.",
            "Add poetry.lock ('poetry lock', with Poetry 2), and set requirements to poetry.lock or remove it.",
        )


def missing_lock_cure(folder: Path) -> str:
    """Return the command that locks an app's dependencies, for the tool that its files belong to."""
    try:
        project = read_project(folder)
    except (ReleaseError, OSError):
        project = {}
    tools = _keys(project, "tool")
    if "poetry" in tools:
        return "Add poetry.lock ('poetry lock', with Poetry 2), or set requirements to a file that pins them."
    if "pdm" in tools:
        return "Add pdm.lock ('pdm lock'), or set requirements to a file that pins them."
    if (folder / "Pipfile").is_file():
        return "Add Pipfile.lock ('pipenv lock'), or set requirements to a file that pins them."
    return "Add one ('uv lock', or 'pip freeze > requirements.txt'), or set requirements to its path."
