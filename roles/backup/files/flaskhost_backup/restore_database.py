"""Replace a single database, from a backup or from another host."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flaskhost_backup import dumps, scrubs
from flaskhost_backup.cluster import DATABASE_PORT, Scratch, Server
from flaskhost_backup.config import BackupError, Config, need_enabled
from flaskhost_backup.paths import remove
from flaskhost_backup.progress import DATABASE, Progress
from flaskhost_backup.restore_beside import into_scratch
from flaskhost_backup.result import Result
from flaskhost_backup.sessions import Login
from flaskhost_backup.sources import Request, source
from flaskhost_backup.state import State, held, stamp
from flaskhost_backup.targets import choose
from flaskhost_backup.units import start_left, stopped
from flaskhost_backup.wal import hand_over, need_whole_log


def database(config: Config, name: str, request: Request) -> Result:
    """Restore a single database through a separate cluster. The other databases stay unchanged.

    The current database is renamed and kept.

    Raises:
        BackupError: the restore failed; the previous database is in its place.
    """
    need_enabled(config)
    cluster = config.need_cluster()
    server = Server(cluster)
    need_running(config, server)
    app = next((item for item in config.apps if item.name == name), None)
    scratch = Scratch(cluster, config.state / "database", DATABASE_PORT)
    began = time.monotonic()
    with (
        held([app.lock] if app and app.lock else []),
        source(config, request.where, request.host, request.before) as found,
    ):
        wanted = request.target(found)
        choose(found.backrest.info(), wanted, found.line)
        asked = [name, *request.asked(wanted)]
        settled = settle(config, start=request.start)
        if settled.finished and settled.asked == asked:
            return Result(changed=True, lines=[settled.says], data={"restore": settled.entry})
        late = hand_over(server) if request.where == "local" else []
        need_whole_log(found, wanted, request.accept_gap)
        backup = into_scratch(config, scratch, found, wanted, request.timeout)
        try:
            if name not in scratch.server.databases():
                raise BackupError(f"The database {name} did not exist at that time.", _others(server, name))
            dump = scratch.folder / "dump"
            # No other client connects to this cluster, so the session can read objects of any owner.
            with scratch.server.tenant(name, reads_all=True) as login, dump.open("xb") as stream:
                dumps.dump(login, stream)
            scratch.stop()
            remove(scratch.data)
            with stopped(config.state, list(app.units) if app else [], start=request.start) as units:
                noted = {
                    "at": request.now, "asked": asked, "command": request.command, "units": units,
                    "backup": backup.label, "target": wanted.text, "point": wanted.point or {},
                }  # fmt: skip
                kept, notes = replace(config, name, dump, stamp(request.now), noted=noted)
        finally:
            scratch.remove()
    seconds = round(time.monotonic() - began, 1)
    result = Result(changed=True)
    result.lines = [f"The database {name} was restored {wanted.text}, from {backup.label}, in {seconds:.0f} s.", *late]
    if kept:
        result.lines.append(
            f"The previous database: {kept}. When you no longer need it: sudo -u {cluster.user} dropdb {kept}"
        )
    result.lines += notes
    result.data["restore"] = {
        "at": request.now, "ok": True, "problems": [], "seconds": seconds, "target": wanted.text,
        "backup": backup.label, "database": name, "aside": kept, "units": units, "point": wanted.point or {},
    }  # fmt: skip
    State(config.state).note("restore", result.data["restore"])
    return result


def need_running(config: Config, server: Server) -> None:
    """Check that a single database can be restored into the cluster.

    Raises:
        BackupError: PostgreSQL does not run, or a restore of all databases was killed.
    """
    if not server.runs():
        raise BackupError(
            "PostgreSQL is not running, but a single database can only be restored into a running cluster.",
            "Start it: sudo systemctl start postgresql. Or restore the whole cluster, without -e app=...",
        )
    if Progress(config).read():
        raise BackupError(
            "A restore of all databases was killed and is not finished.",
            "Finish or undo it first. sudo flaskhost-backup status shows the commands.",
        )


def take_in(config: Config, name: str, dump: Path, scrub: Path | None, now: float) -> Result:
    """Replace a database with that of another host, scrubbed before an app sees it.

    Args:
        config: the configuration.
        name: the database, which has the same name on both hosts.
        dump: created by ``pg_dump --format=custom --create``.
        scrub: SQL that removes data that must not be on this host; None for none.
        now: seconds since 1970.

    Raises:
        BackupError: the import or the scrub failed; the previous database is in its place.
    """
    app = next((item for item in config.apps if item.name == name), None)
    with held([app.lock] if app and app.lock else []):
        settle(config)
        with stopped(config.state, list(app.units) if app else []) as units:
            kept, notes = replace(config, name, dump, stamp(now), scrub=scrub, noted={"at": now, "units": units})
    result = Result(
        changed=True, lines=[f"The database {name} was replaced by the dump{(', and scrubbed' if scrub else '')}."]
    )
    if kept:
        result.lines.append(
            f"The previous database: {kept}. When you no longer need it: sudo -u postgres dropdb {kept}"
        )
    result.lines += notes
    result.data["restore"] = {"at": now, "ok": True, "problems": [], "database": name, "aside": kept, "units": units}
    return result


def replace(
    config: Config,
    name: str,
    dump: Path,
    mark: str,
    *,
    scrub: Path | None = None,
    noted: Mapping[str, Any] | None = None,
) -> tuple[str, list[str]]:
    """Replace a database with that of a dump. The current one is renamed and kept.

    The dump is restored into a separate database, with the rights of its owner. When it is complete, both databases
    get their names in one transaction.

    Args:
        config: the configuration.
        name: the database.
        dump: created by ``pg_dump --format=custom --create``.
        mark: the suffix of the kept database's name.
        scrub: SQL to run in the new database, completely or not at all, before any client connects.
        noted: additional values for the record of this restore, for the run after a kill.

    Returns:
        The name of the kept database, empty if there was none; and notes for the operator.

    Raises:
        BackupError: the restore failed; the previous database is in its place again.
    """
    server, progress = Server(config.need_cluster()), Progress(config, DATABASE)
    kept = f"{name}_before_{mark.lower()}"
    sql = scrubs.read(scrub) if scrub else None

    def finish(login: Login) -> None:
        if sql is not None:
            scrubs.run(login, sql)

    there = name in _names(server)
    progress.note(**(noted or {}), database=name, kept=kept if there else "", dump=str(dump))
    try:
        fresh, notes = dumps.load(server, name, dump, finish)
        progress.note(swaps=True)
        dumps.rename(server, [*([(name, kept)] if there else []), (fresh, name)])
    except BackupError as problem:
        settle(config, start=False)
        raise BackupError(f"{problem.reason} The previous database is unchanged.", problem.cure) from None
    try:
        dumps.set_properties(server, name, dump)
    except BackupError as problem:
        if there:
            dumps.rename(server, [(name, fresh), (kept, name)])
            dumps.drop(server, fresh)
        else:
            dumps.drop(server, name)
        progress.done()
        raise BackupError(f"{problem.reason} The previous database is in its place again.", problem.cure) from None
    progress.done()
    return (kept if there else ""), notes


@dataclass(frozen=True)
class Settled:
    """The outcome of a failed or killed restore of a single database.

    Attributes:
        says: a sentence; empty if there was no such restore.
        finished: whether the restored database has its final name.
        asked: the request of the restore.
        entry: the entry for the state, if it is finished.
    """

    says: str = ""
    finished: bool = False
    asked: list[str] = field(default_factory=list)
    entry: Mapping[str, Any] = field(default_factory=dict)


def settle(config: Config, *, start: bool = True) -> Settled:
    """Finish a failed or killed restore if the databases have their final names. Otherwise undo it.

    Args:
        config: the configuration.
        start: whether to start the app too. After a killed restore, nothing else starts it.

    Raises:
        BackupError: PostgreSQL rejects a statement, or the app does not start.
    """
    server, progress = Server(config.need_cluster()), Progress(config, DATABASE)
    left = progress.read()
    if not left:
        return Settled()
    name, kept, dump = str(left["database"]), str(left.get("kept") or ""), Path(left.get("dump") or "/nowhere")
    fresh, names = f"{name}{dumps.RESTORING}", _names(server)
    finished = bool(left.get("swaps")) and fresh not in names and (kept in names if kept else name in names)
    if finished:
        if dump.exists():
            dumps.set_properties(server, name, dump)
        says = f"The database {name} was restored {left.get('target') or ''}".strip() + "; that run was killed."
        if kept:
            says += f" The previous database: {kept}. When you no longer need it: sudo -u postgres dropdb {kept}"
    else:
        dumps.drop(server, fresh)
        if name in names:
            dumps.let_in(server, name)
        says = f"The database {name} is unchanged."
    entry = {
        "at": left.get("at") or time.time(), "ok": True, "problems": [], "seconds": 0,
        "target": left.get("target") or "", "backup": left.get("backup") or "", "database": name, "aside": kept,
        "units": left.get("units") or [], "point": left.get("point") or {},
    }  # fmt: skip
    if finished:
        State(config.state).note("restore", entry)
    progress.done()
    app = next((item for item in config.apps if item.name == name), None)
    if app and start:
        start_left(config.state, list(app.units))
    return Settled(says, finished, list(left.get("asked") or []), entry if finished else {})


def abandon(config: Config) -> Result:
    """Undo a killed restore of a single database.

    Raises:
        BackupError: the restored database already has its final name.
    """
    need_enabled(config)
    left = Progress(config, DATABASE).read()
    if not left:
        return Result()
    settled = settle(config)
    return Result(changed=True, lines=[settled.says])


def _names(server: Server) -> list[str]:
    rows = server.ask("SELECT pg_catalog.to_json(datname) FROM pg_catalog.pg_database")
    return [json.loads(row[0]) for row in rows]


def _others(server: Server, name: str) -> str:
    """Return the fix if a backup does not contain the database, which may have had another name then."""
    before = [other for other in _names(server) if other.startswith(f"{name}_before_")]
    if not before:
        return "Choose a later time."
    return f"Choose a later time, or check the databases that earlier restores kept: {', '.join(sorted(before))}."
