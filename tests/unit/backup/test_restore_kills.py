"""A restore that is killed before any of its steps: nothing is lost, and the same command again heals it.

Files are real; PostgreSQL and pgBackRest are not. A data folder has its rows in ``rows`` and its system identifier in
``system``; PostgreSQL "runs" on it as soon as it has no ``recovery.signal``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flaskhost_backup import dumps, progress, restore_cluster, restore_database, state, units
from flaskhost_backup.cli import _again, _parser
from flaskhost_backup.config import App, BackupError, Config, parse
from flaskhost_backup.pgbackrest import Backup, Info
from flaskhost_backup.sources import Request, Source
from flaskhost_backup.targets import Target

NOW = 1_795_311_000.0
LATEST = Target()
IMPOSSIBLE = Target("time", "1000000000")


class Killed(BaseException):
    """SIGKILL: nothing of the process runs after it."""


class World:
    """A host with a cluster that holds the row ``old``, and a backup of it that holds ``backed up``.

    Args:
        folder: where all of it is.
        monkeypatch: pytest's.
        second: whether the backup is fetched from the second repository.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, second: bool = False) -> None:
        self.folder, self.data, self.second = folder, folder / "pg" / "main", second
        self.running, self.apps_run, self.left = True, True, -1
        settings = {
            "host": "h1", "repository": str(folder / "repository"), "state": str(folder / "state"),
            "secrets": str(folder / "secrets"), "cache": str(folder / "cache"), "apps": [],
            "cluster": {"version": "15", "data": str(self.data), "start": ["true"], "stop": ["true"]},
        }  # fmt: skip
        self.config: Config = parse(json.dumps(settings))
        (folder / "secrets").mkdir()
        (folder / "secrets/passphrase").write_text("x")
        self.repository = self.config.database_repository
        self.repository.mkdir(parents=True)
        (self.repository / "whose").write_text("local")
        self._cluster(self.data, "old")
        for name in ("write_json",):
            self._before(monkeypatch, progress, name)
        for name in ("move_aside", "move", "remove", "_start", "_stop"):
            if name in ("_start", "_stop"):
                monkeypatch.setattr(restore_cluster, name, getattr(self, name))
            self._before(monkeypatch, restore_cluster, name)
        monkeypatch.setattr(restore_cluster.tools, "make_folder", lambda path, _user: path.mkdir())
        self._before(monkeypatch, restore_cluster.tools, "make_folder")
        monkeypatch.setattr(restore_cluster, "Server", lambda _cluster: self)
        monkeypatch.setattr(restore_cluster, "PgBackRest", lambda _config: self)
        monkeypatch.setattr(restore_cluster, "source", self._source)
        monkeypatch.setattr(restore_cluster, "stopped", self._stopped)
        monkeypatch.setattr(restore_cluster, "start_left", lambda _folder, _patterns: self._start_apps())
        for name in ("hand_over", "complete", "need_no_gap"):
            monkeypatch.setattr(restore_cluster, name, lambda *_arguments, **_options: [])
        monkeypatch.setattr(restore_cluster, "of_cluster", lambda _cluster: 1)
        monkeypatch.setattr(restore_cluster, "salvage", lambda *_arguments: None)
        monkeypatch.setattr(restore_cluster, "system_identifier", lambda _cluster, data: self._system(data))

    def _before(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        real = getattr(module, name)

        def step(*arguments: Any, **options: Any) -> Any:
            self._step()
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, step)

    def _step(self) -> None:
        """Die before this step, if it is the one."""
        self.left -= 1
        if self.left == 0:
            raise Killed

    @staticmethod
    def _cluster(data: Path, row: str, system: str = "42") -> None:
        (data / "global").mkdir(parents=True)
        (data / "rows").write_text(f"{row}\n")
        (data / "system").write_text(system)
        (data / "global/pg_control").touch()

    @staticmethod
    def _system(data: Path) -> str:
        return (data / "system").read_text() if (data / "system").exists() else ""

    # -- what stands in for PostgreSQL, pgBackRest and systemd --

    def runs(self) -> bool:
        return self.running

    def _start(self, _cluster: Any, _timeout: float) -> str:
        assert (self.data / "global/pg_control").exists(), "PostgreSQL was started on half a data folder"
        (self.data / "recovery.signal").unlink(missing_ok=True)
        self.running = True
        self._step()
        return ""

    def _stop(self, _cluster: Any) -> None:
        self.running = False

    def info(self) -> Info:
        if not self.repository.exists():
            raise BackupError("There is no repository.")
        backup = Backup("F", "full", int(NOW) - 9, int(NOW) - 8, "", "", 1, 1, False, "42", 1)
        return Info(True, "", (backup,), "42", "15", "")

    def restore(self, data: Path, *_arguments: str) -> None:
        (data / "rows").write_text("backed up\n")
        self._step()
        (data / "recovery.signal").touch()
        (data / "system").write_text("42")
        self._step()
        (data / "global").mkdir()
        (data / "global/pg_control").touch()
        self._step()

    @contextlib.contextmanager
    def _source(self, *_arguments: Any) -> Iterator[Source]:
        if not self.second:
            yield Source(self, self.repository)
            return
        fetched = self.folder / "repository/fetched"
        (fetched / "postgres").mkdir(parents=True, exist_ok=True)
        (fetched / "postgres/whose").write_text("second")
        yield Source(self, fetched / "postgres", [], fetched)

    @contextlib.contextmanager
    def _stopped(self, _folder: Path, _patterns: list[str], *, start: bool = True) -> Iterator[list[str]]:
        self.apps_run = False
        try:
            yield ["flask-shop@blue.service"]
        except Exception:
            self._start_apps()
            raise
        if start:
            self._start_apps()

    def _start_apps(self) -> None:
        self.apps_run = self.running

    # -- what an operator does, and sees --

    def request(self, target: Target = LATEST) -> Request:
        where = "second" if self.second else "local"
        again = "flaskhost-backup restore --confirm h1"
        return Request(lambda _found: target, where, "", None, 60.0, NOW, command=again)

    def ask(self, target: Target = LATEST, kill: int = -1) -> restore_cluster.Result:
        self.left = kill
        return restore_cluster.in_place(self.config, self.request(target))

    def write(self) -> bool:
        """Start what a reboot would start, and have a visitor write a row."""
        self.left = -1
        if not (self.data / "global/pg_control").exists():
            return False
        self._start(None, 0)
        with (self.data / "rows").open("a") as stream:
            stream.write("acknowledged\n")
        return True

    def rows(self) -> list[str]:
        """The rows in the data folder."""
        return (self.data / "rows").read_text().split("\n")[:-1]

    def kept(self) -> set[str]:
        """The rows that are anywhere."""
        return {row for path in (self.folder / "pg").glob("*/rows") for row in path.read_text().split("\n") if row}

    def whose(self) -> str:
        return (self.repository / "whose").read_text()


