"""How far a restore has come, on the disk: whoever comes after one that was killed can finish it, or take it back."""

from __future__ import annotations

from typing import Any

from flaskhost_backup.config import Config
from flaskhost_backup.state import LOCK, holder, read_json, utc, write_json

#: The kinds of restores that change what is there step by step: the whole cluster, one database of it, and a folder.
CLUSTER, DATABASE, FILES = "restoring", "restoring-database", "restoring-files"


class Progress:
    """What a restore has done so far.

    Args:
        config: the configuration.
        kind: :data:`CLUSTER`, :data:`DATABASE` or :data:`FILES`.
    """

    def __init__(self, config: Config, kind: str = CLUSTER) -> None:
        self.path = config.state / f"{kind}.json"

    def read(self) -> dict[str, Any]:
        """What is under way; empty when nothing is."""
        return read_json(self.path)

    def note(self, **values: Any) -> None:
        """Remember a step before it is taken."""
        write_json(self.path, {**self.read(), **values})

    def done(self) -> None:
        """All is in place, or all is as before."""
        self.path.unlink(missing_ok=True)


def unfinished(config: Config) -> list[str]:
    """Tell of restores that were killed, a sentence each, with the commands; of one that is at work, nothing.

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
            again = f"To finish it: sudo {left['command']}." if left.get("command") else "Go"
            found.append(
                f"A restore of {what}{when} was killed and is not finished. {again} To return to the previous data, "
                "unless data has been written since: sudo flaskhost-backup abandon"
            )
    return found
