"""Count the rows of each table at an exact point of the WAL. A drill restores to that point and counts again.

During writes, a snapshot and a recovery to a position differ: a commit is in the WAL a moment before other sessions see
it. They are equal while no write is in progress. So every table is locked against writers for some milliseconds, in all
databases at once; readers continue. In that moment, each connection takes its snapshot, and a named restore point is
created. Then the locks are released, and the rows are counted in the snapshots. The wait for a lock is limited to
LOCK_MS. If a long write prevents the lock, the rows of that database are counted anyway, but marked as not exact. The
drill then only checks that the tables exist, and that no table is empty that had rows.

All of this runs as session roles (sessions.py), never as a superuser: between two statements, an owner can replace a
table with a view, and planning a query runs immutable functions in index expressions. A tenant's code can falsify the
counts of its own rows, but cannot prevent the counting of others'.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from flaskhost_backup.cluster import Server
from flaskhost_backup.config import BackupError
from flaskhost_backup.sessions import Login, Session, number, quoted, values

#: Maximum milliseconds to wait for a lock. Writers queue behind this wait.
LOCK_MS = 200
#: Number of attempts.
TRIES = 5
#: Seconds between two attempts.
BETWEEN = 2.0
#: Time limit in seconds for a database. Tables that are left then are not counted.
DATABASE_SECONDS = 3600.0
#: The tables that survive a crash and are not PostgreSQL's own: name, whether it can be locked, and read.
TABLES = """
SELECT pg_catalog.json_build_array(n.nspname, c.relname, pg_catalog.pg_has_role(c.relowner, 'USAGE'),
  pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relpersistence OPERATOR(pg_catalog.=) 'p'
  AND n.nspname OPERATOR(pg_catalog.!~) '^pg_' AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'
ORDER BY n.nspname, c.relname
"""
#: A table: its schema, its name, and whether it can be locked and read.
Table = tuple[str, str, bool, bool]


def take(
    server: Server,
    name: str,
    *,
    timeout: int = 600,
    pause: Callable[[float], None] = time.sleep,
    now: float | None = None,
) -> dict[str, Any]:
    """Count the rows, and create the restore point that the counts belong to.

    Args:
        server: the cluster.
        name: the point's name.
        timeout: time limit in seconds for a table; a table that takes longer is left out.
        pause: sleeps for a number of seconds; replaced in tests.
        now: seconds since 1970; the current time by default.

    Returns:
        ``point``, ``lsn``, ``timeline``, ``at``, ``exact``, ``held_ms`` (how long writers were blocked at most), and
        ``databases``: for each database, the row counts of its tables, None for tables that were not counted.
        ``loose``: by database, the tables whose counts are not exact, because they do not belong to the tenant and
        could not be locked; None for all tables of a database with constant writes. ``failed``: the databases that
        could not be read, with the reason.
    """
    at = time.time() if now is None else now
    with contextlib.ExitStack() as stack:
        logins: dict[str, Login] = {}
        failed: dict[str, str] = {}
        for database in server.open_databases():
            try:
                logins[database] = stack.enter_context(server.tenant(database))
            except BackupError as error:
                failed[database] = error.reason
        for attempt in range(TRIES):
            found = _try(server, logins, name, timeout, failed, last=False)
            if found:
                return {**found, "at": at}
            if attempt < TRIES - 1:
                pause(BETWEEN)
        return {**(_try(server, logins, name, timeout, failed, last=True) or {}), "at": at}


def _try(
    server: Server, logins: dict[str, Login], name: str, timeout: int, failed: dict[str, str], *, last: bool
) -> dict[str, Any] | None:
    """Make one attempt; None if writes prevented a lock. The last attempt continues without the missing locks."""
    sessions: dict[str, Session] = {}
    tables: dict[str, list[Table]] = {}
    loose: dict[str, list[str] | None] = {}
    problems = dict(failed)
    try:
        for database, login in logins.items():
            sessions[database] = Session(login)
            try:
                tables[database] = [tuple(item) for item in values(sessions[database].do(TABLES.strip() + ";"))]
                sessions[database].do(_BEGIN)
                loose[database] = [_name(table) for table in tables[database] if not table[2]]
            except BackupError as error:
                problems[database] = error.reason
        ready = [database for database in sessions if database not in problems]
        began = time.monotonic()
        for database in ready:
            names = ", ".join(f"ONLY {_quoted(table)}" for table in tables[database] if table[2])
            try:
                if names:
                    lock = f"SET LOCAL lock_timeout = '{LOCK_MS}ms'; LOCK TABLE {names} IN SHARE MODE;"
                    sessions[database].do(f"{lock} SET LOCAL lock_timeout = 0;")
            except BackupError:
                if not last:
                    return None
                loose[database] = None
                sessions[database].close()
                sessions[database] = Session(logins[database])
        for database in list(ready):
            try:
                # The first query takes the snapshot, which outlives the locks.
                sessions[database].do((_BEGIN if loose[database] is None else "") + _SNAPSHOT)
            except BackupError as error:
                problems[database] = error.reason
                ready.remove(database)
        lsn, timeline = server.point(name)
        for database in ready:
            with contextlib.suppress(BackupError):
                sessions[database].do("ROLLBACK TO SAVEPOINT locks;")
        held = time.monotonic() - began
        counted = {database: _count(sessions[database], tables[database], timeout) for database in ready}
        return {
            "point": name,
            "lsn": lsn,
            "timeline": timeline,
            "exact": all(loose[database] is not None for database in ready),
            "held_ms": round(held * 1000),
            "databases": counted,
            "loose": {database: loose[database] for database in ready if loose[database] != []},
            "failed": problems,
        }
    finally:
        for session in sessions.values():
            session.close()


_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SAVEPOINT locks;"
_SNAPSHOT = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_class WHERE false;"


def _count(session: Session, tables: list[Table], timeout: int) -> dict[str, int | None]:
    found: dict[str, int | None] = {_name(table): None for table in tables}
    end = time.monotonic() + DATABASE_SECONDS
    for table in tables:
        if not table[3]:
            continue
        try:
            if time.monotonic() > end:
                break
            # Set it for each table, because a view in place of a table could have changed it.
            session.do(f"SAVEPOINT one; SET LOCAL statement_timeout = '{timeout}s';")
            found[_name(table)] = number(session.do(_count_sql(table), timeout + 30.0))
        except BackupError:
            # An error ends the connection, so the remaining tables are not counted either.
            break
    return found


def _name(table: Table) -> str:
    return f"{table[0]}.{table[1]}"


def _quoted(table: Table) -> str:
    return f"{quoted(table[0])}.{quoted(table[1])}"


def _count_sql(table: Table) -> str:
    return f"SELECT pg_catalog.count(*) FROM ONLY {_quoted(table)};"  # noqa: S608 - both are quoted


def compare(record: dict[str, Any], server: Server, timeout: int = 600) -> tuple[list[str], int]:
    """Count again in a restored cluster.

    Args:
        record: the result of :func:`take`.
        server: the restored cluster.
        timeout: time limit in seconds for each table.

    Returns:
        The differences, a sentence each, and the number of compared tables.
    """
    problems: list[str] = []
    compared = 0
    there = set(server.databases())
    for database, tables in record["databases"].items():
        if database not in there:
            problems.append(f"The database {database} is missing.")
            continue
        loose = record.get("loose", {}).get(database, [])
        # Older records have no "loose", but one "exact" for all databases.
        sharp = record["exact"] if "loose" not in record else loose is not None
        try:
            with server.tenant(database) as login:
                found = {_name(item): item for item in map(tuple, values(login.ask_lines(TABLES)))}
                for name, rows in tables.items():
                    if name not in found:
                        problems.append(f"The table {name} of {database} is missing.")
                        continue
                    if rows is None or not found[name][3]:
                        continue
                    counted = number(login.ask_lines(_count_sql(found[name]), float(timeout)))
                    compared += 1
                    if sharp and name not in (loose or []) and counted != rows:
                        problems.append(f"The table {name} of {database} has {counted} rows, and had {rows}.")
                    elif rows and not counted:
                        problems.append(f"The table {name} of {database} is empty, and had {rows} rows.")
        except BackupError as error:
            problems.append(f"{error.reason} The rows of {database} were not compared.")
    return problems, compared
