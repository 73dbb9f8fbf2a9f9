"""A restore of a queue with its app's files: tested before anything stops, proven, undone, and killed at any moment."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flaskhost_backup import cli, drill, queue_check, queues, restic, restore_files, restore_queue, tools
from flaskhost_backup.config import BackupError, Config
from flaskhost_backup.progress import unfinished
from flaskhost_backup.result import Result
from flaskhost_backup.state import stamp, write_json
from queue_host import NOW, UNIT, WORKER, QueueHost, command

#: The queue in the backup has three keys, and the present one two.
BACKED_UP, PRESENT = 3, 2


class Repository:
    """A repository with one snapshot: an upload, and a queue."""

    where = "The local repository of files"

    def __init__(self, host: QueueHost) -> None:
        self.host, self.paths = host, [host.folder / "data", queues.folder(host.config, "shop")]
        self.commands = [command("SET", name, "1") for name in "xyz"]
        self.record: Any = {"keys": {"0": [BACKED_UP, 0]}}

    def snapshots(self, _tag: str, _hosts: list[str]) -> list[restic.Snapshot]:
        return [restic.Snapshot("aa", NOW - 60, "h1", tuple(map(str, self.paths)), ("files",))]

    def restore(self, _snapshot: str, target: Path, include: list[str]) -> None:
        for path in map(Path, include):
            inside = target / path.relative_to("/")
            inside.mkdir(parents=True)
            if path == self.paths[0]:
                (inside / "upload").write_text("restored")
            else:
                self.host.fill(inside, self.commands)
                if self.record:
                    write_json(inside / queues.RECORD, self.record)

    def check(self, _part: str) -> None: ...


class Host(QueueHost):
    """A host whose app runs, with an old upload and an old queue."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        (folder / "data" / "upload").write_text("old")
        tools.run(["systemctl", "start", UNIT, WORKER])
        self.log.unlink()
        self.repository = Repository(self)
        monkeypatch.setattr(restic, "local", lambda _config: self.repository)

    def restore(self, part: str = "all") -> Result:
        return restore(self.config, part)

    def upload(self) -> str:
        return (self.folder / "data" / "upload").read_text()

    def unchanged(self) -> None:
        """Check that nothing has changed, and everything runs."""
        assert (self.upload(), self.keys()) == ("old", PRESENT)
        assert self.runs(WORKER)
        assert unfinished(self.config) == []
        assert not [path.name for path in self.folder.iterdir() if path.name.startswith((".", "queue.", "data."))]


def restore(config: Config, part: str = "all") -> Result:
    return restore_files.files(
        config, "shop", when=None, where="local", host="", folder=None, now=NOW, command="again", part=part
    )


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host(tmp_path, monkeypatch)
    yield host
    host.close()


def test_both_are_restored_and_the_previous_ones_are_kept(host: Host) -> None:
    result = host.restore()
    assert (host.upload(), host.keys()) == ("restored", BACKED_UP)
    kept, kept_queue = (host.folder / f"{name}.before-{stamp(NOW)}" for name in ("data", "queue"))
    assert (kept / "upload").read_text() == "old"
    assert (kept_queue / queues.PARTS / queues.MANIFEST).exists()
    assert kept_queue.stat().st_mode & 0o777 == 0o700
    assert "The queue of shop was restored with 3 keys. Jobs that were done since may be done again." in result.lines
    for path in (kept, kept_queue):
        assert f"The previous data: {path}. When you no longer need it: sudo rm -r {path}" in result.lines
    assert not (host.queue.state / queues.RECORD).exists()
    # The workers run neither while the queue is another one, nor before it has proven itself.
    done = [line for line in host.started() if line.split()[0] in ("stop", "start") and "check" not in line]
    assert done == [f"stop {WORKER}", f"stop {UNIT}", f"start {UNIT}", f"start {WORKER}"]


@pytest.mark.parametrize(("part", "upload", "keys"), [("queue", "old", BACKED_UP), ("data", "restored", PRESENT)])
def test_one_part_is_restored_alone(host: Host, part: str, upload: str, keys: int) -> None:
    host.restore(part)
    assert (host.upload(), host.keys()) == (upload, keys)
    assert host.runs(WORKER)
    assert (f"stop {UNIT}" in host.started()) is (part == "queue")


