"""A git repository: a version is the commit that was meant, and fetched without a way to run or to ask anything."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy.sources import archives, folders, git
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import run_command, tree
from source_files import FILES, Repository, archive_of, make, member


def test_a_version_is_a_branch_a_tag_or_a_commit(repository: Repository) -> None:
    first = repository.commit("one")
    repository.git("tag", "light")
    repository.git("tag", "--annotate", "--message", "signed off", "v1.0")
    second = repository.commit("two")
    repository.git("branch", "feature/main", first)
    assert repository.resolve("main") == second
    assert repository.resolve("feature/main") == first
    assert repository.resolve("light") == first
    assert repository.resolve("v1.0") == first != repository.git("rev-parse", "v1.0")
    assert repository.resolve("refs/tags/v1.0") == first
    assert repository.resolve("refs/heads/main") == repository.resolve("HEAD") == second


def test_a_tag_wins_over_a_branch_of_the_same_name(repository: Repository) -> None:
    first = repository.commit("one")
    repository.git("tag", "stable")
    repository.commit("two")
    repository.git("branch", "stable")
    assert repository.resolve("stable") == first


def test_a_branch_is_asked_for_anew_each_time(repository: Repository) -> None:
    repository.fetch(repository.commit("one"))
    second = repository.commit("two")
    assert repository.resolve("main") == second


def test_a_whole_commit_asks_nobody(tmp_path: Path) -> None:
    def nobody(*_: object, **__: object) -> tuple[int, str, str]:
        raise AssertionError

    assert git.resolve_commit(nobody, tmp_path, "https://example.invalid/x.git", "a" * 40) == "a" * 40


@pytest.mark.parametrize("url", ["http://h.test/shop.git", "git://h.test/shop.git"])
@pytest.mark.parametrize("version", ["main", "v1", "a" * 39, "A" * 40])
def test_a_version_that_can_be_forged_on_the_way_is_not_asked_for(tmp_path: Path, url: str, version: str) -> None:
    def run(*_: Any, **__: Any) -> tuple[int, str, str]:
        raise AssertionError("nobody is asked")

    with pytest.raises(ReleaseError, match="can be forged on the network path"):
        git.resolve_commit(run, tmp_path / "none", url, version)
    assert git.resolve_commit(run, tmp_path / "none", url, "a" * 40) == "a" * 40


def test_a_short_commit_is_known_once_it_was_fetched(repository: Repository) -> None:
    commit = repository.commit("one")
    with pytest.raises(ReleaseError, match=f"has no branch or tag '{commit[:9]}'") as caught:
        repository.resolve(commit[:9])
    assert "40 digits" in caught.value.cure
    repository.fetch(commit)
    assert repository.resolve(commit[:9]) == commit


@pytest.mark.parametrize("version", ["v9.9", "mai", "", "main~1", "deadbeef", "0" * 39, "--upload-pack=x"])
def test_an_unknown_version_is_refused(repository: Repository, version: str) -> None:
    repository.commit("one")
    repository.fetch(repository.commit("two"))
    with pytest.raises(ReleaseError) as caught:
        repository.resolve(version)
    assert caught.value.step == "Read the repository"
    assert "source.version" in caught.value.cure or "source.repo" in caught.value.cure


def test_a_tag_that_was_taken_back_is_unknown_even_if_it_was_fetched(repository: Repository) -> None:
    first = repository.commit("one")
    repository.git("tag", "v1.0")
    repository.git("branch", "old")
    repository.fetch(first)
    repository.git("tag", "--delete", "v1.0")
    repository.git("branch", "--delete", "--force", "old")
    for version in ("v1.0", "old"):
        with pytest.raises(ReleaseError, match="has no branch or tag"):
            repository.resolve(version)


def test_a_missing_repository_is_refused(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/missing"
    with pytest.raises(ReleaseError, match="git cannot read") as caught:
        git.resolve_commit(run_command, tmp_path / "bare", url, "main")
    assert url in caught.value.reason
    with pytest.raises(ReleaseError, match="git cannot fetch aaaaaaaaaaaa"):
        git.fetch_commit(run_command, tmp_path / "bare", url, "a" * 40)


def test_a_url_is_never_an_option(repository: Repository, tmp_path: Path) -> None:
    evil = f"--upload-pack=touch {tmp_path}/evil;"
    with pytest.raises(ReleaseError):
        git.resolve_commit(run_command, repository.bare, evil, str(repository.folder))
    with pytest.raises(ReleaseError):
        git.fetch_commit(run_command, repository.bare, evil, "a" * 40)
    assert not (tmp_path / "evil").exists()


def test_a_commit_is_fetched_once(repository: Repository) -> None:
    commit = repository.commit("one")
    repository.fetch(commit)
    shutil.rmtree(repository.folder)
    repository.fetch(commit)


def test_a_commit_on_no_branch_is_fetched_by_its_name(repository: Repository) -> None:
    repository.commit("one")
    lost = repository.commit("lost")
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.fetch(lost)
    assert repository.resolve(lost[:12]) == lost


def test_a_commit_that_is_nowhere_is_refused(repository: Repository) -> None:
    repository.commit("one")
    with pytest.raises(ReleaseError, match=r"git cannot fetch a{12} from file://"):
        repository.fetch("a" * 40)


def test_a_rewritten_branch_and_a_moved_tag_are_taken(repository: Repository) -> None:
    repository.commit("one")
    repository.git("branch", "topic")
    repository.git("tag", "latest")
    repository.fetch(repository.commit("two"))
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.git("branch", "--delete", "topic")
    repository.git("branch", "topic/part")
    third = repository.commit("three")
    repository.git("tag", "--force", "latest")
    repository.fetch(third)
    assert repository.resolve("latest") == repository.resolve("main") == third


def test_a_repository_that_was_made_in_part_is_mended(repository: Repository) -> None:
    commit = repository.commit("one")
    repository.bare.mkdir()
    (repository.bare / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    repository.fetch(commit)
    assert repository.resolve(commit[:9]) == commit


def test_locks_that_a_killed_git_left_do_not_stop_the_next_one(repository: Repository) -> None:
    repository.fetch(repository.commit("one"))
    for name in ("refs/heads/main.lock", "packed-refs.lock", "HEAD.lock", "shallow.lock"):
        (repository.bare / name).touch()
    commit = repository.commit("two")
    repository.fetch(commit)
    assert repository.resolve(commit[:9]) == commit


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A server that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("asks", ["fetch", "resolve"])
def test_a_server_that_never_answers_does_not_hold_up_a_deploy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_server: int, asks: str
) -> None:
    monkeypatch.setattr(git, "_LONGEST_QUESTION", 1)
    monkeypatch.setattr(git, "_LONGEST_FETCH", 1)
    url = f"http://127.0.0.1:{silent_server}/shop.git"
    began = time.monotonic()
    with pytest.raises(ReleaseError, match=r"took longer than 1 s"):
        if asks == "fetch":
            git.fetch_commit(deadline(run_command), tmp_path / "bare.git", url, "a" * 40)
        else:
            https = url.replace("http:", "https:")
            git.resolve_commit(deadline(run_command), tmp_path / "bare.git", https, "main")
    assert time.monotonic() - began < 5


def deadline(run: Any) -> Any:
    """A test of what waits for ever ends all the same."""
    return lambda command, **options: run(["timeout", "8", *command], **options)


def test_an_endless_history_is_not_fetched_for_ever(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "_LARGEST_HISTORY", 200_000)
    (repository.folder / "noise").write_bytes(os.urandom(1_000_000))
    commit = repository.commit("one")
    with pytest.raises(ReleaseError, match=r"larger than") as error:
        repository.fetch(commit)
    assert "source.archive" in error.value.cure
    kept = sum(path.stat().st_size for path in (repository.bare / "objects").rglob("*") if path.is_file())
    assert kept < 100_000, "what was fetched in part is gone"


def bomb(copies: int) -> tuple[str, bytes]:
    """A commit, and a bundle of a few kilobytes with a file that is so many times 16 MB."""

    def item(kind: int, content: bytes, base: bytes = b"") -> bytes:
        size, head = len(content) >> 4, [kind << 4 | len(content) & 15]
        while size:
            head[-1] |= 0x80
            head.append(size & 0x7F)
            size >>= 7
        return bytes(head) + base + zlib.compress(content, 9)

    def name(kind: str, content: bytes) -> bytes:
        return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).digest()

    def number(value: int) -> bytes:
        return bytes([value & 0x7F | 0x80]) + number(value >> 7) if value > 0x7F else bytes([value])

    base = bytes(0xFFFFFF)
    delta = number(len(base)) + number(len(base) * copies) + b"\xf0\xff\xff\xff" * copies
    large = hashlib.sha1(f"blob {len(base) * copies}\0".encode(), usedforsecurity=False)
    for _copy in range(copies):
        large.update(base)
    tree = b"100644 large\0" + large.digest() + b"100644 small\0" + name("blob", base)
    text = f"tree {name('tree', tree).hex()}\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n\nx\n".encode()
    pack = b"PACK\0\0\0\2\0\0\0\4" + item(1, text) + item(2, tree) + item(3, base)
    pack += item(7, delta, name("blob", base))
    commit = name("commit", text).hex()
    pack += hashlib.sha1(pack, usedforsecurity=False).digest()
    return commit, f"# v2 git bundle\n{commit} refs/heads/main\n\n".encode() + pack


def test_a_history_that_unpacks_to_more_than_fits_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, content = bomb(20)
    assert len(content) < 20_000
    (bundle := tmp_path / "bundle").write_bytes(content)
    monkeypatch.setattr(git, "_half_of_memory", lambda: 200 * 1024**2, raising=False)
    with pytest.raises(ReleaseError, match=r"needs more than half of this host's memory"):
        git.fetch_commit(run_command, tmp_path / "bare.git", str(bundle), commit)
    monkeypatch.setattr(git, "_half_of_memory", lambda: 2 * 1024**3)
    git.fetch_commit(run_command, tmp_path / "bare.git", str(bundle), commit)


@pytest.mark.parametrize("asks", ["fetch", "resolve"])
def test_errors_without_end_are_not_kept_in_memory(tmp_path: Path, asks: str) -> None:
    (ssh := tmp_path / "ssh").write_text(
        "#!/bin/sh\nhead --bytes=20000000 /dev/zero | tr '\\0' x >&2\necho ' the end' >&2\nexit 1\n"
    )
    ssh.chmod(0o755)
    access, sizes = {"GIT_SSH_COMMAND": str(ssh), "GIT_SSH_VARIANT": "ssh"}, []

    def run(command: Sequence[str], **options: Any) -> tuple[int, str, str]:
        result = run_command(command, **options)
        sizes.append(len(result[2]))
        return result

    with pytest.raises(ReleaseError, match=r"the end"):
        if asks == "fetch":
            git.fetch_commit(run, tmp_path / "bare.git", "git@example.com:shop", "a" * 40, access)
        else:
            git.resolve_commit(run, tmp_path / "bare.git", "git@example.com:shop", "main", access)
    assert max(sizes) <= 65536


def test_histories_that_were_left_behind_do_not_fill_the_disk(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fetch may bring as much as a history may be; all of them together may not."""
    monkeypatch.setattr(git, "_LARGEST_HISTORY", 400_000)
    repository.bare.mkdir(mode=0o700)
    for number in range(4):
        repository.git("checkout", "--quiet", "--orphan", f"x{number}")
        (repository.folder / "noise").write_bytes(os.urandom(300_000))
        commit = repository.commit(f"{number}")
        repository.git("branch", "--quiet", "--force", "main")
        if number:
            repository.git("branch", "--quiet", "--delete", "--force", f"x{number - 1}")
        repository.fetch(commit)
        assert repository.resolve(commit[:12]) == commit
    kept = sum(path.stat().st_size for path in (repository.bare / "objects").rglob("*") if path.is_file())
    assert kept < 900_000
    assert stat.S_IMODE(repository.bare.stat().st_mode) == 0o700


