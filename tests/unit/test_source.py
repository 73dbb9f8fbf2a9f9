"""The code that is released is the code that was meant: known by its content, whole, and shut in its own folder."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost import source
from ansible.module_utils.flaskhost.runner import ReleaseError
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
    found = source.folder_files(tmp_path, ["instance", "pkg/uploads/"])
    assert found == sorted(map(Path, [*FILES, "link", "pkg/instance"]))


def test_a_folder_of_data_that_is_a_link_or_a_file_is_left_out_too(tmp_path: Path) -> None:
    (tmp_path / "instance").symlink_to("/var/lib/shop")
    (tmp_path / "shop.db").touch()
    assert source.folder_files(tmp_path, ["instance", "./shop.db"]) == []


def test_pipes_and_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("app.sock")
        digest = source.folder_digest(tmp_path)
        assert source.folder_files(tmp_path) == sorted(map(Path, FILES))
    Path("pipe").unlink()
    assert source.folder_digest(tmp_path) == digest


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
        source.folder_digest(tmp_path)


def test_the_digest_is_of_the_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = source.folder_digest(make(tmp_path / "a"))
    assert len(digest) == 64
    again = make(tmp_path / "b", dict(reversed(FILES.items())))
    for path in again.rglob("*"):
        os.utime(path, (0, 0))
    (again / "app.py").chmod(0o600)
    (again / "empty").mkdir()
    assert source.folder_digest(again) == digest
    real = os.scandir

    def shuffled(path: str) -> Iterator[os.DirEntry[str]]:
        entries = list(real(path))
        random.shuffle(entries)
        return _Entries(entries)

    monkeypatch.setattr(os, "scandir", shuffled)
    assert source.folder_digest(again) == digest


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
    before = source.folder_digest(tmp_path)
    CHANGES[change](tmp_path)
    assert source.folder_digest(tmp_path) != before


@pytest.mark.parametrize("seam", ["f\0b\0", "f\0b\0\0", "f\0b\0001\0"])
def test_two_files_are_not_one_that_looks_like_them(tmp_path: Path, seam: str) -> None:
    two = make(tmp_path / "two", {"a": "1", "b": "2"})
    one = make(tmp_path / "one", {"a": f"1{seam}2"})
    assert source.folder_digest(two) != source.folder_digest(one)


def test_the_digest_does_not_change_with_data(tmp_path: Path) -> None:
    make(tmp_path)
    before = source.folder_digest(tmp_path, ["instance"])
    make(tmp_path, {"instance/app.db": "rows"})
    assert source.folder_digest(tmp_path, ["instance"]) == before != source.folder_digest(tmp_path)


def test_an_archive_brings_the_folder_over(tmp_path: Path) -> None:
    code = make(tmp_path / "code")
    make(code, {"Grüße/世界.txt": "hello", "-rf": "", "*": "", "new\nline": "", "a" * 120 + "/" + "b" * 150: "long"})
    (code / "bin/run").chmod(0o755)
    (code / "link").symlink_to("pkg")
    (code / "pkg/up").symlink_to("../app.py")
    os.link(code / "app.py", code / "same.py")
    os.utime(code / "pkg/static/site.css", (1_000_000_000, 1_000_000_000))
    digest = source.folder_digest(code, ["instance"])
    make(code, {"instance/app.db": "rows", ".env": "SECRET=1"})
    source.pack_folder(code, tmp_path / "source.tar.gz", ["instance"])
    (tmp_path / "there").mkdir()
    source.unpack_archive(run_command, tmp_path / "source.tar.gz", tmp_path / "there")
    assert source.folder_digest(tmp_path / "there") == digest
    assert not (tmp_path / "there/instance").exists()
    assert (tmp_path / "there/pkg/static/site.css").stat().st_mtime == 1_000_000_000


def test_a_name_that_is_no_utf8_comes_over_too(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    Path(os.fsdecode(bytes(code) + b"/caf\xe9.txt")).write_text("x", encoding="utf-8")
    (code / "link").symlink_to(os.fsdecode(b"caf\xe9.txt"))
    source.pack_folder(code, tmp_path / "source.tar.gz")
    (tmp_path / "there").mkdir()
    source.unpack_archive(run_command, tmp_path / "source.tar.gz", tmp_path / "there")
    assert source.folder_digest(tmp_path / "there") == source.folder_digest(code)


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
        source.unpack_archive(run_command, archive, there)
    assert caught.value.cure


def test_a_link_over_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    chain = [member("a", tarfile.SYMTYPE, "b/x"), member("b", tarfile.SYMTYPE, "c"), member("c", tarfile.SYMTYPE, "..")]
    with pytest.raises(ReleaseError, match="outside of the source"):
        source.unpack_archive(run_command, archive_of(tmp_path / "a.tar", *chain), tmp_path / "there")


def test_links_that_stay_inside_are_taken(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    links = {"a": "pkg", "pkg/b": "../app.py", "dangling": "missing", "top": ".", "itself": "itself", "one": "two/x"}
    members = [member("pkg/c"), *(member(name, tarfile.SYMTYPE, target) for name, target in links.items())]
    source.unpack_archive(run_command, archive_of(tmp_path / "a.tar", *members), tmp_path / "there")
    assert {name: str((tmp_path / "there" / name).readlink()) for name in links} == links


def test_a_link_that_gives_way_to_data_may_lead_out(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    archive = archive_of(tmp_path / "a.tar", member("web/instance", tarfile.SYMTYPE, "/var/lib/shop"))
    source.unpack_archive(run_command, archive, tmp_path / "here", ["web/instance"])
    with pytest.raises(ReleaseError, match="web/instance is a link"):
        source.unpack_archive(run_command, archive, tmp_path / "there", ["instance"])


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    archive = archive_of(tmp_path / "a.tar", member("pkg/pipe", tarfile.FIFOTYPE))
    with pytest.raises(ReleaseError, match="pkg/pipe is a device, a pipe or a socket"):
        source.unpack_archive(run_command, archive, tmp_path / "there")


@pytest.mark.parametrize("name", ["../evil", "pkg/../../evil", "/evil"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    there = tmp_path / "there"
    there.mkdir()
    archive = archive_of(tmp_path / "a.tar", member("app.py"), member(name.replace("/evil", f"{tmp_path}/evil", 1)))
    before = set(tmp_path.iterdir())
    try:
        source.unpack_archive(run_command, archive, there)
    except ReleaseError as error:
        assert "tar says" in error.reason
    assert set(tmp_path.iterdir()) == before
    assert not Path("/evil").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    for name in ("there", "outside"):
        (tmp_path / name).mkdir()
    archive = archive_of(tmp_path / "a.tar", member("l", tarfile.SYMTYPE, str(tmp_path / "outside")), member("l/evil"))
    with pytest.raises(ReleaseError):
        source.unpack_archive(run_command, archive, tmp_path / "there")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("content", [b"no archive at all", b"\x1f\x8b\x08\x00broken"])
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(ReleaseError, match="tar says"):
        source.unpack_archive(run_command, tmp_path / "a.tar.gz", tmp_path / "there")


def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    source.pack_folder(make(tmp_path / "code", {"data": "".join(map(str, range(5000)))}), tmp_path / "a.tar.gz")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "there").mkdir()
    with pytest.raises(ReleaseError, match="tar says"):
        source.unpack_archive(run_command, tmp_path / "a.tar.gz", tmp_path / "there")


def test_sealed_code_is_roots_and_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "src"
    code.mkdir()
    members = [
        member("bin/run", mode=0o4777),
        member("app.py", mode=0o666),
        member("secret.py", mode=0o600),
        member("link", tarfile.SYMTYPE, "app.py"),
    ]
    source.unpack_archive(run_command, archive_of(tmp_path / "a.tar", *members), code)
    owners = fake_owners(monkeypatch)
    source.seal(code, GID)
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
        return source.resolve_commit(run_command, self.bare, self.url, version)

    def fetch(self, commit: str) -> None:
        source.fetch_commit(run_command, self.bare, self.url, commit)


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

    assert source.resolve_commit(nobody, tmp_path, "https://example.invalid/x.git", "a" * 40) == "a" * 40


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
        source.resolve_commit(run_command, tmp_path / "bare", url, "main")
    assert url in caught.value.reason
    with pytest.raises(ReleaseError, match="git cannot fetch aaaaaaaaaaaa"):
        source.fetch_commit(run_command, tmp_path / "bare", url, "a" * 40)


def test_a_url_is_never_an_option(repository: Repository, tmp_path: Path) -> None:
    evil = f"--upload-pack=touch {tmp_path}/evil;"
    with pytest.raises(ReleaseError):
        source.resolve_commit(run_command, repository.bare, evil, str(repository.folder))
    with pytest.raises(ReleaseError):
        source.fetch_commit(run_command, repository.bare, evil, "a" * 40)
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


def test_a_commit_is_unpacked(repository: Repository, tmp_path: Path) -> None:
    make(repository.folder, {**FILES, "Grüße": "hello"})
    (repository.folder / "bin/run").chmod(0o755)
    (repository.folder / "link").symlink_to("pkg")
    commit = repository.commit("app")
    repository.commit("later")
    repository.fetch(commit)
    destination = tmp_path / "release/src"
    destination.mkdir(parents=True)
    source.unpack_commit(run_command, repository.bare, commit, destination)
    repository.git("checkout", "--quiet", commit)
    assert source.folder_digest(destination) == source.folder_digest(repository.folder)
    assert [path.name for path in destination.parent.iterdir()] == ["src"]


def test_a_link_in_a_commit_that_leads_out_is_refused(repository: Repository, tmp_path: Path) -> None:
    (repository.folder / "passwords").symlink_to("/etc/shadow")
    commit = repository.commit("evil")
    repository.fetch(commit)
    (tmp_path / "src").mkdir()
    with pytest.raises(ReleaseError, match="passwords is a link to /etc/shadow"):
        source.unpack_commit(run_command, repository.bare, commit, tmp_path / "src")


def test_a_commit_that_is_not_there_is_no_empty_folder(repository: Repository, tmp_path: Path) -> None:
    repository.fetch(repository.commit("one"))
    (tmp_path / "src").mkdir()
    with pytest.raises(ReleaseError, match="git archive says"):
        source.unpack_commit(run_command, repository.bare, "a" * 40, tmp_path / "src")


def test_hooks_and_commands_of_a_repository_are_not_run(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit("one")
    for name in ("post-checkout", "reference-transaction", "post-merge", "fsmonitor"):
        repository.bare.joinpath("hooks").mkdir(parents=True, exist_ok=True)
        hook = repository.bare / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/evil\n", encoding="utf-8")
        hook.chmod(0o755)
    repository.fetch(commit)
    with pytest.raises(ReleaseError):
        source.resolve_commit(run_command, repository.bare, f"ext::sh -c touch% {tmp_path}/evil", "main")
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
    source.resolve_commit(run, repository.bare, repository.url, "main")
    source.fetch_commit(run, repository.bare, repository.url, commit)
    assert len(asked) == 2
    assert all(item["GIT_TERMINAL_PROMPT"] == "0" and "BatchMode=yes" in item["GIT_SSH_COMMAND"] for item in asked)


def test_a_temporary_folder_may_be_behind_a_link(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as real:
        (tmp_path / "srv").symlink_to(real)
        (tmp_path / "srv/src").mkdir()
        archive = archive_of(tmp_path / "a.tar", member("pkg/x"), member("l", tarfile.SYMTYPE, "pkg"))
        source.unpack_archive(run_command, archive, tmp_path / "srv/src")
        assert (tmp_path / "srv/src/l/x").is_file()
