#!/usr/bin/python3
"""End sessions of an app that use up resources of PostgreSQL that all databases share.

These are the lock table, the table of predicate locks, and the NOTIFY queue. PostgreSQL does not limit them by
database: one session can fill a table, and every new connection to every database then fails with "out of shared
memory".

The program checks once a second, over one connection of the superuser to the database ``postgres``. While a table is
full, that connection cannot take new locks either. So its statements are prepared and have run before, they call only
functions and read no catalog, and its transaction holds the locks that reading a catalog would need. The program ends a
session with SIGTERM to its process, like pg_terminate_backend(), which would have to read a catalog first.

A session that connects again needs about 20 ms to fill the table again. So after ending a session, the program checks
100 times a second for a while, and ends all sessions of a database that fills the table again within that time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Seconds between two checks, normally and after a session was ended.
LOOK, FAST_LOOK = 1.0, 0.01
#: Seconds of fast checks, and within which another offense of a database counts as its second one.
ALERT = 120.0
#: Seconds for which every session of a database is ended after a second offense.
BAR = 60.0
#: Seconds between two readings of the names of roles and databases.
NAMES = 60.0
#: For a used share of the NOTIFY queue, the age in seconds from which transactions are ended.
QUEUE = ((1 / 4, 5.0), (1 / 32, 60.0))
#: Seconds with a full table and without a successful query, after which all sessions of apps are ended.
HELPLESS = 5.0
#: Seconds without a check after which the program reports this, and between two such reports.
BLIND = 60.0
#: Seconds for which a process counts as ending after its SIGTERM.
ENDING = 10.0
#: Time limit for a query in seconds.
ANSWER = 10.0
#: Maximum number of log lines per minute.
LINES = 6
#: Prefix of the session roles of the backup program (roles/backup).
BACKUP = "flaskhost_session_"
#: PostgreSQL's error for a full table, as SQLSTATE and as text.
FULL = ("53200", "out of shared memory")
SOCKETS = Path("/run/postgresql")

#: Settings that no other role or database can override. They also keep its statements out of logs and statistics.
SETTINGS = {
    "search_path": "",
    "role": "none",
    "lc_messages": "C",
    "client_min_messages": "error",
    "default_transaction_isolation": "read\\ committed",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "jit": "off",
    "local_preload_libraries": "",
    "lock_timeout": "2s",
    "log_lock_waits": "off",
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "log_min_messages": "fatal",
    "log_statement": "none",
    "max_parallel_workers_per_gather": "0",
    "pg_stat_statements.track": "none",
    "session_preload_libraries": "",
    "statement_timeout": "5s",
}
#: Each client session, with its entries in the two tables and the age of its transaction. Without clearing the
#: snapshot, PostgreSQL would return the sessions of the transaction's first query again.
LOOK_SQL = """
PREPARE fresh AS SELECT pg_catalog.pg_stat_clear_snapshot();
PREPARE look AS
SELECT pg_catalog.json_build_array(a.pid, a.datid::bigint, a.usesysid::bigint, a.backend_type = 'client backend',
  coalesce(l.locks, 0), coalesce(l.predicates, 0),
  coalesce(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start), 0)::float8,
  (SELECT pg_catalog.pg_notification_queue_usage()))
FROM pg_catalog.pg_stat_get_activity(NULL) a
LEFT JOIN (SELECT pid, pg_catalog.count(*) FILTER (WHERE NOT fastpath AND mode <> 'SIReadLock') AS locks,
    pg_catalog.count(*) FILTER (WHERE mode = 'SIReadLock') AS predicates
  FROM pg_catalog.pg_lock_status() GROUP BY pid) l ON l.pid = a.pid
WHERE a.datid <> 0 AND a.usesysid IS NOT NULL AND a.backend_type IN ('client backend', 'parallel worker');
"""
#: The number of entries that PostgreSQL plans for in each table (NLOCKENTS in lock.c, MaxBackends in postinit.c). The
#: lock table has room for half as many more and some hundred: for each lock, it plans two entries for the holders.
SIZES_SQL = """
SELECT pg_catalog.json_build_array(
  pg_catalog.current_setting('max_locks_per_transaction')::bigint * n,
  pg_catalog.current_setting('max_pred_locks_per_transaction')::bigint * n)
