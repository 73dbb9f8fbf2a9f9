"""A git repository: resolve a version to a commit, fetch the commit, and unpack its tree.

The repository and its server are untrusted: nothing from them is executed here, and what they send is limited.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ansible.module_utils.flaskhost.deploy.sources import archives
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, cure_for, tail

_COMMIT = re.compile(r"[0-9a-f]{40}")

#: No background gc: it would hold locks after this process and the app's lock are gone.
_GIT = ["git", "-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null", "-c", "gc.autoDetach=false"]

#: A prompt for a name or a password would block forever, because nobody can answer it.
_SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]

_GIT_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": shlex.join(_SSH)}

#: Limits for one fetch in bytes and in seconds, and the time limit for resolving a branch or tag in seconds.
_LARGEST_HISTORY, _LONGEST_FETCH, _LONGEST_QUESTION = 4 * 1024**3, 900, 60

#: Memory limit for resolving a version, and thus for the response, in bytes. Unpacking a history can take half of the
#: host's memory: a few KB of a malicious one can unpack to more than any host has.
_QUESTION_MEMORY = 128 * 1024**2

#: Runs a command and passes on only the end of its error output, which a server can make endless.
_LAST_ERRORS = ("/bin/bash", "-o", "pipefail", "-c", '{ "$@" 2>&1 >&3 | tail --bytes=65536 >&2; } 3>&1', "bash")


def environment(secrets_dir: Path, key: str = "", known_hosts: str = "") -> dict[str, str]:
    """Return the environment variables with which git reads a private repository over SSH.

    With a key, git uses only that key. Without one, it uses the operator's forwarded SSH agent (``ForwardAgent``), or
    root's keys in /root/.ssh on the host.

    If ``known_hosts`` is set, the server's key is checked only against it. If not, the server is trusted on first use:
    its key is recorded next to the deploy key, and must not change afterwards.

    Args:
        secrets_dir: the app's folder under /etc/flaskhost, readable only for root; must exist.
        key: the private deploy key, without a passphrase; empty for none, which removes an earlier key.
        known_hosts: the server's public keys, in the format of ssh-keyscan; empty to trust on first use.

    Returns:
        Variables for :func:`resolve_commit` and :func:`fetch_commit`. None of them contains the key itself.
    """
    key_file, hosts_file = secrets_dir / "deploy_key", secrets_dir / "known_hosts"
    command = [*_SSH, "-o", f"StrictHostKeyChecking={'yes' if known_hosts.strip() else 'accept-new'}"]
    files = str(hosts_file)
    if known_hosts.strip():
        _write_private(hosts_file, known_hosts)
    else:
        # A new key is added to the first file; keys that root accepted earlier are valid too.
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
def access(secrets_dir: Path, key: str = "", known_hosts: str = "", check: bool = False) -> Iterator[dict[str, str]]:
    """Return the result of :func:`environment`; in check mode, without leaving files behind.

    Args:
        secrets_dir: as in :func:`environment`; optional in check mode.
        key: as in :func:`environment`.
        known_hosts: as in :func:`environment`.
        check: whether to use a temporary folder, which is removed at the end.
    """
    if not check:
        yield environment(secrets_dir, key, known_hosts)
        return
    with tempfile.TemporaryDirectory(prefix="flaskhost-") as name:
        # Also in check mode, a server that was trusted before must have the same key.
        if (secrets_dir / "known_hosts").is_file():
            shutil.copy(secrets_dir / "known_hosts", name)
        yield environment(Path(name), key, known_hosts)


def _write_private(path: Path, text: str) -> None:
    """Write a text for ssh with Unix line endings, including a final one. Do nothing if the file is up to date."""
    lines = "\n".join(text.strip().splitlines()) + "\n"
    try:
        same = path.read_text(encoding="utf-8") == lines and stat.S_IMODE(path.stat().st_mode) == 0o600
    except (FileNotFoundError, UnicodeDecodeError):
        same = False
    if not same:
        atomic.write(path, lines)


def find_agent(proc: Path = Path("/proc")) -> str:
    """Find the SSH agent of the operator's login in the environments of this process's ancestors.

    sudo removes SSH_AUTH_SOCK; the shell that sshd started, a few parents up, still has it.

    Args:
        proc: the process file system; replaced in tests.

    Returns:
        The agent's socket; empty if there is none.
    """
    own = os.environ.get("SSH_AUTH_SOCK", "")
    if own and _is_socket(own):
        return own
    process = str(os.getpid())
    while process != "0":
        try:
            variables = (proc / process / "environ").read_bytes().split(b"\0")
        except OSError:
            # Root in a container cannot read every process's environment.
            variables = []
        for variable in variables:
            name, _equals, value = variable.partition(b"=")
            if name == b"SSH_AUTH_SOCK" and value and _is_socket(os.fsdecode(value)):
                return os.fsdecode(value)
        try:
            # The program's name comes first, in parentheses, and can contain any character: proc(5), /proc/pid/stat.
            process = (proc / process / "stat").read_bytes().rpartition(b")")[2].split()[1].decode()
        except (OSError, IndexError):
            return ""
    return ""


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


#: Authentication errors of ssh and git, and their fixes; the first match is used.
_REFUSALS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "The server's host key has changed. Ask its operator. If the new key is right, put its line into "
        "source.known_hosts, or remove the old line from the file known_hosts in {secrets_dir}."
    ),
    "Host key verification failed": (
        "The server's host key is not trusted. Compare the output of 'ssh-keyscan SERVER' with the keys that its "
        "operator publishes, and put that line into source.known_hosts."
    ),
    "Permission denied (publickey": (
        "The server rejects that key. Register the public half of source.key at the repository (a deploy key with "
        "read access). Without source.key, load a key with read access into your agent (ssh-add -l lists its keys) "
        "and forward the agent: --ssh-extra-args='-o ForwardAgent=yes'."
    ),
    "could not read Username": (
        "The repository is private or does not exist. Read a private one over SSH, with a URL that begins with git@ "
        "or ssh:// and a deploy key in source.key."
    ),
}


def _git_cure(errors: str, environment: Mapping[str, str], otherwise: str) -> str:
    """Return the fix for a git failure, chosen by its error output."""
    if re.search(r"Load key .*(?:invalid format|error in libcrypto|passphrase)", errors):
        return (
            "The key is damaged or has a passphrase. Put a complete key without a passphrase into source.key, "
            "with its line ends (|)."
        )
    found = next((cure for words, cure in _REFUSALS.items() if words in errors), otherwise)
    hosts = re.search(r"UserKnownHostsFile=(\S+)/known_hosts", environment.get("GIT_SSH_COMMAND", ""))
    return found.format(secrets_dir=hosts.group(1) if hosts else "/root/.ssh")


def _bounded(command: list[str], seconds: int, largest: int, memory: int) -> list[str]:
    """Limit what a server that sends endless data can do through a command.

    Args:
        command: the command.
        seconds: time limit in seconds.
        largest: size limit for each file that it writes, in bytes.
        memory: memory limit for each of its processes, in bytes.
    """
    limit = ["prlimit", "--core=0", f"--fsize={largest}", f"--data={memory}", "--"]
    return [*_LAST_ERRORS, "timeout", "--kill-after=10", str(seconds), *limit, *command]


def _half_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _took_too_long(status: int, seconds: int, url: str) -> str:
    """Return a message that a command exceeded its time limit; empty if it did not."""
    return f"{url} took longer than {seconds} s." if status in (124, 137) else ""


def needs_commit(url: str, version: str) -> bool:
    """Check whether a repository's version can be forged because anyone on the network path can answer for the server.

    Only a full commit is safe then: it is the digest of what git receives.

    Args:
        url: the repository's URL.
        version: a branch, a tag or a commit.
    """
    return url.startswith(("http://", "git://")) and not _COMMIT.fullmatch(version)


def resolve_commit(
    run: Run, repository: Path, url: str, version: str, environment: Mapping[str, str] | None = None
) -> str:
    """Resolve a version to a commit.

    Args:
        run: runs a command.
        repository: the app's bare repository on the host; optional.
        url: the repository's URL.
        version: a branch, a tag or a full commit.
        environment: the result of :func:`environment`, for a private repository.

    Returns:
        The commit, 40 hexadecimal digits. A full commit is returned unchanged, without contacting the server.

    Raises:
        ReleaseError: the repository does not respond, or has no such version.
    """
    if _COMMIT.fullmatch(version):
        return version
    if needs_commit(url, version):
        raise ReleaseError(
            "Read the repository",
            f"{version!r} of a repository that is read over {url.partition(':')[0]}:// can be forged on the network "
            "path.",
            "Use the https:// or git@ URL in source.repo, or set source.version to a full commit hash (40 digits).",
        )
    asked = ["ls-remote", "--", url, version, f"{version}^{{}}"]
    variables = {**_GIT_ENVIRONMENT, **(environment or {})}
    command = _bounded([*_GIT, *asked], _LONGEST_QUESTION, _QUESTION_MEMORY, _QUESTION_MEMORY)
    status, out, err = run(command, environ_update=variables)
    if status:
        cure = (
            "Check source.repo, and whether this host can read it: run the same 'git ls-remote' on this host as root."
        )
        reason = _took_too_long(status, _LONGEST_QUESTION, url) or f"git cannot read {url}:\n{tail(err, 5)}"
        raise ReleaseError("Read the repository", reason, cure_for(err, _git_cure(err, variables, cure)))
    refs = {name: commit for commit, name in (line.split("\t", 1) for line in out.splitlines() if "\t" in line)}
    places = (f"refs/tags/{version}", f"refs/heads/{version}", version)
    for name in (item for place in places for item in (f"{place}^{{}}", place)):
        if name in refs:
            return refs[name]
    # An abbreviated commit can be resolved only in a repository that was fetched. That repository also has branches and
    # tags that no longer exist on the server, so the result must begin with the requested digits.
    asked = ["--git-dir", str(repository), "rev-parse", "--quiet", "--verify", f"{version}^{{commit}}"]
    status, out, _err = run([*_GIT, *asked])
    if status == 0 and _COMMIT.fullmatch(out.strip()) and out.startswith(version):
        return out.strip()
    raise ReleaseError(
        "Read the repository",
        f"{url} has no branch or tag {version!r}.",
        "Correct source.version: a branch, a tag, or a full commit hash (40 digits).",
    )


def fetch_commit(
    run: Run, repository: Path, url: str, commit: str, environment: Mapping[str, str] | None = None
) -> None:
    """Fetch a commit into the app's bare repository on the host; the arguments are those of :func:`resolve_commit`.

    Raises:
        ReleaseError: the commit cannot be fetched.
    """
    git = [*_GIT, "--git-dir", str(repository)]
    if run([*git, "cat-file", "-e", f"{commit}^{{commit}}"])[0] == 0:
        return
    _drop_partial_packs(repository)
    if sum(path.lstat().st_size for path in (repository / "objects").rglob("*")) > _LARGEST_HISTORY:
        # Each fetch is limited, but leftovers of old branches add up. Everything can be fetched again.
        shutil.rmtree(repository)
        repository.mkdir(mode=0o700)
    # Harmless if the repository is complete; repairs it if a run was killed while it created it.
    run([*_GIT, "init", "--quiet", "--bare", str(repository)], check_rc=True)
    # A killed git leaves its lock files, which block later ones. No other git runs here, because the app is locked.
    for path in repository.rglob("*.lock"):
        path.unlink(missing_ok=True)
    references = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    variables = {**_GIT_ENVIRONMENT, **(environment or {})}
    # Into a single file, whose size can be limited.
    fetch = [*git, "-c", "fetch.unpackLimit=1", "fetch", "--quiet"]

    def bring(*arguments: str) -> tuple[int, str, str]:
        command = _bounded([*fetch, *arguments], _LONGEST_FETCH, _LARGEST_HISTORY, _half_of_memory())
        return run(command, environ_update=variables)

    status, _out, err = bring("--prune", "--no-tags", "--", url, *references)
    if status == 0 and run([*git, "cat-file", "-e", f"{commit}^{{commit}}"])[0]:
        # The commit is on no branch and no tag. Some servers send such a commit if it is requested by its hash.
        status, _out, err = bring("--", url, commit)
    if status:
        largest = _drop_partial_packs(repository)
        cure = "Check source.repo and source.version, and whether this host can read the repository."
        reason = _took_too_long(status, _LONGEST_FETCH, url)
        # git does not report which signal ended its helper.
        if not reason and largest >= _LARGEST_HISTORY:
            reason = f"{url} is larger than {_LARGEST_HISTORY >> 20} MB."
        if not reason and "Out of memory" in err:
            reason = f"{url} needs more than half of this host's memory to unpack."
        if reason:
            cure = (
                "Run 'git clone --bare' of source.repo on this host to see how long that takes and how large the "
                "repository is. An archive that has only the code is smaller: source.archive."
            )
        reason = reason or f"git cannot fetch {commit[:12]} from {url}:\n{tail(err, 5)}"
        raise ReleaseError("Fetch the code", reason, cure_for(err, _git_cure(err, variables, cure)))


def _drop_partial_packs(repository: Path) -> int:
    """Remove the partial packs of a killed git. Return the size of the largest one."""
    largest = 0
    for path in (repository / "objects").glob("*/tmp_*"):
        largest = max(largest, path.lstat().st_size)
        path.unlink(missing_ok=True)
    return largest


def submodule_warning(run: Run, repository: Path, commit: str) -> str:
    """Return a warning if a commit has submodules, which are not part of a release.

    A warning instead of an error, because most submodules are documentation themes and the like, which an app does not
    need. If an app does need one, it fails at startup, before it goes live.

    Args:
        run: runs a command.
        repository: the app's bare repository on the host, with the commit in it.
        commit: the commit.

    Returns:
        One sentence; empty if there are no submodules.
    """
    question = ["config", "--blob", f"{commit}:.gitmodules", "--get-regexp", r"^submodule\..*\.path$"]
    _status, out, _err = run([*_GIT, "--git-dir", str(repository), *question])
    folders = sorted(line.partition(" ")[2] for line in out.splitlines() if " " in line)
    if not folders:
        return ""
    return f"git submodules are not part of a release. Empty folders in this release: {', '.join(folders[:8])}."


def unpack_commit(run: Run, repository: Path, commit: str, destination: Path, replaced: Iterable[str] = ()) -> None:
    """Unpack the tree of a commit into a folder; the arguments are those of :func:`archives.unpack`.

    Raises:
        ReleaseError: as in :func:`archives.unpack`.
    """
    archive = destination.with_name("source.tar")
    git = [*_GIT, "--git-dir", str(repository), "archive", "--format=tar", f"--output={archive}", commit]
    # A small tree that other trees contain over and over makes an endless archive.
    status, _out, err = run(["prlimit", f"--fsize={archives.LARGEST_SOURCE}", f"--data={_half_of_memory()}", *git])
    if status:
        if archive.is_file() and archive.stat().st_size >= archives.LARGEST_SOURCE:
            raise archives.too_large()
        cure = cure_for(err, "Run the same command again.")
        raise ReleaseError("Unpack the code", f"git archive failed: {tail(err, 5)}", cure)
    archives.unpack(run, archive, destination, replaced)
    archive.unlink()
