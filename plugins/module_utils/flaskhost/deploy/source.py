"""Where the code of a release comes from: a folder on the controller, an archive, or a git repository."""

from __future__ import annotations

import errno
import gzip
import hashlib
import lzma
import os
import re
import shlex
import shutil
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO

from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, cure_for, tail

#: Never part of a release: histories, environments, caches, and the developer's own secrets.
IGNORED = frozenset(
    ".git .hg .svn .venv venv .tox .nox __pycache__ .pytest_cache .mypy_cache .ruff_cache node_modules .env".split()
)

_COMMIT = re.compile(r"[0-9a-f]{40}")
#: No gc in the background either: it would hold locks after this process and its lock are gone.
_GIT = ["git", "-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null", "-c", "gc.autoDetach=false"]
#: A question for a name or a password would wait for ever: there is nobody to answer.
_SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]
_GIT_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": shlex.join(_SSH)}

_CHECKSUM = re.compile(r"sha256:([0-9a-fA-F]{64})")
#: Bytes. The checksum is known only at the end: until then nothing else keeps a server from filling the disk.
_LARGEST_DOWNLOAD = 2 * 1024**3
#: Seconds without a byte, and for the whole of a download.
_STALLED, _LONGEST_DOWNLOAD = 30, 900
#: Bytes of what git brings in one fetch, and seconds for it; and for the question which commit a branch or tag means.
_LARGEST_HISTORY, _LONGEST_FETCH, _LONGEST_QUESTION = 4 * 1024**3, 900, 60
#: Bytes of memory for that question, and so of its answer. What unpacks a history may take half of the host's: a few
#: kilobytes of a hostile one can unpack to more than any host has.
_QUESTION_MEMORY = 128 * 1024**2
#: Runs a command and passes on the end of its errors, which a server can write without end.
_LAST_ERRORS = ("/bin/bash", "-o", "pipefail", "-c", '{ "$@" 2>&1 >&3 | tail --bytes=65536 >&2; } 3>&1', "bash")
#: Bytes of a source once it is unpacked, and things in it. A few kilobytes can unpack to more than any disk holds.
LARGEST_SOURCE, MOST_ENTRIES = 2 * 1024**3, 250_000
#: Folders in each other: some of Python's own functions call themselves once for each.
DEEPEST_SOURCE = 100
#: Bytes of a name or another property that stands before a member of an archive; tar keeps it in memory.
_LONGEST_PROPERTY = 1024**2
#: Bytes of memory that decompressing may take; xz -9 takes 65 MB.
_XZ_MEMORY = 256 * 1024**2
_XZ, _GZIP = b"\xfd7zXZ\0", b"\x1f\x8b"
_BLOCK = 1024 * 1024
#: Members that say something of the next one, or of all: long names, and what POSIX' pax adds.
_PROPERTIES = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


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


# -- an archive and its checksum ------------------------------------------------------------------------------------


def is_url(archive: str) -> bool:
    """Whether an archive is one that the host fetches by itself, and not a file of the controller."""
    return archive.startswith(("http://", "https://"))


def checksum_digest(checksum: str) -> str:
    """The hexadecimal digits of a checksum, in lower case: the revision of an archive.

    Raises:
        ReleaseError: it is not written as ``sha256:`` and 64 hexadecimal digits.
    """
    match = _CHECKSUM.fullmatch(checksum)
    if not match:
        raise ReleaseError(
            "Check the archive",
            f"{checksum!r} is no checksum.",
            "Write source.checksum as sha256: and the 64 digits that sha256sum prints for the archive.",
        )
    return match.group(1).lower()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; the file may be larger than the memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(path: Path, checksum: str) -> None:
    """Check that an archive is the one that was meant.

    Args:
        path: the archive.
        checksum: ``sha256:`` and 64 hexadecimal digits.

    Raises:
        ReleaseError: it is another one, and both digests are told.
        OSError: the archive cannot be read.
    """
    _compare(file_digest(path), checksum, path.name)


