"""The verbs ``copy`` and ``adopt``: copy the database's repository to the second repository."""

from __future__ import annotations

from typing import Any

from flaskhost_backup import restic, tools
from flaskhost_backup.cluster import human
from flaskhost_backup.config import BackupError, Config, need_enabled
from flaskhost_backup.pgbackrest import Info, PgBackRest
from flaskhost_backup.result import Result, do_part
from flaskhost_backup.state import State, utc
from flaskhost_backup.timelines import of_cluster, remember

#: Files that pgBackRest has not finished writing.
PARTIAL = "*.pgbackrest.tmp"


def copy(config: Config, now: float) -> Result:
    """Copy what is new in the database's repository to the second one."""
    need_enabled(config)
    restic.second(config)
    result = Result(changed=True)
    config.need_cluster()
    do_part(result, State(config.state), "copy", now, lambda: copy_database(config, restic.second(config), prune=False))
    return result


def unreachable(config: Config, now: float) -> Result | None:
    """Check that the second repository can be reached. This runs without the lock, which a restore may be waiting for.

    Args:
        config: the configuration.
        now: seconds since 1970.

    Returns:
        The result of a failed copy, if the repository cannot be reached.
    """
    if not (config.enabled and config.second and config.cluster):
        return None
    problems: list[str] = []
    try:
        reached(config)
    except BackupError as error:
        problems.append(str(error))
    if not problems:
        return None
    entry = {"at": now, "ok": False, "seconds": 0, "problems": problems}
    State(config.state).note("copy", entry)
    return Result(problems=problems, data={"copy": entry})


def end() -> None:
    """End the scheduled copy that is running. The next one uploads what is missing."""
    tools.run(["systemctl", "stop", "flaskhost-backup@copy.service"])


def reached(config: Config) -> restic.Restic:
    """Return the second repository, once it has responded.

    Raises:
        BackupError: it cannot be reached.
    """
    second = restic.second(config)
    second.reach()
    return second


def copy_database(config: Config, second: restic.Restic, *, prune: bool) -> tuple[str, dict[str, Any]]:
    """Copy the database's repository as it is. It is encrypted already, and restic encrypts it again.

    Args:
        config: the configuration.
        second: the second repository.
        prune: whether old snapshots are deleted.

    Returns:
        A line for people, and an entry for the state.

    Raises:
        BackupError: the second repository holds another cluster's backups, or the copy failed.
    """
    info = PgBackRest(config).info()
    _need_same_cluster(config, second, info)
    remember(config.records, of_cluster(config.need_cluster()))
    taken = second.backup(
        [restic.DATABASE, f"system-{info.system}"],
        [config.database_repository, config.records],
        [PARTIAL],
        timeout=restic.COPY_SECONDS,
    )
    if prune:
        second.forget(restic.DATABASE, config.keep_days, prune=True)
    return f"{second.where}: the database's repository, {human(taken.size)}, {human(taken.added)} new.", {
        "snapshot": taken.snapshot,
        "size": taken.size,
        "system": info.system,
        "repository": config.second,
    }


def _need_same_cluster(config: Config, second: restic.Restic, info: Info) -> None:
    """Check that the second repository holds backups of this cluster or of its former major versions, and no others.

    Otherwise a host that was set up anew would bury the backups from which it should be restored under its own empty
    ones.

    Raises:
        BackupError: they are another cluster's.
    """
    ours = {info.system, *info.former}
    state = State(config.state)
    # The state saves a request to a remote repository every five minutes. And after a restore of another cluster in
    # place of this one, the operator has already decided which of them is valid.
    copied, restored = (state.read(kind)["good"] for kind in ("copy", "restore"))
    here = copied.get("repository", config.second) == config.second
    if (here and copied.get("system") in ours) or restored.get("system") in ours:
        return
    found = second.snapshots(restic.DATABASE, [config.host])
    if found and found[-1].system not in ours:
        raise BackupError(
            f"The second repository contains backups of another cluster of {config.host}, the newest from "
            f"{utc(found[-1].at)}. They are not overwritten.",
            "To restore them on this host: ansible-playbook playbooks/restore.yml -e from=second -e "
            f"confirm={config.host}. To continue without them: sudo flaskhost-backup adopt",
        )


def adopt(config: Config, now: float) -> Result:
    """Let this cluster's backups follow another's in the second repository. The old snapshots expire as usual."""
    need_enabled(config)
    system = PgBackRest(config).info().system
    if not system:
        raise BackupError("The local repository does not exist yet.", "Run site.yml, which creates it.")
    entry = {"at": now, "ok": True, "problems": [], "seconds": 0, "system": system, "repository": config.second}
    State(config.state).note("copy", entry)
    return Result(
        changed=True,
        lines=["The next copy adds this cluster's backups to the second repository, next to the existing ones."],
    )
