"""The progress of a restore, on the disk: the run after a killed one can finish or undo the restore."""

from __future__ import annotations

from typing import Any

from flaskhost_backup.config import Config
from flaskhost_backup.state import LOCK, holder, read_json, utc, write_json

#: The kinds of restores that replace data step by step: the whole cluster, one database, and a folder.
CLUSTER, DATABASE, FILES = "restoring", "restoring-database", "restoring-files"


class Progress:
    """The record of an unfinished restore.

    Args:
        config: the configuration.
        kind: :data:`CLUSTER`, :data:`DATABASE` or :data:`FILES`.
    """

    def __init__(self, config: Config, kind: str = CLUSTER) -> None:
        self.path = config.state / f"{kind}.json"

    def read(self) -> dict[str, Any]:
        """Return the record; empty if no restore is unfinished."""
        return read_json(self.path)

    def note(self, **values: Any) -> None:
        """Record a step before it is taken."""
        write_json(self.path, {**self.read(), **values})

    def done(self) -> None:
        """Delete the record: the restore is finished or undone."""
        self.path.unlink(missing_ok=True)


def unfinished(config: Config) -> list[str]:
    """Describe each killed restore in a sentence with the next commands. A running restore is left out.

    Args:
        config: the configuration.
    """
    if holder(LOCK).startswith(("restore", "take-in")):
        return []
    found = []
    for kind in (CLUSTER, DATABASE, FILES):
        left = Progress(config, kind).read()
        if left:
            what = f"the database {left['database']}" if left.get("database") else left.get("path", "all databases")
            when = f", started at {utc(float(left['at']))}," if left.get("at") else ""
            again = f"To finish it: sudo {left['command']}; to" if left.get("command") else "To"
            found.append(
                f"A restore of {what}{when} was killed and is not finished. {again} return to the previous data, "
                "unless data has been written since: sudo flaskhost-backup abandon"
            )
    return found
