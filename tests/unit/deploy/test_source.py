"""The code that is released is the code that was meant: known by its content, whole, and shut in its own folder."""

from __future__ import annotations

import errno
import hashlib
import http.server
import lzma
import os
import random
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from ansible.module_utils.flaskhost.apps.record import app_record
from ansible.module_utils.flaskhost.deploy.sources import archives, folders, git
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import GID, fake_owners, run_command, tree

FILES = {"app.py": "app", "pkg/__init__.py": "", "pkg/static/site.css": "body {}", "bin/run": "#!/bin/sh\n"}


def make(folder: Path, files: dict[str, str] | None = None) -> Path:
    for name, content in (FILES if files is None else files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


# -- a folder of the controller -------------------------------------------------------------------------------------


def test_what_belongs_to_a_release(tmp_path: Path) -> None:
    make(tmp_path)
    left_out = [".git/config", ".venv/bin/python", "pkg/__pycache__/a.pyc", "pkg/b.pyc", ".env", "pkg/node_modules/x"]
    make(tmp_path, dict.fromkeys([*left_out, "instance/app.db", "pkg/uploads/cat.png", "pkg/instance"], "x"))
    (tmp_path / "link").symlink_to("pkg")
    found = folders.files(tmp_path, ["instance", "pkg/uploads/"])
    assert found == sorted(map(Path, [*FILES, "link", "pkg/instance"]))


def test_a_folder_of_data_that_is_a_link_or_a_file_is_left_out_too(tmp_path: Path) -> None:
    (tmp_path / "instance").symlink_to("/var/lib/shop")
    (tmp_path / "shop.db").touch()
    assert folders.files(tmp_path, ["instance", "./shop.db"]) == []


def test_pipes_and_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("app.sock")
        digest = folders.digest(tmp_path)
        assert folders.files(tmp_path) == sorted(map(Path, FILES))
    Path("pipe").unlink()
    assert folders.digest(tmp_path) == digest


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    real = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "static":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="static"):
        folders.digest(tmp_path)


def test_the_digest_is_of_the_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = folders.digest(make(tmp_path / "a"))
    assert len(digest) == 64
    again = make(tmp_path / "b", dict(reversed(FILES.items())))
    for path in again.rglob("*"):
        os.utime(path, (0, 0))
    (again / "app.py").chmod(0o600)
    (again / "empty").mkdir()
    assert folders.digest(again) == digest
    real = os.scandir

    def shuffled(path: str) -> Iterator[os.DirEntry[str]]:
        entries = list(real(path))
        random.shuffle(entries)
        return _Entries(entries)

    monkeypatch.setattr(os, "scandir", shuffled)
    assert folders.digest(again) == digest


