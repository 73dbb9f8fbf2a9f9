"""What is known of releases: whole records, the history, which one to go back to, and which ones to keep."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import virtualenv
from ansible.module_utils.flaskhost.deploy.records import HISTORY_LENGTH, RECORD, Record, Store
from ansible.module_utils.flaskhost.host import atomic


class Shelf:
    """A store with releases that need no host."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.store, self.clock = root, Store(root), 0.0
        for path in (self.store.releases, self.store.venvs, root / "slots"):
            path.mkdir()
        monkeypatch.setattr(virtualenv, "is_whole", lambda path: path.is_dir())
        monkeypatch.setattr("time.time", self.tick)

    def tick(self) -> float:
        self.clock += 1
        return self.clock

    def add(self, name: str, **values: Any) -> Record:
        folder = self.store.path(name)
        folder.mkdir()
        venv = values.setdefault("venv", f"venv-{name}")
        (self.store.venvs / venv).mkdir(exist_ok=True)
        (folder / "venv").symlink_to(f"../../venvs/{venv}")
        record = Record(name, "identity", "main", "abc", **{"healthy": True, **values})
        self.store.write(record)
        return record

    def serve(self, *names: str) -> None:
        for name in names:
            self.store.remember(name, "", "ada@laptop", "deploy")

    def hold(self, slot: str, name: str) -> None:
        (self.root / "slots" / slot).symlink_to(f"../releases/{name}")

    def left(self) -> list[str]:
        return sorted(path.name for path in self.store.releases.iterdir())


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(tmp_path, monkeypatch)


def test_a_record_is_read_back_as_it_was_written(shelf: Shelf) -> None:
    timers = {"nightly": {"command": "x", "on_calendar": "daily"}}
    record = shelf.add("a", processes={"worker": "x"}, timers=timers, failed="watch", parts={"code": "1"})
    assert shelf.store.record("a") == record
    assert stat.S_IMODE((shelf.store.path("a") / RECORD).stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"id": "a"}', '"x"'])
def test_a_release_without_a_whole_record_is_none(shelf: Shelf, text: str) -> None:
    shelf.add("a")
    (shelf.store.path("a") / RECORD).write_text(text, encoding="utf-8")
    assert shelf.store.record("a") is None
    assert shelf.store.all_records() == []
    assert shelf.store.record("") is None


def test_the_newest_comes_first(shelf: Shelf) -> None:
    for name in "bca":
        shelf.add(name)
    assert [item.id for item in shelf.store.all_records()] == ["a", "c", "b"]
    assert Store(shelf.root / "missing").all_records() == []


def test_the_history_tells_what_served_when_and_is_not_endless(shelf: Shelf) -> None:
    for number in range(HISTORY_LENGTH + 5):
        shelf.store.remember(f"r{number}", f"r{number - 1}", "ada@laptop", "deploy")
    history = shelf.store.history()
    assert len(history) == HISTORY_LENGTH
    assert history[-1] == {
        "at": HISTORY_LENGTH + 5.0,
        "release": "r204",
        "from": "r203",
        "by": "ada@laptop",
        "verb": "deploy",
    }
    assert [path.name for path in shelf.root.iterdir() if "history" in path.name] == ["history.json"]


@pytest.mark.parametrize("text", ["{", "{}", "[1, null]", ""])
def test_a_damaged_history_is_begun_anew(shelf: Shelf, text: str) -> None:
    shelf.store.history_file.write_text(text, encoding="utf-8")
    assert shelf.store.history() == []
    shelf.serve("a")
    assert [item["release"] for item in shelf.store.history()] == ["a"]


def test_back_is_to_what_served_last_and_not_to_what_was_built_last(shelf: Shelf) -> None:
    for name in "abcd":
        shelf.add(name)
    shelf.serve("c", "b", "a", "d")
    assert shelf.store.previous_healthy("d") == "a"
    shelf.serve("b", "d")
    assert shelf.store.previous_healthy("d") == "b"


def test_a_clock_that_jumps_does_not_change_what_served_before(shelf: Shelf) -> None:
    """The order of the history counts: what was written while the clock was ahead is not the latest for ever."""
    for name in "abc":
        shelf.add(name)
    shelf.serve("a")
    shelf.clock += 1e6
    shelf.serve("b")
    shelf.clock = 10
    shelf.serve("a", "c")
    assert shelf.store.previous_healthy("c") == "a"
    shelf.store.prune(2)
    assert shelf.left() == ["a", "c"]


def test_a_release_that_was_built_with_the_clock_ahead_and_has_not_served_is_not_the_last(shelf: Shelf) -> None:
    for name in "ac":
        shelf.add(name)
    shelf.add("b", created=1e9)
    shelf.serve("a", "c")
    assert shelf.store.previous_healthy("c") == "a"


def test_back_is_never_to_what_is_bad_or_gone(shelf: Shelf) -> None:
    for name in "abcde":
        shelf.add(name)
    shelf.serve(*"abcde")
    assert shelf.store.previous_healthy("e") == "d"
    for name, change in (("d", {"healthy": False}), ("c", {"failed": "rolled back by"})):
        record = shelf.store.record(name)
        assert record
        shelf.store.write(Record(**{**json.loads(json.dumps(record.__dict__)), **change}))
    assert shelf.store.previous_healthy("e") == "b"
    (shelf.store.venvs / "venv-b").rmdir()
    assert shelf.store.previous_healthy("e") == "a"
    (shelf.store.path("a") / RECORD).unlink()
    assert shelf.store.previous_healthy("e") == ""


