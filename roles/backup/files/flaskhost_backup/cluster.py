"""PostgreSQL: queries to a running cluster, and scratch clusters into which a backup is restored."""

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

#: Ports of scratch clusters. They only name the sockets: nothing listens on the network.
BESIDE_PORT, DRILL_PORT, DATABASE_PORT = 5433, 5434, 5435


class Server:
    """A running cluster, queried as its superuser over its local socket.

    Args:
        cluster: the cluster.
        socket: the folder of its socket; the cluster's own by default.
        port: its port; the cluster's own by default.
    """

    def __init__(self, cluster: Cluster, socket: Path | None = None, port: int = 0) -> None:
        self.cluster = cluster
        self.socket, self.port = socket or cluster.socket, port or cluster.port

    @property
    def superuser(self) -> Login:
        """The superuser, in the database ``postgres``."""
        return Login(self.cluster, self.socket, self.port, self.cluster.user)

    def tenant(self, database: str, *, reads_all: bool = False) -> contextlib.AbstractContextManager[Login]:
        """Create a session role of a database's tenant, for all work on the tenant's objects."""
        return tenant(self.superuser, database, reads_all=reads_all)

    def run(self, sql: str, timeout: float | None = ASK_SECONDS) -> Done:
        """Run SQL as the superuser in the database ``postgres``, and return the result."""
        return self.superuser.run(sql, timeout)

    def ask(self, sql: str, timeout: float | None = ASK_SECONDS) -> list[list[str]]:
        """Run a query as the superuser in the database ``postgres``.

        Raises:
            BackupError: PostgreSQL rejects it, or does not run.
        """
        return self.superuser.ask(sql, timeout)

    def runs(self) -> bool:
        """Return whether it responds."""
        return not self.run("SELECT 1").status

    def databases(self) -> list[str]:
        """List the databases that accept connections, without templates."""
        rows = self.ask(
            "SELECT pg_catalog.to_json(datname) FROM pg_catalog.pg_database"
            " WHERE datallowconn AND NOT datistemplate ORDER BY datname"
        )
        return [json.loads(row[0]) for row in rows]

    def open_databases(self) -> list[str]:
        """List the databases to which other roles than a superuser can connect."""
        closed = self.ask("SELECT pg_catalog.to_json(datname) FROM pg_catalog.pg_database WHERE datconnlimit = 0")
        return [name for name in self.databases() if [json.dumps(name, ensure_ascii=False)] not in closed]

    def add_amcheck(self, database: str, role: str) -> Done:
        """Install the functions that pg_amcheck calls in a database, and let a role call them.

        The extension's script runs in the schema pg_catalog, which no other role can write.
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
        """Create a named restore point in the WAL.

        Returns:
            Its position and its timeline.
        """
        rows = self.ask(
            f"SELECT pg_create_restore_point({literal(name)}),"
            " ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
        )
        # Archive it immediately, not only once the segment is full or archive_timeout has passed.
        self.ask("SELECT pg_switch_wal()")
        return rows[0][0], int(rows[0][1])

    def hand_over(self, seconds: float = 60.0, pause: Callable[[float], None] = time.sleep) -> str:
        """Switch to a new WAL segment, and wait until the previous one is archived in the repository.

        Args:
            seconds: maximum time to wait.
            pause: sleeps for a number of seconds; replaced in tests.

        Returns:
            The name of the archived segment.

        Raises:
            BackupError: it is not archived in time.
        """
        # pg_switch_wal() does nothing if nothing was written since the last switch, so use the position before it.
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
    """A separate cluster for inspection or a test. It has its own socket and archives nothing.

    Args:
        cluster: the real cluster, whose programs it uses.
        folder: its folder, with ``data`` and ``socket`` in it.
        port: the port in the name of its socket; nothing listens on the network.
    """

    def __init__(self, cluster: Cluster, folder: Path, port: int) -> None:
        self.cluster, self.folder, self.port = cluster, folder, port
        self.data, self.socket = folder / "data", folder / "socket"
        self.log = folder / "postgresql.log"
        self.server = Server(cluster, self.socket, port)

    def make(self) -> None:
        """Create its folders, after deleting what a killed run left behind.

        Its folder belongs to root, who writes its settings and its log there. The user postgres only reads them.
        """
        self.remove()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700)
        for path in (self.data, self.socket):
            tools.make_folder(path, self.cluster.user)
        self.folder.chmod(0o711)

    def settings(self) -> dict[str, str]:
        """Return the settings to start it with. No setting of the real cluster can reach beyond the scratch folder."""
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
            # A scratch cluster must not write to the real archive, and accepts no connections before it is ready.
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
            # The data is temporary, so it does not have to survive a power failure.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }

    def start(self, seconds: float, pause: Callable[[float], None] = time.sleep) -> None:
        """Start it, and wait until it has recovered and responds.

        Args:
            seconds: time limit of the recovery.
            pause: sleeps for a number of seconds; replaced in tests.

        Raises:
            BackupError: it does not start; the message quotes its log.
        """
        # Passed as arguments, because the command line overrides all settings in the restored files.
        self._write("postgresql.conf", "# Created by flaskhost-backup.\n")
        self._write("pg_hba.conf", f"local all postgres peer\nlocal all +{GROUP} scram-sha-256\n")
        self._write("pg_ident.conf", "")
        arguments = [item for name, value in self.settings().items() for item in ("-c", f"{name}={value}")]
        with os.fdopen(self._open_log(), "w", encoding="utf-8") as log:
            process = subprocess.Popen(
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
        # No other client connects, so closed databases can be opened here for the checks.
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
        """Return the lines of its log that explain why it ended."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "ERROR"))]
        return "\n".join((telling or lines)[-6:])

    def stop(self, mode: str = "fast") -> None:
        """Stop it, if it runs."""
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
    """Return the output of ``pg_controldata`` for a data folder; empty if it does not exist or cannot be read."""
    done = tools.run([cluster.bin / "pg_controldata", "-D", data], user=cluster.user, timeout=ASK_SECONDS)
    if done.status:
        return {}
    pairs = (line.split(":", 1) for line in done.out.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def system_identifier(cluster: Cluster, data: Path) -> str:
    """Return the system identifier of a data folder; empty if it has none."""
    return control_data(cluster, data).get("Database system identifier", "")


def free(path: Path) -> int:
    """Return the free bytes of the disk on which a folder is, or would be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def need_room(path: Path, size: int, what: str) -> None:
    """Check that a disk has enough free space.

    Args:
        path: the target folder.
        size: the needed bytes.
        what: the data, for the message.

    Raises:
        BackupError: there is not enough space.
    """
    there = free(path)
    wanted = int(size * 1.1) + 64 * 1024**2
    if there < wanted:
        raise BackupError(
            f"{what} needs {human(wanted)} in {path}, but only {human(there)} are free.",
            "Free some space: df -h. Copies of earlier restores are named *.before-*.",
        )


def human(size: float) -> str:
    """Format a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
