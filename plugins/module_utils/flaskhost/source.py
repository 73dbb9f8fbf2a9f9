"""Where the code of a release comes from: a folder on the controller, sent as an archive, or a git repository."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

from ansible.module_utils.flaskhost.runner import ReleaseError, Run, tail

#: Never part of a release: histories, environments, caches, and the developer's own secrets.
IGNORED = frozenset(
    ".git .hg .svn .venv venv .tox .nox __pycache__ .pytest_cache .mypy_cache .ruff_cache node_modules .env".split()
)

_COMMIT = re.compile(r"[0-9a-f]{40}")
#: No gc in the background either: it would hold locks after this process and its lock are gone.
_GIT = ["git", "-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null", "-c", "gc.autoDetach=false"]
#: A question for a name or a password would wait for ever: there is nobody to answer.
_GIT_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=15"}


def folder_files(folder: Path, without: Iterable[str] = ()) -> list[Path]:
    """List what belongs to a release in a folder of the controller: files and links, no pipes, sockets and devices.

    Args:
        folder: the folder.
        without: folders, relative to it, that hold data and no code (``persistent``).

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
            and _is_plain((Path(root) / name).lstat().st_mode)
        ]
    return sorted(found)


def _is_plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def folder_digest(folder: Path, without: Iterable[str] = ()) -> str:
    """The identity of a folder's code: SHA-256 over names, executable bits and contents, in hexadecimal."""
    digest = hashlib.sha256()
    for path in folder_files(folder, without):
        full = folder / path
        if full.is_symlink():
            kind, content = "l", os.fsencode(full.readlink())
        else:
            kind, content = "x" if full.stat().st_mode & 0o100 else "f", full.read_bytes()
        # Not encode(): a file's name may be no UTF-8.
        digest.update(os.fsencode(f"{kind}\0{path}\0{len(content)}\0") + content)
    return digest.hexdigest()


def pack_folder(folder: Path, archive: Path, without: Iterable[str] = ()) -> None:
    """Write a folder's code into a gzipped archive; times are kept, since a browser's cache goes by them."""
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for path in folder_files(folder, without):
            tar.add(folder / path, arcname=str(path), recursive=False)


def resolve_commit(run: Run, repository: Path, url: str, version: str) -> str:
    """Find the commit that a version means now.

    Args:
        run: runs a command.
        repository: the app's bare repository on the host; need not exist.
        url: the repository's URL.
        version: a branch, a tag or a whole commit.

    Returns:
        The commit, 40 hexadecimal digits. A whole commit is taken as it is, without asking anybody.

    Raises:
        ReleaseError: the repository does not answer, or does not know the version.
    """
    if _COMMIT.fullmatch(version):
        return version
    asked = ["ls-remote", "--", url, version, f"{version}^{{}}"]
    status, out, err = run([*_GIT, *asked], environ_update=_GIT_ENVIRONMENT)
    if status:
        raise ReleaseError(
            "Read the repository",
            f"git cannot read {url}:\n{tail(err, 5)}",
            "Check source.repo, and that this host may read it: run the same 'git ls-remote' on it as root.",
        )
    refs = dict(reversed(line.split("\t", 1)) for line in out.splitlines() if "\t" in line)
    places = (f"refs/tags/{version}", f"refs/heads/{version}", version)
    for name in (item for place in places for item in (f"{place}^{{}}", place)):
        if name in refs:
            return refs[name]
    # A shortened commit: only a repository that has been fetched can tell. It knows of branches and tags that are gone
    # by now, too, so that the answer has to begin with the question.
    asked = ["--git-dir", str(repository), "rev-parse", "--quiet", "--verify", f"{version}^{{commit}}"]
    status, out, _err = run([*_GIT, *asked])
    if status == 0 and _COMMIT.fullmatch(out.strip()) and out.startswith(version):
        return out.strip()
    raise ReleaseError(
        "Read the repository",
        f"{url} has no branch or tag named {version!r}.",
        "Correct source.version: a branch, a tag, or all 40 digits of a commit.",
    )