@pytest.fixture(params=["local", "second"])
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> World:
    monkeypatch.setattr(restore_cluster, "start_units", lambda _units: None)
    return World(tmp_path, monkeypatch, second=request.param == "second")


@pytest.mark.parametrize("step", range(1, 18))
@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("then", ["the same", "an impossible time", "abandon"])
def test_whenever_it_is_killed(world: World, step: int, reboot: bool, then: str) -> None:
    try:
        world.ask(kill=step)
    except Killed:
        pass
    else:
        assert step > 10, "fewer steps than there are"
        return
    wrote = reboot and world.write()
    expected = {"old", "acknowledged"} if wrote else {"old"}
    assert progress.unfinished(world.config) or step == 1, "nobody is told"
    if then == "the same":
        world.ask()
        assert world.rows()[0] == "backed up"
    elif then == "an impossible time":
        before = world.rows() if (world.data / "rows").exists() else []
        with pytest.raises(BackupError, match="no backup from before"):
            world.ask(IMPOSSIBLE)
        if wrote:
            assert world.rows() == before
        world.ask()
        assert world.rows()[0] == "backed up"
    else:
        with contextlib.suppress(BackupError):
            restore_cluster.abandon(world.config)
            assert world.rows()[0] == "old"
            assert world.whose() == "local"
        if (world.config.state / "restoring.json").exists():
            # It is finished by the same command, as the message says.
            world.ask()
    assert world.kept() >= expected
    assert world.running
    assert not progress.unfinished(world.config)


