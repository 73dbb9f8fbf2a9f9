"""The configuration: /etc/flaskhost/backup.json, written by the role backup. It contains no secrets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.failures import Failure

#: The configuration file.
CONFIG = Path("/etc/flaskhost/backup.json")
#: pgBackRest's name of the cluster.
STANZA = "main"


class BackupError(Failure):
    """A failure of flaskhost-backup.

    Attributes:
        status: the program's exit status.
    """

    status = 1


class NotEnabled(BackupError):
    """This host has no backups, because no passphrase is set. It has its own exit status."""

    status = 3


#: Why nothing is backed up. The host only knows what site.yml has written, not the current inventory.
OFF = "There are no backups: backup.passphrase is not set, or site.yml has not run since it was."


@dataclass(frozen=True)
class Cluster:
    """The host's PostgreSQL cluster.

    Attributes:
        version: PostgreSQL's major version.
        data: its data folder.
        start: the command that starts it.
        stop: the command that stops it.
        name: Debian's name of the cluster.
        port: its port, which also names its socket.
        socket: the folder of its socket.
        user: the system user that it runs as, which is also the superuser.
        programs: the folder of its programs.
    """

    version: str
    data: Path
    start: tuple[str, ...]
    stop: tuple[str, ...]
    name: str = "main"
    port: int = 5432
    socket: Path = Path("/var/run/postgresql")
    user: str = "postgres"
    programs: Path = Path()

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return self.programs if self.programs != Path() else Path(f"/usr/lib/postgresql/{self.version}/bin")


@dataclass(frozen=True)
class App:
    """The parts of an app that matter for backups.

    Attributes:
        name: the app's name, and its database's.
        data: the folder with its uploads.
        units: patterns of its units, which are stopped while its data is restored.
        lock: the lock that its deploys hold.
        protected_folder: the folder in its data that the web server can read; empty for none.
        web_user: the web server's user.
    """

    name: str
    data: Path
    units: tuple[str, ...] = ()
    lock: Path | None = None
    protected_folder: str = ""
    web_user: str = "www-data"


@dataclass(frozen=True)
class Queue:
    """The queue of an app: an instance of Redis with its data on the disk.

    Attributes:
        app: the app's name.
        unit: its systemd unit.
        user: its system user.
        state: the folder of its data, which this user can write.
        socket: its socket.
        memory_mb: the memory limit of the instance.
    """

    app: str
    unit: str
    user: str
    state: Path
    socket: Path
    memory_mb: int


@dataclass(frozen=True)
class Config:
    """The settings and the paths.

    Attributes:
        host: the host's name in the inventory.
        cluster: its PostgreSQL cluster; None without PostgreSQL.
        apps: the apps whose data is on this host.
        queues: their queues.
        paths: additional files and folders to back up, including /etc/flaskhost.
        exclude: patterns of files to leave out.
        repository: the folder of the local repositories: postgres, files and records.
        second: restic's URL of the second repository; empty for none.
        second_options: restic's ``-o`` options for it.
        keep_days: days for which backups are kept.
        alert_hours: hours after which the last good backup is too old.
        drill_days: days after which the last good drill is too old.
        copy_minutes: minutes between two copies of the database's repository to the second one.
        hook: the command that reports problems, with its arguments.
        assertions: a query that must return true, by database.
        state: the folder of the program's state and of scratch clusters.
        secrets: the folder of the passphrase and the second repository's credentials, readable only for root.
        login: the second repository's login, as environment variables of restic. A run keeps the login it began with,
            because it also keeps the repository.
        pgbackrest: pgBackRest's configuration.
        cache: restic's cache.
        enabled: whether a passphrase is set. Without one, nothing is backed up.
    """

    host: str
    cluster: Cluster | None = None
    apps: tuple[App, ...] = ()
    queues: tuple[Queue, ...] = ()
    paths: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    repository: Path = Path("/var/backups/flaskhost")
    second: str = ""
    second_options: tuple[str, ...] = ()
    keep_days: int = 14
    alert_hours: int = 26
    drill_days: int = 8
    copy_minutes: int = 5
    hook: tuple[str, ...] = ()
    assertions: dict[str, str] = field(default_factory=dict)
    state: Path = Path("/var/lib/flaskhost/backup")
    secrets: Path = Path("/etc/flaskhost/backup")
    login: dict[str, str] = field(default_factory=dict, repr=False)
    pgbackrest: Path = Path("/etc/pgbackrest/pgbackrest.conf")
    cache: Path = Path("/var/cache/flaskhost-backup")
    enabled: bool = True

    @property
    def database_repository(self) -> Path:
        """pgBackRest's repository."""
        return self.repository / "postgres"

    @property
    def files_repository(self) -> Path:
        """restic's local repository."""
        return self.repository / "files"

    @property
    def records(self) -> Path:
        """The row counts of each backup; copied with the database's repository."""
        return self.repository / "records"

    def app(self, name: str) -> App:
        """Find an app.

        Raises:
            BackupError: the app does not exist.
        """
        for app in self.apps:
            if app.name == name:
                return app
        names = ", ".join(app.name for app in self.apps) or "none"
        raise BackupError(f"App {name!r} does not exist on this host.", f"Available: {names}.")

    def queue(self, app: str) -> Queue | None:
        """Return the queue of an app; None if it has none."""
        return next((queue for queue in self.queues if queue.app == app), None)

    def need_cluster(self) -> Cluster:
        """Return the cluster.

        Raises:
            BackupError: the host has no PostgreSQL.
        """
        if not self.cluster:
            raise BackupError("This host has no PostgreSQL.", "Run the command on the host of the group db.")
        return self.cluster