def _compare(got: str, checksum: str, name: str) -> None:
    wanted = checksum_digest(checksum)
    if got != wanted:
        raise ReleaseError(
            "Check the archive",
            f"{name} is not the archive that was meant: its checksum is sha256:{got}, wanted sha256:{wanted}.",
            "Find out which of the two is right. If it is the archive, correct source.checksum.",
        )


def download(url: str, checksum: str, destination: Path) -> None:
    """Fetch an archive to the host; where this returns, it is there, whole, and the one that was meant.

    Args:
        url: where it is, http or https; the checksum makes both equally safe from a forged one.
        checksum: ``sha256:`` and 64 hexadecimal digits.
        destination: the file to write; it is not there after an error.

    Raises:
        ReleaseError: the server does not answer or refuses, the disk is full, or it is another archive.
    """
    checksum_digest(checksum)
    # What a URL may hold of secrets: a name and password, and a token in its query.
    shown = re.sub(r"//[^/@]*@", "//", url).partition("?")[0]
    cure = f"Check source.archive, and that this host may read it: run 'curl --location --head {shown}' on it."
    digest, received, until = hashlib.sha256(), 0, time.monotonic() + _LONGEST_DOWNLOAD
    request = urllib.request.Request(url, headers={"User-Agent": "flaskhost"})  # noqa: S310 - see is_url
    try:
        # urllib itself follows a redirect to http, https and ftp only: none to a file of the host's own.
        with urllib.request.urlopen(request, timeout=_STALLED) as answer, destination.open("wb") as stream:  # noqa: S310
            expected = answer.headers.get("Content-Length", "")
            while block := answer.read(1024 * 1024):
                digest.update(block)
                stream.write(block)
                received += len(block)
                if received > _LARGEST_DOWNLOAD or time.monotonic() > until:
                    limits = f"{_LARGEST_DOWNLOAD >> 20} MB in {_LONGEST_DOWNLOAD // 60} minutes"
                    raise ReleaseError("Fetch the code", f"{shown} is larger or slower than {limits}.", cure)
        if expected.isdigit() and received < int(expected):
            raise ReleaseError("Fetch the code", f"{shown} was cut off after {received} of {expected} bytes.", cure)
        _compare(digest.hexdigest(), checksum, shown)
    except urllib.error.HTTPError as error:
        destination.unlink(missing_ok=True)
        raise ReleaseError(
            "Fetch the code", f"{shown}: the server answers {error.code} {error.reason}.", cure
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ReleaseError("Fetch the code", f"{destination.parent}: {error.strerror}.", "Make room.") from None
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise ReleaseError("Fetch the code", f"{shown} cannot be read: {reason}.", cure) from None
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


# -- a git repository -----------------------------------------------------------------------------------------------


def git_environment(secrets_dir: Path, key: str = "", known_hosts: str = "") -> dict[str, str]:
    """Give git what it needs to read a private repository over SSH.

    With a key, it is that key and no other. Without one it is the agent of who deploys, where they forward it
    (``ForwardAgent``), or what root has in /root/.ssh on the host.

    The server is checked against ``known_hosts`` and nothing else where that is given. Else it is trusted on first
    use: what it shows at the first contact is written down beside the key, and must be the same ever after.

    Args:
        secrets_dir: the app's folder under /etc/flaskhost, which only root reads; it has to be there.
        key: the private deploy key, without a passphrase; empty for none, and an earlier one is then removed.
        known_hosts: the server's public keys, lines as ssh-keyscan prints them; empty to trust on first use.

    Returns:
        Variables for :func:`resolve_commit` and :func:`fetch_commit`; the key itself is in none of them.
    """
    key_file, hosts_file = secrets_dir / "deploy_key", secrets_dir / "known_hosts"
    command = [*_SSH, "-o", f"StrictHostKeyChecking={'yes' if known_hosts.strip() else 'accept-new'}"]
    files = str(hosts_file)
    if known_hosts.strip():
        _write_private(hosts_file, known_hosts)
    else:
        # A new key goes into the first of them; what root has agreed to before counts as well.
        files += " ~/.ssh/known_hosts"
    command += ["-o", f"UserKnownHostsFile={files}"]
    variables: dict[str, str] = {}
    if key.strip():
        _write_private(key_file, key)
        command += ["-i", str(key_file), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]
    else:
        key_file.unlink(missing_ok=True)
        if agent := find_agent():
            variables["SSH_AUTH_SOCK"] = agent
    return {**variables, "GIT_SSH_COMMAND": shlex.join(command)}


@contextmanager
def git_access(
    secrets_dir: Path, key: str = "", known_hosts: str = "", check: bool = False
) -> Iterator[dict[str, str]]:
    """What :func:`git_environment` returns, and in check mode the same without a trace.

    Args:
        secrets_dir: as there; in check mode it need not be there.
        key: as there.
        known_hosts: as there.
        check: use a temporary folder, which is removed at the end.
    """
    if not check:
        yield git_environment(secrets_dir, key, known_hosts)
        return
    with tempfile.TemporaryDirectory(prefix="flaskhost-") as name:
        # The server that was trusted before has to be the one that answers now, in check mode too.
        if (secrets_dir / "known_hosts").is_file():
            shutil.copy(secrets_dir / "known_hosts", name)
        yield git_environment(Path(name), key, known_hosts)


def _write_private(path: Path, text: str) -> None:
    """Write a text for ssh, who wants lines that end as on Unix, the last one too; nothing where it is there."""
    lines = "\n".join(text.strip().splitlines()) + "\n"
    try:
        same = path.read_text(encoding="utf-8") == lines and stat.S_IMODE(path.stat().st_mode) == 0o600
    except (FileNotFoundError, UnicodeDecodeError):
        same = False
    if not same:
        atomic.write(path, lines)


def find_agent(proc: Path = Path("/proc")) -> str:
    """Find the SSH agent of who has logged in, in the environments of the processes above this one.

    sudo takes SSH_AUTH_SOCK away; the shell that sshd started, a few parents up, still has it.

    Args:
        proc: where the processes are; another folder in tests.

    Returns:
        The agent's socket; empty where there is none.
    """
    own = os.environ.get("SSH_AUTH_SOCK", "")
    if own and _is_socket(own):
        return own
    process = str(os.getpid())
    while process != "0":
        try:
            variables = (proc / process / "environ").read_bytes().split(b"\0")
        except OSError:
            # Root in a container may not read everybody's.
            variables = []
        for variable in variables:
            name, _equals, value = variable.partition(b"=")
            if name == b"SSH_AUTH_SOCK" and value and _is_socket(os.fsdecode(value)):
                return os.fsdecode(value)
        try:
            # The name of the program comes before, in parentheses, and may hold anything: proc(5), /proc/pid/stat.
            process = (proc / process / "stat").read_bytes().rpartition(b")")[2].split()[1].decode()
        except (OSError, IndexError):
            return ""
    return ""


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


#: What ssh and git say when they are not let in, and what helps; the first that fits.
_REFUSALS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "The server shows another key than before. Ask its operator. If that is right: put its line into "
        "source.known_hosts, or take the old one out of the file known_hosts in {secrets_dir}."
    ),
    "Host key verification failed": (
        "The server's key is not among those that are trusted. Compare what 'ssh-keyscan SERVER' prints with what its "
        "operator publishes, and put that line into source.known_hosts."
    ),
    "Permission denied (publickey": (
        "The server lets nobody in with that key. Register the public half of source.key at the repository (a deploy "
        "key that may read). Without source.key, load a key that may read it into your agent (ssh-add -l lists them) "
        "and forward it: --ssh-extra-args='-o ForwardAgent=yes'."
    ),
    "could not read Username": (
        "The repository is private, or not there. A private one is read over SSH: the URL that begins with git@ or "
        "ssh://, and a deploy key in source.key."
    ),
}


