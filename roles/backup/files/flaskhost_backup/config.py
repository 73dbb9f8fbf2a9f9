"""What the program is told: /etc/flaskhost/backup.json, written by the role backup. No secret is in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.failures import Failure

#: The configuration.
CONFIG = Path("/etc/flaskhost/backup.json")
#: What pgBackRest calls the cluster.
STANZA = "main"


class BackupError(Failure):
    """A failure of flaskhost-backup.

    Attributes:
        status: the program's exit status.
    """

    status = 1


class NotEnabled(BackupError):
    """There are no backups on this host, since nobody has set a passphrase. It has an exit status of its own."""

    status = 3


#: Why nothing is backed up. The host knows what site.yml has written, and not what the inventory holds now.
OFF = "There are no backups: backup.passphrase is not set, or site.yml has not run since it was."


@dataclass(frozen=True)
class Cluster:
    """The host's PostgreSQL cluster.

    Attributes:
        version: PostgreSQL's major version.
        data: its data folder.
        start: the command that starts it.
        stop: the command that stops it.
        name: Debian's name of it.
        port: its port, which also names its socket.
        socket: the folder of its socket.
        user: the system user that it runs as, and its superuser.
        programs: where its programs are.
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
    """What of an app has to do with backups.

    Attributes:
        name: the app's name, and its database's.
        data: the folder with its uploads.
        units: patterns of its units, which stand still while its data is restored.
        lock: the lock that a deploy of it holds.
    """

    name: str
    data: Path
    units: tuple[str, ...] = ()
    lock: Path | None = None


@dataclass(frozen=True)
class Config:
    """All that is wanted, and where things are.

    Attributes:
        host: what the operator calls the host.
        cluster: its PostgreSQL; None where it has none.
        apps: the apps whose data is here.
        paths: further files and folders to keep, /etc/flaskhost among them.
        exclude: what of them is left out.
        repository: the folder of the local repositories: postgres, files and records.
        second: the second repository as restic names it; empty for none.
        second_options: restic's ``-o`` options for it.
        keep_days: days that can be gone back to.
        alert_hours: hours after which the last good backup is too old.
        drill_days: days after which the last good drill is too old.
        copy_minutes: minutes between two copies of the database's repository to the second one.
        hook: a command that is told of what goes wrong, and its arguments.
        assertions: a query that has to say true, by database.
        names: what the host was called before, whose snapshots are its own too.
        state: the folder of what is remembered, and of scratch clusters.
        secrets: the folder of the passphrase and the second repository's credentials; only root reads it.
        pgbackrest: pgBackRest's configuration.
        cache: restic's cache.
        enabled: whether there is a passphrase, without which nothing is backed up.
    """

    host: str
    cluster: Cluster | None = None
    apps: tuple[App, ...] = ()
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
        """The rows that were counted at each backup; copied with the database's repository."""
        return self.repository / "records"

    def app(self, name: str) -> App:
        """Find an app.

        Raises:
            BackupError: there is none of that name.
        """
        for app in self.apps:
            if app.name == name:
                return app
        names = ", ".join(app.name for app in self.apps) or "none"
        raise BackupError(f"App {name!r} does not exist on this host.", f"Available: {names}.")

    def need_cluster(self) -> Cluster:
        """The cluster.

        Raises:
            BackupError: the host has none.
        """
        if not self.cluster:
            raise BackupError("This host has no PostgreSQL.", ("Run the command on the host of the group db."))
        return self.cluster


def need_enabled(config: Config) -> None:
    """Stop if the host has no backups.

    Raises:
        NotEnabled: no passphrase is set.
    """
    if not config.enabled:
        raise NotEnabled(OFF, "Set it if it is not set (docs/backup.md), then run site.yml.")


def parse(text: str) -> Config:
    """Read a configuration.

    Args:
        text: a JSON object with the attributes of :class:`Config`; what is left out has its default.

    Raises:
        BackupError: it is no such object.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        if values.get("cluster"):
            values["cluster"] = _cluster(values["cluster"])
        else:
            values["cluster"] = None
        values["apps"] = tuple(_app(item) for item in values.get("apps", []))
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
    """Read the configuration from its file.

    Raises:
        BackupError: it is not there, or cannot be read.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"The configuration {path} cannot be read: {error.strerror}."
        raise BackupError(reason, "Run site.yml, which writes it.") from None


def _cluster(item: dict[str, Any]) -> Cluster:
    values = {**item, "start": tuple(item["start"]), "stop": tuple(item["stop"])}
    for name in ("data", "socket", "programs"):
        if name in values:
            values[name] = Path(values[name])
    return Cluster(**values)


def _app(item: dict[str, Any]) -> App:
    lock = Path(item["lock"]) if item.get("lock") else None
    return App(item["name"], Path(item["data"]), tuple(item.get("units", ())), lock)
