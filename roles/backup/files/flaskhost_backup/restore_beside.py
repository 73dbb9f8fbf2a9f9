"""Restore into a separate cluster: for inspection, for a single database, and for the drill."""

from __future__ import annotations

import time
from pathlib import Path

from flaskhost_backup import tools
from flaskhost_backup.cluster import BESIDE_PORT, Scratch, Server, need_room
from flaskhost_backup.config import Config, need_enabled
from flaskhost_backup.pgbackrest import Backup
from flaskhost_backup.result import Result
from flaskhost_backup.sources import Request, Source, source
from flaskhost_backup.targets import Target, arguments, choose, need_version
from flaskhost_backup.timelines import Line
from flaskhost_backup.wal import hand_over, need_whole_log


def into_scratch(config: Config, scratch: Scratch, found: Source, target: Target, timeout: float) -> Backup:
    """Restore into a scratch cluster and start it.

    Returns:
        The backup that the restore started from.

    Raises:
        BackupError: the restore failed; the scratch cluster was deleted.
    """
    cluster = config.need_cluster()
    info = found.backrest.info()
    backup = choose(info, target, found.line)
    need_version(cluster, info)
    try:
        place(scratch, found, backup, target)
        scratch.start(timeout)
    except BaseException:
        scratch.remove()
        raise
    return backup


def place(scratch: Scratch, found: Source, backup: Backup, target: Target) -> None:
    """Restore the files of a scratch cluster, which pgBackRest compares with their checksums.

    Raises:
        BackupError: the restore failed; some files may exist.
    """
    need_room(scratch.folder.parent, backup.size, "A separate cluster")
    scratch.make()
    tools.make_folder(_tablespaces(scratch), scratch.cluster.user)
    found.backrest.restore(scratch.data, *scratch_arguments(scratch, backup, target, found.line))


def scratch_arguments(scratch: Scratch, backup: Backup, target: Target, line: Line) -> list[str]:
    """Return pgBackRest's arguments for a restore into a scratch cluster.

    Args:
        scratch: the scratch cluster.
        backup: the backup to start from.
        target: the target of the recovery.
        line: the timeline to follow.
    """
    return [
        *arguments(backup, target, line),
        f"--tablespace-map-all={_tablespaces(scratch)}",
        "--archive-mode=off",
    ]


def _tablespaces(scratch: Scratch) -> Path:
    return scratch.folder / "tablespaces"


def beside(config: Config, request: Request) -> Result:
    """Restore into a separate cluster, and leave it running for inspection."""
    need_enabled(config)
    scratch = Scratch(config.need_cluster(), config.state / "beside", BESIDE_PORT)
    began = time.monotonic()
    with source(config, request.where, request.host, request.before) as found:
        wanted = request.target(found)
        server, late = Server(config.need_cluster()), list[str]()
        if request.where == "local" and server.runs():
            late = hand_over(server)
        need_whole_log(found, wanted, request.accept_gap)
        backup = into_scratch(config, scratch, found, wanted, request.timeout)
    seconds = time.monotonic() - began
    look = f"sudo -u {scratch.cluster.user} psql -h {scratch.socket} -p {scratch.port}"
    return Result(
        changed=True,
        lines=[
            f"A separate cluster was restored {wanted.text}, from {backup.label}, in {seconds:.0f} s.",
            *late,
            f"To query it: {look} DATABASE",
            "When you no longer need it: sudo flaskhost-backup remove",
        ],
        data={"beside": {"at": request.now, "socket": str(scratch.socket), "port": scratch.port}},
    )


def remove_beside(config: Config) -> Result:
    """Delete the separate cluster."""
    scratch = Scratch(config.need_cluster(), config.state / "beside", BESIDE_PORT)
    there = scratch.folder.exists()
    scratch.remove()
    return Result(
        changed=there, lines=["The separate cluster was deleted." if there else "There is no separate cluster."]
    )