def _git_cure(errors: str, environment: Mapping[str, str], otherwise: str) -> str:
    """What to do about a git that failed, by what it has said."""
    if re.search(r"Load key .*(?:invalid format|error in libcrypto|passphrase)", errors):
        return "The key is damaged or has a passphrase. Write a whole one without into source.key, with line ends (|)."
    found = next((cure for words, cure in _REFUSALS.items() if words in errors), otherwise)
    hosts = re.search(r"UserKnownHostsFile=(\S+)/known_hosts", environment.get("GIT_SSH_COMMAND", ""))
    return found.format(secrets_dir=hosts.group(1) if hosts else "/root/.ssh")


def _bounded(command: list[str], seconds: int, largest: int, memory: int) -> list[str]:
    """Bound what a server without an end can do to a command.

    Args:
        command: the command.
        seconds: how long it may take.
        largest: bytes of each file that it writes.
        memory: bytes of memory of each of its processes.
    """
    limit = ["prlimit", "--core=0", f"--fsize={largest}", f"--data={memory}", "--"]
    return [*_LAST_ERRORS, "timeout", "--kill-after=10", str(seconds), *limit, *command]


def _half_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _took_too_long(status: int, seconds: int, url: str) -> str:
    """Say that a command met its bound in time; an empty text if it did not."""
    return f"{url} took longer than {seconds} s." if status in (124, 137) else ""