def fetch_commit(run: Run, repository: Path, url: str, commit: str) -> None:
    """Bring a commit into the app's bare repository on the host.

    Raises:
        ReleaseError: it cannot be fetched.
    """
    git = [*_GIT, "--git-dir", str(repository)]
    if run([*git, "cat-file", "-e", f"{commit}^{{commit}}"])[0] == 0:
        return
    # Harmless where it is whole, and the cure where a run was killed in the middle of it.
    run([*_GIT, "init", "--quiet", "--bare", str(repository)], check_rc=True)
    # A git that was killed leaves its locks, and no later one would pass them. Nobody else is here: the app is locked.
    for path in repository.rglob("*.lock"):
        path.unlink(missing_ok=True)
    references = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    status, _out, err = run(
        [*git, "fetch", "--quiet", "--prune", "--no-tags", "--", url, *references], environ_update=_GIT_ENVIRONMENT
    )
    if status == 0 and run([*git, "cat-file", "-e", f"{commit}^{{commit}}"])[0]:
        # A commit on no branch and no tag: some servers hand it out when asked by its name.
        status, _out, err = run([*git, "fetch", "--quiet", "--", url, commit], environ_update=_GIT_ENVIRONMENT)
    if status:
        raise ReleaseError(
            "Fetch the code",
            f"git cannot fetch {commit[:12]} from {url}:\n{tail(err, 5)}",
            "Check source.repo and source.version, and that this host may read the repository.",
        )


def unpack_commit(run: Run, repository: Path, commit: str, destination: Path, replaced: Iterable[str] = ()) -> None:
    """Write the tree of a commit into a folder; the arguments are those of :func:`unpack_archive`.

    Raises:
        ReleaseError: as in :func:`unpack_archive`.
    """
    archive = destination.with_name("source.tar")
    git = [*_GIT, "--git-dir", str(repository), "archive", "--format=tar", f"--output={archive}", commit]
    status, _out, err = run(git)
    if status:
        raise ReleaseError("Unpack the code", f"git archive says: {tail(err, 5)}", "Run the same command again.")
    unpack_archive(run, archive, destination, replaced)
    archive.unlink()


def unpack_archive(run: Run, archive: Path, destination: Path, replaced: Iterable[str] = ()) -> None:
    """Write an archive into a folder.

    Args:
        run: runs a command: GNU tar, since the tarfile of Debian 12's Python cannot refuse a dangerous member.
        archive: the archive.
        destination: the folder, empty.
        replaced: folders, relative to it, that give way to the app's data (``persistent``): their links may lead out.

    Raises:
        ReleaseError: the archive is damaged, the disk is full, a link in it leads out of the folder, or something in
            it is no file, folder or link.
    """
    tar = ["tar", "--extract", "--no-same-owner", "--no-same-permissions"]
    status, _out, err = run([*tar, f"--directory={destination}", f"--file={archive}"])
    if status:
        raise ReleaseError("Unpack the code", f"tar says: {tail(err, 5)}", "Correct the source, or make room.")
    inside, left_out = Path(os.path.realpath(destination)), {destination / item for item in replaced}
    for root, directories, files in os.walk(destination):
        for path in (Path(root) / name for name in directories + files):
            mode = path.lstat().st_mode
            if not _is_plain(mode) and not stat.S_ISDIR(mode):
                raise ReleaseError(
                    "Unpack the code",
                    f"{path.relative_to(destination)} is a device, a pipe or a socket.",
                    "Take it out of the source.",
                )
            # Not Path.resolve(), which raises where a link leads to itself.
            target = Path(os.path.realpath(path))
            if stat.S_ISLNK(mode) and path not in left_out and not target.is_relative_to(inside):
                raise ReleaseError(
                    "Unpack the code",
                    f"{path.relative_to(destination)} is a link to {path.readlink()}, outside of the source.",
                    "Take the link out, or name the folder in persistent.",
                )


def seal(folder: Path, group: int) -> None:
    """Make a code tree root's, readable to the app's group and to nobody else, writable to no one but root."""
    for root, directories, files in os.walk(folder):
        os.chown(root, 0, group)
        Path(root).chmod(0o750)
        for name in directories + files:
            path = Path(root) / name
            os.chown(path, 0, group, follow_symlinks=False)
            if name in files and not path.is_symlink():
                path.chmod(0o750 if path.stat().st_mode & 0o100 else 0o640)
