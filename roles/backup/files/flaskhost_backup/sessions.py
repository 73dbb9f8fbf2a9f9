"""Every connection to PostgreSQL: who it is, and with which settings. No other file starts PostgreSQL's clients.

The superuser connects to the database ``postgres`` alone, which no tenant owns. Work inside a tenant's database is done
by a session role: a role that lives as long as the work, logs in with a random password, and is a member of the roles
that own that database and the objects in it. Code of the tenant that runs in such a session (a CHECK constraint, a view
in the place of a table, an immutable function in an index, which even planning a query runs) has the rights that its
author had before, and no way to more: ``RESET ROLE`` leads to the session role itself. A superuser's ``SET ROLE`` would
be no such border. ``pg_read_all_data`` would be none either: it reads the password digests in ``pg_authid``.

The options of a connection rank above the settings of a database, which its owner chooses.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from flaskhost_backup import tools
from flaskhost_backup.config import BackupError, Cluster
from flaskhost_backup.explain import explain
from flaskhost_backup.tools import Done

#: Seconds for a question about the catalog.
ASK_SECONDS = 30.0
#: Between the columns of an answer.
SEPARATOR = "\x1f"
#: The group of all session roles, which pg_hba.conf names.
GROUP = "flaskhost_session"
#: What the names of this process's session roles begin with.
_PREFIX = f"{GROUP}_{secrets.token_hex(4)}_"
_numbers = itertools.count(1)
#: What an owner can set for every session in a database, and ours must not depend on.
PINNED = {
    "search_path": "",
    "role": "none",
    "local_preload_libraries": "",
    "client_min_messages": "warning",
    "default_table_access_method": "heap",
    "default_tablespace": "",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "row_security": "off",
    "standard_conforming_strings": "on",
    "statement_timeout": "0",
}
#: What only a superuser may set: a password is in no log and in no statistics.
SUPERUSER = {
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "password_encryption": "scram-sha-256",
    "pg_stat_statements.track": "none",
    "session_preload_libraries": "",
}


@dataclass(frozen=True)
class Login:
    """One way into one database.

    Attributes:
        cluster: whose programs are used.
        socket: the folder of the server's socket.
        port: names the socket.
        role: who logs in.
        database: where.
        password: the role's; the superuser has none, and is known by its system user.
        settings: what is pinned beside :data:`PINNED`, or not at all when None.
    """

    cluster: Cluster
    socket: Path
    port: int
    role: str
    database: str = "postgres"
    password: str = ""
    settings: Mapping[str, str | None] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """The environment by which PostgreSQL's programs find their way."""
        pinned: dict[str, str | None] = {
            **PINNED,
            **({"transaction_timeout": "0"} if int(self.cluster.version) >= 17 else {}),
        }
        pinned |= {**(SUPERUSER if self.role == self.cluster.user else {}), **(self.settings or {})}
        return {
            "PGHOST": str(self.socket),
            "PGPORT": str(self.port),
            "PGUSER": self.role,
            "PGDATABASE": self.database,
            "PGCONNECT_TIMEOUT": "10",
            "PGAPPNAME": "flaskhost-backup",
            "PGCLIENTENCODING": "UTF8",
            "PGOPTIONS": " ".join(
                f"-c {name}={_escaped(value)}" for name, value in pinned.items() if value is not None
            ),
            **({"PGPASSWORD": self.password} if self.password else {}),
        }

    def program(self, name: str, *arguments: str, **options: Any) -> Done:
        """Run one of PostgreSQL's programs, such as pg_dump, as this role; the options are those of tools.run."""
        command: list[str | Path] = [self.cluster.bin / name, *arguments]
        return tools.run(command, user=self.cluster.user, env=self.variables, **options)

    def pinning(self, **settings: str | None) -> Login:
        """The same with other settings."""
        return replace(self, settings={**(self.settings or {}), **settings})

    def psql(self) -> list[str]:
        """The command that reads SQL from its standard input."""
        return [
            str(self.cluster.bin / "psql"),
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            f"--field-separator={SEPARATOR}",
            "--set=ON_ERROR_STOP=1",
        ]

    def run(self, sql: str, timeout: float | None = ASK_SECONDS) -> Done:
        """Run SQL, and hand back how it went."""
        return tools.run(self.psql(), user=self.cluster.user, env=self.variables, data=sql, timeout=timeout)

    def ask(self, sql: str, timeout: float | None = ASK_SECONDS) -> list[list[str]]:
        """Ask a question.

        Args:
            sql: what to ask.
            timeout: seconds.

        Returns:
            The rows of the answer.

        Raises:
            BackupError: PostgreSQL refuses, or does not run.
        """
        return [line.split(SEPARATOR) for line in self.ask_lines(sql, timeout)]

    def ask_lines(self, sql: str, timeout: float | None = ASK_SECONDS) -> list[str]:
        """The lines of an answer; a tenant's names may hold anything, and are asked for as JSON."""
        done = self.run(sql, timeout)
        if done.status:
            raise explain(done, f"PostgreSQL (database {self.database})")
        return [line for line in done.out.split("\n") if line]


