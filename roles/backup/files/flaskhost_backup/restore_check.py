"""Whether a restore can be done at all: found out before visitors see a maintenance page, and before anything stops."""

from __future__ import annotations

from flaskhost_backup.cluster import Server, need_room
from flaskhost_backup.config import Config, need_enabled
from flaskhost_backup.progress import Progress
from flaskhost_backup.restore_cluster import has_run
from flaskhost_backup.restore_database import need_running
from flaskhost_backup.result import Result
from flaskhost_backup.sources import Request, source
from flaskhost_backup.state import held
from flaskhost_backup.targets import choose, need_version


def check(config: Config, request: Request, database: str = "") -> Result:
    """See whether the database can be restored to where it was asked for. Changes nothing.

    What only the restore itself can find, a gap in the log for one, it still finds before it touches anything.

    Args:
        config: the configuration.
        request: what was asked for.
        database: the database to restore alone; empty for the whole cluster.

    Raises:
        BackupError: it cannot be restored.
    """
    need_enabled(config)
    cluster = config.need_cluster()
    if database:
        need_running(config, Server(cluster))
    locks = [app.lock for app in config.apps if app.lock and database in ("", app.name)]
    left = Progress(config).read()
    if left.get("repository_aside") and not has_run(config, left):
        # A restore that was killed has moved the repository. The next one puts it back first.
        return Result()
    with held(locks), source(config, request.where, request.host, request.before, whole=False) as found:
        wanted = request.target(found)
        info = found.backrest.info()
        backup = choose(info, wanted, found.line)
        need_version(cluster, info)
    if not left:
        need_room(config.state if database else cluster.data.parent, backup.size, "The restored database")
    return Result(lines=[f"The database can be restored {wanted.text}, from the backup {backup.label}."])