def test_what_served_last_is_kept_and_not_what_was_built_last(shelf: Shelf) -> None:
    for name in "abcd":
        shelf.add(name)
    shelf.serve("a", "b", "c", "d", "b")
    shelf.hold("blue", "b")
    shelf.store.prune(2)
    assert shelf.left() == ["b", "d"]
    assert sorted(path.name for path in shelf.store.venvs.iterdir()) == ["venv-b", "venv-d"]


def test_what_a_slot_holds_is_kept_however_bad_or_old(shelf: Shelf) -> None:
    for name in "abc":
        shelf.add(name, healthy=name != "a")
    shelf.serve("a", "b", "c")
    shelf.hold("blue", "a")
    shelf.hold("green", "c")
    shelf.store.prune(1)
    assert shelf.left() == ["a", "c"]
    (shelf.store.path("a") / RECORD).unlink()
    shelf.store.remove_partial()
    shelf.store.remove_unused_environments()
    assert shelf.left() == ["a", "c"]
    assert (shelf.store.venvs / "venv-a").is_dir()


def test_releases_that_were_never_healthy_go(shelf: Shelf) -> None:
    for name in "abc":
        shelf.add(name, healthy=name == "a")
    shelf.serve("a")
    shelf.store.prune(5)
    assert shelf.left() == ["a"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "a"}', b"\xff"])
@pytest.mark.parametrize("how", ["prune", "remove_partial"])
def test_a_release_with_a_damaged_record_goes_unless_it_is_in_use(
    shelf: Shelf, text: str | bytes, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        shelf.add(name)
    shelf.serve(*"abcd")
    shelf.hold("blue", "b")
    (shelf.root / "current").symlink_to("releases/c")
    for name in "abc":
        record = shelf.store.path(name) / RECORD
        record.write_bytes(text if isinstance(text, bytes) else text.encode())
    (shelf.store.releases / "linked").symlink_to(shelf.store.venvs)
    shelf.store.prune(5) if how == "prune" else shelf.store.remove_partial()
    assert shelf.left() == ["b", "c", "d", "linked"]
    assert (shelf.store.venvs / "venv-b").is_dir()

    def unreadable(_path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    # That it cannot be read now is no proof that it is worth nothing.
    shelf.add("e")
    monkeypatch.setattr(Path, "read_bytes", unreadable)
    shelf.store.remove_partial()
    assert "e" in shelf.left()


@pytest.mark.parametrize(
    ("moves", "live", "back", "ahead"),
    [
        # d: a deploy, r: back to it, u: refused, so that it serves again.
        ("da db", "b", "a", ""),
        ("da db ra", "a", "", "b"),
        ("da db ra rb", "b", "a", ""),
        ("da db dc ra", "a", "", "bc"),
        ("da db dc ra rb", "b", "a", "c"),
        ("da db dc ra rc", "c", "a", "b"),
        ("da db da", "a", "b", ""),
        ("da db da rb", "b", "a", ""),
        ("da db ua", "a", "", "b"),
        ("da sa db", "b", "a", ""),
        ("da u db", "b", "a", ""),
        # The run was killed right after the rename.
        ("da db", "c", "ab", ""),
        ("da db ra", "c", "a", "b"),
        # Nothing is known of a: it is the older one.
        ("db dc", "c", "ab", ""),
        ("", "b", "a", "c"),
    ],
)
def test_what_served_before_is_behind_and_what_was_left_is_ahead(
    shelf: Shelf, moves: str, live: str, back: str, ahead: str
) -> None:
    for name in "abc":
        shelf.add(name)
    verbs = {"d": "deploy", "r": "rollback", "u": "return", "s": "restart"}
    for move in moves.split():
        shelf.store.remember(move[1:], "", "ada@laptop", verbs[move[0]])
    assert [name for name in back if not shelf.store.is_back(name, live)] == []
    assert [name for name in ahead if shelf.store.is_back(name, live)] == []


def test_a_shared_environment_goes_with_the_last_release_that_has_it(shelf: Shelf) -> None:
    for name in "abc":
        shelf.add(name, venv="shared" if name != "c" else "own")
    shelf.serve("a", "b", "c")
    shelf.store.prune(2)
    assert (shelf.store.venvs / "shared").is_dir()
    shelf.store.prune(1)
    assert [path.name for path in shelf.store.venvs.iterdir()] == ["own"]


def test_what_was_never_finished_goes_and_what_is_no_release_stays(shelf: Shelf) -> None:
    shelf.add("a")
    (shelf.store.releases / "half/src").mkdir(parents=True)
    (shelf.store.releases / "README").touch()
    shelf.store.remove_partial()
    assert shelf.left() == ["README", "a"]


def test_a_record_that_cannot_be_written_leaves_the_old_one(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    record = shelf.add("a")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        shelf.store.write(Record("a", "other", "main", "abc"))
    assert shelf.store.record("a") == record