@pytest.mark.parametrize("world", ["local"], indirect=True)
def test_rows_of_after_a_kill_are_not_taken_back_by_a_restore_that_is_refused(world: World) -> None:
    """The defect D1: acknowledged rows went from 825 to 748, without a word."""
    with contextlib.suppress(Killed):
        world.ask(kill=11)
    assert world.rows() == ["backed up"]
    world.write()
    with pytest.raises(BackupError, match="no backup from before"):
        world.ask(IMPOSSIBLE)
    assert world.rows() == ["backed up", "acknowledged"]
    said = world.ask().lines[0]
    assert "stays in its place" in said
    assert re.search(r"rm -r \S+main\.before-", said)
    assert world.rows() == ["backed up", "acknowledged"]


@pytest.mark.parametrize("world", ["local"], indirect=True)
def test_a_log_that_was_not_handed_over_is_told_with_the_restore(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_cluster, "hand_over", lambda _server, otherwise: [f"{otherwise}: it was busy."])
    lines = world.ask().lines
    assert "The end of the WAL was copied from the previous data: it was busy." in lines
    assert world.rows() == ["backed up"]


@pytest.mark.parametrize("world", ["local"], indirect=True)
def test_a_cluster_that_was_made_meanwhile_is_put_aside(world: World) -> None:
    with contextlib.suppress(Killed):
        world.ask(kill=6)
    assert not world.data.exists() or not any(world.data.iterdir())
    world.data.rmdir() if world.data.exists() else None
    world._cluster(world.data, "made meanwhile", system="43")
    said = restore_cluster.settle(world.config)
    assert not said.finished
    assert "A cluster that was created in the meantime" in said.says
    assert world.rows() == ["old"]
    assert "made meanwhile" in world.kept()


@pytest.mark.parametrize("world", ["local"], indirect=True)
def test_an_unfinished_restore_is_told_with_the_command(world: World) -> None:
    with contextlib.suppress(Killed):
        world.ask(kill=11)
    (said,) = progress.unfinished(world.config)
    assert "sudo flaskhost-backup restore --confirm h1" in said
    assert "sudo flaskhost-backup abandon" in said


def test_the_command_to_type_again_is_the_one_that_was_typed() -> None:
    words = ["restore", "--to", "2026-11-21 10:15", "--app", "shop", "--database", "shop", "--confirm", "shop"]
    words += ["--from", "second", "--of", "old", "--no-start", "--accept-gap"]
    options = _parser().parse_args(words)
    again = _again(options)
    assert "--to '2026-11-21 10:15'" in again
    assert vars(_parser().parse_args(words)) == vars(options)


# -- one database -----------------------------------------------------------------------------------------------------


