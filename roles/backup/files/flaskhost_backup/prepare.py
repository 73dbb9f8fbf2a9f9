"""The verb ``prepare``: create the repositories that are missing."""

from __future__ import annotations

import time

from flaskhost_backup import queues, restic
from flaskhost_backup.cluster import control_data
from flaskhost_backup.config import BackupError, Config
from flaskhost_backup.pgbackrest import PgBackRest
from flaskhost_backup.result import Result
from flaskhost_backup.state import read_json, write_json


def prepare(config: Config, *, dry: bool, now: float) -> Result:
    """Create the repositories that are missing. Ansible calls this when PostgreSQL runs.

    Problems with the second repository are reported, and do not stop the rest.

    Args:
        config: the configuration.
        dry: whether only to report what would be done.
        now: seconds since 1970.
    """
    result = Result()
    if not config.enabled:
        result.problems.append(
            "There are no backups: backup.passphrase is not set. Put it into the vault (docs/backup.md)."
        )
        return result
    if not read_json(config.state / "since.json"):
        result.changed = True
        if not dry:
            # Until the first backup, its age counts from this time.
            write_json(config.state / "since.json", {"at": now})
    for queue in config.queues:
        since = config.state / f"since-{queues.kind(queue.app)}.json"
        if not read_json(since):
            result.changed = True
            if not dry:
                write_json(since, {"at": now})
    if config.cluster:
        _prepare_cluster(config, result, dry=dry)
    local = restic.local(config)
    if not (config.files_repository / "config").exists():
        result.changed = True
        if not dry:
            local.make()
            result.lines.append(f"{local.where} was created.")
    if config.second:
        _prepare_second(config, result, dry=dry)
    return result


def _prepare_cluster(config: Config, result: Result, *, dry: bool) -> None:
    """Create the database's repository, or upgrade it to the cluster's major version."""
    cluster, backrest = config.need_cluster(), PgBackRest(config)
    info = backrest.info()
    here = control_data(cluster, cluster.data).get("Database system identifier", "")
    if not info.there or not info.system:
        result.changed = True
        if not dry:
            backrest.make()
            result.lines.append(f"{backrest.where} was created.")
        result.data["first"] = True
        return
    if here and info.version == cluster.version and info.system != here:
        raise BackupError(
            f"{backrest.where} contains the backups of another cluster.",
            f"To restore that cluster: ansible-playbook playbooks/restore.yml -e confirm={config.host}. To start with "
            f"an empty repository: sudo mv {config.database_repository} {config.database_repository}.old, then run "
            "site.yml.",
        )
    if here and info.system != here:
        result.changed = True
        if not dry:
            backrest.upgrade()
            result.lines.append(f"{backrest.where} now also accepts PostgreSQL {cluster.version}.")
        result.data["first"] = True
        return
    result.data["first"] = not [item for item in info.backups if item.system == info.system]


def _prepare_second(config: Config, result: Result, *, dry: bool) -> None:
    """Create the second repository, or check that it opens: once, and after its login or the passphrase changed."""
    path = config.state / "second.json"
    written = max((file.stat().st_mtime for file in config.secrets.glob("*")), default=0.0)
    wanted = {"repository": config.second, "login_written": written}
    if wanted.items() <= read_json(path).items():
        return
    result.changed = True
    if dry:
        return
    try:
        second = restic.second(config)
        made = second.make()
        write_json(path, {**wanted, "at": time.time()})
        result.lines.append(f"{second.where} {'was made' if made else 'is there, and opens'}.")
    except BackupError as error:
        result.problems.append(str(error))
