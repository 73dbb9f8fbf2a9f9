"""All connections to PostgreSQL: their roles and their settings. No other file starts PostgreSQL's clients.

The superuser connects only to the database ``postgres``, which no tenant owns. Work inside a tenant's database is done
by a session role: a role that exists only during the work, logs in with a random password, and is a member of the roles
that own that database and its objects. Code of the tenant that runs in such a session (a CHECK constraint, a view in
place of a table, an immutable function in an index, which even planning a query runs) has the rights that its author
already had, and cannot gain more: ``RESET ROLE`` leads to the session role itself. A superuser's ``SET ROLE`` would not
be a barrier. Neither would ``pg_read_all_data``, which can read the password hashes in ``pg_authid``.

The options of a connection take precedence over the settings of a database, which its owner controls.
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

#: Time limit for a query of the catalog in seconds.
ASK_SECONDS = 30.0
#: Maximum size of a result in characters: some 100,000 tables, with a margin.
LONGEST_RESULT = 64 * 1024**2
#: Separator of columns in a result.
SEPARATOR = "\x1f"
#: The group of all session roles, which is listed in pg_hba.conf.
GROUP = "flaskhost_session"
#: Prefix of the names of this process's session roles.
_PREFIX = f"{GROUP}_{secrets.token_hex(4)}_"
_numbers = itertools.count(1)
#: Settings that an owner can change for every session in a database, and that our sessions must not depend on.
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
#: Settings that only a superuser can change: they keep passwords out of logs and statistics.
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
    """The login of a role to a database.

    Attributes:
        cluster: the cluster whose programs are used.
        socket: the folder of the server's socket.
        port: the port in the name of the socket.
        role: the role that logs in.
        database: the database.
        password: the role's password; the superuser has none and is identified by its system user.
        settings: settings in addition to :data:`PINNED`; None removes one.
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
        """Return the environment variables for PostgreSQL's programs."""
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
        """Run one of PostgreSQL's programs, such as pg_dump, as this role, with the options of tools.run."""
        command: list[str | Path] = [self.cluster.bin / name, *arguments]
        return tools.run(command, user=self.cluster.user, env=self.variables, **options)

    def pinning(self, **settings: str | None) -> Login:
        """Return the same login with other settings."""
        return replace(self, settings={**(self.settings or {}), **settings})

    def psql(self) -> list[str]:
        """Return the command that reads SQL from standard input."""
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
        """Run SQL, and return the result."""
        return tools.run(self.psql(), user=self.cluster.user, env=self.variables, data=sql, timeout=timeout)

    def ask(self, sql: str, timeout: float | None = ASK_SECONDS) -> list[list[str]]:
        """Run a query.

        Args:
            sql: the query.
            timeout: time limit in seconds.

        Returns:
            The rows of the result.

        Raises:
            BackupError: PostgreSQL rejects it, or does not run.
        """
        return [line.split(SEPARATOR) for line in self.ask_lines(sql, timeout)]

    def ask_lines(self, sql: str, timeout: float | None = ASK_SECONDS) -> list[str]:
        """Run a query, and return its lines. Names of a tenant can contain anything, so query them as JSON."""
        done = self.run(sql, timeout)
        if done.status:
            raise explain(done, f"PostgreSQL (database {self.database})")
        return [line for line in done.out.split("\n") if line]


class Session:
    """A permanent connection, for work in one transaction.

    Args:
        login: the login.
    """

    def __init__(self, login: Login) -> None:
        self.login = login
        # Marks the end of a result. A tenant cannot guess it.
        self.mark = f"--flaskhost-end-{secrets.token_hex(8)}--"
        self.process = subprocess.Popen(
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
        """Run SQL and wait for its result.

        Args:
            sql: the statements.
            timeout: seconds after which the connection is closed.

        Returns:
            The lines of the result.

        Raises:
            BackupError: PostgreSQL rejects a statement; the connection is closed then.
        """
        stdin, stdout = _pipe(self.process.stdin), _pipe(self.process.stdout)
        lines: list[str] = []
        size = 0
        guard = threading.Timer(timeout, self.process.kill)
        guard.start()
        try:
            stdin.write(f"{sql}\n\\echo {self.mark}\n")
            stdin.flush()
            while line := stdout.readline(LONGEST_RESULT):
                if line.strip() == self.mark:
                    return [item for item in lines if item]
                lines.append(line.rstrip("\n"))
                size += len(line)
                if size > LONGEST_RESULT:
                    # RAISE WARNING in a tenant's function, for example. Only the end explains anything.
                    self.process.kill()
                    lines = lines[-10:] if len(line) < LONGEST_RESULT else []
                    lines.append(f"The result has more than {LONGEST_RESULT // 1024**2} MB.")
                    break
        except BrokenPipeError:
            lines = stdout.read(LONGEST_RESULT).splitlines()
        finally:
            guard.cancel()
        raise explain(Done(3, "", "\n".join(lines)), f"PostgreSQL (database {self.login.database})")

    def close(self) -> None:
        """Close the connection. Uncommitted changes are rolled back."""
        self.process.kill()
        self.process.communicate()


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise BackupError("psql was started without its pipes.")
    return stream


def _escaped(value: str) -> str:
    """Escape a value for PGOPTIONS."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def literal(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def tenant(superuser: Login, database: str, *, reads_all: bool = False, also: Iterable[str] = ()) -> Iterator[Login]:
    """Create a session role for a database, and drop it afterwards.

    It is a member of the database's owner and of the roles that own objects in it, unless such a role has other rights:
    owns another database or objects there, has a special attribute, or is a member of a group. The database of a
    superuser is only read.

    Args:
        superuser: connects to the database ``postgres``.
        database: the database.
        reads_all: whether it can read objects that do not belong to the tenant; only for a cluster without other
            clients.
        also: roles that will own objects in it.

    Raises:
        BackupError: the database does not exist, or PostgreSQL rejects a statement.
    """
    mine = owners(superuser, database, also)
    groups = mine if mine and not reads_all else [*mine, "pg_read_all_data"]
    role, password = f"{_PREFIX}{next(_numbers)}", secrets.token_hex(24)
    # A member of the owner can connect. Its own privilege would be in every dump that is created meanwhile.
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
    """Return the tenant's roles of a database, its owner first; none if it belongs to a superuser.

    Raises:
        BackupError: the database does not exist.
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
    """Create the group, and drop the session roles of killed runs. Only one run works at a time."""
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
    """Drop a session role. If a tenant's code made it the owner of an object, it stays without a login."""
    name = quoted(role)
    superuser.run(f"ALTER ROLE {name} NOLOGIN PASSWORD NULL; DROP OWNED BY {name}; DROP ROLE {name};")


def number(lines: list[str]) -> int:
    """Return the single number in a result.

    Raises:
        BackupError: the result is not a number.
    """
    with contextlib.suppress(ValueError, IndexError):
        return int(lines[0])
    raise BackupError("PostgreSQL did not return a number.")


def values(lines: list[str]) -> list[Any]:
    """Parse the JSON values of a result, one per line.

    Raises:
        BackupError: the result is not JSON.
    """
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        raise BackupError("PostgreSQL returned unexpected output.") from None
