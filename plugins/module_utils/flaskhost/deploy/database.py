"""A deploy's access to the app's PostgreSQL: the lock of the release command, the schema's revision, and the time."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible.module_utils.flaskhost.apps.names import POOL_PORT
from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.command import end_of
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError, tail

#: Time limit for a connection, and for a catalog query, in seconds.
TIMEOUT = 10
#: Functions and operators are PostgreSQL's own. An app can put its own ones before these for its role.
_PATH = "SET search_path = pg_catalog;\n"
#: Maximum number of characters that are kept while waiting for the lock.
_LONGEST_ANSWER = 10_000
#: The parts of a connection URL and their libpq environment variables.
_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "channel_binding": "PGCHANNELBINDING",
    "options": "PGOPTIONS",
}
#: Maximum number of bytes that are read from a migration; its revision is near the beginning.
_LONGEST_REVISION = 256 * 1024
_REVISION = re.compile(r"""^revision\s*(?::\s*\w+\s*)?=\s*['"]([^'"]+)['"]""", re.MULTILINE)


def connection_variables(url: str) -> dict[str, str]:
    """Return the environment variables with which libpq connects to a URL, so that no argument contains the password.

    Args:
        url: such as ``postgresql://shop@/shop?host=/var/run/postgresql``.

    Returns:
        ``PGHOST`` and so on; empty if the URL is not a PostgreSQL URL.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = str(parts.port or "")
    except ValueError:
        # No error message: it would contain the password.
        return {}
    if not re.fullmatch(r"postgres(?:ql)?(?:\+\w+)?", parts.scheme):
        return {}
    found = {
        "user": urllib.parse.unquote(parts.username or ""),
        "password": urllib.parse.unquote(parts.password or ""),
        "host": urllib.parse.unquote(parts.hostname or ""),
        "port": port,
        "dbname": urllib.parse.unquote(parts.path.removeprefix("/")),
        **dict(urllib.parse.parse_qsl(parts.query)),
    }
    return {_VARIABLES[name]: value for name, value in found.items() if value and name in _VARIABLES}


def known_revisions(app_dir: Path) -> set[str]:
    """Read the Alembic (Flask-Migrate) revisions in a release's code without running the code.

    Links are not followed: one can lead to the app's data, where a pipe without a writer or an endless file would
    block.
    """
    found: set[str] = set()
    for root, _directories, files, here in os.fwalk(os.path.realpath(app_dir), follow_symlinks=False):
        if Path(root).name != "versions":
            continue
        for name in (item for item in files if item.endswith(".py")):
            with suppress(OSError), tree.regular_file(name, here) as file, open(file, "rb", closefd=False) as stream:
                found.update(_REVISION.findall(stream.read(_LONGEST_REVISION).decode("utf-8", "replace")))
    return found


class Unanswered(Exception):
    """The database query failed. The message is PostgreSQL's own and contains no password."""


