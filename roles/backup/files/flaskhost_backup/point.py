"""The verb ``point``: create a restore point in the WAL, right before a release's migration."""

from __future__ import annotations

import re

from flaskhost_backup.cluster import Server
from flaskhost_backup.config import BackupError, Config, need_enabled
from flaskhost_backup.result import Result
from flaskhost_backup.state import State, write_json

#: The name of a restore point: letters, digits and separators. PostgreSQL allows 63 characters.
POINT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,62}")


def point(config: Config, app: str, release: str, previous: str, now: float) -> Result:
    """Create a restore point in the WAL, right before a release's migration.

    Args:
        config: the configuration.
        app: the app's name.
        release: the release that is about to migrate.
        previous: the release that is live until then.
        now: seconds since 1970.
    """
    need_enabled(config)
    name = f"{app}@{release}"
    if not POINT_NAME.fullmatch(name):
        raise BackupError(
            f"{name!r} is not a valid name of a restore point.", "It consists of the names of the app and the release."
        )
    lsn, timeline = Server(config.need_cluster()).point(name)
    entry = {
        "name": name,
        "app": app,
        "release": release,
        "previous": previous,
        "at": now,
        "lsn": lsn,
        "timeline": timeline,
    }
    State(config.state).add_point(entry)
    # In the repository too, so that a restore on another host finds it.
    write_json(config.records / "points.list", {"points": State(config.state).points()})
    return Result(changed=True, lines=[f"The restore point {name} was created at {lsn}."], data={"point": entry})
