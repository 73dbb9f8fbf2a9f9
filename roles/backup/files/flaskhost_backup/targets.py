"""The target of a restore, and the backup that it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flaskhost_backup.config import BackupError, Cluster, Config
from flaskhost_backup.pgbackrest import Backup, Info
from flaskhost_backup.state import State, utc
from flaskhost_backup.timelines import Line


@dataclass(frozen=True)
class Target:
    """The target of a restore.

    Attributes:
        kind: latest, time, point or backup.
        value: the time in seconds since 1970, the name of the restore point, or the backup's label.
        point: for a restore point before a migration, the entry of :meth:`State.points`.
    """

    kind: str = "latest"
    value: str = ""
    point: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """Describe the target for messages."""
        if self.kind == "time":
            return f"to {utc(float(self.value))}"
        if self.kind == "point":
            return f"to before the migration of {self.value}"
        return "to now" if self.kind == "latest" else f"to the end of the backup {self.value}"


def parse_time(text: str, now: float) -> float:
    """Parse a time. Without a time zone, it is UTC.

    Args:
        text: such as ``2026-11-21 10:15``, ``2026-11-21T10:15:00+01:00``.
        now: seconds since 1970.

    Raises:
        BackupError: it is not a time, or in the future.
    """
    try:
        found = datetime.fromisoformat(text.strip().replace(" UTC", "+00:00"))
    except ValueError:
        raise BackupError(f"{text!r} is not a time.", 'Write it as "2026-11-21 10:15:00", in UTC.') from None
    seconds = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    if seconds > now:
        raise BackupError(f"{utc(seconds)} is in the future.", "Without a time, the newest state is restored.")
    return seconds


def release_target(config: Config, app: str, release: str, points: list[dict[str, Any]] | None = None) -> Target:
    """Find the restore point before a release's migration.

    Raises:
        BackupError: there is none.
    """
    found = State(config.state).points() if points is None else points
    names = [item for item in found if item.get("release") == release and app in ("", item.get("app"))]
    if not names:
        known = ", ".join(str(item["release"]) for item in found if app in ("", item.get("app")))
        raise BackupError(
            f"There is no restore point before the migration of {release}.",
            f"Available: {known or 'none'}. Or choose a time: sudo flaskhost-backup list",
        )
    return Target("point", str(names[-1]["name"]), names[-1])


def choose(info: Info, target: Target, line: Line = Line()) -> Backup:  # noqa: B008 - it is frozen
    """Choose the backup to start from.

    Args:
        info: the contents of the repository.
        target: the target.
        line: the timeline to follow.

    Raises:
        BackupError: there is no backup from before the target.
    """
    backups = [item for item in info.backups if item.system == info.system]
    if not backups:
        second = "; or restore from the second repository: -e from=second" if info.copied else ""
        raise BackupError("There is no backup yet.", f"Create one: sudo flaskhost-backup full{second}")
    if target.kind == "backup":
        chosen = [item for item in backups if item.label == target.value]
        if not chosen:
            raise BackupError(
                f"The backup {target.value} does not exist.", "To list the backups: sudo flaskhost-backup list"
            )
        return chosen[-1]
    if target.kind != "point":
        backups = [item for item in backups if line.holds(item)]
        if not backups:
            raise BackupError(
                "No backup leads to the current state of the database, which is on timeline "
                f"{line.timeline} of its WAL.",
                "Create one: sudo flaskhost-backup full. Or choose a backup from sudo flaskhost-backup list: -e "
                "label=LABEL",
            )
    if target.kind == "latest":
        return backups[-1]
    limit = float(target.value) if target.kind == "time" else float((target.point or {}).get("at") or 0)
    before = [item for item in backups if item.stop < limit]
    if target.kind == "point":
        # On the timeline of the restore point, or on one of its ancestors.
        before = [item for item in before if item.timeline <= int((target.point or {}).get("timeline") or 1 << 31)]
    if not before:
        raise BackupError(
            f"There is no backup from before {utc(limit)}. The first one was complete at {utc(backups[0].stop)}.",
            f"Choose a later time{(', or use the second repository: -e from=second' if info.copied else '')}. To list "
            "the backups: sudo flaskhost-backup list",
        )
    return before[-1]


def need_version(cluster: Cluster, info: Info) -> None:
    """Check that the backup has the major version of this host's cluster.

    Raises:
        BackupError: it has another one.
    """
    if info.version and info.version != cluster.version:
        raise BackupError(
            f"The backup is of PostgreSQL {info.version}, and this host has {cluster.version}.",
            f"Restore it on a host with PostgreSQL {info.version}, and upgrade there.",
        )


def arguments(backup: Backup, target: Target, line: Line = Line()) -> list[str]:  # noqa: B008 - it is frozen
    """Return pgBackRest's arguments for the target.

    Args:
        backup: the backup to start from.
        target: the target.
        line: the timeline to follow; if it is unknown, PostgreSQL follows the newest.
    """
    found = [f"--set={backup.label}"]
    if target.kind == "backup":
        # pgBackRest has no --target-timeline for this type.
        own = "--recovery-option=recovery_target_timeline=current"
        return [*found, "--type=immediate", own, "--target-action=promote"]
    timeline = int((target.point or {}).get("timeline") or 0) if target.kind == "point" else line.timeline
    along = [f"--target-timeline={timeline}"] if timeline else []
    if target.kind == "time":
        when = datetime.fromtimestamp(float(target.value), UTC)
        return [
            *(*found, "--type=time", f"--target={when:%Y-%m-%d %H:%M:%S.%f}+00"),
            *(*along, "--target-action=promote"),
        ]
    if target.kind == "point":
        return [*found, "--type=name", f"--target={target.value}", *along, "--target-action=promote"]
    return [*found, "--type=default", *along]