class _Entries:
    def __init__(self, entries: list[os.DirEntry[str]]) -> None:
        self.entries = iter(entries)

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return self.entries

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        return self.entries

    def __next__(self) -> os.DirEntry[str]:
        return next(self.entries)

    def close(self) -> None: ...


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda top: (top / "app.py").write_text("other", encoding="utf-8"),
    "name": lambda top: (top / "app.py").rename(top / "main.py"),
    "place": lambda top: (top / "app.py").rename(top / "pkg/app.py"),
    "executable": lambda top: (top / "app.py").chmod(0o755),
    "one more": lambda top: (top / "new").touch(),
    "one less": lambda top: (top / "app.py").unlink(),
    "link target": lambda top: ((top / "link").unlink(), (top / "link").symlink_to("bin")),
    "link to file": lambda top: ((top / "link").unlink(), (top / "link").write_text("pkg", encoding="utf-8")),
    "moved text": lambda top: make(top, {"app.py": "ap", "bin/run": "p#!/bin/sh\n"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_changes_with(tmp_path: Path, change: str) -> None:
    make(tmp_path)
    (tmp_path / "link").symlink_to("pkg")
    before = folders.digest(tmp_path)
    CHANGES[change](tmp_path)
    assert folders.digest(tmp_path) != before


@pytest.mark.parametrize("seam", ["f\0b\0", "f\0b\0\0", "f\0b\0001\0"])
def test_two_files_are_not_one_that_looks_like_them(tmp_path: Path, seam: str) -> None:
    two = make(tmp_path / "two", {"a": "1", "b": "2"})
    one = make(tmp_path / "one", {"a": f"1{seam}2"})
    assert folders.digest(two) != folders.digest(one)


def test_the_digest_does_not_change_with_data(tmp_path: Path) -> None:
    make(tmp_path)
    before = folders.digest(tmp_path, ["instance"])
    make(tmp_path, {"instance/app.db": "rows"})
    assert folders.digest(tmp_path, ["instance"]) == before != folders.digest(tmp_path)


def test_an_archive_brings_the_folder_over(tmp_path: Path) -> None:
    code = make(tmp_path / "code")
    make(code, {"Grüße/世界.txt": "hello", "-rf": "", "*": "", "new\nline": "", "a" * 120 + "/" + "b" * 150: "long"})
    (code / "bin/run").chmod(0o755)
    (code / "link").symlink_to("pkg")
    (code / "pkg/up").symlink_to("../app.py")
    os.link(code / "app.py", code / "same.py")
    os.utime(code / "pkg/static/site.css", (1_000_000_000, 1_000_000_000))
    digest = folders.digest(code, ["instance"])
    make(code, {"instance/app.db": "rows", ".env": "SECRET=1"})
    folders.pack(code, tmp_path / "source.tar.gz", ["instance"])
    (tmp_path / "there").mkdir()
    archives.unpack(run_command, tmp_path / "source.tar.gz", tmp_path / "there")
    assert folders.digest(tmp_path / "there") == digest
    assert not (tmp_path / "there/instance").exists()
    assert (tmp_path / "there/pkg/static/site.css").stat().st_mtime == 1_000_000_000


def test_a_name_that_is_no_utf8_comes_over_too(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    Path(os.fsdecode(bytes(code) + b"/caf\xe9.txt")).write_text("x", encoding="utf-8")
    (code / "link").symlink_to(os.fsdecode(b"caf\xe9.txt"))
    folders.pack(code, tmp_path / "source.tar.gz")
    (tmp_path / "there").mkdir()
    archives.unpack(run_command, tmp_path / "source.tar.gz", tmp_path / "there")
    assert folders.digest(tmp_path / "there") == folders.digest(code)


# -- unpacking ------------------------------------------------------------------------------------------------------


def archive_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    made.size = 1 if kind == tarfile.REGTYPE else 0
    return made


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "../pkg/../../outside", "/"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    there = tmp_path / "there"
    (there / "pkg").mkdir(parents=True)
    archive = archive_of(tmp_path / "a.tar", member("app.py"), member("pkg/l", tarfile.SYMTYPE, target))
    with pytest.raises(ReleaseError, match=r"pkg/l is a link to .*, outside of the source") as caught:
        archives.unpack(run_command, archive, there)
    assert caught.value.cure


def test_a_link_over_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    chain = [member("a", tarfile.SYMTYPE, "b/x"), member("b", tarfile.SYMTYPE, "c"), member("c", tarfile.SYMTYPE, "..")]
    with pytest.raises(ReleaseError, match="outside of the source"):
        archives.unpack(run_command, archive_of(tmp_path / "a.tar", *chain), tmp_path / "there")


def test_links_that_stay_inside_are_taken(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    links = {"a": "pkg", "pkg/b": "../app.py", "dangling": "missing", "top": ".", "itself": "itself", "one": "two/x"}
    members = [member("pkg/c"), *(member(name, tarfile.SYMTYPE, target) for name, target in links.items())]
    archives.unpack(run_command, archive_of(tmp_path / "a.tar", *members), tmp_path / "there")
    assert {name: str((tmp_path / "there" / name).readlink()) for name in links} == links


def test_a_link_that_gives_way_to_data_may_lead_out(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    archive = archive_of(tmp_path / "a.tar", member("web/instance", tarfile.SYMTYPE, "/var/lib/shop"))
    archives.unpack(run_command, archive, tmp_path / "here", ["web/instance"])
    with pytest.raises(ReleaseError, match="web/instance is a link"):
        archives.unpack(run_command, archive, tmp_path / "there", ["instance"])


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    archive = archive_of(tmp_path / "a.tar", member("pkg/pipe", tarfile.FIFOTYPE))
    with pytest.raises(ReleaseError, match="pkg/pipe is a device, a pipe or a socket"):
        archives.unpack(run_command, archive, tmp_path / "there")


@pytest.mark.parametrize("name", ["../evil", "pkg/../../evil", "/evil"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    there = tmp_path / "there"
    there.mkdir()
    archive = archive_of(tmp_path / "a.tar", member("app.py"), member(name.replace("/evil", f"{tmp_path}/evil", 1)))
    before = set(tmp_path.iterdir())
    try:
        archives.unpack(run_command, archive, there)
    except ReleaseError as error:
        assert "tar says" in error.reason
    assert set(tmp_path.iterdir()) == before
    assert not Path("/evil").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    for name in ("there", "outside"):
        (tmp_path / name).mkdir()
    archive = archive_of(tmp_path / "a.tar", member("l", tarfile.SYMTYPE, str(tmp_path / "outside")), member("l/evil"))
    with pytest.raises(ReleaseError):
        archives.unpack(run_command, archive, tmp_path / "there")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"), [(b"no archive at all", "tar says"), (b"\x1f\x8b\x08\x00broken", "gzip: ")]
)
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(ReleaseError, match=said):
        archives.unpack(run_command, tmp_path / "a.tar.gz", tmp_path / "there")


def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    folders.pack(make(tmp_path / "code", {"data": "".join(map(str, range(5000)))}), tmp_path / "a.tar.gz")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "there").mkdir()
    with pytest.raises(ReleaseError, match="gzip: "):
        archives.unpack(run_command, tmp_path / "a.tar.gz", tmp_path / "there")


def test_sealed_code_is_roots_and_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "src"
    code.mkdir()
    members = [
        member("bin/run", mode=0o4777),
        member("app.py", mode=0o666),
        member("secret.py", mode=0o600),
        member("link", tarfile.SYMTYPE, "app.py"),
    ]
    archives.unpack(run_command, archive_of(tmp_path / "a.tar", *members), code)
    owners = fake_owners(monkeypatch)
    archives.seal(code, GID)
    everything = [code, *code.rglob("*")]
    assert {path: owners[path] for path in everything} == dict.fromkeys(everything, (0, GID))
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in everything if not path.is_symlink()}
    assert modes == {"src": 0o750, "bin": 0o750, "run": 0o750, "app.py": 0o640, "secret.py": 0o640}


# -- a git repository -----------------------------------------------------------------------------------------------


class Repository:
    """A real repository, and the bare one that a host would have of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bare = folder / "upstream", folder / "repository.git"
        self.url = f"file://{self.folder}"
        self.folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]
        environment = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        command = ["git", *who, "-C", str(self.folder), *arguments]
        return run_command(command, check_rc=True, environ_update=environment)[1].strip()

    def commit(self, content: str) -> str:
        make(self.folder, {"app.py": content})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", content)
        return self.git("rev-parse", "HEAD")

    def resolve(self, version: str) -> str:
        return git.resolve_commit(run_command, self.bare, self.url, version)

    def fetch(self, commit: str) -> None:
        git.fetch_commit(run_command, self.bare, self.url, commit)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


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

    with pytest.raises(ReleaseError, match="can be forged on the way"):
        git.resolve_commit(run, tmp_path / "none", url, version)
    assert git.resolve_commit(run, tmp_path / "none", url, "a" * 40) == "a" * 40


def test_a_short_commit_is_known_once_it_was_fetched(repository: Repository) -> None:
    commit = repository.commit("one")
    with pytest.raises(ReleaseError, match=f"has no branch or tag named '{commit[:9]}'") as caught:
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
    with pytest.raises(ReleaseError, match="git archive says"):
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
            asked.append(options["environ_update"])  # type: ignore[arg-type]
        return run_command(args, **options)  # type: ignore[arg-type]

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


# -- an archive and its checksum ------------------------------------------------------------------------------------


def checksum_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_checksum_is_read_and_told_apart(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar", member("app.py"))
    checksum = checksum_of(archive)
    archives.verify(archive, checksum)
    archives.verify(archive, "sha256:" + checksum[7:].upper())
    assert archives.checksum_digest(checksum) == archives.file_digest(archive) == checksum[7:]
    wrong = "sha256:" + "0" * 64
    with pytest.raises(ReleaseError, match=rf"a\.tar .* checksum is {checksum}, wanted {wrong}"):
        archives.verify(archive, wrong)


@pytest.mark.parametrize("checksum", ["", "sha256:", "sha256:" + "0" * 63, "md5:" + "0" * 32, "0" * 64])
def test_what_is_no_checksum_is_told(tmp_path: Path, checksum: str) -> None:
    with pytest.raises(ReleaseError, match="is no checksum") as caught:
        archives.verify(archive_of(tmp_path / "a.tar"), checksum)
    assert "source.checksum" in caught.value.cure


@pytest.mark.parametrize(
    ("archive", "absolute"),
    [("dist/a.tar", "/project/dist/a.tar"), ("/srv/a.tar", "/srv/a.tar"), ("", "")]
    + [(url, url) for url in ("https://h.test/a.tar", "http://h.test/a.tar")],
)
def test_a_relative_archive_begins_in_the_project(archive: str, absolute: str) -> None:
    app = {"domains": ["shop.localhost"], "source": {"archive": archive}, "wsgi": "shop:app"}
    record = app_record("shop", app, "/project")
    assert record["source"]["archive"] == absolute


def test_a_url_is_told_from_a_file() -> None:
    assert archives.is_url("https://h.test/a.tar.gz")
    assert archives.is_url("http://h.test/a.tar.gz")
    assert not archives.is_url("dist/https/a.tar.gz")
    assert not archives.is_url("file:///etc/shadow")


class Files(http.server.BaseHTTPRequestHandler):
    """A server of files that goes wrong on some paths."""

    folder: Path

    def do_GET(self) -> None:
        name = self.path.partition("?")[0]
        if name == "/moved":
            self.answer(302, b"", Location="/a.tar")
        elif name == "/away":
            self.answer(302, b"", Location=f"file://{self.folder}/a.tar")
        elif name == "/cut":
            self.answer(200, b"only a part", length=1000)
        elif (self.folder / name[1:]).is_file():
            self.answer(200, (self.folder / name[1:]).read_bytes())
        else:
            self.answer(404, b"no such file")

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length or len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server that has ``a.tar``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    archive_of(tmp_path / "a.tar", member("shop-1.0/app.py"))
    handler = type("Handler", (Files,), {"folder": tmp_path})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["a.tar", "moved"])
def test_an_archive_is_fetched(tmp_path: Path, files: str, name: str) -> None:
    archives.download(f"{files}/{name}", checksum_of(tmp_path / "a.tar"), tmp_path / "got.tar")
    assert (tmp_path / "got.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()


def test_another_archive_than_the_one_that_was_meant_is_refused_and_not_kept(tmp_path: Path, files: str) -> None:
    with pytest.raises(ReleaseError, match=checksum_of(tmp_path / "a.tar")) as caught:
        archives.download(f"{files}/a.tar", "sha256:" + "0" * 64, tmp_path / "got.tar")
    assert caught.value.step == "Check the archive"
    assert not (tmp_path / "got.tar").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.tar", "answers 404"), ("cut", "cut off after 11 of 1000 bytes"), ("away", "answers 302")],
)
def test_an_archive_that_cannot_be_had_is_told_and_nothing_is_kept(
    tmp_path: Path, files: str, name: str, reason: str
) -> None:
    with pytest.raises(ReleaseError, match=reason) as caught:
        archives.download(f"{files}/{name}?token=secret", checksum_of(tmp_path / "a.tar"), tmp_path / "got.tar")
    assert f"{files}/{name}" in caught.value.reason
    assert "source.archive" in caught.value.cure
    assert "secret" not in f"{caught.value} {caught.value.cure}"
    assert not (tmp_path / "got.tar").exists()


def test_a_server_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.tar"
        with pytest.raises(ReleaseError, match=r"cannot be read: .*refused"):
            archives.download(url, "sha256:" + "0" * 64, tmp_path / "got.tar")


def test_an_endless_archive_is_not_fetched_for_ever(
    tmp_path: Path, files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_LARGEST_DOWNLOAD", 100), ("_LONGEST_DOWNLOAD", -1)):
        with monkeypatch.context() as patch:
            patch.setattr(archives, name, value)
            with pytest.raises(ReleaseError, match="larger or slower than"):
                archives.download(f"{files}/a.tar", checksum_of(tmp_path / "a.tar"), tmp_path / "got.tar")
        assert not (tmp_path / "got.tar").exists()


def test_a_full_disk_is_told(tmp_path: Path, files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "_compare", full)
    with pytest.raises(ReleaseError, match="No space left on device") as caught:
        archives.download(f"{files}/a.tar", checksum_of(tmp_path / "a.tar"), tmp_path / "got.tar")
    assert caught.value.cure == "Make room."
    assert not (tmp_path / "got.tar").exists()


def unpacked(tmp_path: Path, archive: Path, strip: bool = True) -> set[str]:
    there = tmp_path / "release/src"
    there.mkdir(parents=True)
    archives.unpack(run_command, archive, there, strip=strip)
    assert [path.name for path in there.parent.iterdir()] == ["src"]
    return {str(path.relative_to(there)) for path in there.rglob("*")}


@pytest.mark.parametrize("compress", [None, "gz", "xz"])
def test_a_single_folder_at_the_top_is_left_out(tmp_path: Path, compress: str | None) -> None:
    with tarfile.open(tmp_path / "a.tar", f"w:{compress or ''}") as tar:
        for item in (member("shop/", tarfile.DIRTYPE, mode=0o755), member("shop/shop/app.py"), member("shop/shop.py")):
            tar.addfile(item, BytesIO(b"x" * item.size))
    assert unpacked(tmp_path, tmp_path / "a.tar") == {"shop", "shop/app.py", "shop.py"}


def test_two_things_at_the_top_and_a_folder_of_ones_own_stay(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    two = archive_of(tmp_path / "a.tar", member("shop/app.py"), member("docs/x"))
    assert unpacked(tmp_path / "one", two) == {"shop", "shop/app.py", "docs", "docs/x"}
    (tmp_path / "two").mkdir()
    own = archive_of(tmp_path / "b.tar", member("shop/app.py"))
    assert unpacked(tmp_path / "two", own, strip=False) == {"shop", "shop/app.py"}


def test_a_link_that_leads_out_only_without_the_top_folder_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar", member("shop/app.py"), member("shop/l", tarfile.SYMTYPE, "../x"))
    with pytest.raises(ReleaseError, match=r"^Unpack the code: l is a link to \.\./x"):
        unpacked(tmp_path, archive)


def test_a_link_at_the_top_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with pytest.raises(ReleaseError, match="outside of the source"):
        unpacked(tmp_path, archive_of(tmp_path / "a.tar", member("l", tarfile.SYMTYPE, str(tmp_path / "outside"))))


def test_a_damaged_xz_is_refused(tmp_path: Path) -> None:
    whole = lzma.compress(archive_of(tmp_path / "plain.tar", member("app.py")).read_bytes())
    for content in (whole[:-8], whole[:40] + b"x" * 20):
        (tmp_path / "a.tar.xz").write_bytes(content)
        with pytest.raises(ReleaseError, match="xz: "):
            unpacked(tmp_path, tmp_path / "a.tar.xz")
        assert not list((tmp_path / "release").glob("*.tar"))
        shutil.rmtree(tmp_path / "release")


# -- an archive that holds more than it shows -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gz", "xz", ""])
def test_an_archive_that_fills_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(archives, "LARGEST_SOURCE", 4 * 1024**2)
    with tarfile.open(tmp_path / "a.tar", f"w:{kind}") as tar:
        tar.addfile(tarfile.TarInfo("small"))
        bomb = tarfile.TarInfo("bomb")
        bomb.size = 64 * 1024**2
        tar.addfile(bomb, BytesIO(bytes(bomb.size)))
    there = tmp_path / "release/src"
    there.mkdir(parents=True)
    with pytest.raises(ReleaseError, match=r"larger than 4 MB unpacked"):
        archives.unpack(run_command, tmp_path / "a.tar", there)
    assert [path.name for path in (tmp_path / "release").rglob("*")] == ["src"]


def test_an_archive_of_too_many_files_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_ENTRIES", 10)
    names = [str(number) for number in range(10)]
    (tmp_path / "there").mkdir()
    archives.unpack(run_command, archive_of(tmp_path / "a.tar", *map(tarfile.TarInfo, names)), tmp_path / "there")
    (tmp_path / "more").mkdir()
    members = [tarfile.TarInfo(name) for name in [*names, "one more"]]
    with pytest.raises(ReleaseError, match="more than 10 files"):
        archives.unpack(run_command, archive_of(tmp_path / "b.tar", *members), tmp_path / "more")
    assert list((tmp_path / "more").iterdir()) == []


def test_a_name_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ReleaseError, match="larger than"):
        archive = archive_of(tmp_path / "a.tar", tarfile.TarInfo("x" * 2 * 1024**2))
        archives.unpack(run_command, archive, tmp_path / "there")


def test_folders_that_lie_too_deep_are_refused_and_gone(tmp_path: Path) -> None:
    """Python's own way to remove them fails at some thousand, and would at every later deploy."""
    there = tmp_path / "release/src"
    there.mkdir(parents=True)

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        answer = run_command(args, **options)
        if "--extract" in args:
            # What links in an archive can make of names that tar itself takes.
            script = 'cd "$0"; for i in $(seq 1500); do mkdir d; cd -P d; done'
            run_command(["/bin/sh", "-c", script, str(there)])
        return answer

    with pytest.raises(ReleaseError, match="deep in each other"):
        archives.unpack(run, archive_of(tmp_path / "a.tar"), there)
    shutil.rmtree(tmp_path / "release")


def test_a_second_name_of_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    """To seal it would give the other file to the app's group; those between files of the source are fine."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "there").mkdir()
    inside = tarfile.TarInfo("b")
    inside.type, inside.linkname = tarfile.LNKTYPE, "a"
    archive = archive_of(tmp_path / "a.tar", tarfile.TarInfo("a"), inside)
    archives.unpack(run_command, archive, tmp_path / "there")
    assert (tmp_path / "there/a").samefile(tmp_path / "there/b")

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        (tmp_path / "here/c").hardlink_to(tmp_path / "secret")
        return run_command(args, **options)

    (tmp_path / "here").mkdir()
    with pytest.raises(ReleaseError, match="c is a hard link to a file outside of the source"):
        archives.unpack(run, archive, tmp_path / "here")


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


def test_two_streams_of_xz_are_one_archive(tmp_path: Path) -> None:
    content = archive_of(tmp_path / "a.tar", tarfile.TarInfo("a")).read_bytes()
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(content[:700]) + bytes(8) + lzma.compress(content[700:]))
    (tmp_path / "there").mkdir()
    archives.unpack(run_command, tmp_path / "a.tar.xz", tmp_path / "there")
    assert (tmp_path / "there/a").is_file()


# -- a private repository -------------------------------------------------------------------------------------------

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
        "take the old one out of the file known_hosts in {secrets}"
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
    assert "empty in this one: docs/my theme, lib." in git.submodule_warning(run_command, repository.bare, commit)
