"""The verb ``forget``: delete an unusable backup of the database, with those that depend on it."""

from __future__ import annotations

from flaskhost_backup.config import BackupError, Config, need_enabled
from flaskhost_backup.pgbackrest import PgBackRest
from flaskhost_backup.result import Result


def forget(config: Config, label: str) -> Result:
    """Delete a backup of the database, with those that depend on it.

    Args:
        config: the configuration.
        label: its name.

    Raises:
        BackupError: the backup does not exist, or no full backup would be left.
    """
    need_enabled(config)
    backrest = PgBackRest(config)
    labels = [item.label for item in backrest.info().backups]
    if label not in labels:
        raise BackupError(f"The backup {label} does not exist.", "To list the backups: sudo flaskhost-backup list")
    gone = [item for item in labels if item == label or item.startswith(f"{label}_")]
    if all(item in gone for item in labels if "_" not in item):
        raise BackupError(
            f"{label} is the only full backup. Without it, nothing could be restored.",
            f"Create a new one first: sudo flaskhost-backup full; sudo flaskhost-backup forget {label}",
        )
    backrest.expire(label)
    for item in gone:
        (config.records / f"{item}.json").unlink(missing_ok=True)
    return Result(changed=True, lines=[f"Deleted: {', '.join(gone)}."], data={"forgotten": gone})
