"""One database in the place of the one that is there, from a backup or from another host."""

from __future__ import annotations

import time
from pathlib import Path

from flaskhost_backup import dumps, scrubs
from flaskhost_backup.cluster import DATABASE_PORT, Scratch, Server
from flaskhost_backup.config import BackupError, Config
from flaskhost_backup.restore_beside import into_scratch
from flaskhost_backup.sessions import Login
from flaskhost_backup.sources import Request, source
from flaskhost_backup.state import State, held, stamp
from flaskhost_backup.units import stopped
from flaskhost_backup.verbs import Result, need_enabled, remove
from flaskhost_backup.wal import hand_over, need_whole_log


def database(config: Config, name: str, request: Request) -> Result:
    """Restore one database, and leave the others as they are: by way of a cluster beside the real one.

    The database that is there gets another name, and stays.

    Raises:
        BackupError: it cannot be; the database that was there is in its place.
    """
    need_enabled(config)
    cluster = config.need_cluster()
    server = Server(cluster)
    if not server.runs():
        raise BackupError(
            "PostgreSQL does not run: one database alone can only be restored into a cluster that does.",
            "Restore the whole cluster: playbooks/restore.yml without app; or start it: systemctl start postgresql",
        )
    app = next((item for item in config.apps if item.name == name), None)
    scratch = Scratch(cluster, config.state / "database", DATABASE_PORT)
    began = time.monotonic()
    with (
        held([app.lock] if app and app.lock else []),
        source(config, request.where, request.host, request.before) as found,
    ):
        wanted = request.target(found)
        if request.where == "local":
            hand_over(server)
        need_whole_log(found, wanted, request.accept_gap)
        backup = into_scratch(config, scratch, found, wanted, request.timeout)
        try:
            if name not in scratch.server.databases():
                raise BackupError(f"There was no database {name} then.", "Ask for a later time.")
            dump = scratch.folder / "dump"
            dumps.dump(scratch.server, name, dump)
            scratch.stop()
            remove(scratch.data)
            with stopped(config.state, list(app.units) if app else [], start=request.start) as units:
                kept, notes = replace(server, name, dump, stamp(request.now))
        finally:
            scratch.remove()
    seconds = round(time.monotonic() - began, 1)
    result = Result(changed=True)
    result.lines = [f"The database {name} was restored {wanted.text}, from {backup.label}, in {seconds:.0f} s."]
    if kept:
        result.lines.append(
            f"The one that was there before: {kept}. When all is well: sudo -u {cluster.user} dropdb {kept}"
        )
    result.lines += notes
    result.data["restore"] = {
        "at": request.now, "ok": True, "problems": [], "seconds": seconds, "target": wanted.text,
        "backup": backup.label, "database": name, "aside": kept, "units": units, "point": wanted.point or {},
    }  # fmt: skip
    State(config.state).note("restore", result.data["restore"])
    return result


def take_in(config: Config, name: str, dump: Path, scrub: Path | None, now: float) -> Result:
    """Put a database of another host's into the place of one that is here, scrubbed before an app sees it.

    Args:
        config: the configuration.
        name: the database, here and there.
        dump: made by ``pg_dump --format=custom --create``.
        scrub: SQL that takes out what must not be here; None for none.
        now: seconds since 1970.

    Raises:
        BackupError: it cannot be, or it cannot be scrubbed; the database that was here is in its place.
    """
    server = Server(config.need_cluster())
    app = next((item for item in config.apps if item.name == name), None)
    with (
        held([app.lock] if app and app.lock else []),
        stopped(config.state, list(app.units) if app else []) as units,
    ):
        kept, notes = replace(server, name, dump, stamp(now), scrub)
    result = Result(changed=True, lines=[f"The database {name} was taken in{', and scrubbed' if scrub else ''}."])
    if kept:
        result.lines.append(f"The one that was there before: {kept}. When all is well: sudo -u postgres dropdb {kept}")
    result.lines += notes
    result.data["restore"] = {"at": now, "ok": True, "problems": [], "database": name, "aside": kept, "units": units}
    return result


def replace(server: Server, name: str, dump: Path, mark: str, scrub: Path | None = None) -> tuple[str, list[str]]:
    """Put a database from a dump into the place of the one that is there, which gets another name.

    It is restored beside the present one, with the rights of its owner, and gets its name when it is whole.

    Args:
        server: the cluster.
        name: the database.
        dump: made by ``pg_dump --format=custom --create``.
        mark: ends the other name.
        scrub: SQL to run in the new one, all of it or nothing, before anybody is let in.

    Returns:
        That name, empty where there was none; and what there is to tell.

    Raises:
        BackupError: it cannot be; the one that was there is in its place again.
    """
    kept = f"{name}_before_{mark.lower()}"
    sql = scrubs.read(scrub) if scrub else None

    def finish(login: Login) -> None:
        if sql is not None:
            scrubs.run(login, sql)

    try:
        fresh, notes = dumps.load(server, name, dump, finish)
    except BackupError as problem:
        raise BackupError(f"{problem.reason} What was there before is in its place.", problem.cure) from None
    there = [name] in server.ask("SELECT datname FROM pg_catalog.pg_database")
    if there:
        dumps.rename(server, name, kept)
    try:
        dumps.name_it(server, fresh, name, dump)
    except BackupError as problem:
        dumps.drop(server, fresh)
        dumps.drop(server, name)
        if there:
            dumps.rename(server, kept, name)
        raise BackupError(f"{problem.reason} What was there before is in its place again.", problem.cure) from None
    return (kept if there else ""), notes
