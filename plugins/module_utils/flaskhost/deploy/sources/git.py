"""A git repository: which commit a version means, how it is fetched, and how its tree is unpacked.

The repository and its server are strangers': nothing of theirs runs here, and what they send is bounded.
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

#: No gc in the background either: it would hold locks after this process and its lock are gone.
_GIT = ["git", "-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null", "-c", "gc.autoDetach=false"]

#: A question for a name or a password would wait for ever: there is nobody to answer.
_SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]

_GIT_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": shlex.join(_SSH)}

#: Bytes of what git brings in one fetch, and seconds for it; and for the question which commit a branch or tag means.
_LARGEST_HISTORY, _LONGEST_FETCH, _LONGEST_QUESTION = 4 * 1024**3, 900, 60

#: Bytes of memory for that question, and so of its answer. What unpacks a history may take half of the host's: a few
#: kilobytes of a hostile one can unpack to more than any host has.
_QUESTION_MEMORY = 128 * 1024**2

#: Runs a command and passes on the end of its errors, which a server can write without end.
_LAST_ERRORS = ("/bin/bash", "-o", "pipefail", "-c", '{ "$@" 2>&1 >&3 | tail --bytes=65536 >&2; } 3>&1', "bash")


def environment(secrets_dir: Path, key: str = "", known_hosts: str = "") -> dict[str, str]:
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
def access(secrets_dir: Path, key: str = "", known_hosts: str = "", check: bool = False) -> Iterator[dict[str, str]]:
    """What :func:`environment` returns, and in check mode the same without a trace.

    Args:
        secrets_dir: as there; in check mode it need not be there.
        key: as there.
        known_hosts: as there.
        check: use a temporary folder, which is removed at the end.
    """
    if not check:
        yield environment(secrets_dir, key, known_hosts)
        return
    with tempfile.TemporaryDirectory(prefix="flaskhost-") as name:
        # The server that was trusted before has to be the one that answers now, in check mode too.
        if (secrets_dir / "known_hosts").is_file():
            shutil.copy(secrets_dir / "known_hosts", name)
        yield environment(Path(name), key, known_hosts)


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
        environment: what :func:`environment` returns, for a private repository.

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
    refs = {name: commit for commit, name in (line.split("\t", 1) for line in out.splitlines() if "\t" in line)}
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
    """Write the tree of a commit into a folder; the arguments are those of :func:`archives.unpack`.

    Raises:
        ReleaseError: as in :func:`archives.unpack`.
    """
    archive = destination.with_name("source.tar")
    git = [*_GIT, "--git-dir", str(repository), "archive", "--format=tar", f"--output={archive}", commit]
    # One small tree, named over and over in others, makes an archive without end.
    status, _out, err = run(["prlimit", f"--fsize={archives.LARGEST_SOURCE}", f"--data={_half_of_memory()}", *git])
    if status:
        if archive.is_file() and archive.stat().st_size >= archives.LARGEST_SOURCE:
            raise archives.too_large()
        cure = cure_for(err, "Run the same command again.")
        raise ReleaseError("Unpack the code", f"git archive says: {tail(err, 5)}", cure)
    archives.unpack(run, archive, destination, replaced)
    archive.unlink()