def needs_commit(url: str, version: str) -> bool:
    """Whether a version of a repository may be a forged one: anybody on the way can answer for the server.

    Only a whole commit is then safe: it is the digest of what git gets.

    Args:
        url: the repository's URL.
        version: a branch, a tag or a commit.
    """
    return url.startswith(("http://", "git://")) and not _COMMIT.fullmatch(version)


def resolve_commit(
    run: Run, repository: Path, url: str, version: str, environment: Mapping[str, str] | None = None
) -> str:
    """Find the commit that a version means now.

    Args:
        run: runs a command.
        repository: the app's bare repository on the host; need not exist.
        url: the repository's URL.
        version: a branch, a tag or a whole commit.
        environment: what :func:`git_environment` returns, for a private repository.

    Returns:
        The commit, 40 hexadecimal digits. A whole commit is taken as it is, without asking anybody.

    Raises:
        ReleaseError: the repository does not answer, or does not know the version.
    """
    if _COMMIT.fullmatch(version):
        return version
    if needs_commit(url, version):
        raise ReleaseError(
            "Read the repository",
            f"{version!r} of a repository that is read over {url.partition(':')[0]}:// can be forged on the way.",
            "Use the https:// or git@ URL in source.repo, or name a whole commit of 40 digits in source.version.",
        )
    asked = ["ls-remote", "--", url, version, f"{version}^{{}}"]
    variables = {**_GIT_ENVIRONMENT, **(environment or {})}
    command = _bounded([*_GIT, *asked], _LONGEST_QUESTION, _QUESTION_MEMORY, _QUESTION_MEMORY)
    status, out, err = run(command, environ_update=variables)
    if status:
        cure = "Check source.repo, and that this host may read it: run the same 'git ls-remote' on it as root."
        reason = _took_too_long(status, _LONGEST_QUESTION, url) or f"git cannot read {url}:\n{tail(err, 5)}"
        raise ReleaseError("Read the repository", reason, cure_for(err, _git_cure(err, variables, cure)))
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