def test_a_backup_without_the_queue_leaves_it_as_it_is(host: Host) -> None:
    host.repository.paths.pop()
    result = host.restore()
    assert (host.upload(), host.keys()) == ("restored", PRESENT)
    assert any("does not contain the queue of shop, which was not restored" in line for line in result.lines)
    with pytest.raises(BackupError, match=r"does not contain .*/queues/shop\."):
        host.restore("queue")


def test_an_app_without_a_queue_gets_none(host: Host) -> None:
    host.config = replace(host.config, queues=())
    result = host.restore()
    assert (host.upload(), host.keys()) == ("restored", PRESENT)
    assert any("also contains a queue. shop has none" in line for line in result.lines)
    with pytest.raises(BackupError, match="shop has no queue"):
        host.restore("queue")


def test_a_look_into_a_folder_contains_the_queue_and_changes_nothing(host: Host) -> None:
    there = host.folder / "look"
    result = restore_files.files(
        host.config, "shop", when=None, where="local", host="", folder=there, now=NOW, part="queue"
    )
    copy = there / queues.folder(host.config, "shop").relative_to("/")
    assert (copy / queues.PARTS / queues.MANIFEST).exists()
    assert str(copy) in result.lines[0]
    shutil.rmtree(there)
    host.unchanged()


def damaged(host: Host) -> str:
    host.repository.commands[1] = b"damaged\n"
    return "cannot be loaded: Bad file format"


def incomplete(host: Host) -> str:
    host.repository.commands[2] = host.repository.commands[2][:-3]
    return "cannot be loaded: Unexpected end of file"


def other(host: Host) -> str:
    host.repository.commands.pop()
    return "has 2 keys (0 of them expire), and had 3 (0) when it was backed up"


def unrecorded(host: Host) -> str:
    host.repository.record = None
    return "does not say how many keys"


@pytest.mark.parametrize("make", [damaged, incomplete, other, unrecorded])
def test_a_copy_that_is_not_whole_is_refused_before_anything_stops(host: Host, make: Callable[[Host], str]) -> None:
    says = make(host)
    with pytest.raises(BackupError) as error:
        host.restore()
    assert says in str(error.value)
    assert not [line for line in host.started() if "queue-check" not in line and line.startswith(("stop", "kill"))]
    host.unchanged()


@pytest.mark.parametrize(("trouble", "says"), [("loses", "other keys than the backup"), ("fails", "did not start")])
def test_a_queue_that_does_not_prove_itself_is_put_back(host: Host, trouble: str, says: str) -> None:
    Path(f"{host.queue.socket}.{trouble}").touch()
    with pytest.raises(BackupError, match=says):
        host.restore()
    host.unchanged()


def test_a_queue_that_does_not_start_any_more_is_healed(host: Host) -> None:
    tools.run(["systemctl", "stop", UNIT])
    (host.parts / "appendonly.aof.1.incr.aof").write_bytes(b"damaged")
    tools.run(["systemctl", "start", UNIT])
    assert not host.runs(UNIT)
    host.restore("queue")
    assert host.keys() == BACKED_UP
    assert host.runs(WORKER)


def test_a_queue_whose_folder_is_gone_is_restored(host: Host) -> None:
    tools.run(["systemctl", "stop", UNIT])
    shutil.rmtree(host.queue.state)
    result = host.restore()
    assert host.keys() == BACKED_UP
    assert not any(str(host.queue.state) in line for line in result.lines if "previous" in line)


# --- Killed ----------------------------------------------------------------------------------------------------------