def test_a_commit_is_unpacked(repository: Repository, tmp_path: Path) -> None:
    make(repository.folder, {**FILES, "Grüße": "hello"})
    (repository.folder / "bin/run").chmod(0o755)
    (repository.folder / "link").symlink_to("pkg")
    commit = repository.commit("app")
    repository.commit("later")
    repository.fetch(commit)
    destination = tmp_path / "release/src"
    destination.mkdir(parents=True)
    git.unpack_commit(run_command, repository.bare, commit, destination)
    repository.git("checkout", "--quiet", commit)
    assert folders.digest(destination) == folders.digest(repository.folder)
    assert [path.name for path in destination.parent.iterdir()] == ["src"]


def test_a_link_in_a_commit_that_leads_out_is_refused(repository: Repository, tmp_path: Path) -> None:
    (repository.folder / "passwords").symlink_to("/etc/shadow")
    commit = repository.commit("evil")
    repository.fetch(commit)
    (tmp_path / "src").mkdir()
    with pytest.raises(ReleaseError, match="passwords is a link to /etc/shadow"):
        git.unpack_commit(run_command, repository.bare, commit, tmp_path / "src")


def test_a_commit_that_is_not_there_is_no_empty_folder(repository: Repository, tmp_path: Path) -> None:
    repository.fetch(repository.commit("one"))
    (tmp_path / "src").mkdir()
    with pytest.raises(ReleaseError, match="git archive failed"):
        git.unpack_commit(run_command, repository.bare, "a" * 40, tmp_path / "src")


