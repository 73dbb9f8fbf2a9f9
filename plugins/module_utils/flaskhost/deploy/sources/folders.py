"""A folder of code on the control node: which of its files belong to a release, its digest, and its archive."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePath

#: Never part of a release: version control, virtual environments, caches, and the developer's own secrets.
IGNORED = frozenset(
    ".git .hg .svn .venv venv .tox .nox __pycache__ .pytest_cache .mypy_cache .ruff_cache node_modules .env".split()
)


#: Seconds for which git can read its index.
_PATIENCE = 60


def files(folder: Path, without: Iterable[str] = ()) -> list[Path]:
    """List the files of a folder on the control node that belong to a release, without pipes, sockets and devices.

    Args:
        folder: the folder.
        without: folders, relative to it, that contain data instead of code (``persistent``).

    Returns:
        The paths of files and links, relative to the folder and sorted.

    Raises:
        OSError: a folder cannot be read.
    """

    def stop(error: OSError) -> None:
        raise error

    left_out = {Path(item) for item in without}
    found: list[Path] = []
    for root, directories, files in os.walk(folder, onerror=stop):
        here = Path(root).relative_to(folder)
        links = [name for name in directories if (Path(root) / name).is_symlink()]
        directories[:] = sorted(
            name for name in directories if name not in IGNORED and name not in links and here / name not in left_out
        )
        found += [
            here / name
            for name in [*files, *links]
            if name not in IGNORED
            and not name.endswith(".pyc")
            and here / name not in left_out
            and is_plain((Path(root) / name).lstat().st_mode)
        ]
    return sorted(found)


def is_plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def tracked(folder: Path, within: Iterable[str]) -> list[Path]:
    """List the files in data folders that git tracks, without the developer's own.

    Git only reads its index. It runs nothing that the repository's own settings name, and downloads nothing.

    Args:
        folder: the folder of code on the control node.
        within: the data folders, relative to it.

    Returns:
        The paths of files and links as :func:`files` returns them; empty if git does not track the folder.
    """
    places = [str(PurePath(item)) for item in within]
    if not places or not (program := shutil.which("git")):
        return []
    # Variables of git can lead to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_LITERAL_PATHSPECS": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"}
    settings = ["core.fsmonitor=false", "core.hooksPath=/dev/null", "protocol.allow=never"]
    options = [item for setting in settings for item in ("-c", setting)]
    command = [program, "-C", str(folder), *options, "ls-files", "-z", "--cached", "--", *places]
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    paths = [Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name] if not done.returncode else []
    return sorted(path for path in paths if _is_ours(folder, path))


def _is_ours(folder: Path, path: Path) -> bool:
    """Check whether a tracked file is there, is not behind a link, and belongs to a release."""
    if IGNORED & {*path.parts} or path.name.endswith(".pyc") or ".." in path.parts:
        return False
    try:
        return is_plain((folder / path).lstat().st_mode) and not any(
            (folder / top).is_symlink() for top in path.parents if top.name
        )
    except OSError:
        return False


def digest(folder: Path, without: Iterable[str] = ()) -> str:
    """Return the SHA-256 digest of a folder's code, over names, executable bits and contents, in hexadecimal."""
    digest = hashlib.sha256()
    for path in files(folder, without):
        full = folder / path
        if full.is_symlink():
            kind, content = "l", os.fsencode(full.readlink())
        else:
            kind, content = "x" if full.stat().st_mode & 0o100 else "f", full.read_bytes()
        # Not encode(): a file name can be invalid UTF-8.
        digest.update(os.fsencode(f"{kind}\0{path}\0{len(content)}\0") + content)
    return digest.hexdigest()


def pack(folder: Path, archive: Path, without: Iterable[str] = (), also: Iterable[Path] = ()) -> None:
    """Pack a folder's code into a gzipped tar archive. Modification times are kept, because browser caches use them.

    Args:
        folder: the folder.
        archive: the file to write.
        without: see :func:`files`.
        also: further files; see :func:`tracked`.
    """
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for path in [*files(folder, without), *also]:
            tar.add(folder / path, arcname=str(path), recursive=False)
