"""A folder of the controller: known by its content, and the same on the host."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy.sources import archives, folders
from fakes import run_command
from source_files import FILES, make


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


def git(folder: Path, *arguments: str) -> None:
    run_command(["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.test", *arguments], check_rc=True)


def test_of_the_data_only_what_git_tracks_is_taken(tmp_path: Path) -> None:
    tracked = ["app/instance/seed.csv", "app/instance/deep/a b\n", "app/up/x.png", "app/instance/gone", "app/main.py"]
    make(tmp_path, dict.fromkeys([*tracked, "app/instance/.env", "app/instance/a.pyc"], "x"))
    (tmp_path / "app/instance/link").symlink_to("seed.csv")
    git(tmp_path, "init")
    git(tmp_path, "add", "--all", "--force")
    make(tmp_path, dict.fromkeys(["app/instance/app.sqlite", "app/instance/config.py"], "own"))
    (tmp_path / "app/instance/gone").unlink()
    wanted = sorted(map(Path, ["instance/seed.csv", "instance/deep/a b\n", "instance/link", "up/x.png"]))
    # From a folder of the repository, as source.path can be one, and from the top.
    assert folders.tracked(tmp_path / "app", ["instance", "./up/"]) == wanted
    assert folders.tracked(tmp_path, ["app/instance", "app/up"]) == [Path("app") / path for path in wanted]
    assert folders.tracked(tmp_path, ["no", "app/*"]) == []
    # source.path can be a link.
    (tmp_path / "current").symlink_to("app")
    assert folders.tracked(tmp_path / "current", ["instance", "up"]) == wanted


@pytest.mark.parametrize("path", ["../elsewhere", "/etc"])
def test_nothing_outside_of_the_folder_is_taken(tmp_path: Path, path: str) -> None:
    make(tmp_path, {"app/a.py": "x", "elsewhere/b": "x"})
    git(tmp_path, "init")
    git(tmp_path, "add", "--all")
    assert folders.tracked(tmp_path / "app", [path]) == []


def test_nothing_behind_a_link_is_taken(tmp_path: Path) -> None:
    make(tmp_path, {"code/instance/a/b": "x", "private/a/b": "secret"})
    git(tmp_path / "code", "init")
    git(tmp_path / "code", "add", "--all")
    (tmp_path / "code/instance").rename(tmp_path / "old")
    (tmp_path / "code/instance").symlink_to("../private")
    assert folders.tracked(tmp_path / "code", ["instance"]) == []


def test_a_folder_without_git_has_nothing_for_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, {"instance/app.sqlite": "x"})
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert folders.tracked(tmp_path, ["instance"]) == []
    git(tmp_path, "init")
    git(tmp_path, "add", "--all")
    assert folders.tracked(tmp_path, ["instance"]) == [Path("instance/app.sqlite")]
    assert folders.tracked(tmp_path, []) == []
    monkeypatch.setattr(folders.shutil, "which", lambda _name: None)
    assert folders.tracked(tmp_path, ["instance"]) == []


def test_git_runs_nothing_that_the_folder_names(tmp_path: Path) -> None:
    """The folder can come from an archive with settings of git."""
    make(tmp_path, {"instance/seed": "x"})
    git(tmp_path, "init")
    git(tmp_path, "add", "--all")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(program))
    assert folders.tracked(tmp_path, ["instance"]) == [Path("instance/seed")]
    assert not (tmp_path / "ran").exists()


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
