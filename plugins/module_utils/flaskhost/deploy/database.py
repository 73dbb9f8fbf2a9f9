"""What a deploy asks of the app's PostgreSQL: the lock of the release command, the schema's revision, and the time."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.runner import ReleaseError, tail

#: The port after which PgBouncer's local socket is named, of which every transaction may be another connection.
POOL_PORT = "6432"
#: Seconds to connect and to answer a question about the catalogue.
TIMEOUT = 10
#: The parts of a connection URL by the names that libpq has for them in the environment.
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
#: Bytes of a migration that are read; its revision stands at the beginning.
_LONGEST_REVISION = 256 * 1024
_REVISION = re.compile(r"""^revision\s*(?::\s*\w+\s*)?=\s*['"]([^'"]+)['"]""", re.MULTILINE)


def connection_variables(url: str) -> dict[str, str]:
    """The environment by which libpq reaches the database of a URL; a password is then in no argument.

    Args:
        url: such as ``postgresql://shop@/shop?host=/var/run/postgresql``.

    Returns:
        ``PGHOST`` and so on; empty where the URL is none of PostgreSQL's.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = str(parts.port or "")
    except ValueError:
        # No word of it: it holds a password.
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
    """The revisions of Alembic (Flask-Migrate) that a release's code has, read without running it.

    No link is followed: behind one may be the app's data, with a pipe that nobody writes to, or a file without end.
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
    """The database could not be asked; the text says why, in words of PostgreSQL's, which name no password."""


