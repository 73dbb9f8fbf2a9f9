"""PostgreSQL: questions to a cluster that runs, and scratch clusters that a backup is restored into."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from flaskhost_backup import tools
from flaskhost_backup.config import BackupError, Cluster
from flaskhost_backup.explain import explain
from flaskhost_backup.tools import Done

#: Seconds for a question about the catalogue.
ASK_SECONDS = 30.0
#: Names of the sockets of scratch clusters; nothing listens on the network.
BESIDE_PORT, DRILL_PORT, DATABASE_PORT = 5433, 5434, 5435
#: Between the columns of an answer.
SEPARATOR = "\x1f"
#: What ends the answer of a session.
_MARK = "--flaskhost-end--"


class Server:
    """A cluster that runs, asked by its superuser over its local socket.

    Args:
        cluster: which.
        socket: the folder of its socket; the cluster's own when left out.
        port: its port; the cluster's own when left out.
    """

    def __init__(self, cluster: Cluster, socket: Path | None = None, port: int = 0) -> None:
        self.cluster = cluster
        self.socket, self.port = socket or cluster.socket, port or cluster.port

    @property
    def variables(self) -> dict[str, str]:
        """What PostgreSQL's programs are told of where it is."""
        return {
            "PGHOST": str(self.socket),
            "PGPORT": str(self.port),
            "PGUSER": self.cluster.user,
            "PGDATABASE": "postgres",
            "PGCONNECT_TIMEOUT": "10",
            "PGAPPNAME": "flaskhost-backup",
        }

    @property
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

    def run(self, sql: str, database: str = "postgres", timeout: float | None = ASK_SECONDS) -> Done:
        """Run SQL, and hand back how it went."""
        variables = {**self.variables, "PGDATABASE": database}
        return tools.run(self.psql, user=self.cluster.user, env=variables, data=sql, timeout=timeout)

    def ask(self, sql: str, database: str = "postgres", timeout: float | None = ASK_SECONDS) -> list[list[str]]:
        """Ask a question.

        Args:
            sql: what to ask.
            database: of which database.
            timeout: seconds.

        Returns:
            The rows of the answer.

        Raises:
            BackupError: PostgreSQL refuses, or does not run.
        """
        done = self.run(sql, database, timeout)
        if done.status:
            raise explain(done, f"PostgreSQL (database {database})")
        return [line.split(SEPARATOR) for line in done.out.splitlines() if line]

    def runs(self) -> bool:
        """Whether it answers."""
        return not self.run("SELECT 1").status

    def databases(self) -> list[str]:
        """The databases that can be connected to, without the templates."""
        rows = self.ask("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
        return [row[0] for row in rows]

    def point(self, name: str) -> tuple[str, int]:
        """Put a named point into the write-ahead log, to which a restore can go.

        Returns:
            Its position, and the timeline that it is on.
        """
        rows = self.ask(
            f"SELECT pg_create_restore_point({literal(name)}),"
            " ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
        )
        # So that it is in the repository at once, and not when the segment is full or archive_timeout has passed.
        self.ask("SELECT pg_switch_wal()")
        return rows[0][0], int(rows[0][1])

    def hand_over(self, seconds: float = 60.0, pause: Callable[[float], None] = time.sleep) -> str:
        """Let PostgreSQL begin a new segment of the write-ahead log, and wait until the old one is in the repository.

        Args:
            seconds: how long to wait.
            pause: waits some seconds; another one in tests.

        Returns:
            The name of that segment.

        Raises:
            BackupError: it does not arrive.
        """
        # pg_switch_wal() does nothing where nothing was written since; the position before it is what counts.
        segment = self.ask("SELECT pg_walfile_name(pg_switch_wal() - 1)")[0][0]
        waited = 0.0
        while True:
            rows = self.ask(
                "SELECT coalesce(last_archived_wal, ''), coalesce(last_failed_wal, '') FROM pg_stat_archiver"
            )
            if rows and rows[0][0][:24] >= segment:
                return segment
            if waited >= seconds:
                raise BackupError(
                    f"PostgreSQL has not handed over its write-ahead log for {seconds:.0f} s: nothing since the last "
                    "segment could be restored.",
                    "Look why: journalctl -u 'postgresql@*' -n 30; is the repository full (df -h)?",
                )
            pause(0.25)
            waited += 0.25


class Session:
    """One connection that stays, for what has to be done in one transaction.

    Args:
        server: the cluster.
        database: which of its databases.
    """

    def __init__(self, server: Server, database: str) -> None:
        self.server, self.database = server, database
        self.process = subprocess.Popen(  # noqa: S603 - no argument of anybody's
            [*tools.TOGETHER, *server.psql],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=tools.environment(server.cluster.user, {**server.variables, "PGDATABASE": database}),
            **tools.identity(server.cluster.user),  # type: ignore[call-overload]
        )

    def do(self, sql: str) -> list[list[str]]:
        """Run SQL and wait for its answer.

        Raises:
            BackupError: PostgreSQL refuses; the connection has then ended.
        """
        stdin, stdout = _pipe(self.process.stdin), _pipe(self.process.stdout)
        lines: list[str] = []
        try:
            stdin.write(f"{sql}\n\\echo {_MARK}\n")
            stdin.flush()
        except BrokenPipeError:
            lines = stdout.read().splitlines()
            raise self._refused(lines) from None
        for line in stdout:
            if line.strip() == _MARK:
                return [item.split(SEPARATOR) for item in lines if item]
            lines.append(line.rstrip("\n"))
        raise self._refused(lines)

    def _refused(self, lines: list[str]) -> BackupError:
        return explain(Done(3, "", "\n".join(lines)), f"PostgreSQL (database {self.database})")

    def close(self) -> None:
        """End the connection; what was not committed is undone."""
        self.process.kill()
        self.process.communicate()


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise BackupError("psql was started without its pipes.")
    return stream


class Scratch:
    """A cluster beside the real one, for a look or a test: it listens on a socket of its own and archives nothing.

    Args:
        cluster: the real one, whose programs it uses.
        folder: where it lives; below it ``data`` and ``socket``.
        port: names its socket; nothing listens on the network.
    """

    def __init__(self, cluster: Cluster, folder: Path, port: int) -> None:
        self.cluster, self.folder, self.port = cluster, folder, port
        self.data, self.socket = folder / "data", folder / "socket"
        self.log = folder / "postgresql.log"
        self.server = Server(cluster, self.socket, port)

    def make(self) -> None:
        """Make its folders anew; what a run that was killed has left goes first."""
        self.remove()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.folder, self.data, self.socket):
            path.mkdir(mode=0o700)
            shutil.chown(path, self.cluster.user, self.cluster.user)

    def settings(self) -> dict[str, str]:
        """What it is started with: nothing of the real one's that could reach beyond its own folder."""
        return {
            "config_file": str(self.folder / "postgresql.conf"),
            "hba_file": str(self.folder / "pg_hba.conf"),
            "ident_file": str(self.folder / "pg_ident.conf"),
            "data_directory": str(self.data),
            "external_pid_file": "",
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket),
            "unix_socket_permissions": "0700",
            "port": str(self.port),
            # Neither may a scratch cluster add to the real one's archive, nor be asked before it is ready.
            "archive_mode": "off",
            "archive_command": "",
            "archive_library": "",
            "hot_standby": "off",
            "primary_conninfo": "",
            "ssl": "off",
            "shared_preload_libraries": "",
            "shared_buffers": "32MB",
            "maintenance_work_mem": "64MB",
            "max_wal_size": "1GB",
            "huge_pages": "off",
            "jit": "off",
            "logging_collector": "off",
            "log_destination": "stderr",
            # What is thrown away need not outlast a power failure.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }

    def start(self, seconds: float, pause: Callable[[float], None] = time.sleep) -> None:
        """Start it, and wait until it has recovered and answers.

        Args:
            seconds: how long the recovery may take.
            pause: waits some seconds; another one in tests.

        Raises:
            BackupError: it does not start, with what its log says.
        """
        # Those that the archived settings must not overrule are arguments: the command line wins over everything.
        self._write("postgresql.conf", "# Made by flaskhost-backup.\n")
        self._write("pg_hba.conf", "local all postgres peer\n")
        self._write("pg_ident.conf", "")
        arguments = [item for name, value in self.settings().items() for item in ("-c", f"{name}={value}")]
        with os.fdopen(self._open_log(), "w", encoding="utf-8") as log:
            process = subprocess.Popen(  # noqa: S603 - no argument of anybody's
                [str(self.cluster.bin / "postgres"), "-D", str(self.data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env=tools.environment(self.cluster.user),
                umask=0o077,
                **tools.identity(self.cluster.user),  # type: ignore[call-overload]
            )
        end = time.monotonic() + seconds
        while not self._ready():
            if process.poll() is not None:
                raise explain(Done(1, "", self.last_log()), "The restored cluster")
            if time.monotonic() > end:
                self.stop("immediate")
                raise BackupError(
                    f"The restored cluster has not recovered for {seconds:.0f} s.",
                    f"Look at its log: {self.log}; a large database needs a longer --timeout.",
                )
            pause(0.2)

    def _ready(self) -> bool:
        done = self.server.run("SELECT pg_is_in_recovery()")
        return not done.status and done.out.strip() == "f"

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        shutil.chown(path, self.cluster.user, self.cluster.user)

    def _open_log(self) -> int:
        # Whoever is postgres owns the folder, and must not make root write through a link of theirs.
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)

    def last_log(self) -> str:
        """What its log says of why it ended."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "ERROR"))]
        return "\n".join((telling or lines)[-6:])

    def stop(self, mode: str = "fast") -> None:
        """Stop it; one that does not run is no failure."""
        if (self.data / "postmaster.pid").exists():
            tools.run(
                [self.cluster.bin / "pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", "120", "stop"],
                user=self.cluster.user,
            )

    def remove(self) -> None:
        """Stop it and delete it."""
        if not self.folder.exists():
            return
        self.stop("immediate")
        shutil.rmtree(self.folder)


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def control_data(cluster: Cluster, data: Path) -> dict[str, str]:
    """What ``pg_controldata`` says of a data folder; empty where there is none, or it cannot be read."""
    done = tools.run([cluster.bin / "pg_controldata", "-D", data], user=cluster.user, timeout=ASK_SECONDS)
    if done.status:
        return {}
    pairs = (line.split(":", 1) for line in done.out.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def system_identifier(cluster: Cluster, data: Path) -> str:
    """The system identifier of a data folder; empty where there is none."""
    return control_data(cluster, data).get("Database system identifier", "")


def free(path: Path) -> int:
    """Bytes that are free where a folder is, or would be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def need_room(path: Path, size: int, what: str) -> None:
    """See that something fits.

    Args:
        path: where it is to go.
        size: its bytes.
        what: what it is, for the message.

    Raises:
        BackupError: it does not.
    """
    there = free(path)
    wanted = int(size * 1.1) + 64 * 1024**2
    if there < wanted:
        raise BackupError(
            f"{what} needs {human(wanted)} below {path}, and {human(there)} are free.",
            "Make room: df -h; earlier safety copies are named *.before-*.",
        )


def human(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