def fetch_commit(
    run: Run, repository: Path, url: str, commit: str, environment: Mapping[str, str] | None = None
) -> None:
    """Bring a commit into the app's bare repository on the host; the arguments are those of :func:`resolve_commit`.

    Raises:
        ReleaseError: it cannot be fetched.
    """
    git = [*_GIT, "--git-dir", str(repository)]
    if run([*git, "cat-file", "-e", f"{commit}^{{commit}}"])[0] == 0:
        return
    _drop_partial_packs(repository)
    if sum(path.lstat().st_size for path in (repository / "objects").rglob("*")) > _LARGEST_HISTORY:
        # Each fetch is bounded, and what branches leave behind adds up. It can all be had again.
        shutil.rmtree(repository)
        repository.mkdir(mode=0o700)
    # Harmless where it is whole, and the cure where a run was killed in the middle of it.
    run([*_GIT, "init", "--quiet", "--bare", str(repository)], check_rc=True)
    # A git that was killed leaves its locks, and no later one would pass them. Nobody else is here: the app is locked.
    for path in repository.rglob("*.lock"):
        path.unlink(missing_ok=True)
    references = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    variables = {**_GIT_ENVIRONMENT, **(environment or {})}
    # In one file, whose size can be bounded.
    fetch = [*git, "-c", "fetch.unpackLimit=1", "fetch", "--quiet"]

    def bring(*arguments: str) -> tuple[int, str, str]:
        command = _bounded([*fetch, *arguments], _LONGEST_FETCH, _LARGEST_HISTORY, _half_of_memory())
        return run(command, environ_update=variables)

    status, _out, err = bring("--prune", "--no-tags", "--", url, *references)
    if status == 0 and run([*git, "cat-file", "-e", f"{commit}^{{commit}}"])[0]:
        # A commit on no branch and no tag: some servers hand it out when asked by its name.
        status, _out, err = bring("--", url, commit)
    if status:
        largest = _drop_partial_packs(repository)
        cure = "Check source.repo and source.version, and that this host may read the repository."
        reason = _took_too_long(status, _LONGEST_FETCH, url)
        # git does not say by which signal its helper ended.
        if not reason and largest >= _LARGEST_HISTORY:
            reason = f"{url} is larger than {_LARGEST_HISTORY >> 20} MB."
        if not reason and "Out of memory" in err:
            reason = f"{url} needs more than half of this host's memory to unpack."
        if reason:
            cure = (
                "Run 'git clone --bare' of source.repo on this host to see how long it takes and how large it is. An "
                "archive of the code alone is smaller: source.archive."
            )
        reason = reason or f"git cannot fetch {commit[:12]} from {url}:\n{tail(err, 5)}"
        raise ReleaseError("Fetch the code", reason, cure_for(err, _git_cure(err, variables, cure)))


def _drop_partial_packs(repository: Path) -> int:
    """Remove what a git that was killed has brought in part; return the size of the largest file."""
    largest = 0
    for path in (repository / "objects").glob("*/tmp_*"):
        largest = max(largest, path.lstat().st_size)
        path.unlink(missing_ok=True)
    return largest


def submodule_warning(run: Run, repository: Path, commit: str) -> str:
    """What the operator should know of a commit with submodules, which a release does not have.

    A warning and no refusal: most are themes of the documentation and other things that an app serves well without.
    One that it does need is missed when it starts, before it serves.

    Args:
        run: runs a command.
        repository: the app's bare repository on the host, with the commit in it.
        commit: the commit.

    Returns:
        One sentence; empty where there is no submodule.
    """
    question = ["config", "--blob", f"{commit}:.gitmodules", "--get-regexp", r"^submodule\..*\.path$"]
    _status, out, _err = run([*_GIT, "--git-dir", str(repository), *question])
    folders = sorted(line.partition(" ")[2] for line in out.splitlines() if " " in line)
    if not folders:
        return ""
    return f"git submodules are not part of a release; empty in this one: {', '.join(folders[:8])}."


def unpack_commit(run: Run, repository: Path, commit: str, destination: Path, replaced: Iterable[str] = ()) -> None:
    """Write the tree of a commit into a folder; the arguments are those of :func:`unpack_archive`.

    Raises:
        ReleaseError: as in :func:`unpack_archive`.
    """
    archive = destination.with_name("source.tar")
    git = [*_GIT, "--git-dir", str(repository), "archive", "--format=tar", f"--output={archive}", commit]
    # One small tree, named over and over in others, makes an archive without end.
    status, _out, err = run(["prlimit", f"--fsize={LARGEST_SOURCE}", f"--data={_half_of_memory()}", *git])
    if status:
        if archive.is_file() and archive.stat().st_size >= LARGEST_SOURCE:
            raise _too_large()
        cure = cure_for(err, "Run the same command again.")
        raise ReleaseError("Unpack the code", f"git archive says: {tail(err, 5)}", cure)
    unpack_archive(run, archive, destination, replaced)
    archive.unlink()


