"""The backup of queues: a consistent copy of what is there, nothing that a link leads to, and each for itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flaskhost_backup import backup, queue_check, queues, restic, state, status
from flaskhost_backup.config import BackupError
from flaskhost_backup.result import Result
from queue_host import ME, NOW, QueueHost, command

BASE, INCR = "appendonly.aof.1.base.aof", "appendonly.aof.1.incr.aof"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueHost]:
    host = QueueHost(tmp_path, monkeypatch)
    yield host
    host.close()


def copy(host: QueueHost) -> tuple[Result, dict[str, bytes]]:
    """Copy the queues; return the result, and the files of the copy of the first one."""
    result = Result()
    with queues.copied(host.config, result, NOW) as copies:
        there = queues.folder(host.config, "shop")
        assert copies == [there] * there.exists() == [there] * result.data["queue-shop"]["ok"]
        found = {path.name: path.read_bytes() for path in there.rglob("*") if path.is_file()} if copies else {}
        if copies:
            assert there.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in host.config.state.iterdir()) == [], "nothing is left"
    return result, found


def refused(host: QueueHost) -> str:
    result, found = copy(host)
    assert found == {}
    (problem,) = result.problems
    assert problem.startswith("The queue of shop ")
    return problem


def test_a_queue_is_copied_with_the_number_of_its_keys(host: QueueHost) -> None:
    (host.parts / INCR).write_bytes(command("SET", "c", "3", "PX", "1") + command("DEL", "a"))
    result, found = copy(host)
    assert result.lines[0].startswith("Queue of shop: 2 keys, ")
    assert json.loads(found[queues.RECORD]) == {"keys": {"0": [2, 1]}}
    for name in (BASE, INCR, queues.MANIFEST):
        assert found[name] == (host.parts / name).read_bytes()
    assert result.data["queue-shop"] == {
        "at": NOW, "ok": True, "problems": [], "keys": 2, "size": 116,
        "seconds": result.data["queue-shop"]["seconds"],
    }  # fmt: skip


def test_a_command_that_is_not_complete_is_left_out(host: QueueHost) -> None:
    whole = command("SET", "c", "3")
    (host.parts / INCR).write_bytes(whole + command("SET", "d", "4")[:-3])
    _result, found = copy(host)
    assert found[INCR] == whole
    assert json.loads(found[queues.RECORD]) == {"keys": {"0": [3, 0]}}
    assert (host.parts / INCR).stat().st_size > len(whole), "the queue itself is not touched"


def test_parts_of_earlier_files_are_left_out(host: QueueHost) -> None:
    with (host.parts / queues.MANIFEST).open("a") as stream:
        stream.write("file appendonly.aof.0.incr.aof seq 0 type h\n")
    _result, found = copy(host)
    assert b"type h" not in found[queues.MANIFEST]
    assert set(found) == {BASE, INCR, queues.MANIFEST, queues.RECORD}


def test_a_manifest_of_redis_8_is_understood_and_kept(host: QueueHost) -> None:
    manifest = host.parts / queues.MANIFEST
    manifest.write_text(manifest.read_text().replace("type i", "type i startoffset 8492"))
    _result, found = copy(host)
    assert found[queues.MANIFEST] == manifest.read_bytes()


def secret(host: QueueHost) -> Path:
    path = host.folder / "secret"
    path.write_bytes(command("SET", "secret", "1"))
    return path


def linked(host: QueueHost) -> str:
    (host.parts / INCR).unlink()
    (host.parts / INCR).symlink_to(secret(host))
    return "Too many levels of symbolic links"


def hard_linked(host: QueueHost) -> str:
    (host.parts / INCR).unlink()
    (host.parts / INCR).hardlink_to(secret(host))
    return "has another name"


def manifest_linked(host: QueueHost) -> str:
    (host.parts / queues.MANIFEST).rename(host.folder / "manifest")
    (host.parts / queues.MANIFEST).symlink_to(host.folder / "manifest")
    return "Too many levels of symbolic links"


def folder_linked(host: QueueHost) -> str:
    host.parts.rename(host.folder / "elsewhere")
    host.parts.symlink_to(host.folder / "elsewhere")
    return "Not a directory"


def state_linked(host: QueueHost) -> str:
    host.queue.state.rename(host.folder / "elsewhere")
    host.queue.state.symlink_to(host.folder / "elsewhere")
    return "Not a directory"


def piped(host: QueueHost) -> str:
    (host.parts / INCR).unlink()
    os.mkfifo(host.parts / INCR)
    return "is not a regular file"


def foreign(host: QueueHost) -> str:
    os.chown(host.parts / INCR, 12345, 12345)
    return "belongs to another user"


def outside(host: QueueHost) -> str:
    (host.parts / queues.MANIFEST).write_text(f"file ../../{secret(host).name} seq 1 type b\n")
    return "cannot be understood"


def endless(host: QueueHost) -> str:
    (host.parts / queues.MANIFEST).write_text(f"file {BASE} seq 1 type b\n" * 5000)
    return "cannot be understood"


def empty(host: QueueHost) -> str:
    (host.parts / queues.MANIFEST).write_text("")
    return "cannot be understood"


def missing(host: QueueHost) -> str:
    (host.parts / queues.MANIFEST).unlink()
    return "No such file"


def gone(host: QueueHost) -> str:
    (host.parts / INCR).unlink()
    return "anew all the time"


def large(host: QueueHost) -> str:
    # Nothing is on the disk of it.
    os.truncate(host.parts / INCR, 8 * 16 * 1024**2 + 1)
    return "is too large to be backed up: its file has 134.2 MB, and 134.2 MB is the limit"


def damaged(host: QueueHost) -> str:
    (host.parts / INCR).write_bytes(b"damaged")
    return f"cannot be loaded: Bad file format reading the append only file {INCR}"


@pytest.mark.parametrize(
    "make",
    [linked, hard_linked, manifest_linked, folder_linked, state_linked, piped, foreign, outside, endless, empty,
     missing, gone, large, damaged],
)  # fmt: skip
def test_what_is_no_file_of_the_queue_is_refused(host: QueueHost, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    monkeypatch.setattr(queues, "_PAUSE", 0)
    assert copy(host)[0].problems == [], "the control"
    says = make(host)
    assert says in refused(host)


def test_a_host_without_room_or_the_user_is_told(host: QueueHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.config = replace(host.config, queues=(replace(host.queue, user="nobody-we-know"),))
    assert "its user nobody-we-know does not exist" in refused(host)
    host.config = replace(host.config, queues=(host.queue,))
    usage = queues.shutil.disk_usage(host.folder)._replace(free=100)
    monkeypatch.setattr(queues.shutil, "disk_usage", lambda _path: usage)
    assert "has 100 B of free space" in refused(host)


def test_a_file_that_is_written_anew_meanwhile_is_copied_as_a_whole(
    host: QueueHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis replaces all parts after the first was opened; the second one of the old file is gone."""
    real, opened = queues.tree.regular_file, []

    def regular_file(name: str, above: int) -> Any:
        opened.append(name)
        if opened.count(INCR) == 1 and name == INCR:
            (host.parts / BASE).unlink()
            (host.parts / INCR).unlink()
            host.fill(host.queue.state, [command("SET", "z", "1")], number=2)
        return real(name, above)

    monkeypatch.setattr(queues.tree, "regular_file", regular_file)
    result, found = copy(host)
    assert result.problems == []
    assert b"appendonly.aof.2.base.aof" in found[queues.MANIFEST]
    assert json.loads(found[queues.RECORD]) == {"keys": {"0": [1, 0]}}