class Quick(Host):
    """The same host without processes: a unit runs if its file is there, and the queue says what is in its folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tools, "run", self.systemctl)
        monkeypatch.setattr(
            restore_queue, "info_of_redis", lambda *_arguments: {"db0": f"keys={self.keys()},expires=0"}
        )
        loaded = queue_check.Loaded({"0": queue_check.Keys(BACKED_UP, 0)})
        monkeypatch.setattr(queue_check, "load", lambda *_arguments, **_options: loaded)
        super().__init__(folder, monkeypatch)

    def counted(self, *_arguments: object) -> dict[str, str]:
        """What Redis would answer."""
        return {"db0": f"keys={self.keys()},expires=0"}

    def systemctl(self, words: list[str], **_options: object) -> tools.Done:
        verb, names = words[1], [word for word in words[2:] if not word.startswith("-")]
        with self.log.open("a") as log:
            log.write(f"{verb} {' '.join(names)}\n")
        out = ""
        for name in names:
            file = self.units / name
            if verb == "stop":
                file.unlink(missing_ok=True)
            elif verb == "start":
                assert name != UNIT or self.parts.exists(), "it would begin with an empty folder"
                file.touch()
            elif verb == "list-units" and file.exists():
                out += f"{name} loaded active running\n"
            elif verb == "is-enabled":
                out += "enabled\n"
        return tools.Done(0, out, "")

    def keys(self) -> int:
        assert self.runs(UNIT)
        return (self.parts / "appendonly.aof.1.base.aof").read_bytes().count(b"SET")

    def close(self) -> None: ...


def killed_before(step: int, do: Callable[[], Any]) -> bool:
    """Do something in a process that is killed before its so-manieth change: a rename, or a command of systemctl."""
    child = os.fork()
    if not child:
        left = [step]

        def count(real: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*arguments, **options)

            return counted

        os.rename, os.replace, os.unlink = count(os.rename), count(os.replace), count(os.unlink)
        restore_files.exchange, tools.run = count(restore_files.exchange), count(tools.run)
        try:
            do()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two-renames"])
@pytest.mark.parametrize("heal", ["again", "abandon"])
def test_a_killed_restore_loses_no_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heal: str, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(restore_files, "exchange", lambda _one, _other: False)
    steps, seen = 0, set()
    for step in range(99):
        host = Quick(tmp_path / str(step), monkeypatch)
        if not killed_before(step, lambda host=host: host.restore()):
            break
        steps += 1
        assert _olds(host), "the only copy is gone"
        assert not host.runs(WORKER) or host.runs(UNIT), "no worker without its queue"
        seen.add((host.runs(WORKER), host.runs(UNIT)))
        if heal == "again":
            host.restore()
            assert (host.upload(), host.keys()) == ("restored", BACKED_UP)
            assert [path for path in _olds(host) if ".before-" in path.name]
        elif unfinished(host.config):
            lines = restore_files.abandon(host.config).lines
            if host.keys() == BACKED_UP:
                (kept,) = host.folder.glob("queue.before-*")
                assert any(str(kept) in line for line in lines)
            else:
                assert host.keys() == PRESENT
        assert host.runs(UNIT)
        assert host.runs(WORKER)
        assert unfinished(host.config) == []
        assert not list(host.folder.glob(".*"))
    assert steps > 20
    assert seen == {(True, True), (False, True), (False, False)}


def _olds(host: Host) -> list[Path]:
    """The folders with the queue from before the restore."""
    bases = host.folder.glob("queue*/appendonlydir/appendonly.aof.1.base.aof")
    return [base.parents[1] for base in bases if b"a" in base.read_bytes().split(b"\r\n")]


# --- The drill -------------------------------------------------------------------------------------------------------


def left_out(host: Host) -> str:
    host.repository.paths.pop()
    return "does not contain the queue of shop"


def test_the_drill_loads_each_queue_of_the_newest_backup(host: Host) -> None:
    result = drill.drill(host.config, "local", NOW)
    assert result.problems == []
    assert "The queue of shop was loaded: the same 3 keys." in result.lines
    assert result.data["drill"]["ok"]
    host.unchanged()


@pytest.mark.parametrize("make", [damaged, incomplete, other, unrecorded, left_out])
def test_the_drill_finds_what_only_one_check_finds(host: Host, make: Callable[[Host], str]) -> None:
    says = make(host)
    result = drill.drill(host.config, "local", NOW)
    (problem,) = result.problems
    assert says in problem
    assert any(line.endswith("is intact.") for line in result.lines), "the other checks are made"
    assert not any("was loaded" in line for line in result.lines)
    assert not (host.config.state / "drill-queue").exists()


# --- The command line ------------------------------------------------------------------------------------------------


def test_the_command_that_finishes_it_names_the_part() -> None:
    words = ["restore-files", "--app", "shop", "--confirm", "shop", "--part", "queue"]
    options = cli._parser().parse_args(words)
    assert cli._parser().parse_args(cli._again(options).split()[1:]) == options
