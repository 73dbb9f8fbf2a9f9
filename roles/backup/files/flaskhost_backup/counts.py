"""The rows of each table at one point of the write-ahead log, exactly: a drill restores to that point and counts again.

What a snapshot of PostgreSQL's sees and what a recovery to a position replays differ where somebody writes: a commit is
in the log a moment before others see it. They are the same where nobody is in the middle of a write. So for some
milliseconds every table is locked against writers (readers go on), in all databases at once; within that moment each
connection takes its snapshot and a named point is put into the log; then the locks go, and the rows are counted in the
snapshots, at leisure. A lock is waited for no longer than LOCK_MS. Where a long write does not let it happen, the
counts of that database are taken all the same and marked as not exact: the drill then only sees that the tables are
there, and none is empty that had rows.

All of it is done by session roles (sessions.py), never by a superuser: an owner can put a view in the place of a table
between two statements, and planning a query runs immutable functions of the indexes' expressions. What a tenant's code
says of its own rows can be wrong. It cannot keep the others' from being counted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from flaskhost_backup.cluster import Server
from flaskhost_backup.config import BackupError
from flaskhost_backup.sessions import Login, Session, number, quoted, values

#: Milliseconds that a lock is waited for; whoever wants to write waits behind it as long.
LOCK_MS = 200
#: How often it is tried.
TRIES = 5
#: Seconds between two tries.
BETWEEN = 2.0
#: Seconds that counting a database may take; what is left then is not counted.
DATABASE_SECONDS = 3600.0
#: The tables whose rows outlast a crash, and are the database's own: name, whether it can be locked, and be read.
TABLES = """
SELECT pg_catalog.json_build_array(n.nspname, c.relname, pg_catalog.pg_has_role(c.relowner, 'USAGE'),
  pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relpersistence OPERATOR(pg_catalog.=) 'p'
  AND n.nspname OPERATOR(pg_catalog.!~) '^pg_' AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'
ORDER BY n.nspname, c.relname
"""
#: A table: its schema, its name, whether it can be locked, and be read.
Table = tuple[str, str, bool, bool]


def take(
    server: Server,
    name: str,
    *,
    timeout: int = 600,
    pause: Callable[[float], None] = time.sleep,
    now: float | None = None,
) -> dict[str, Any]:
    """Count the rows, and put the point into the log that the counts belong to.

    Args:
        server: the cluster.
        name: the point's name.
        timeout: seconds that counting a table may take; one that takes longer is left out.
        pause: waits some seconds; another one in tests.
        now: seconds since 1970; the present time when left out.

    Returns:
        ``point``, ``lsn``, ``timeline``, ``at``, ``exact``, ``held_ms`` (how long writers were held up at most), and
        ``databases``: for each its tables with their rows, None for one that was not counted. ``loose``: by database,
        the tables whose rows are not exact, since they belong to another one than the tenant and could not be locked;
        None for all tables of a database in which somebody writes all the time. ``failed``: the databases that could
        not be looked into, with the reason.
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
    """Try once; None where somebody writes all the time. The last try does without the locks that it does not get."""
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
                # The first question takes the snapshot, which stays when the locks go.
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
            # Each time anew: what runs in the place of a table could have switched it off.
            session.do(f"SAVEPOINT one; SET LOCAL statement_timeout = '{timeout}s';")
            found[_name(table)] = number(session.do(_count_sql(table), timeout + 30.0))
        except BackupError:
            # The connection ends with the error: what is left is not counted either.
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
        record: what :func:`take` has returned.
        server: the restored cluster.
        timeout: seconds for each table.

    Returns:
        What differs, a sentence each; and how many tables were compared.
    """
    problems: list[str] = []
    compared = 0
    there = set(server.databases())
    for database, tables in record["databases"].items():
        if database not in there:
            problems.append(f"The database {database} is missing.")
            continue
        loose = record.get("loose", {}).get(database, [])
        # Records from before there was "loose" say of all databases at once whether they are exact.
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
