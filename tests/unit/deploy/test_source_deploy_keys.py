"""A private git repository: the deploy key or the forwarded agent, the server's key, and what a refusal tells."""

from __future__ import annotations

import os
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path

import ansible.module_utils
import pytest
from ansible.module_utils.flaskhost.deploy.sources import git
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import run_command, tree
from source_files import Repository, make

PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5\n-----END OPENSSH PRIVATE KEY-----"


@pytest.fixture
def private(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """The repository, behind an ssh that writes down how it was called and lets in whatever it is told to."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    script = (
        "#!/bin/sh\n"
        f'{{ printf "%s\\n" "$@"; echo "agent=$SSH_AUTH_SOCK"; }} >> {tmp_path}/called\n'
        f"[ ! -e {tmp_path}/refusal ] || {{ cat {tmp_path}/refusal >&2; exit 255; }}\n"
        'for last in "$@"; do :; done\nexec sh -c "$last"\n'
    )
    (bin_folder / "ssh").write_text(script, encoding="utf-8")
    (bin_folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    repository.url = f"ssh://git@git.test{repository.folder}"
    (tmp_path / "secrets").mkdir()
    return repository


def called(tmp_path: Path) -> list[str]:
    return (tmp_path / "called").read_text(encoding="utf-8").splitlines()


def test_the_deploy_key_is_used_and_no_other(private: Repository, tmp_path: Path) -> None:
    commit, secrets = private.commit("one"), tmp_path / "secrets"
    environment = git.environment(secrets, PRIVATE_KEY, "git.test ssh-ed25519 AAAA")
    assert git.resolve_commit(run_command, private.bare, private.url, "main", environment) == commit
    first = called(tmp_path)
    (tmp_path / "called").unlink()
    git.fetch_commit(run_command, private.bare, private.url, commit, environment)
    assert private.resolve(commit[:9]) == commit
    for arguments in (first, called(tmp_path)):
        assert arguments[arguments.index("-i") + 1] == str(secrets / "deploy_key")
        options = {"IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes", "ConnectTimeout=15"}
        assert options | {"StrictHostKeyChecking=yes", f"UserKnownHostsFile={secrets}/known_hosts"} <= set(arguments)
    assert "bm90IGEga2V5" not in str(environment)


def test_ssh_takes_the_options_as_they_are_meant(tmp_path: Path) -> None:
    """What our ssh makes of them; the fake one takes anything."""
    for known_hosts, strict, files in (
        ("h k v", "true", [f"{tmp_path}/known_hosts"]),
        ("", "accept-new", [f"{tmp_path}/known_hosts", f"{Path.home()}/.ssh/known_hosts"]),
    ):
        command = shlex.split(git.environment(tmp_path, PRIVATE_KEY, known_hosts)["GIT_SSH_COMMAND"])
        done = subprocess.run([*command, "-G", "git.test"], capture_output=True, text=True, check=True)
        understood = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        assert understood["stricthostkeychecking"] == strict
        assert [str(Path(item).expanduser()) for item in understood["userknownhostsfile"].split()] == files
        assert understood["identityfile"] == f"{tmp_path}/deploy_key"
        assert (understood["identitiesonly"], understood["batchmode"]) == ("yes", "yes")


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_the_key_is_written_as_ssh_wants_it_and_only_root_reads_it(tmp_path: Path, end: str) -> None:
    before = os.umask(0)
    try:
        git.environment(tmp_path, PRIVATE_KEY.replace("\n", end.strip("\n") + "\n") + end, "a\r\nb")
    finally:
        os.umask(before)
    assert (tmp_path / "deploy_key").read_bytes() == PRIVATE_KEY.encode() + b"\n"
    assert (tmp_path / "known_hosts").read_bytes() == b"a\nb\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_key_is_written_once_and_put_right(tmp_path: Path) -> None:
    git.environment(tmp_path, PRIVATE_KEY)
    before = tree(tmp_path)
    git.environment(tmp_path, PRIVATE_KEY)
    assert tree(tmp_path) == before
    (tmp_path / "deploy_key").chmod(0o644)
    git.environment(tmp_path, PRIVATE_KEY)
    assert stat.S_IMODE((tmp_path / "deploy_key").stat().st_mode) == 0o600
    git.environment(tmp_path, PRIVATE_KEY.replace("bm90", "bm91"))
    assert "bm91" in (tmp_path / "deploy_key").read_text(encoding="utf-8")


def test_a_key_that_is_taken_out_is_gone_and_what_was_trusted_stays(tmp_path: Path) -> None:
    git.environment(tmp_path, PRIVATE_KEY, "git.test ssh-ed25519 AAAA")
    assert "deploy_key" not in git.environment(tmp_path)["GIT_SSH_COMMAND"]
    assert [path.name for path in tmp_path.iterdir()] == ["known_hosts"]


def test_check_mode_leaves_no_trace_and_goes_by_what_is_trusted(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    with git.access(secrets, PRIVATE_KEY, check=True) as environment:
        used = Path(shlex.split(environment["GIT_SSH_COMMAND"])[-5])
        assert used.name == "deploy_key"
        assert used.exists()
    assert not used.parent.exists()
    assert not secrets.exists()
    secrets.mkdir()
    (secrets / "known_hosts").write_text("git.test ssh-ed25519 AAAA\n", encoding="utf-8")
    before = tree(secrets)
    with git.access(secrets, PRIVATE_KEY, check=True) as environment:
        used = Path(shlex.split(environment["GIT_SSH_COMMAND"])[-5])
        assert (used.parent / "known_hosts").read_bytes() == (secrets / "known_hosts").read_bytes()
    assert tree(secrets) == before
    with git.access(secrets, PRIVATE_KEY) as environment:
        assert environment == git.environment(secrets, PRIVATE_KEY)
    assert (secrets / "deploy_key").exists()


class Processes:
    """A /proc: a chain of processes from this one to the first, each with an environment."""

    def __init__(self, proc: Path, *environments: bytes) -> None:
        numbers = [str(os.getpid()), *(str(1000 - index) for index in range(len(environments) - 2)), "1", "0"]
        for number, parent, environment in zip(numbers, numbers[1:], environments, strict=False):
            (proc / number).mkdir(parents=True)
            (proc / number / "environ").write_bytes(environment)
            (proc / number / "stat").write_text(f"{number} (sh (1) 7 S 9) S {parent} 1 1", encoding="utf-8")


def test_a_forwarded_agent_is_found_above_sudo(
    private: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, stale = tmp_path / "agent.sock", tmp_path / "file"
    stale.touch()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)
        listener.bind("agent.sock")
        Processes(
            tmp_path / "proc",
            b"HOME=/root\0",
            b"SSH_AUTH_SOCK=\0NOT_SSH_AUTH_SOCK=/x\0",
            b"A=1\0SSH_AUTH_SOCK=" + bytes(stale) + b"\0",
            b"SSH_AUTH_SOCK=" + bytes(agent) + b"\0B=2\0",
            b"",
        )
        assert git.find_agent(tmp_path / "proc") == str(agent)
        Processes(tmp_path / "none", b"HOME=/root\0", b"SSH_AUTH_SOCK=" + bytes(stale), b"")
        assert git.find_agent(tmp_path / "none") == ""
        assert git.find_agent(tmp_path / "no-proc-at-all") == ""
        # In this one's own environment, which is the first to be asked.
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        commit = private.commit("one")
        environment = git.environment(tmp_path / "secrets")
        monkeypatch.delenv("SSH_AUTH_SOCK")
        assert git.resolve_commit(run_command, private.bare, private.url, "main", environment) == commit
        assert f"agent={agent}" in called(tmp_path)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        assert "SSH_AUTH_SOCK" not in git.environment(tmp_path / "secrets", PRIVATE_KEY)


def test_an_agent_is_found_in_the_real_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host: the shell that sshd started knows the agent, sudo takes it away, and the module asks."""
    folders = [item for item in sys.path if item]
    ask = "from ansible.module_utils.flaskhost.deploy.sources.git import find_agent; print(find_agent())"
    script = tmp_path / "module.py"
    script.write_text(
        f"import sys; sys.path[:] = {folders!r}\nimport ansible.module_utils\n"
        f"ansible.module_utils.__path__[:] = {list(ansible.module_utils.__path__)!r}\n{ask}\n",
        encoding="utf-8",
    )
    agent = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)
        listener.bind("agent.sock")
        # The second command keeps the shell from giving its place to the first one.
        command = ["sh", "-c", f"env -u SSH_AUTH_SOCK {shlex.quote(sys.executable)} module.py; true"]
        environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(agent), done.stderr