FROM (SELECT pg_catalog.sum(pg_catalog.current_setting(name)::bigint) + 1 AS n FROM pg_catalog.unnest(ARRAY[
  'max_connections', 'autovacuum_max_workers', 'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions'
]) AS name) s;
"""
NAMES_SQL = """
SELECT pg_catalog.json_build_array('role', oid::bigint, rolname, rolsuper) FROM pg_catalog.pg_authid;
SELECT pg_catalog.json_build_array('database', oid::bigint, datname) FROM pg_catalog.pg_database;
"""
#: The catalogs that PostgreSQL reads when it rebuilds its caches, which another session can trigger. A transaction that
#: has read a catalog holds its lock and those of its indexes.
CATALOGS = """
pg_authid pg_auth_members pg_database pg_db_role_setting pg_class pg_attribute pg_index pg_proc pg_type pg_namespace
pg_operator pg_opclass pg_opfamily pg_amop pg_amproc pg_am pg_cast pg_collation pg_aggregate pg_language pg_rewrite
pg_statistic pg_range pg_constraint pg_attrdef pg_inherits pg_trigger pg_tablespace
""".split()
HOLD_SQL = "BEGIN;" + "".join(f"SELECT FROM pg_catalog.{name} WHERE false;" for name in CATALOGS)


class Gone(Exception):
    """The connection has ended or could not be opened; the text is psql's message."""


class Refused(Exception):
    """PostgreSQL rejected a statement; the text is its SQLSTATE."""


@dataclass(frozen=True)
class Session:
    """A session, as PostgreSQL reports it.

    Attributes:
        pid: its process ID.
        database: the OID of its database.
        role: the OID of its role.
        client: whether it is a client's session; otherwise a parallel worker of a client's query.
        locks: its entries in the lock table.
        predicates: its entries in the table of predicate locks.
        age: the age of its transaction in seconds; 0 without one.
        queue: the used share of the NOTIFY queue.
    """

    pid: int
    database: int
    role: int
    client: bool
    locks: int = 0
    predicates: int = 0
    age: float = 0.0
    queue: float = 0.0


@dataclass(frozen=True)
class Table:
    """A table in PostgreSQL's shared memory.

    Attributes:
        name: its name in messages.
        column: the attribute of a session with the number of its entries.
        setting: the setting that determines its size.
        size: the number of entries that PostgreSQL plans for.
    """

    name: str
    column: str
    setting: str
    size: int

    def held(self, sessions: Iterable[Session]) -> int:
        """Return the total number of entries of some sessions."""
        return sum(getattr(session, self.column) for session in sessions)


@dataclass
class Names:
    """The names of roles and databases, by OID.

    Attributes:
        roles: the roles.
        databases: the databases.
        superusers: the roles that are superusers.
    """

    roles: dict[int, str] = field(default_factory=dict)
    databases: dict[int, str] = field(default_factory=dict)
    superusers: frozenset[int] = frozenset()

    @classmethod
    def of(cls, rows: Iterable[list[Any]]) -> Names:
        """Build the names from the rows of NAMES_SQL."""
        rows = list(rows)
        return cls(
            {row[1]: row[2] for row in rows if row[0] == "role"},
            {row[1]: row[2] for row in rows if row[0] == "database"},
            frozenset(row[1] for row in rows if row[0] == "role" and row[3]),
        )

    def knows(self, sessions: Iterable[Session]) -> bool:
        """Check whether the names of all roles of some sessions are known."""
        return {session.role for session in sessions} <= self.roles.keys()

    def role(self, number: int) -> str:
        """Return the name of a role."""
        return self.roles.get(number, f"number {number}")

    def database(self, number: int) -> str:
        """Return the name of a database."""
        return self.databases.get(number, f"number {number}")