class Databases:
    """A cluster's databases by name, and what is in each; SQL is understood as far as a restore needs it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.there = {"postgres": "", "shop": "old"}
        self.closed: set[str] = set()
        self.left = -1
        self.properties = ""
        settings = {
            "host": "h1", "repository": str(folder / "repository"), "state": str(folder / "state"),
            "secrets": str(folder / "secrets"), "cache": str(folder / "cache"), "apps": [],
            "cluster": {"version": "15", "data": str(folder / "main"), "start": ["true"], "stop": ["true"]},
        }  # fmt: skip
        self.config: Config = parse(json.dumps(settings))
        self.dump = folder / "dump"
        self.dump.touch()
        monkeypatch.setattr(restore_database, "Server", lambda _cluster: self)
        monkeypatch.setattr(dumps, "load", self.load)
        monkeypatch.setattr(dumps, "set_properties", self.set_properties)
        real = progress.write_json
        monkeypatch.setattr(progress, "write_json", lambda *given: (self.step(), real(*given)))
        self.refuses = False

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def load(self, _server: Any, name: str, _dump: Path, _finish: Any) -> tuple[str, list[str]]:
        self.there.pop(f"{name}_restoring", None)
        self.there[f"{name}_restoring"] = "half"
        self.step()
        self.there[f"{name}_restoring"] = "restored"
        return f"{name}_restoring", []

    def set_properties(self, _server: Any, name: str, _dump: Path) -> None:
        self.step()
        if self.refuses:
            raise BackupError("PostgreSQL refuses.")
        self.properties = name

    def ask(self, sql: str, _timeout: float | None = 0) -> list[list[str]]:
        self.step()
        if "to_json(datname)" in sql:
            return [[json.dumps(name)] for name in self.there]
        # All of it or nothing.
        there, closed = dict(self.there), set(self.closed)
        for old, new in re.findall(r'ALTER DATABASE "(\S+)" RENAME TO "(\S+)"', sql):
            assert old in closed, "somebody may be in it"
            assert new not in there
            there[new] = there.pop(old)
            closed = {new if name == old else name for name in closed}
        for name, word in re.findall(r'ALTER DATABASE "(\S+)" WITH .*?ALLOW_CONNECTIONS (\S+?)(?:;|$)', sql):
            closed = closed | {name} if word == "false" else closed - {name}
        for name in re.findall(r'DROP DATABASE IF EXISTS "(\S+)"', sql):
            there.pop(name, None)
        self.there, self.closed = there, closed
        return []

    def replace(self, kill: int = -1) -> None:
        self.left = kill
        noted = {"at": NOW, "asked": ["shop"], "command": "flaskhost-backup restore --database shop --confirm shop"}
        restore_database.replace(self.config, "shop", self.dump, state.stamp(NOW), noted=noted)


@pytest.fixture
def databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Databases:
    monkeypatch.setattr(units.tools, "run", lambda *_given, **_more: restore_cluster.Done(0, "", ""))
    return Databases(monkeypatch, tmp_path)


@pytest.mark.parametrize("step", range(1, 14))
def test_one_database_whenever_it_is_killed(databases: Databases, step: int) -> None:
    try:
        databases.replace(kill=step)
    except Killed:
        pass
    else:
        assert step > 8, "fewer steps than there are"
        return
    # The app has its database at every moment, an old or a new one.
    assert databases.there.get("shop") in ("old", "restored")
    told = progress.unfinished(databases.config)
    assert told or databases.there == {"postgres": "", "shop": "old"}
    databases.left = -1
    settled = restore_database.settle(databases.config)
    assert "shop" not in databases.closed
    assert "shop_restoring" not in databases.there
    assert "old" in databases.there.values()
    assert databases.there["shop"] == ("restored" if settled.finished else "old")
    assert not settled.finished or databases.properties == "shop"
    assert not progress.unfinished(databases.config)
    if not settled.finished:
        databases.replace()
        assert databases.there["shop"] == "restored"


def test_a_database_that_cannot_have_its_settings_goes_back(databases: Databases) -> None:
    databases.refuses = True
    with pytest.raises(BackupError, match="in its place again"):
        databases.replace()
    assert databases.there == {"postgres": "", "shop": "old"}
    assert not databases.closed
    assert not progress.unfinished(databases.config)


def test_no_database_alone_is_restored_into_a_cluster_whose_restore_was_killed(databases: Databases) -> None:
    progress.Progress(databases.config).note(data="/nowhere", new=True)
    databases.runs = lambda: True
    request = Request(lambda _found: LATEST, "local", "", None, 60.0, NOW)
    (databases.config.secrets).mkdir()
    (databases.config.secrets / "passphrase").write_text("x")
    with pytest.raises(BackupError, match="was killed and is not finished"):
        restore_database.database(databases.config, "shop", request)


#: What the database that was there is called after its restore.
KEPT = f"shop_before_{state.stamp(NOW).lower()}"


class Beside:
    """A cluster beside the real one with the databases of the backup."""

    def __init__(self, folder: Path, databases: set[str]) -> None:
        self.folder, self.data, self.there, self.calls = folder, folder / "data", databases, list[str]()
        self.server = self
        self.data.mkdir(parents=True)

    def databases(self) -> set[str]:
        return self.there

    @contextlib.contextmanager
    def tenant(self, name: str, *, reads_all: bool) -> Iterator[str]:
        assert reads_all
        self.folder.mkdir(exist_ok=True)
        yield name

    def stop(self) -> None:
        self.calls.append("stop")

    def remove(self) -> None:
        self.calls.append("remove")
        (self.folder / "dump").unlink(missing_ok=True)


@dataclasses.dataclass
class Alone:
    """A host on which one database is restored; what it did is in ``calls``, in its order."""

    databases: Databases
    config: Config
    beside: Beside
    lock: Path
    calls: list[str] = dataclasses.field(default_factory=list)
    late: str = ""

    def runs(self) -> bool:
        return True

    def hand_over(self, *, seconds: float) -> str:
        self.calls.append("hand over")
        if self.late:
            raise BackupError(self.late)
        return "000000010000000000000001"

    def restore(self, **changes: Any) -> restore_database.Result:
        request = Request(lambda _found: LATEST, "local", "", None, 60.0, NOW, command="again")
        return restore_database.database(self.config, "shop", dataclasses.replace(request, **changes))


@pytest.fixture
def alone(databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Alone:
    lock = tmp_path / "srv/shop/.lock"
    lock.parent.mkdir(parents=True)
    app = App("shop", tmp_path / "srv/shop/data", ("flask-shop@*",), lock)
    config = dataclasses.replace(databases.config, apps=(App("blog", tmp_path / "blog"), app))
    config.secrets.mkdir()
    (config.secrets / "passphrase").write_text("x")
    beside = Beside(tmp_path / "beside", {"shop", "blog"})
    found = Alone(databases, config, beside, lock)
    databases.runs = found.runs
    databases.hand_over = found.hand_over
    backup = Backup("F", "full", int(NOW) - 9, int(NOW) - 8, "", "", 1, 1, False, "42", 1)

    class Repository:
        def info(self) -> Info:
            return Info(True, "", (backup,), "42", "15", "")

    @contextlib.contextmanager
    def source(*_given: Any) -> Iterator[Source]:
        yield Source(Repository(), tmp_path)

    @contextlib.contextmanager
    def stopped(folder: Path, patterns: list[str], *, start: bool) -> Iterator[list[str]]:
        assert folder == config.state
        found.calls.append(f"stop {patterns}, start again: {start}")
        yield ["flask-shop@blue.service"]
        found.calls.append("the app goes on")

    def into_scratch(*_given: Any) -> Backup:
        found.calls.append("restore beside")
        return backup

    def dump(login: str, _stream: Any) -> None:
        found.calls.append(f"dump {login}")

    monkeypatch.setattr(restore_database, "Scratch", lambda *_given: beside)
    monkeypatch.setattr(restore_database, "source", source)
    monkeypatch.setattr(restore_database, "stopped", stopped)
    monkeypatch.setattr(restore_database, "into_scratch", into_scratch)
    monkeypatch.setattr(restore_database, "need_whole_log", lambda *_given: found.calls.append("no gap"))
    monkeypatch.setattr(dumps, "dump", dump)
    return found


def test_one_database_is_restored_and_remembered(alone: Alone) -> None:
    result = alone.restore()
    assert alone.databases.there == {"postgres": "", "shop": "restored", KEPT: "old"}
    # The app stands still only while the databases change their names; the cluster beside is gone by then.
    assert alone.calls == [
        "hand over", "no gap", "restore beside", "dump shop", "stop ['flask-shop@*'], start again: True",
        "the app goes on",
    ]  # fmt: skip
    assert alone.beside.calls == ["stop", "remove"]
    assert not alone.beside.data.exists()
    assert result.changed
    assert result.lines[0].startswith(f"The database shop was restored {LATEST.text}, from F, in 0 s.")
    assert f"dropdb {KEPT}" in result.lines[1]
    assert len(result.lines) == 2
    entry = result.data["restore"]
    assert entry == {
        "at": NOW, "ok": True, "problems": [], "seconds": entry["seconds"], "target": LATEST.text, "backup": "F",
        "database": "shop", "aside": KEPT, "point": {}, "units": ["flask-shop@blue.service"],
    }  # fmt: skip
    assert state.State(alone.config.state).read("restore")["good"] == entry
    assert not progress.unfinished(alone.config)


def test_what_may_be_missing_is_told_where_the_log_was_not_handed_over(alone: Alone) -> None:
    alone.late = "PostgreSQL has not archived its WAL for 30 s."
    result = alone.restore()
    assert [line for line in result.lines if alone.late in line] == [f"The last commits may be missing: {alone.late}"]
    # The log is not asked for where the backup comes from elsewhere.
    alone.calls.clear()
    assert not [line for line in alone.restore(where="second", now=NOW + 60).lines if alone.late in line]
    assert "hand over" not in alone.calls


def test_a_database_that_the_backup_does_not_hold_stops_nothing(alone: Alone) -> None:
    alone.beside.there = {"blog"}
    with pytest.raises(BackupError, match="The database shop did not exist at that time"):
        alone.restore()
    assert alone.databases.there == {"postgres": "", "shop": "old"}
    assert "stop" not in " ".join(alone.calls)
    assert alone.beside.calls == ["remove"]


def test_a_deploy_that_is_under_way_keeps_its_database(alone: Alone) -> None:
    with alone.lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(BackupError, match="A deploy has locked"):
            alone.restore()
    assert alone.calls == []
    assert alone.databases.there == {"postgres": "", "shop": "old"}
    alone.restore()
    assert alone.databases.there["shop"] == "restored"


def test_the_app_is_left_to_the_one_who_asked_for_it(alone: Alone) -> None:
    alone.restore(start=False)
    assert "stop ['flask-shop@*'], start again: False" in alone.calls


def test_a_killed_restore_that_had_its_names_is_only_finished(alone: Alone) -> None:
    first = alone.restore()
    again = {"at": NOW, "asked": ["shop", LATEST.text, "local", ""], "swaps": True, "kept": KEPT}
    progress.Progress(alone.config, progress.DATABASE).note(database="shop", dump=str(alone.databases.dump), **again)
    alone.calls.clear()
    result = alone.restore()
    # Nothing is restored again over what visitors have written since.
    assert alone.calls == []
    assert result.data["restore"]["database"] == first.data["restore"]["database"] == "shop"
    assert result.changed
    assert "that run was killed" in result.lines[0]


def test_another_restore_than_the_killed_one_is_made(alone: Alone) -> None:
    alone.restore()
    noted = {"asked": ["shop", "to the release 1", "local", ""], "swaps": True, "kept": KEPT}
    progress.Progress(alone.config, progress.DATABASE).note(database="shop", dump=str(alone.databases.dump), **noted)
    alone.calls.clear()
    assert "that run was killed" not in alone.restore(now=NOW + 60).lines[0]
    assert "restore beside" in alone.calls


@pytest.mark.parametrize("why", ["no passphrase", "no backup from before"])
def test_what_cannot_be_restored_touches_nothing(alone: Alone, why: str) -> None:
    if why == "no passphrase":
        alone.config = dataclasses.replace(alone.config, enabled=False)
    target = IMPOSSIBLE if why == "no backup from before" else LATEST
    with pytest.raises(BackupError, match="passphrase" if why == "no passphrase" else why):
        alone.restore(target=lambda _found: target)
    assert (alone.calls, alone.databases.there) == ([], {"postgres": "", "shop": "old"})


def test_a_database_of_an_app_without_a_lock_is_restored(alone: Alone) -> None:
    apps = (dataclasses.replace(alone.config.apps[1], lock=None),)
    alone.config = dataclasses.replace(alone.config, apps=apps)
    alone.restore()
    assert alone.databases.there["shop"] == "restored"
