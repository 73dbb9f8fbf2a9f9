"""The verb ``list``: what can be restored."""

from __future__ import annotations

from typing import Any

from flaskhost_backup import restic
from flaskhost_backup.cluster import human
from flaskhost_backup.config import BackupError, Config, need_enabled
from flaskhost_backup.pgbackrest import Backup, PgBackRest
from flaskhost_backup.result import Result
from flaskhost_backup.state import State, utc


def list_backups(config: Config) -> Result:
    """List what can be restored: backups, the range of point-in-time recovery, restore points, and files."""
    need_enabled(config)
    result = Result()
    if config.cluster:
        info = PgBackRest(config).info()
        result.data["backups"] = [_as_data(item) for item in info.backups]
        result.lines.append(f"Backups of the database, in {config.database_repository}:")
        result.lines += [f"  {_line(item)}" for item in info.backups] or ["  none"]
        if info.backups:
            result.lines.append(f"Any time since {utc(info.backups[0].stop)} can be restored.")
        points = State(config.state).points()
        result.data["points"] = points
        if points:
            result.lines.append("Restore points before migrations (-e release=...):")
            result.lines += [f"  {item['release']} of {item['app']}, {utc(item['at'])}" for item in points]
    repositories = [restic.local(config), *([restic.second(config)] if config.second else [])]
    for repository in repositories:
        for tag, what in ((restic.FILES, "Files"), (restic.DATABASE, "The database's repository")):
            try:
                found = repository.snapshots(tag)
            except BackupError as error:
                result.problems.append(str(error))
                break
            if found:
                result.lines.append(f"{what} in {repository.where[:1].lower() + repository.where[1:]}:")
                result.lines += [f"  {item.id} from {utc(item.at)}, host {item.host}" for item in found]
            result.data.setdefault("snapshots", []).extend(
                {"repository": repository.repository, "tag": tag, "id": item.id, "at": item.at, "host": item.host}
                for item in found
            )
    return result


def _as_data(item: Backup) -> dict[str, Any]:
    return {"label": item.label, "kind": item.kind, "stop": item.stop, "size": item.size, "stored": item.stored}


def _line(item: Backup) -> str:
    damaged = ", with damaged pages" if item.faulty else ""
    return f"{item.label}  {item.kind}  of {utc(item.stop)}, {human(item.size)}, {human(item.stored)} stored{damaged}"