@dataclass
class Judge:
    """Decides which sessions are ended, and gives the reasons.

    Attributes:
        tables: the tables in PostgreSQL's shared memory.
        names: the names.
        alert: the end of the fast checks.
    """

    tables: tuple[Table, ...]
    names: Names = field(default_factory=Names)
    alert: float = 0.0
    _barred: dict[int, float] = field(default_factory=dict)
    _offenses: dict[int, float] = field(default_factory=dict)
    _ended: dict[int, float] = field(default_factory=dict)
    _next_of_queue: float = 0.0

    def judge(self, sessions: Iterable[Session], now: float) -> tuple[list[int], list[str]]:
        """Decide which sessions to end.

        Args:
            sessions: all client sessions.
            now: seconds of a monotonic clock.

        Returns:
            The IDs of the processes to end, and the lines for the journal.
        """
        tenants = [session for session in sessions if session.role not in self.names.superusers]
        self._ended = {pid: at for pid, at in self._ended.items() if now - at < ENDING}
        pids = [session.pid for session in tenants if self._is_barred(session, now)]
        lines: list[str] = []
        for table in self.tables:
            victims, line = self._too_many(table, tenants, now)
            pids += victims
            lines += [line] if line else []
        victims, line = self._queue(tenants, now)
        pids += victims
        lines += [line] if line else []
        self._ended |= {pid: self._ended.get(pid, now) for pid in pids}
        return sorted({*pids}), lines

    def pause(self, now: float) -> float:
        """Return the seconds until the next check."""
        return FAST_LOOK if now < self.alert else LOOK

    def _is_backup(self, session: Session) -> bool:
        return self.names.role(session.role).startswith(BACKUP)

    def _is_barred(self, session: Session, now: float) -> bool:
        return session.client and now < self._barred.get(session.database, 0.0) and not self._is_backup(session)

    def _too_many(self, table: Table, tenants: list[Session], now: float) -> tuple[list[int], str]:
        """Return the sessions to end of the database with the most entries in a table, if these are too many."""
        by_database: dict[int, list[Session]] = {}
        for session in tenants:
            by_database.setdefault(session.database, []).append(session)
        most = max(by_database.values(), key=table.held, default=[])
        bound, together, held = table.size, table.size * 5 // 4, table.held(most)
        # Several apps can fill the table together, although none of them exceeds its limit.
        if held <= bound and table.held(tenants) <= together:
            return [], ""
        victims, left = [], held
        for session in sorted(most, key=lambda item: getattr(item, table.column), reverse=True):
            if left > bound // 2 and session.client:
                victims.append(session)
                left -= getattr(session, table.column)
        # A session that got its SIGTERM a moment ago can still be running.
        new = [session for session in victims if session.pid not in self._ended]
        if not new:
            return [session.pid for session in victims], ""
        barred = self._offense(new, now)
        roles = ", ".join(sorted({self.names.role(session.role) for session in new}))
        database = self.names.database(new[0].database)
        again = f" It did so again, so every session of {database} is ended for {BAR:.0f} seconds." if barred else ""
        return [session.pid for session in victims], (
            f"Ended {len(new)} session(s) of the role {roles} in the database {database}, which held {held} "
            f"{table.name}. All databases share one table of them; the limit is {bound} for one database and "
            f"{together} for all apps.{again} If the app needs as many, raise {table.setting} in "
            "postgres_extra_settings and run site.yml. If not, stop the app and find the cause."
        )

    def _offense(self, victims: list[Session], now: float) -> bool:
        """Record an offense. Return whether its database is barred now."""
        self.alert = max(self.alert, now + ALERT)
        apps = [session for session in victims if not self._is_backup(session)]
        if not apps:
            return False
        database = apps[0].database
        last = self._offenses.get(database)
        barred = last is not None and now - last < ALERT
        if barred:
            self._barred[database] = now + BAR
            self.alert = now + BAR + ALERT
        # An offense right after the bar counts as another one.
        self._offenses[database] = now + BAR if barred else now
        return barred

    def _queue(self, tenants: list[Session], now: float) -> tuple[list[int], str]:
        """Return the session with the oldest transaction, if the NOTIFY queue fills up. No view shows who listens."""
        used = max((session.queue for session in tenants), default=0.0)
        limit = next((age for share, age in QUEUE if used > share), None)
        old = [session for session in tenants if session.client and limit is not None and session.age > limit]
        if not old or now < self._next_of_queue:
            return [], ""
        # The backup program's sessions take long, but do not listen.
        victim = min(old, key=lambda session: (self._is_backup(session), -session.age))
        self._next_of_queue = now + LOOK
        return [victim.pid], (
            f"Ended a session of the role {self.names.role(victim.role)} in the database "
            f"{self.names.database(victim.database)}: its transaction was {victim.age:.0f} seconds old, and "
            f"{used:.0%} of the queue of NOTIFY that all databases share is in use (limit: {min(QUEUE)[0]:.0%}). "
            "A session that listens must end its transactions: it reads its notifications only then."
        )