def need_enabled(config: Config) -> None:
    """Stop if the host has no backups.

    Raises:
        NotEnabled: no passphrase is set.
    """
    if not config.enabled:
        raise NotEnabled(OFF, "Set it if it is not set (docs/backup.md), then run site.yml.")


def parse(text: str) -> Config:
    """Parse a configuration.

    Args:
        text: a JSON object with the attributes of :class:`Config`; missing ones have their defaults.

    Raises:
        BackupError: the text is invalid.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        if values.get("cluster"):
            values["cluster"] = _cluster(values["cluster"])
        else:
            values["cluster"] = None
        values["apps"] = tuple(_app(item) for item in values.get("apps", []))
        values["queues"] = tuple(_queue(item) for item in values.get("queues", []))
        values["paths"] = tuple(Path(item) for item in values.get("paths", []))
        for name in ("exclude", "second_options", "hook"):
            values[name] = tuple(values.get(name, ()))
        for name in ("repository", "state", "secrets", "pgbackrest", "cache"):
            if name in values:
                values[name] = Path(values[name])
        return Config(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"The configuration {CONFIG} cannot be read ({type(error).__name__})."
        raise BackupError(reason, "Run site.yml again, which writes it.") from None


def load(path: Path = CONFIG) -> Config:
    """Read the configuration and the second repository's login from their files.

    Raises:
        BackupError: it does not exist, or cannot be read.
    """
    try:
        config = parse(path.read_text(encoding="utf-8"))
        return replace(config, login=_login(config.secrets / "environment.json"))
    except OSError as error:
        reason = f"The configuration {path} cannot be read: {error.strerror}."
        raise BackupError(reason, "Run site.yml, which writes it.") from None


def _login(path: Path) -> dict[str, str]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(value) for name, value in found.items()}
    except (FileNotFoundError, PermissionError, ValueError, AttributeError):
        return {}


def _cluster(item: dict[str, Any]) -> Cluster:
    values = {**item, "start": tuple(item["start"]), "stop": tuple(item["stop"])}
    for name in ("data", "socket", "programs"):
        if name in values:
            values[name] = Path(values[name])
    return Cluster(**values)


def _app(item: dict[str, Any]) -> App:
    lock = Path(item["lock"]) if item.get("lock") else None
    protected = {name: str(item[name]) for name in ("protected_folder", "web_user") if name in item}
    return App(item["name"], Path(item["data"]), tuple(item.get("units", ())), lock, **protected)


def _queue(item: dict[str, Any]) -> Queue:
    return Queue(**{**item, "state": Path(item["state"]), "socket": Path(item["socket"])})