def unpack_archive(
    run: Run, archive: Path, destination: Path, replaced: Iterable[str] = (), strip: bool = False
) -> None:
    """Write an archive into a folder.

    Args:
        run: runs a command: GNU tar, since the tarfile of Debian 12's Python cannot refuse a dangerous member.
        archive: the archive: tar, plain or compressed by gzip or xz.
        destination: the folder, empty.
        replaced: folders, relative to it, that give way to the app's data (``persistent``): their links may lead out.
        strip: leave out a single folder at the top, as an sdist and the archives of GitHub and GitLab have it.

    Raises:
        ReleaseError: the archive is damaged, the disk is full, a link in it leads out of the folder, something in it is
            no file, folder or link, or there is more in it than :data:`LARGEST_SOURCE` and the other limits allow.
    """
    plain = _expand(archive, destination.with_name("source.plain.tar"))
    try:
        _check_members(plain)
        # For what an archive can claim and not hold: a file full of holes, or a name that fills the memory.
        limits = ["prlimit", f"--fsize={LARGEST_SOURCE}", f"--as={1024**3}"]
        tar = ["tar", "--extract", "--no-same-owner", "--no-same-permissions"]
        status, _out, err = run([*limits, *tar, f"--directory={destination}", f"--file={plain}"])
    finally:
        if plain != archive:
            plain.unlink()
    if status:
        cure = cure_for(err, "Correct the source (a .tar.gz, .tar.xz or .tar).")
        raise ReleaseError("Unpack the code", f"tar says: {tail(err, 5)}", cure)
    if strip:
        # Before the links are looked at: one that led to the top folder's neighbour would lead out afterwards.
        _strip_top(destination)
    _check_tree(run, destination, {destination / item for item in replaced})


def _check_tree(run: Run, folder: Path, left_out: set[Path]) -> None:
    """Refuse what does not belong into code, or leads out of it; the arguments are those of :func:`unpack_archive`."""
    inside = Path(os.path.realpath(folder))
    links: dict[int, tuple[int, Path]] = {}
    for root, directories, files in os.walk(folder):
        if len(Path(root).relative_to(folder).parts) > DEEPEST_SOURCE:
            # Not shutil.rmtree(), which fails at this depth, and would fail at the next deploy, too.
            run(["rm", "--recursive", "--force", "--one-file-system", str(folder)])
            raise ReleaseError(
                "Unpack the code",
                f"its folders lie more than {DEEPEST_SOURCE} deep in each other.",
                "Take the deepest folders out of the source.",
            )
        for path in (Path(root) / name for name in directories + files):
            status = path.lstat()
            mode = status.st_mode
            if not _is_plain(mode) and not stat.S_ISDIR(mode):
                raise ReleaseError(
                    "Unpack the code",
                    f"{path.relative_to(folder)} is a device, a pipe or a socket.",
                    "Take it out of the source.",
                )
            if status.st_nlink > 1 and not stat.S_ISDIR(mode):
                links[status.st_ino] = (links.get(status.st_ino, (status.st_nlink, path))[0] - 1, path)
            # Not Path.resolve(), which raises where a link leads to itself.
            target = Path(os.path.realpath(path))
            if stat.S_ISLNK(mode) and path not in left_out and not target.is_relative_to(inside):
                raise ReleaseError(
                    "Unpack the code",
                    f"{path.relative_to(folder)} is a link to {path.readlink()}, outside of the source.",
                    "Take the link out, or name the folder in persistent.",
                )
    if outside := [path for missing, path in links.values() if missing]:
        raise ReleaseError(
            "Unpack the code",
            f"{outside[0].relative_to(folder)} is a hard link to a file outside of the source.",
            "Take it out of the source.",
        )


