"""PostgreSQL: questions to a cluster that runs, and scratch clusters that a backup is restored into."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ansible.module_utils.flaskhost.host import atomic

from flaskhost_backup import tools
from flaskhost_backup.config import BackupError, Cluster
from flaskhost_backup.explain import explain
from flaskhost_backup.sessions import ASK_SECONDS, GROUP, Login, literal, quoted, tenant
from flaskhost_backup.tools import Done

#: Names of the sockets of scratch clusters; nothing listens on the network.
BESIDE_PORT, DRILL_PORT, DATABASE_PORT = 5433, 5434, 5435


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
    def superuser(self) -> Login:
        """The superuser, in the database ``postgres``."""
        return Login(self.cluster, self.socket, self.port, self.cluster.user)

    def tenant(self, database: str, *, reads_all: bool = False) -> contextlib.AbstractContextManager[Login]:
        """Have a role of a database's tenant, for everything that touches objects of the tenant's."""
        return tenant(self.superuser, database, reads_all=reads_all)

    def run(self, sql: str, timeout: float | None = ASK_SECONDS) -> Done:
        """Run SQL as the superuser in the database ``postgres``, and hand back how it went."""
        return self.superuser.run(sql, timeout)

    def ask(self, sql: str, timeout: float | None = ASK_SECONDS) -> list[list[str]]:
        """Ask a question as the superuser in the database ``postgres``.

        Raises:
            BackupError: PostgreSQL refuses, or does not run.
        """
        return self.superuser.ask(sql, timeout)

    def runs(self) -> bool:
        """Whether it answers."""
        return not self.run("SELECT 1").status

    def databases(self) -> list[str]:
        """The databases that can be connected to, without the templates."""
        rows = self.ask(
            "SELECT pg_catalog.to_json(datname) FROM pg_catalog.pg_database"
            " WHERE datallowconn AND NOT datistemplate ORDER BY datname"
        )
        return [json.loads(row[0]) for row in rows]

    def open_databases(self) -> list[str]:
        """Those of them that others than a superuser can connect to."""
        closed = self.ask("SELECT pg_catalog.to_json(datname) FROM pg_catalog.pg_database WHERE datconnlimit = 0")
        return [name for name in self.databases() if [json.dumps(name, ensure_ascii=False)] not in closed]

    def add_amcheck(self, database: str, role: str) -> Done:
        """Put the functions that pg_amcheck calls into a database, and let a role call them.

        The script of the extension runs in the schema pg_catalog, where nobody else can have put anything.
        """
        script = f"""
CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA pg_catalog;
SELECT pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::pg_catalog.regprocedure, {literal(role)})
FROM pg_catalog.pg_proc p, pg_catalog.pg_depend d, pg_catalog.pg_extension e
WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
  AND d.refobjid = e.oid AND e.extname = 'amcheck' \\gexec
"""  # noqa: S608 - quoted
        return replace(self.superuser, database=database).run(script, 120.0)

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
                    f"PostgreSQL has not archived its WAL for {seconds:.0f} s. Nothing after the last archived "
                    "segment can be restored.",
                    "Find the cause: sudo journalctl -u 'postgresql@*' -n 30. Check the free space: df -h",
                )
            pause(0.25)
            waited += 0.25


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
        """Make its folders anew; what a run that was killed has left goes first.

        Its folder is root's, who writes its settings and its log there; postgres only reads them.
        """
        self.remove()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700)
        for path in (self.data, self.socket):
            tools.make_folder(path, self.cluster.user)
        self.folder.chmod(0o711)

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
        self._write("postgresql.conf", "# Created by flaskhost-backup.\n")
        self._write("pg_hba.conf", f"local all postgres peer\nlocal all +{GROUP} scram-sha-256\n")
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
                **tools.identity(self.cluster.user),
            )
        end = time.monotonic() + seconds
        while not self._ready():
            if process.poll() is not None:
                raise explain(Done(1, "", self.last_log()), "The restored cluster")
            if time.monotonic() > end:
                self.stop("immediate")
                raise BackupError(
                    f"The restored cluster did not finish its recovery within {seconds:.0f} s.",
                    f"See its log: {self.log}. For a large database, set a longer --timeout.",
                )
            pause(0.2)
        # Nobody else connects to it: a database that is kept closed is looked into here like the others.
        for name in self.server.databases():
            self.server.ask(f"ALTER DATABASE {quoted(name)} WITH CONNECTION LIMIT -1")

    def _ready(self) -> bool:
        done = self.server.run("SELECT pg_is_in_recovery()")
        return not done.status and done.out.strip() == "f"

    def _write(self, name: str, text: str) -> None:
        atomic.write(self.folder / name, text, mode=0o644)

    def _open_log(self) -> int:
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
            f"{what} needs {human(wanted)} in {path}, but only {human(there)} are free.",
            "Free some space: df -h. Copies of earlier restores are named *.before-*.",
        )


def human(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