class Journal:
    """Writes lines to standard output, a few per minute.

    Args:
        write: writes a line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.times: deque[float] = deque()
        self.left_out = 0

    def say(self, line: str, now: float) -> None:
        """Write a line, or only count it if there were too many."""
        while self.times and now - self.times[0] > 60:
            self.times.popleft()
        if len(self.times) >= LINES:
            self.left_out += 1
            return
        if self.left_out:
            line += f" ({self.left_out} earlier messages were left out.)"
            self.left_out = 0
        self.times.append(now)
        # The priority of a warning, see sd-daemon(3).
        self.write(f"<4>{line}")


class Server:
    """The connection to PostgreSQL: one psql, as the superuser, in the database ``postgres``.

    Args:
        cluster: such as ``17/main``.
        port: the port in the name of the socket.
    """

    def __init__(self, cluster: str, port: int) -> None:
        # Marks the end of a result.
        self.mark = f"--end-{secrets.token_hex(8)}--"
        version = cluster.partition("/")[0]
        names = {**SETTINGS, **({"transaction_timeout": "0"} if int(version) >= 17 else {})}
        self.process = subprocess.Popen(
            [f"/usr/lib/postgresql/{version}/bin/psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd="/",
            env={
                "LC_ALL": "C.UTF-8",
                "PGHOST": str(SOCKETS),
                "PGPORT": str(port),
                "PGUSER": "postgres",
                "PGDATABASE": "postgres",
                "PGCONNECT_TIMEOUT": "5",
                "PGCLIENTENCODING": "UTF8",
                "PGAPPNAME": "flaskhost-limits",
                "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in names.items()),
            },
        )

    def ask(self, sql: str) -> list[list[Any]]:
        """Run a query whose rows are JSON.

        Raises:
            Refused: PostgreSQL rejects it.
            Gone: there is no connection.
        """
        assert self.process.stdin and self.process.stdout  # noqa: S101 - for mypy
        lines: list[str] = []
        guard = threading.Timer(ANSWER, self.process.kill)
        guard.start()
        try:
            self.process.stdin.write(f"{sql}\n\\echo {self.mark} :SQLSTATE\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith(self.mark):
                    state = line.split()[1]
                    if state != "00000":
                        raise Refused(state)
                    return [json.loads(row) for row in lines if row.startswith("[")]
                lines.append(line)
        except BrokenPipeError:
            lines = self.process.stdout.read().splitlines()
        finally:
            guard.cancel()
        raise Gone(" ".join(" ".join(lines).split()) or "psql has ended")

    def close(self) -> None:
        """Close the connection."""
        self.process.kill()
        self.process.communicate()


def children(parent: int, processes: Path = Path("/proc")) -> Iterator[int]:
    """Return the child processes of a process."""
    for folder in processes.iterdir():
        if folder.name.isdecimal() and is_child(int(folder.name), parent, processes):
            yield int(folder.name)


def is_child(pid: int, parent: int, processes: Path = Path("/proc")) -> bool:
    """Check whether a process runs and is a child of another one."""
    try:
        status = (processes / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return int(status.rpartition(")")[2].split()[1]) == parent


def is_of_an_app(title: str, superusers: Iterable[str]) -> bool:
    """Check by its title whether a process of PostgreSQL serves a client that is not a superuser."""
    found = re.match(r"postgres: (?:\d+/\S+: )?(\S+) (\S+) (?:\[local\]|\S+\(\d+\))", title)
    return found is not None and found[1] not in {"walsender", *superusers}


class Watch:
    """Watches a cluster while the program runs.

    Args:
        cluster: such as ``17/main``.
        journal: receives the log lines.
    """

    def __init__(self, cluster: str, journal: Journal) -> None:
        self.cluster, self.journal = cluster, journal
        self.names = Names(superusers=frozenset(), roles={10: "postgres"})
        #: Since when queries fail because a table is full; and the time of the last check, or of the last report.
        self.full_since: float | None = None
        self.looked = time.monotonic()

    def run(self) -> None:
        """Check, and reconnect whenever the connection has ended."""
        while True:
            server = None
            try:
                server = Server(self.cluster, port(self.cluster))
                self.serve(server)
            except (Gone, Refused, OSError, ValueError) as error:
                self.trouble(str(error))
                time.sleep(LOOK if self.full_since is None else 0.1)
            finally:
                if server:
                    server.close()

    def serve(self, server: Server) -> None:
        """Check while the connection exists.

        Raises:
            Gone: the connection has ended.
            Refused: PostgreSQL rejects one of the first queries.
        """
        [sizes] = server.ask(SIZES_SQL)
        judge = Judge(
            (
                Table("locks", "locks", "max_locks_per_transaction", sizes[0]),
                Table("predicate locks", "predicates", "max_pred_locks_per_transaction", sizes[1]),
            )
        )
        server.ask(LOOK_SQL)
        held, last = False, 0.0
        while True:
            now = time.monotonic()
            if not held or now - last > NAMES:
                # The catalogs stay locked until the transaction ends, so renew it regularly: others can wait for them.
                held, last = self.hold(server), now
            judge.names = self.names
            try:
                sessions = self.look(server)
                self.full_since, self.looked = None, now
            except Refused as error:
                held = False
                self.trouble(str(error))
                time.sleep(0.1)
                continue
            pids, lines = judge.judge(sessions, time.monotonic())
            self.end(pids)
            for line in lines:
                self.journal.say(line, now)
            time.sleep(judge.pause(now))

    def hold(self, server: Server) -> bool:
        """Read the names, and lock the catalogs. Return whether that succeeded."""
        with contextlib.suppress(Refused):
            server.ask("ROLLBACK;")
            server.ask(HOLD_SQL)
            self.names = Names.of(server.ask(NAMES_SQL))
            return True
        with contextlib.suppress(Refused):
            server.ask("ROLLBACK;")
        return False

    def look(self, server: Server) -> list[Session]:
        """Read all sessions.

        Raises:
            Refused: PostgreSQL rejects the query.
        """
        server.ask("EXECUTE fresh;")
        sessions = [Session(*row) for row in server.ask("EXECUTE look;")]
        if not self.names.knows(sessions):
            with contextlib.suppress(Refused):
                self.names = Names.of(server.ask(NAMES_SQL))
        return sessions

    def end(self, pids: Iterable[int]) -> None:
        """End sessions."""
        parent = postmaster(self.cluster)
        for pid in pids:
            if is_child(pid, parent):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def trouble(self, said: str) -> None:
        """Handle a failed query. If a table has been full for a while, end all sessions of apps."""
        now = time.monotonic()
        if now - self.looked > BLIND:
            self.looked = now
            self.journal.say(
                f"PostgreSQL {self.cluster} could not be checked for {BLIND:.0f} seconds, so one app can fill the "
                f"lock table: {said}",
                now,
            )
        if not any(word in said for word in FULL):
            return
        if self.full_since is None:
            self.full_since = now
        if now - self.full_since < HELPLESS:
            return
        self.full_since = None
        superusers = [self.names.role(number) for number in self.names.superusers] or ["postgres"]
        found = [pid for pid in children(postmaster(self.cluster)) if is_of_an_app(title(pid), superusers)]
        self.end(found)
        self.journal.say(
            f"Ended all {len(found)} sessions of apps: for {HELPLESS:.0f} seconds the lock table was full, so "
            "the sessions that filled it could not be found. The apps reconnect by themselves.",
            now,
        )


def port(cluster: str) -> int:
    """Return the port of a cluster from its postgresql.conf, where Debian's tools write it; 5432 if it is not there."""
    text = Path("/etc/postgresql", cluster, "postgresql.conf").read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^\s*port\s*=?\s*'?(\d+)", text, re.MULTILINE)
    return int(found[-1]) if found else 5432


def postmaster(cluster: str) -> int:
    """Return the ID of a cluster's main process; 0 if it does not run."""
    try:
        return int((SOCKETS / f"{cluster.replace('/', '-')}.pid").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def title(pid: int) -> str:
    """Return the title of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").rstrip("\0 ")
    except OSError:
        return ""


def main(arguments: list[str]) -> None:
    """Run the program for the named cluster, such as ``17-main``."""
    version, _dash, name = arguments[0].partition("-")
    Watch(f"{version}/{name}", Journal(lambda line: print(line, flush=True))).run()


if __name__ == "__main__":
    main(sys.argv[1:])
