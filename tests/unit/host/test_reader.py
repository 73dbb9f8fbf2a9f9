"""The web server's user reads one folder of an app's data and nothing else, on a file system with ACLs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.host import acl
from ansible.module_utils.flaskhost.host.reader import DEEPEST, Reader
from ansible.module_utils.flaskhost.host.tree import TooDeep

#: The web server's user. It need not exist.
WEB = 33


def rights(path: Path, user: int = WEB) -> int | None:
    """What an ACL lets the user do; None if it does not name the user, so that the mode counts."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return acl.read(descriptor).rights(user)
    finally:
        os.close(descriptor)


def state(top: Path) -> dict[str, tuple[int, list[str]]]:
    """The mode and the ACLs of a folder and of everything in it."""
    return {
        str(path.relative_to(top)): (stat.S_IMODE(path.lstat().st_mode), sorted(os.listxattr(path)))
        for path in [top, *top.rglob("*")]
        if not path.is_symlink()
    }


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The data of an app, with the umask of its slots."""
    before = os.umask(0o077)
    top = tmp_path / "data"
    for folder in ("uploads/deep", "instance/uploads", "other"):
        (top / folder).mkdir(parents=True)
    for file in ("uploads/a.txt", "uploads/deep/b.txt", "instance/app.db", "instance/uploads/c.txt", "other/d.txt"):
        (top / file).write_text("x")
    # Readable for all users who get there.
    (top / "other").chmod(0o755)
    (top / "notes.txt").write_text("x")
    (top / "notes.txt").chmod(0o644)
    yield top
    os.umask(before)


@pytest.fixture
def reader() -> Reader:
    return Reader(WEB, os.getuid())


def test_folder_is_readable_and_the_rest_is_closed(data: Path, reader: Reader) -> None:
    assert reader.settle(data, "uploads")
    assert rights(data) == acl.ENTER
    assert rights(data / "uploads") == rights(data / "uploads/deep") == acl.READ | acl.ENTER
    assert rights(data / "uploads/a.txt") == rights(data / "uploads/deep/b.txt") == acl.READ
    assert rights(data / "instance") == rights(data / "other") == rights(data / "notes.txt") == 0
    (data / "later").mkdir(0o755)
    (data / "later.txt").write_text("x")
    (data / "later.txt").chmod(0o644)
    assert rights(data / "later") == rights(data / "later.txt") == 0, "new ones are closed as well"


def test_folder_in_a_persistent_folder(data: Path, reader: Reader) -> None:
    assert reader.settle(data, "instance/uploads")
    assert rights(data) == rights(data / "instance") == acl.ENTER
    assert rights(data / "instance/uploads/c.txt") == acl.READ
    assert rights(data / "instance/app.db") == rights(data / "uploads") == 0


def test_second_time_changes_nothing(data: Path, reader: Reader) -> None:
    before = state(data)
    assert Reader(WEB, os.getuid(), change=False).settle(data, "uploads")
    assert state(data) == before, "check mode"
    reader.settle(data, "uploads")
    before = state(data)
    assert not reader.settle(data, "uploads")
    assert not Reader(WEB, os.getuid(), change=False).settle(data, "uploads")
    assert state(data) == before


def test_new_files_are_readable_unless_the_app_closes_them(data: Path, reader: Reader) -> None:
    reader.settle(data, "uploads")
    folder = data / "uploads"
    # As werkzeug's FileStorage.save() does. The umask is 077.
    (folder / "saved.txt").write_bytes(b"x")
    assert rights(folder / "saved.txt") == acl.READ
    assert stat.S_IMODE((folder / "saved.txt").stat().st_mode) & 0o007 == 0
    # As tempfile does. The mode's group part is the mask.
    os.close(os.open(folder / "closed.txt", os.O_CREAT | os.O_WRONLY, 0o600))
    assert rights(folder / "closed.txt") == 0
    reader.settle(data, "uploads")
    assert rights(folder / "closed.txt") == 0, "it stays closed"
    (folder / "closed.txt").chmod(0o640)
    assert rights(folder / "closed.txt") == acl.READ, "the cure"
    (folder / "new").mkdir()
    for place in ("new/file.txt", "deep/file.txt"):
        (folder / place).write_text("x")
        assert rights(folder / place) == acl.READ


def test_rights_go_with_the_option(data: Path, reader: Reader) -> None:
    before = state(data)
    reader.settle(data, "uploads")
    (data / "uploads/later.txt").write_text("x")
    assert reader.settle(data, "")
    assert not reader.settle(data, "")
    after = state(data)
    assert after.pop("uploads/later.txt") == (0o600, [])
    assert after == before


def test_rights_move_with_the_folder(data: Path, reader: Reader) -> None:
    reader.settle(data, "uploads")
    assert reader.settle(data, "instance/uploads")
    assert rights(data / "uploads") == 0
    assert rights(data / "instance/uploads/c.txt") == acl.READ
    assert not reader.settle(data, "instance/uploads")


def test_folder_that_was_made_again_is_readable_again(data: Path, reader: Reader) -> None:
    reader.settle(data, "uploads")
    (data / "uploads").rename(data / "old")
    (data / "uploads").mkdir()
    (data / "uploads/new.txt").write_text("x")
    assert rights(data / "uploads/new.txt") == 0
    assert reader.settle(data, "uploads")
    assert rights(data / "uploads/new.txt") == acl.READ
    assert rights(data / "old") == 0


def test_rights_of_others_stay(data: Path, reader: Reader) -> None:
    descriptor = os.open(data / "uploads", os.O_RDONLY)
    acl.write(descriptor, acl.read(descriptor).with_user(4711, 5))
    reader.settle(data, "uploads")
    assert rights(data / "uploads", 4711) == 5
    reader.settle(data, "")
    assert (rights(data / "uploads", 4711), rights(data / "uploads")) == (5, None)
    os.close(descriptor)


def test_neither_links_nor_pipes_nor_files_of_others_are_touched(data: Path, reader: Reader, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key").write_text("x")
    before = state(outside)
    (data / "uploads/folder").symlink_to(outside)
    (data / "uploads/key").symlink_to(outside / "key")
    (data / "sibling").symlink_to(outside)
    os.mkfifo(data / "uploads/pipe")
    os.mkfifo(data / "pipe")
    reader.settle(data, "uploads")
    reader.settle(data, "")
    assert state(outside) == before
    # A hard link to a file of another user: here, all files are.
    Reader(WEB, os.getuid() + 1).settle(data, "uploads")
    assert rights(data / "uploads/a.txt") is None
    assert rights(data / "notes.txt") is None


@pytest.mark.parametrize("place", ["", "instance", "instance/uploads"])
def test_a_link_in_the_path_is_refused(data: Path, reader: Reader, place: str) -> None:
    moved = data.with_name("moved")
    (data / place).rename(moved)
    (data / place).symlink_to(moved)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        reader.settle(data, "instance/uploads")
    assert rights(moved) is None


def test_a_missing_folder_is_refused(data: Path, reader: Reader) -> None:
    with pytest.raises(FileNotFoundError):
        reader.settle(data, "missing")
    assert rights(data) is None


def test_folders_that_are_nested_without_end_are_refused(data: Path, reader: Reader) -> None:
    (data / "uploads" / "/".join("x" * (DEEPEST + 1))).mkdir(parents=True)
    with pytest.raises(TooDeep):
        reader.settle(data, "uploads")
    assert rights(data) is None, "nothing is open yet"


@pytest.mark.parametrize(
    "folders", [("", "uploads"), ("", "instance/uploads"), ("uploads", ""), ("uploads", "instance/uploads")]
)
def test_a_killed_run_can_be_repeated(
    data: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch, folders: tuple[str, str]
) -> None:
    reader.settle(data, folders[0])
    calls = 0
    write, write_default = acl.write, acl.write_default

    def kill(moment: int) -> None:
        nonlocal calls
        calls = 0

        def counted(real):
            def change(*arguments):
                nonlocal calls
                calls += 1
                if calls == moment:
                    raise KeyboardInterrupt
                real(*arguments)

            return change

        monkeypatch.setattr(acl, "write", counted(write))
        monkeypatch.setattr(acl, "write_default", counted(write_default))

    for moment in range(1, 40):
        kill(moment)
        try:
            reader.settle(data, folders[1])
        except KeyboardInterrupt:
            # Whatever is not shared is closed by the time that the user can enter.
            if rights(data) == acl.ENTER:
                closed = [data / "other", data / "notes.txt"]
                closed += [data / "instance/app.db"] if folders == ("", "instance/uploads") else []
                assert [rights(path) for path in closed] == [0] * len(closed)
            continue
        break
    else:
        pytest.fail("it never ended")
    kill(0)
    assert not reader.settle(data, folders[1])
    if folders[1]:
        assert rights(data / folders[1]) == acl.READ | acl.ENTER
        assert all(rights(path) == acl.READ for path in (data / folders[1]).rglob("*.txt"))
    else:
        assert not any(names for _mode, names in state(data).values())