REFUSALS = {
    "git@git.test: Permission denied (publickey).": "public half of source.key",
    "git@git.test: Permission denied (publickey,password).": "ForwardAgent=yes",
    "No ED25519 host key is known for git.test\nHost key verification failed.": "ssh-keyscan",
    "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n1\n2\n3\n4\n5\nHost key verification failed.": (
        "remove the old line from the file known_hosts in {secrets}"
    ),
    'Load key "/x/deploy_key": error in libcrypto\ngit@git.test: Permission denied (publickey).': "damaged",
    "ssh: connect to host git.test port 22: Connection refused": "Check source.repo",
}


@pytest.mark.parametrize("said", REFUSALS)
def test_each_refusal_has_its_own_cure(private: Repository, tmp_path: Path, said: str) -> None:
    (tmp_path / "refusal").write_text(said + "\n", encoding="utf-8")
    environment = git.environment(tmp_path / "secrets", PRIVATE_KEY)
    with pytest.raises(ReleaseError) as caught:
        git.resolve_commit(run_command, private.bare, private.url, "main", environment)
    assert REFUSALS[said].format(secrets=tmp_path / "secrets") in caught.value.cure
    with pytest.raises(ReleaseError) as again:
        git.fetch_commit(run_command, private.bare, private.url, "a" * 40, environment)
    assert REFUSALS[said].format(secrets=tmp_path / "secrets") in again.value.cure
    assert said.splitlines()[-1] in again.value.reason
    assert "bm90IGEga2V5" not in f"{caught.value} {again.value}"


def test_submodules_are_told_by_name(repository: Repository) -> None:
    plain = repository.commit("one")
    text = '[submodule "theme"]\n\tpath = docs/my theme\n\turl = ../x\n[submodule "a"]\n\tpath = lib\n\turl = y\n'
    make(repository.folder, {".gitmodules": text})
    commit = repository.commit("two")
    repository.fetch(commit)
    assert git.submodule_warning(run_command, repository.bare, plain) == ""
    warning = git.submodule_warning(run_command, repository.bare, commit)
    assert "Empty folders in this release: docs/my theme, lib." in warning