def _too_large() -> ReleaseError:
    return ReleaseError(
        "Unpack the code",
        f"the source is larger than {LARGEST_SOURCE >> 20} MB unpacked, or has more than {MOST_ENTRIES} files.",
        "Take out of the source what is no code; data belongs into a folder that persistent names.",
    )


def _expand(archive: Path, plain: Path) -> Path:
    """Decompress an archive, up to a limit; tar has none, and would call xz for xz, which a small Debian has not.

    Args:
        archive: the archive.
        plain: where to write it.

    Returns:
        The file that is not compressed, which is ``archive`` itself where that is none.
    """
    with archive.open("rb") as stream:
        magic = stream.read(len(_XZ))
    if magic != _XZ and not magic.startswith(_GZIP):
        return archive
    name, size = "xz" if magic == _XZ else "gzip", 0
    try:
        with archive.open("rb") as packed, plain.open("wb") as stream:
            for block in _xz_blocks(packed) if magic == _XZ else _gzip_blocks(packed):
                size += stream.write(block)
                if size > LARGEST_SOURCE:
                    raise _too_large()
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        plain.unlink(missing_ok=True)
        cure = cure_for(str(error), "Correct the source.")
        raise ReleaseError("Unpack the code", f"{name}: {error}", cure) from None
    except ReleaseError:
        plain.unlink()
        raise
    return plain


def _gzip_blocks(packed: IO[bytes]) -> Iterator[bytes]:
    with gzip.open(packed) as stream:
        while block := stream.read(_BLOCK):
            yield block


def _xz_blocks(packed: IO[bytes]) -> Iterator[bytes]:
    """As lzma.open() has them, which takes as much memory as the file says that it needs."""
    rest = b""
    while data := rest or packed.read(_BLOCK):
        # Zeros may stand between the streams of one file, and at its end.
        rest = data.lstrip(b"\0")
        if not rest:
            continue
        data, unpacker = rest, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not unpacker.eof:
            yield unpacker.decompress(data, _BLOCK)
            data = packed.read(_BLOCK) if unpacker.needs_input else b""
            if unpacker.needs_input and not data and not unpacker.eof:
                raise EOFError("the file ends too early")
        rest = unpacker.unused_data


def _check_members(plain: Path) -> None:
    """Refuse an archive that holds too much, before anything of it is on the disk."""
    if plain.stat().st_size > LARGEST_SOURCE:
        raise _too_large()
    with plain.open("rb") as stream:
        for _number in range(MOST_ENTRIES + 1):
            block = stream.read(tarfile.BLOCKSIZE)
            if not block.strip(b"\0"):
                # Two such blocks end an archive, and nothing behind the first one counts. One that is empty is none.
                return
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.TarError as error:
                raise ReleaseError(
                    "Unpack the code",
                    f"tar says: it is no whole archive ({error}).",
                    "Correct the source (a .tar.gz, .tar.xz or .tar).",
                ) from None
            if member.size < 0 or (not member.isreg() and member.size > _LONGEST_PROPERTY):
                raise _too_large()
            if member.isreg() or member.type not in tarfile.SUPPORTED_TYPES or member.type in _PROPERTIES:
                stream.seek(-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, os.SEEK_CUR)
    raise _too_large()


def read_text(path: Path, longest: int, step: str) -> str:
    """Read a text of the source, which has to be of a size that fits into memory.

    Args:
        path: the file.
        longest: bytes.
        step: the step, for the message.

    Raises:
        ReleaseError: it is longer.
    """
    with path.open("rb") as stream:
        content = stream.read(longest + 1)
    if len(content) > longest:
        raise ReleaseError(step, f"{path.name} is longer than {longest >> 10} KB.", "Shorten it.")
    return content.decode("utf-8", "replace")


def _strip_top(folder: Path) -> None:
    """Put what is in the only folder of a folder in its place; nothing where there is more than one thing."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        # By way of a place beside it: something in the top folder may have the top folder's own name.
        aside = folder.with_name(f"{folder.name}.top")
        entries[0].rename(aside)
        folder.rmdir()
        aside.rename(folder)


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
