"""What a lock file pins, as lines of a requirements file, checked before uv installs exactly these packages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.flaskhost.host.runner import ReleaseError

STEP = "Build the virtual environment"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_EXTRAS = r"(?:\[[A-Za-z0-9._,-]*\])?"
_HASH = re.compile(r"(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})")
#: No colon, semicolon, backslash, hash sign or line break, so a marker can neither end its line nor add an option.
_MARKER = re.compile(r"[\w .,'\"()<>=!~+*/-]+", re.ASCII)
_VERSION = re.compile(rf"(?P<name>{_NAME}){_EXTRAS}==(?P<version>[A-Za-z0-9.+!_-]+)")
_DIRECT = re.compile(rf"(?P<name>{_NAME}){_EXTRAS} @ (?P<url>\S+)")
#: A repository with a full commit, which git verifies. Over https or SSH, as nobody on the way can then read the token.
_GIT = re.compile(r"git\+(?:https|ssh)://[^\s#/]+/[^\s#]+@[0-9a-f]{40}(?:#subdirectory=(?P<folder>[^\s#&]+))?")
_ARCHIVE = re.compile(r"https://\S+")
#: Begins with a dot: anything else could be a package's name.
_LOCAL = re.compile(r"(?:-e )?(?P<path>\.{1,2}(?:/[^\s;:@\\$]*)?)")


@dataclass(frozen=True)
class Pin:
    """One entry of a lock file.

    Attributes:
        line: its line in a requirements file, with its marker and its hashes.
        name: the package's normalized name; empty for code of the source itself.
        version: its version; empty if it comes from a repository, an archive or the source itself.
        hashed: whether it has hashes, or is a commit, which git verifies.
        local: whether it is code of the source itself.
    """

    line: str
    name: str = ""
    version: str = ""
    hashed: bool = False
    local: bool = False


def normalized(name: str) -> str:
    """Return the name of a package, an extra or a group as tools compare it: lower case, with hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def logical_lines(text: str) -> list[str]:
    """Return the lines of a requirements file without comments, and with continued lines joined."""
    joined = text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in joined if line.strip() and not line.lstrip().startswith("#")]


def read(lines: Iterable[str], lock: str, folder: Path, top: Path) -> list[Pin]:
    """Check the entries of a lock file.

    Args:
        lines: the entries, as lines of a requirements file.
        lock: the name of the lock file, for messages.
        folder: the folder that relative paths start at.
        top: the folder of the whole source.

    Returns:
        The entries, in their order.

    Raises:
        ReleaseError: an entry is not a pinned package, or comes from a place that is not allowed.
    """
    return [_pin(line, lock, folder, top) for line in dict.fromkeys(lines)]


def _pin(line: str, lock: str, folder: Path, top: Path) -> Pin:
    head, *hashes = line.split(" --hash=")
    head, separator, marker = head.partition(" ; ")
    if any(not _HASH.fullmatch(item) for item in hashes) or (separator and not _MARKER.fullmatch(marker)):
        raise _refused(line, lock, "its marker or its hash is not valid")
    if match := _VERSION.fullmatch(head):
        return Pin(line, normalized(match["name"]), match["version"], hashed=bool(hashes))
    if match := _DIRECT.fullmatch(head):
        return _direct(line, match, lock, hashed=bool(hashes))
    if match := _LOCAL.fullmatch(head):
        path = Path(os.path.realpath(folder / match["path"]))
        if not path.is_relative_to(os.path.realpath(top)):
            raise _refused(line, lock, "it is outside the source")
        return Pin(line, hashed=True, local=True)
    raise _refused(line, lock, "it is not a package with an exact version")


def _direct(line: str, match: re.Match[str], lock: str, *, hashed: bool) -> Pin:
    name, url = normalized(match["name"]), match["url"]
    if git := _GIT.fullmatch(url):
        if ".." in Path(git["folder"] or "").parts:
            raise _refused(line, lock, "its folder is outside its repository")
        return Pin(line, name, hashed=True)
    if url.startswith("git+"):
        raise _refused(line, lock, "a repository needs https or SSH, and a full commit (40 digits)")
    if not _ARCHIVE.fullmatch(url):
        raise _refused(line, lock, "an archive needs a URL with https")
    return Pin(line, name, hashed=hashed)


def _refused(line: str, lock: str, problem: str) -> ReleaseError:
    # Without the credentials of a URL.
    shown = re.sub(r"(?<=://)[^/@\s]*@", "", re.sub(r"[^ -~]", "?", line.partition(" --hash")[0][:200]))[:120]
    return ReleaseError(
        STEP,
        f"{lock} contains {shown!r}: {problem}.",
        "Correct the dependency in the project, and renew the lock file.",
    )