class Database:
    """The database of one app, queried as the app's own user.

    Args:
        url: the app's ``DATABASE_URL``; if empty or not PostgreSQL, nothing is queried.
        user: the app's system user, which PostgreSQL accepts on its local socket.
        app: the app's name, which is part of the lock's key.
        psql: the client with its command prefix; detected if None.
    """

    def __init__(self, url: str, user: str, app: str, psql: list[str] | None = None) -> None:
        self.variables, self.app = connection_variables(url), app
        if self.variables.get("PGPORT") == str(POOL_PORT) and self.variables.get("PGHOST", "").startswith("/"):
            # Each transaction in PgBouncer can use another server connection. The one that holds the lock would go to
            # another client.
            del self.variables["PGPORT"]
        # Whether the app uses PostgreSQL, even if its URL cannot be parsed here.
        self.meant = bool(self.variables) or url.startswith("postgres")
        client = shutil.which("psql")
        prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
        self.command = psql or ([*prefix, client] if client else [])
        # The first bytes of a digest, because the key of an advisory lock is a 64-bit integer.
        self.key = int.from_bytes(hashlib.sha256(f"flaskhost {app}".encode()).digest()[:8], signed=True)

    @property
    def there(self) -> bool:
        """Whether PostgreSQL can be queried: the URL is valid, and a client is installed."""
        return bool(self.variables and self.command)

    def _start(self, who: str, errors: int = subprocess.STDOUT) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"],
            env={
                "PATH": "/usr/bin:/bin",
                "LC_ALL": "C.UTF-8",
                "PGCONNECT_TIMEOUT": str(TIMEOUT),
                "PGAPPNAME": f"flaskhost {who}"[:63],
                **self.variables,
            },
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def revision(self) -> str:
        """Read the revision of the schema from Alembic's table.

        Returns:
            The revision, with several heads separated by commas; empty if Alembic recorded none, or if the app does not
            use PostgreSQL.

        Raises:
            Unanswered: the app uses PostgreSQL, but the query failed.
        """
        question = (
            "SELECT CASE WHEN to_regclass('alembic_version') IS NULL THEN 'SELECT NULL WHERE false'"
            # Alembic has a row for each branch.
            " ELSE 'SELECT left(version_num::text, 100) FROM alembic_version ORDER BY 1 LIMIT 20' END \\gexec\n"
        )
        # The table is in a schema of the app's choice. All other queries see only PostgreSQL's own functions.
        return ",".join(self._ask("reads the schema revision", question, path="").split())

    def time(self) -> str:
        """Read the time from the database server's clock, which point-in-time recovery uses.

        Returns:
            UTC, such as ``2026-11-21T10:15:00.123456``; empty if the app does not use PostgreSQL.

        Raises:
            Unanswered: the app uses PostgreSQL, but the query failed.
        """
        question = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US');\n"
        return self._ask("reads the time", question).strip()

    def has_tables(self) -> bool:
        """Check whether the database has tables or views, other than those of extensions.

        Returns:
            False also if the app does not use PostgreSQL.

        Raises:
            Unanswered: the app uses PostgreSQL, but the query failed.
        """
        question = (
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p', 'm', 'f', 'v')"
            " AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
            " AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d"
            " WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'));\n"
        )
        return self._ask("looks for tables", question).strip() == "t"

    def identity(self) -> str:
        """Return what tells this database from one that a restore puts in its place: the cluster's ID and its own.

        Returns:
            Two numbers; empty if the app does not use PostgreSQL.

        Raises:
            Unanswered: the app uses PostgreSQL, but the query failed.
        """
        question = (
            "SELECT s.system_identifier, d.oid FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d"
            " WHERE d.datname = pg_catalog.current_database();\n"
        )
        return self._ask("reads the database's identity", question).strip()

    def _ask(self, who: str, question: str, path: str = _PATH) -> str:
        """Run one query; the result is empty if the app does not use PostgreSQL.

        Everything in the database is the app's, so time and memory are limited.
        """
        if not self.meant:
            return ""
        if not self.there:
            raise Unanswered("psql is not installed" if self.variables else "psql does not understand its URL")
        # Keep warnings out of the result, such as PostgreSQL's warning about an updated collation.
        request = f"{path}SET statement_timeout = '{TIMEOUT}s';\n{question}"
        kept = bytearray()
        with end_of(kept) as errors:
            process = self._start(who, errors=errors)
            try:
                out, _ = process.communicate(request, timeout=3 * TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise Unanswered(f"no response within {3 * TIMEOUT} s") from None
        if process.returncode:
            raise Unanswered(f"PostgreSQL reports: {tail(kept.decode('utf-8', 'replace'), 3) or 'nothing'}")
        return out

    @contextmanager
    def lock(self, who: str, timeout: int) -> Iterator[None]:
        """Hold the app's advisory lock: among all hosts that share the database, one release command runs at a time.

        PostgreSQL releases the lock when the connection ends, and the connection ends with this process.

        Args:
            who: shown in ``pg_stat_activity``, for anyone who waits for the lock.
            timeout: seconds to wait for the lock.

        Raises:
            ReleaseError: another session holds the lock, or the database does not respond.
        """
        if not self.there:
            yield
            return
        process = self._start(who)
        request = f"{_PATH}SET lock_timeout = '{timeout}s';\nSELECT pg_advisory_lock({self.key});\n\\echo locked\n"
        # The server's own limit applies to the lock only.
        guard = threading.Timer(timeout + 3 * TIMEOUT, process.kill)
        guard.start()
        try:
            if process.stdin:
                with suppress(BrokenPipeError):
                    process.stdin.write(request)
                    process.stdin.flush()
            answer = ""
            for line in process.stdout or ():
                if line.strip() == "locked":
                    break
                answer = (answer + line)[-_LONGEST_ANSWER:]
            else:
                raise ReleaseError("Lock the database", *_refusal(answer, timeout))
            guard.cancel()
            yield
        finally:
            guard.cancel()
            process.kill()
            process.communicate()


def _refusal(answer: str, timeout: int) -> tuple[str, str]:
    if "lock timeout" in answer:
        return (
            f"another deploy has been running its release command for more than {timeout} s.",
            f"Wait until that deploy has finished, then run the same command again. {STILL}",
        )
    return (
        f"PostgreSQL reports: {tail(answer, 3)}",
        f"Check that the database runs and accepts the app's login: systemctl status postgresql. {STILL}",
    )


def limited(command: str, lock_timeout: int, statement_timeout: int) -> list[str]:
    """Set time limits for every connection of a release command, if its driver uses libpq.

    While a migration waits for a lock, all later queries of the app on that table wait behind it. The migration must
    give up first.

    Args:
        command: the shell command.
        lock_timeout: seconds that a statement can wait for a lock.
        statement_timeout: seconds that a statement can take.

    Returns:
        The program and its arguments. The release's own ``PGOPTIONS`` come last and take precedence.
    """
    options = f"-c lock_timeout={lock_timeout}s -c statement_timeout={statement_timeout}s"
    # A shell reads the release's own PGOPTIONS from its environment: in systemd, the release's environment file
    # overrides variables that are set directly (systemd.exec(5), EnvironmentFile), and no argument must contain a
    # secret.
    script = 'export PGOPTIONS="$1${PGOPTIONS:+ $PGOPTIONS}"; exec /bin/sh -c "$2"'
    return ["/bin/sh", "-c", script, "sh", options, command]


def rights_hint(said: str) -> str:
    """Return a hint if an app failed because its database role lacks privileges; empty if it failed for another reason.

    Args:
        said: the app's output.
    """
    if not re.search(r"permission denied for (?:schema|table|relation|database)|must be owner of", said):
        return ""
    return (
        "\nThe app's role can only read and write rows. The release command creates the tables, as their owner. If the "
        "app creates tables itself, or if its release command logs in with other variables, set database_owner: true."
    )


def schema_problem(database_revision: str, known: set[str], noted: str) -> str:
    """Explain why a release cannot work with the current schema of the database.

    Args:
        database_revision: the revisions in the database, separated by commas; empty if there are none.
        known: the revisions in the release's code.
        noted: the revision after the release was deployed, from its record.

    Returns:
        A sentence; empty if there is no problem.
    """
    there = {item for item in database_revision.split(",") if item}
    unknown = sorted(there - known - set(noted.split(",")))
    if not unknown:
        return ""
    return f"the database's schema is at revision {', '.join(unknown)}, which this release does not know."
