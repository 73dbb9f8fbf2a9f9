"""Lock files of other tools than uv, as lines of a requirements file: pylock.toml, Poetry, PDM and Pipenv."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ansible.module_utils.flaskhost.deploy import toml
from ansible.module_utils.flaskhost.deploy.pins import STEP, normalized
from ansible.module_utils.flaskhost.host.runner import ReleaseError

if TYPE_CHECKING:
    from ansible.module_utils.flaskhost.deploy.selection import Selection

_T = TypeVar("_T")

#: Parts of a marker that name an extra or a group: ``extra == "x"`` of Poetry, and ``"x" in extras`` of PEP 751.
_CHOICE = re.compile(
    r"""\bextra\s*==\s*(?P<q>['"])(?P<extra>[^'"]*)(?P=q)"""
    r"""|(?P<r>['"])(?P<item>[^'"]*)(?P=r)\s+(?P<no>not\s+)?in\s+(?P<set>extras|dependency_groups)\b"""
)
#: Markers that are true on no Linux host.
_ELSEWHERE = re.compile(r"(?:sys_platform|platform_system|os_name) == ['\"](?:win32|darwin|Windows|Darwin|nt)['\"]")
#: What stands for such a part once it is decided. Each tool that reads markers knows this variable.
_TRUE, _FALSE = "python_version >= '0'", "python_version < '0'"

#: Maximum number of lists and objects in a Pipfile.lock.
_MOST_TABLES = 200_000


def kind(name: str) -> str:
    """Return which lock file this is, by its file name; empty for a requirements file or a pyproject.toml."""
    if re.fullmatch(r"pylock\.[^.]+\.toml", name):
        return "pylock.toml"
    return name if name == "uv.lock" or name in FORMATS else ""


def change(name: str, package: str, version: str) -> str:
    """Return how to change the version of a package in a lock file, as the first words of a sentence."""
    command = {
        "uv.lock": f"uv add '{package}=={version}'",
        "poetry.lock": f"poetry add '{package}=={version}'",
        "pdm.lock": f"pdm add '{package}=={version}'",
        "Pipfile.lock": f"pipenv install '{package}=={version}'",
    }.get(kind(name))
    return f"Change the lock file ({command})" if command else f"Lock {package} {version}"


def lines(name: str, text: str, selection: Selection) -> list[str]:
    """Convert a lock file to lines of a requirements file, with the hashes of its packages.

    Args:
        name: the file's name.
        text: its content.
        selection: the extras and groups to include.

    Returns:
        A line for each package, not yet checked: see :func:`pins.read`.

    Raises:
        ReleaseError: the format or its version is not supported, or the file is damaged.
    """
    reader = FORMATS[kind(name)]
    return _guarded(name, lambda: list(reader(_parse(name, text), selection)))


def declared(name: str, text: str) -> tuple[set[str], set[str]]:
    """Return the normalized names of the extras and of the groups that a lock file knows."""
    data = _parse(name, text)

    def collect() -> tuple[set[str], set[str]]:
        names = _DECLARED[kind(name)](data)
        return {normalized(item) for item in names[0]}, {normalized(item) for item in names[1]}

    return _guarded(name, collect)


def _parse(name: str, text: str) -> Any:
    def load() -> Any:
        data = _json(text) if kind(name) == "Pipfile.lock" else toml.loads(text)
        if not isinstance(data, dict):
            raise TypeError("no table")
        return data

    return _guarded(name, load)


def _json(text: str) -> Any:
    # Five million empty lists in 16 MB would take 400 MB of memory.
    if text.count("[") + text.count("{") > _MOST_TABLES:
        raise ValueError("it has too many lists and objects")
    return json.loads(text)


def _guarded(name: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ReleaseError(
            STEP,
            f"{name} is damaged, or has a format that Flaskhost does not know.",
            "Lock again with the tool that wrote it, or export the packages as requirements.txt and set requirements "
            "to that file.",
        ) from None


def _unsupported(problem: str, cure: str) -> ReleaseError:
    return ReleaseError(STEP, problem, cure)


# -- the formats ----------------------------------------------------------------------------------------------------


def _pylock(data: dict[str, Any], selection: Selection) -> Iterator[str]:
    """PEP 751. The versions and hashes count; where to download is the host's own decision, as for uv.lock."""
    version = data["lock-version"]
    if not version.startswith("1."):
        raise _unsupported(
            f"pylock.toml has the lock-version {version}, but Flaskhost reads 1.x.", "Lock again: pylock.toml 1.0."
        )
    groups = [*data.get("default-groups", []), *selection.groups]
    chosen = _chosen(selection.extras, groups)
    for package in data.get("packages", []):
        marker = _decided("pylock.toml", package.get("marker", ""), chosen)
        name = package["name"]
        if vcs := package.get("vcs"):
            if vcs["type"] != "git":
                raise _unsupported(f"pylock.toml has {name} from {vcs['type']}.", "Use git for this package.")
            yield _git(name, vcs.get("url") or vcs["path"], vcs["commit-id"], vcs.get("subdirectory"), marker)
        elif folder := package.get("directory"):
            yield _path(folder["path"], folder.get("subdirectory"), folder.get("editable", False), marker)
        elif archive := package.get("archive"):
            hashes = _digests([archive])
            if "url" in archive:
                yield _line(f"{name} @ {_fragment(archive['url'], archive.get('subdirectory'))}", marker, hashes)
            else:
                yield _line(_relative(archive["path"]), marker, hashes)
        else:
            files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
            yield _line(f"{name}=={package['version']}", marker, _digests(files))


def _digests(files: Iterable[dict[str, Any]]) -> list[str]:
    strong = ("sha256", "sha384", "sha512")
    return [f"{name}:{item['hashes'][name]}" for item in files for name in strong if name in item.get("hashes", {})]


def _poetry(data: dict[str, Any], selection: Selection) -> Iterator[str]:
    """Poetry 2: each package names its groups, and its marker names the extras that need it."""
    version = data["metadata"]["lock-version"]
    if tuple(int(part) for part in version.split(".")) < (2, 1):
        raise _unsupported(
            f"poetry.lock has the lock-version {version}, in which packages do not name their groups.",
            "Lock again with Poetry 2 ('poetry lock'), or run 'poetry export -f requirements.txt --output "
            "requirements.txt' and set requirements to that file.",
        )
    wanted, extras = ["main", *map(normalized, selection.groups)], _chosen(selection.extras)
    for package in data.get("package", []):
        markers = package.get("markers", "")
        chosen = [group for group in package["groups"] if normalized(group) in wanted]
        if not chosen:
            continue
        texts = [markers] if isinstance(markers, str) else [markers.get(group, "") for group in chosen]
        marker = "" if "" in texts else " or ".join(f"({text})" for text in texts) if texts[1:] else texts[0]
        marker = _decided("poetry.lock", marker, extras)
        source, name = package.get("source", {}), package["name"]
        hashes = [item["hash"] for item in package.get("files", [])]
        match source.get("type", "legacy"):
            case "legacy":
                yield _line(f"{name}=={package['version']}", marker, hashes)
            case "git":
                yield _git(name, source["url"], source["resolved_reference"], source.get("subdirectory"), marker)
            case "url":
                yield _line(f"{name} @ {_fragment(source['url'], source.get('subdirectory'))}", marker, hashes)
            case "file":
                yield _line(_relative(source["url"]), marker, hashes)
            case "directory":
                yield _path(source["url"], None, package.get("develop", False), marker)
            case other:
                raise ValueError(other)


def _pdm(data: dict[str, Any], selection: Selection) -> Iterator[str]:
    """PDM: extras and groups are the same kind of group, and each package names its own."""
    metadata = data["metadata"]
    if not metadata["lock_version"].startswith("4.") or "inherit_metadata" not in metadata.get("strategy", []):
        raise _unsupported(
            "pdm.lock does not say which group needs which package.",
            "Lock again with 'pdm lock --strategy inherit_metadata' (PDM 2.11 or newer), or run 'pdm export --prod "
            "--output requirements.txt' and set requirements to that file.",
        )
    wanted = {"default", *map(normalized, (*selection.extras, *selection.groups))}
    for package in data.get("package", []):
        if not wanted & {normalized(group) for group in package["groups"]}:
            continue
        name, marker = package["name"], _decided("pdm.lock", package.get("marker", ""), _chosen())
        hashes = [item["hash"] for item in package.get("files", [])]
        if "git" in package:
            yield _git(name, package["git"], package["revision"], package.get("subdirectory"), marker)
        elif "url" in package:
            yield _line(f"{name} @ {_fragment(package['url'], package.get('subdirectory'))}", marker, hashes)
        elif "path" in package:
            yield _path(package["path"], package.get("subdirectory"), package.get("editable", False), marker, hashes)
        else:
            yield _line(f"{name}=={package['version']}", marker, hashes)


def _pipenv(data: dict[str, Any], selection: Selection) -> Iterator[str]:
    """Pipenv: a table of packages for each category. ``default`` holds the app's own."""
    if data["_meta"]["pipfile-spec"] != 6:
        raise ValueError("pipfile-spec")
    for category in ("default", *selection.groups):
        found: dict[str, Any] = next((data[key] for key in data if normalized(key) == normalized(category)), {})
        for name, package in found.items():
            marker = _decided("Pipfile.lock", package.get("markers", ""), _chosen())
            hashes = package.get("hashes", [])
            if "git" in package:
                yield _git(name, package["git"], package["ref"], package.get("subdirectory"), marker)
            elif "file" in package or "path" in package:
                where = package.get("file") or package["path"]
                if "://" in where:
                    yield _line(f"{name} @ {where}", marker, hashes)
                else:
                    yield _path(where, package.get("subdirectory"), package.get("editable", False), marker, hashes)
            else:
                if package["version"] == "*" and _ELSEWHERE.fullmatch(marker):
                    # Pipenv does not lock what the machine that locks does not need.
                    continue
                yield _line(f"{name}{package['version']}", marker, hashes)


#: The readers of lock files, by the files' names.
FORMATS: dict[str, Callable[[dict[str, Any], Selection], Iterator[str]]] = {
    "pylock.toml": _pylock,
    "poetry.lock": _poetry,
    "pdm.lock": _pdm,
    "Pipfile.lock": _pipenv,
}
#: The extras and the groups that a lock file knows.
_DECLARED: dict[str, Callable[[dict[str, Any]], tuple[Iterable[str], Iterable[str]]]] = {
    "pylock.toml": lambda data: (data.get("extras", []), data.get("dependency-groups", [])),
    "poetry.lock": lambda data: (
        data.get("extras", {}),
        {group for package in data.get("package", []) for group in package.get("groups", []) if group != "main"},
    ),
    "pdm.lock": lambda data: (data["metadata"]["groups"], data["metadata"]["groups"]),
    "Pipfile.lock": lambda data: ([], data.keys() - {"_meta", "default"}),
}


# -- their lines ----------------------------------------------------------------------------------------------------


def _chosen(extras: Iterable[str] = (), groups: Iterable[str] = ()) -> dict[str, set[str]]:
    """Return what is installed, for :func:`_decided`. Once for a file, which can name a million default groups."""
    return {"extras": set(map(normalized, extras)), "dependency_groups": set(map(normalized, groups))}


def _decided(lock: str, marker: str, chosen: dict[str, set[str]]) -> str:
    """Replace the parts of a marker that name extras or groups: which of them are installed is known."""

    def decide(match: re.Match[str]) -> str:
        name = match["extra"] if match["item"] is None else match["item"]
        found = normalized(name) in chosen[match["set"] or "extras"]
        return _TRUE if found != bool(match["no"]) else _FALSE

    decided = _CHOICE.sub(decide, marker)
    if re.search(r"\b(?:extras?|dependency_groups)\b", re.sub(r"'[^']*'|\"[^\"]*\"", "", decided)):
        raise _unsupported(
            f"{lock} has the marker {marker!r}, which Flaskhost cannot read.",
            "Export the packages as requirements.txt, and set requirements to that file.",
        )
    return decided


def _line(head: str, marker: str, hashes: Iterable[str] = ()) -> str:
    return " ".join([head, *([f"; {marker}"] if marker else []), *(f"--hash={item}" for item in dict.fromkeys(hashes))])


def _git(name: str, url: str, commit: str, folder: str | None, marker: str) -> str:
    if short := re.fullmatch(r"([\w.-]+@[\w.-]+):([^/].*)", url):
        url = f"ssh://{short[1]}/{short[2]}"
    return _line(f"{name} @ {_fragment(f'git+{url}@{commit}', folder)}", marker)


def _path(path: str, folder: str | None, editable: bool, marker: str, hashes: Iterable[str] = ()) -> str:
    return _line(
        ("-e " if editable else "") + _relative("/".join([path, *([folder] if folder else [])])), marker, hashes
    )


def _relative(path: str) -> str:
    """Return a path as uv reads it in a requirements file: one that begins with a dot is never a package's name."""
    return path if path.startswith((".", "/")) or ":" in path else f"./{path}"


def _fragment(url: str, folder: str | None) -> str:
    return f"{url}#subdirectory={folder}" if folder else url