class Session:
    """One connection that stays, for what has to be done in one transaction.

    Args:
        login: who connects, and where.
    """

    def __init__(self, login: Login) -> None:
        self.login = login
        # What ends an answer: nothing that a tenant could have put into it.
        self.mark = f"--flaskhost-end-{secrets.token_hex(8)}--"
        self.process = subprocess.Popen(  # noqa: S603 - no argument of anybody's
            [*tools.TOGETHER, *login.psql()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd="/",
            env=tools.environment(login.cluster.user, login.variables),
            **tools.identity(login.cluster.user),
        )

    def do(self, sql: str, timeout: float = ASK_SECONDS) -> list[str]:
        """Run SQL and wait for its answer.

        Args:
            sql: what to do.
            timeout: seconds after which the connection is ended.

        Returns:
            The lines of the answer.

        Raises:
            BackupError: PostgreSQL refuses; the connection has then ended.
        """
        stdin, stdout = _pipe(self.process.stdin), _pipe(self.process.stdout)
        lines: list[str] = []
        guard = threading.Timer(timeout, self.process.kill)
        guard.start()
        try:
            stdin.write(f"{sql}\n\\echo {self.mark}\n")
            stdin.flush()
            for line in stdout:
                if line.strip() == self.mark:
                    return [item for item in lines if item]
                lines.append(line.rstrip("\n"))
        except BrokenPipeError:
            lines = stdout.read().splitlines()
        finally:
            guard.cancel()
        raise explain(Done(3, "", "\n".join(lines)), f"PostgreSQL (database {self.login.database})")

    def close(self) -> None:
        """End the connection; what was not committed is undone."""
        self.process.kill()
        self.process.communicate()


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise BackupError("psql was started without its pipes.")
    return stream


def _escaped(value: str) -> str:
    """A value as PGOPTIONS has it."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def tenant(superuser: Login, database: str, *, reads_all: bool = False, also: Iterable[str] = ()) -> Iterator[Login]:
    """Have a session role for one database.

    It is a member of the database's owner and of the roles that own something in it and have no other rights: none that
    owns another database or something there, and none with an attribute or a group. The database of a superuser is only
    read.

    Args:
        superuser: connects to the database ``postgres``.
        database: which.
        reads_all: also what belongs to nobody of the tenant's; for a cluster that nobody else connects to.
        also: roles that are about to own something in it.

    Raises:
        BackupError: there is no such database, or PostgreSQL refuses.
    """
    mine = owners(superuser, database, also)
    groups = mine if mine and not reads_all else [*mine, "pg_read_all_data"]
    role, password = f"{_PREFIX}{next(_numbers)}", secrets.token_hex(24)
    # A member of the owner connects as such. A right of its own would be in every dump that is made meanwhile.
    connect = "" if mine else f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(role)};"
    until = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%d %H:%M:%S+00")
    _sweep(superuser)
    superuser.ask(
        f"CREATE ROLE {quoted(role)} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS"
        f" CONNECTION LIMIT 5 PASSWORD {literal(password)} VALID UNTIL {literal(until)}"
        f" IN ROLE {', '.join(quoted(name) for name in (GROUP, *groups))};"
        f" {connect}"
    )
    try:
        yield replace(superuser, role=role, password=password, database=database)
    finally:
        _drop(superuser, role)


def owners(superuser: Login, database: str, also: Iterable[str] = ()) -> list[str]:
    """The tenant's roles of a database, its owner first; none where it belongs to a superuser.

    Raises:
        BackupError: there is no such database.
    """
    names = ", ".join(literal(name) for name in also)
    owns = "s.deptype = 'o' AND s.refobjid = r.oid AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass"
    rows = superuser.ask(f"""
SELECT pg_catalog.json_build_array(r.rolname, r.rolsuper, r.oid = d.datdba)
FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba OR (
  NOT (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls)
  AND (r.rolname = ANY (ARRAY[{names}]::pg_catalog.text[])
    OR EXISTS (SELECT FROM pg_catalog.pg_shdepend s WHERE s.dbid = d.oid AND {owns}))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_database o ON o.oid = s.dbid
    WHERE o.datdba <> d.datdba AND {owns})
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_database o WHERE o.datdba = r.oid)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid))
WHERE d.datname = {literal(database)} ORDER BY r.oid = d.datdba DESC, r.rolname
""")  # noqa: S608 - quoted
    found = [json.loads(row[0]) for row in rows]
    if not found:
        raise BackupError(f"The database {database} does not exist.")
    return [] if found[0][1] else [item[0] for item in found]


def _sweep(superuser: Login) -> None:
    """Make the group, and drop the session roles of runs that were killed; one program runs at a time."""
    rows = superuser.ask(
        f"SELECT rolname FROM pg_catalog.pg_roles WHERE pg_catalog.starts_with(rolname, '{GROUP}')"  # noqa: S608
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE usename = rolname)"
    )
    found = {row[0] for row in rows}
    if GROUP not in found:
        superuser.ask(f"CREATE ROLE {GROUP} NOLOGIN")
    for name in found:
        if name.startswith(f"{GROUP}_") and not name.startswith(_PREFIX):
            _drop(superuser, name)


def _drop(superuser: Login, role: str) -> None:
    """Drop a session role. One that a tenant's code made own something stays, and cannot log in."""
    name = quoted(role)
    superuser.run(f"ALTER ROLE {name} NOLOGIN PASSWORD NULL; DROP OWNED BY {name}; DROP ROLE {name};")


def number(lines: list[str]) -> int:
    """The one number of an answer.

    Raises:
        BackupError: it is none.
    """
    with contextlib.suppress(ValueError, IndexError):
        return int(lines[0])
    raise BackupError("PostgreSQL did not return a number.")


def values(lines: list[str]) -> list[Any]:
    """The JSON values of an answer, one a line.

    Raises:
        BackupError: they are none.
    """
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        raise BackupError("PostgreSQL returned unexpected output.") from None
