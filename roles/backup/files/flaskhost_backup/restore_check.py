"""Check whether a restore is possible, before visitors see a maintenance page and before anything stops."""

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
    """Check whether the database can be restored to the requested target. Changes nothing.

    The restore itself finds further problems, such as a gap in the WAL, but also before it changes anything.

    Args:
        config: the configuration.
        request: the request.
        database: the single database to restore; empty for the whole cluster.

    Raises:
        BackupError: the restore is not possible.
    """
    need_enabled(config)
    cluster = config.need_cluster()
    if database:
        need_running(config, Server(cluster))
    locks = [app.lock for app in config.apps if app.lock and database in ("", app.name)]
    left = Progress(config).read()
    if left.get("repository_aside") and not has_run(config, left):
        # A killed restore has moved the repository. The next restore first moves it back.
        return Result()
    with held(locks), source(config, request.where, request.host, request.before, whole=False) as found:
        wanted = request.target(found)
        info = found.backrest.info()
        backup = choose(info, wanted, found.line)
        need_version(cluster, info)
    if not left:
        need_room(config.state if database else cluster.data.parent, backup.size, "The restored database")
    return Result(lines=[f"The database can be restored {wanted.text}, from the backup {backup.label}."])