class Database:
    """The database of one app, asked as the app's own user.

    Args:
        url: the app's ``DATABASE_URL``; empty or another kind of database: then nothing is asked.
        user: the app's system user, whom PostgreSQL lets in over its local socket.
        app: the app's name; the lock is named after it.
        psql: the client and what comes before its name; found when empty.
    """

    def __init__(self, url: str, user: str, app: str, psql: list[str] | None = None) -> None:
        self.variables, self.app = connection_variables(url), app
        if self.variables.get("PGPORT") == POOL_PORT and self.variables.get("PGHOST", "").startswith("/"):
            # By way of PgBouncer a lock would be held by a connection that the next one gets.
            del self.variables["PGPORT"]
        # Whether there should be one to ask, even where its URL is not to be understood here.
        self.meant = bool(self.variables) or url.startswith("postgres")
        client = shutil.which("psql")
        prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
        self.command = psql or ([*prefix, client] if client else [])
        # The first bytes of a digest: the key of an advisory lock is a 64-bit number.
        self.key = int.from_bytes(hashlib.sha256(f"flaskhost {app}".encode()).digest()[:8], signed=True)

    @property
    def there(self) -> bool:
        """Whether there is a PostgreSQL to ask, and a client to ask it with."""
        return bool(self.variables and self.command)

    def _start(self, who: str, errors: int | IO[str] = subprocess.STDOUT) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603 - no argument of anybody's
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
        """The revision of the schema as Alembic has noted it.

        Returns:
            The revision, several heads with commas; empty where Alembic has noted none, or there is no PostgreSQL.

        Raises:
            Unanswered: there should be a PostgreSQL, and it could not be asked.
        """
        question = (
            "SELECT CASE WHEN to_regclass('alembic_version') IS NULL THEN 'SELECT NULL WHERE false'"
            " ELSE 'SELECT version_num FROM alembic_version ORDER BY 1' END \\gexec\n"
        )
        return ",".join(self._ask("asks for the schema", question).split())

    def time(self) -> str:
        """The time by the database's own clock, which a restore to a time goes by.

        Returns:
            UTC, such as ``2026-11-21T10:15:00.123456``; empty where there is no PostgreSQL.

        Raises:
            Unanswered: there should be a PostgreSQL, and it could not be asked.
        """
        question = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US');\n"
        return self._ask("asks for the time", question).strip()

    def _ask(self, who: str, question: str) -> str:
        """Ask one question; the answer is empty where there is no PostgreSQL."""
        if not self.meant:
            return ""
        if not self.there:
            raise Unanswered("psql is not installed" if self.variables else "its URL is none that psql understands")
        # Not among the answers: PostgreSQL warns of a collation that was updated, for instance.
        process = self._start(who, errors=subprocess.PIPE)
        try:
            out, err = process.communicate(f"SET statement_timeout = '{TIMEOUT}s';\n{question}", timeout=3 * TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Unanswered(f"it has not answered for {3 * TIMEOUT} s") from None
        if process.returncode:
            raise Unanswered(f"PostgreSQL says: {tail(err, 3) or 'nothing'}")
        return out

    @contextmanager
    def lock(self, who: str, timeout: int) -> Iterator[None]:
        """Hold the app's advisory lock: on all hosts that share the database one release command runs at a time.

        PostgreSQL lets go of it when the connection ends, and the connection ends with this process.

        Args:
            who: named in ``pg_stat_activity``, for whoever has to wait.
            timeout: seconds to wait for it.

        Raises:
            ReleaseError: another one holds it, or the database does not answer.
        """
        if not self.there:
            yield
            return
        process = self._start(who)
        request = f"SET lock_timeout = '{timeout}s';\nSELECT pg_advisory_lock({self.key});\n\\echo locked\n"
        try:
            if process.stdin:
                with suppress(BrokenPipeError):
                    process.stdin.write(request)
                    process.stdin.flush()
            answer = ""
            for line in process.stdout or ():
                if line.strip() == "locked":
                    break
                answer += line
            else:
                raise ReleaseError("Lock the database", *_refusal(answer, timeout))
            yield
        finally:
            process.kill()
            process.communicate()


def _refusal(answer: str, timeout: int) -> tuple[str, str]:
    if "lock timeout" in answer:
        return (
            f"another deploy has been running its release command for more than {timeout} s.",
            "Wait until it has ended, then run the same command again. What served before still serves.",
        )
    return (
        f"PostgreSQL says: {tail(answer, 3)}",
        "See that the database runs and lets the app in: systemctl status postgresql. What served before still serves.",
    )


def limited(command: str, lock_timeout: int, statement_timeout: int) -> list[str]:
    """Give every connection of a release command time limits, where its driver is libpq's.

    A migration that waits for a lock makes every later query of the app wait behind it: it has to give up first.

    Args:
        command: the command, for a shell to read.
        lock_timeout: seconds that a statement may wait for a lock.
        statement_timeout: seconds that a statement may take.

    Returns:
        The program and its arguments. What the release's own ``PGOPTIONS`` says comes last, and wins.
    """
    options = f"-c lock_timeout={lock_timeout}s -c statement_timeout={statement_timeout}s"
    # By the shell, which finds the release's own in its environment: systemd lets the release's file win over what is
    # set beside it (systemd.exec(5), EnvironmentFile), and what may be a secret is to be in no argument.
    script = 'export PGOPTIONS="$1${PGOPTIONS:+ $PGOPTIONS}"; exec /bin/sh -c "$2"'
    return ["/bin/sh", "-c", script, "sh", options, command]


def rights_hint(said: str) -> str:
    """What to do where an app may not do to its tables what it tries; empty where it has failed for another reason.

    Args:
        said: what the app has said.
    """
    if not re.search(r"permission denied for (?:schema|table|relation|database)|must be owner of", said):
        return ""
    return (
        "\nThe app's role reads and writes rows; tables are made by the release command, as the owner. An app that "
        "makes them itself, or whose release command logs in by variables of its own, needs database_owner: true."
    )


def schema_problem(database_revision: str, known: set[str], noted: str) -> str:
    """Say why a release cannot work with the schema that the database has.

    Args:
        database_revision: the revisions in the database, joined by commas; empty where there is none.
        known: the revisions that the release's code has.
        noted: what the release itself left in the database when it was deployed.

    Returns:
        A sentence; empty when nothing speaks against it.
    """
    there = {item for item in database_revision.split(",") if item}
    unknown = sorted(there - known - set(noted.split(",")))
    if not unknown:
        return ""
    return f"the database's schema is at revision {', '.join(unknown)}, which this release does not know."