def test_hooks_and_commands_of_a_repository_are_not_run(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit("one")
    for name in ("post-checkout", "reference-transaction", "post-merge", "fsmonitor"):
        repository.bare.joinpath("hooks").mkdir(parents=True, exist_ok=True)
        hook = repository.bare / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/evil\n", encoding="utf-8")
        hook.chmod(0o755)
    repository.fetch(commit)
    with pytest.raises(ReleaseError):
        git.resolve_commit(run_command, repository.bare, f"ext::sh -c touch% {tmp_path}/evil", "main")
    assert not (tmp_path / "evil").exists()


def test_looking_changes_nothing(repository: Repository) -> None:
    repository.fetch(repository.commit("one"))
    before = tree(repository.bare)
    repository.resolve("main")
    assert tree(repository.bare) == before


def test_no_question_is_ever_asked(repository: Repository) -> None:
    asked: list[dict[str, str]] = []

    def run(args: list[str], **options: object) -> tuple[int, str, str]:
        if {"ls-remote", "fetch"} & set(args):
            asked.append(options["environ_update"])
        return run_command(args, **options)

    commit = repository.commit("one")
    git.resolve_commit(run, repository.bare, repository.url, "main")
    git.fetch_commit(run, repository.bare, repository.url, commit)
    assert len(asked) == 2
    assert all(item["GIT_TERMINAL_PROMPT"] == "0" and "BatchMode=yes" in item["GIT_SSH_COMMAND"] for item in asked)


def test_a_temporary_folder_may_be_behind_a_link(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as real:
        (tmp_path / "srv").symlink_to(real)
        (tmp_path / "srv/src").mkdir()
        archive = archive_of(tmp_path / "a.tar", member("pkg/x"), member("l", tarfile.SYMTYPE, "pkg"))
        archives.unpack(run_command, archive, tmp_path / "srv/src")
        assert (tmp_path / "srv/src/l/x").is_file()


def test_a_commit_whose_tree_has_no_end_is_refused(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that is named ten times in one that is named ten times: some bytes of objects, and a thousand files."""
    monkeypatch.setattr(archives, "LARGEST_SOURCE", 256 * 1024)
    repository.commit("one")
    tree = repository.git("rev-parse", "HEAD^{tree}")
    for _level in range(3):
        (tmp_path / "entries").write_text("".join(f"040000 tree {tree}\t{number}\n" for number in range(10)))
        command = ["/bin/sh", "-c", 'exec git -C "$0" mktree <"$1"', str(repository.folder), str(tmp_path / "entries")]
        tree = run_command(command, check_rc=True)[1].strip()
    commit = repository.git("commit-tree", "-m", "bomb", tree)
    repository.git("update-ref", "refs/heads/bomb", commit)
    repository.fetch(commit)
    there = tmp_path / "there"
    there.mkdir()
    with pytest.raises(ReleaseError, match="larger than 0 MB unpacked"):
        git.unpack_commit(run_command, repository.bare, commit, there)