def test_parts_that_are_removed_after_they_were_opened_are_copied_anyway(
    host: QueueHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = queues._copy_part

    def copy_part(descriptor: int, there: Path, size: int) -> None:
        (host.parts / there.name).unlink()
        real(descriptor, there, size)

    monkeypatch.setattr(queues, "_copy_part", copy_part)
    result, found = copy(host)
    assert result.problems == []
    assert found[BASE] == command("SET", "a", "1") + command("SET", "b", "2")


# --- One of several queues, and the verbs ----------------------------------------------------------------------------


class Repository:
    """A repository that keeps what it is given."""

    where = "The local repository of files"

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.fails = False

    def backup(self, _tags: list[str], paths: list[Path], _exclude: list[str]) -> restic.Taken:
        if self.fails:
            raise BackupError("The disk is full.")
        self.paths = [path for path in paths if path.exists()]
        return restic.Taken("aa", 1, 1, 1)

    def forget(self, *_arguments: object, **_options: object) -> None: ...


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    repository = Repository()
    monkeypatch.setattr(restic, "local", lambda _config: repository)
    return repository


def test_a_queue_that_cannot_be_copied_stops_neither_the_files_nor_the_other_queues(
    host: QueueHost, repository: Repository
) -> None:
    other = replace(host.queue, app="blog", state=host.folder / "blog")
    host.fill(other.state, [command("SET", "x", "1")])
    host.config = replace(host.config, queues=(host.queue, other))
    assert backup.backup(host.config, "files", NOW).problems == []
    assert repository.paths == [
        host.folder / "data", queues.folder(host.config, "shop"), queues.folder(host.config, "blog"),
    ]  # fmt: skip
    damaged(host)
    result = backup.backup(host.config, "files", NOW + 60)
    assert len(result.problems) == 1
    assert repository.paths == [host.folder / "data", queues.folder(host.config, "blog")]
    now = state.State(host.config.state)
    assert (now.read("queue-shop")["last"]["ok"], now.read("queue-shop")["good"]["at"]) == (False, NOW)
    assert (now.read("queue-blog")["last"]["ok"], now.read("files")["last"]["ok"]) == (True, True)
    (late,) = [line for line in status.late(host.config, NOW + 61) if "drill" not in line]
    assert late.startswith("The last backup of the queue of shop failed. The last run reported: The queue of shop can")


def test_a_copy_that_does_not_get_into_the_repository_is_no_backup(host: QueueHost, repository: Repository) -> None:
    repository.fails = True
    backup.backup(host.config, "files", NOW)
    found = state.State(host.config.state).read("queue-shop")
    assert found["good"] == {}
    assert found["last"]["problems"] == ["It was copied, but not backed up: The disk is full."]


def test_a_new_queue_has_its_time_until_its_first_backup(host: QueueHost) -> None:
    state.write_json(host.config.state / "since.json", {"at": NOW - 9e6})
    state.write_json(host.config.state / "since-queue-shop.json", {"at": NOW})
    hours = host.config.alert_hours * 3600
    assert not any("queue" in line for line in status.late(host.config, NOW + hours - 1))
    assert any(
        "The last backup of the queue of shop has not" in line for line in status.late(host.config, NOW + hours + 1)
    )


# --- The Redis that loads a copy -------------------------------------------------------------------------------------


def test_a_copy_is_loaded_without_a_network_and_rights_and_stays_as_it_is(host: QueueHost) -> None:
    copy = host.folder / "copy"
    host.fill(copy, [command("SET", "a", "1")], [command("SET", "b", "2", "PX", "1")])
    loaded = queue_check.load(host.config, host.queue, copy, whole=True)
    assert loaded.keys == {"0": (2, 1)}
    assert loaded.keys["0"].lasting == 1
    (run,) = [line for line in host.started() if line.startswith("--quiet")]
    for word in (
        f"--property=User={ME}", "--property=PrivateNetwork=yes", "--property=ProtectSystem=strict",
        "--property=MemoryMax=80M", "--property=CapabilityBoundingSet= ", "--port 0", "--replicaof 127.0.0.1 1",
        "--property=RuntimeMaxSec=360", "--aof-load-truncated no",
    ):  # fmt: skip
        assert word in run, word
    assert not (host.config.state / "queue-check").exists()
    assert (copy / queues.PARTS / BASE).read_bytes() == command("SET", "a", "1")


def test_the_sandbox_is_that_of_the_role_redis() -> None:
    template = Path(__file__).resolve().parents[3] / "roles/redis/templates/instance.service.j2"
    lines = [line for line in template.read_text().splitlines() if "=" in line and "{" not in line]
    service = lines[lines.index("Type=notify") : lines.index("WantedBy=multi-user.target")]
    others = {"Type", "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec", "RuntimeDirectoryMode",
              "StateDirectoryMode", "LogRateLimitIntervalSec", "LogRateLimitBurst", "InaccessiblePaths"}  # fmt: skip
    wanted = [line for line in service if line.partition("=")[0] not in others]
    assert [line for line in wanted if line not in queue_check.SANDBOX] == []
    assert any("/etc/flaskhost" in line and "/srv" in line for line in queue_check.SANDBOX)


def test_a_queue_that_does_not_load_in_time_is_told(host: QueueHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_check, "SECONDS", 0.5)
    (host.parts / INCR).write_bytes(command("SLOW", "x"))
    said = refused(host)
    assert "was not loaded within 0.5 s" in said
    assert not any(path.read_text().isdigit() and Path(f"/proc/{path.read_text()}/cmdline").exists()
                   and b"redis.py" in Path(f"/proc/{path.read_text()}/cmdline").read_bytes()
                   for path in host.units.iterdir()), "it does not go on"  # fmt: skip


def test_what_a_killed_check_left_is_ended(host: QueueHost) -> None:
    left = host.config.state / "queue-check" / "data"
    left.mkdir(parents=True)
    queue_check.end(host.config)
    assert not left.exists()
    assert [line.split()[0] for line in host.started()] == ["kill", "stop"]
    queue_check.end(host.config)
    assert len(host.started()) == 2, "a host without any is not asked"
