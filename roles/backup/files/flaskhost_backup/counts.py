"""The rows of each table at one point of the write-ahead log, exactly: a drill restores to that point and counts again.

What a snapshot of PostgreSQL's sees and what a recovery to a position replays differ where somebody writes: a commit is
in the log a moment before others see it. They are the same where nobody is in the middle of a write. So for some
milliseconds every table is locked against writers (readers go on), in all databases at once; within that moment each
connection takes its snapshot and a named point is put into the log; then the locks go, and the rows are counted in the
snapshots, at leisure. A lock is waited for no longer than LOCK_MS. Where a long write does not let it happen, the
counts are taken all the same and marked as not exact: the drill then only sees that the tables are there, and none is
empty that had rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flaskhost_backup.cluster import Server, Session, quoted
from flaskhost_backup.config import BackupError

#: Milliseconds that a lock is waited for; whoever wants to write waits behind it as long.
LOCK_MS = 200
#: How often it is tried.
TRIES = 5
#: Seconds between two tries.
BETWEEN = 2.0
#: The tables whose rows outlast a crash, and are the database's own.
TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1, 2
"""


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
        ``databases``: for each its tables with their rows, None for one that was not counted.
    """
    at = time.time() if now is None else now
    for number in range(TRIES):
        found = _try(server, name, timeout, exact=True)
        if found:
            return {**found, "at": at}
        if number < TRIES - 1:
            pause(BETWEEN)
    return {**(_try(server, name, timeout, exact=False) or {}), "at": at}


def _try(server: Server, name: str, timeout: int, *, exact: bool) -> dict[str, Any] | None:
    """Try once; None where somebody writes all the time."""
    sessions: dict[str, Session] = {}
    tables: dict[str, list[tuple[str, str]]] = {}
    try:
        for database in server.databases():
            sessions[database] = Session(server, database)
            tables[database] = [(row[0], row[1]) for row in sessions[database].do(TABLES.strip() + ";")]
        began = time.monotonic()
        for database, session in sessions.items():
            session.do("BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT locks;")
            if exact and tables[database]:
                names = ", ".join(f"ONLY {quoted(schema)}.{quoted(table)}" for schema, table in tables[database])
                try:
                    session.do(f"SET LOCAL lock_timeout = '{LOCK_MS}ms'; LOCK TABLE {names} IN SHARE MODE;")
                except BackupError:
                    return None
        for session in sessions.values():
            # The first question takes the snapshot, which stays when the locks go.
            session.do("SELECT count(*) FROM pg_class WHERE false;")
        lsn, timeline = server.point(name)
        for session in sessions.values():
            session.do("ROLLBACK TO SAVEPOINT locks;")
        held = time.monotonic() - began
        counted = {database: _count(session, tables[database], timeout) for database, session in sessions.items()}
        return {
            "point": name,
            "lsn": lsn,
            "timeline": timeline,
            "exact": exact,
            "held_ms": round(held * 1000) if exact else 0,
            "databases": counted,
        }
    finally:
        for session in sessions.values():
            session.close()


def _count(session: Session, tables: list[tuple[str, str]], timeout: int) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    session.do(f"SET LOCAL statement_timeout = '{timeout}s';")
    for schema, table in tables:
        name = f"{schema}.{table}"
        try:
            session.do("SAVEPOINT one;")
            found[name] = int(session.do(_count_sql(schema, table))[0][0])
        except BackupError:
            # The connection ends with the error: what is left is not counted either.
            found |= {f"{other[0]}.{other[1]}": found.get(f"{other[0]}.{other[1]}") for other in tables}
            return found
    return found


def _count_sql(schema: str, table: str) -> str:
    return f"SELECT count(*) FROM ONLY {quoted(schema)}.{quoted(table)};"  # noqa: S608 - both are quoted


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
        found = {f"{row[0]}.{row[1]}": (row[0], row[1]) for row in server.ask(TABLES, database)}
        for name, rows in tables.items():
            if name not in found:
                problems.append(f"The table {name} of {database} is missing.")
                continue
            if rows is None:
                continue
            schema, table = found[name]
            counted = int(server.ask(_count_sql(schema, table), database, float(timeout))[0][0])
            compared += 1
            if record["exact"] and counted != rows:
                problems.append(f"The table {name} of {database} has {counted} rows, and had {rows}.")
            elif rows and not counted:
                problems.append(f"The table {name} of {database} is empty, and had {rows} rows.")
    return problems, compared
