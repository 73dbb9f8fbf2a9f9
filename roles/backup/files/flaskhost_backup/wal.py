"""The write-ahead log around a restore: what the repository still lacks, and whether it goes on to its end."""

from __future__ import annotations

from pathlib import Path

from flaskhost_backup import tools
from flaskhost_backup.cluster import Server, control_data
from flaskhost_backup.config import BackupError, Cluster
from flaskhost_backup.explain import explain
from flaskhost_backup.pgbackrest import SEGMENT, Backup, Info, PgBackRest, gaps, segment_timeline, segments
from flaskhost_backup.sources import Source
from flaskhost_backup.targets import Target, choose


def hand_over(server: Server, otherwise: str = "The last commits may be missing") -> list[str]:
    """Get the last of the log into the repository; a restore to a time also needs one commit after it.

    Args:
        server: the cluster whose log it is.
        otherwise: what follows from a failure, as the beginning of a sentence.

    Returns:
        What went wrong, a sentence each.
    """
    try:
        server.ask("SELECT pg_current_xact_id()")
        server.hand_over(seconds=30)
    except BackupError as error:
        return [f"{otherwise}: {error.reason}"]
    return []


def complete(backrest: PgBackRest, repository: Path, cluster: Cluster, data: Path, info: Info) -> list[str]:
    """Put into the repository what it lacks of the log, and a data folder still has: whole segments.

    Returns:
        What went wrong, a sentence each.
    """
    if control_data(cluster, data).get("Database system identifier") != info.system:
        return []
    there = {name for _archive, name in segments(repository)}
    log = data / "pg_wal"
    # A segment with such a mark is whole; one without may be an old one, kept to be written over.
    whole = {path.stem for path in (log / "archive_status").glob("*") if path.suffix in (".ready", ".done")}
    for name in sorted(whole - there):
        if SEGMENT.fullmatch(name) and (log / name).exists():
            try:
                backrest.push(log / name, data)
            except BackupError as error:
                return [f"A part of the WAL was not archived: {error.reason}"]
    return []


def need_no_gap(repository: Path, backup: Backup, *, accept: bool) -> list[str]:
    """See that the log goes on to its end: PostgreSQL itself would stop at a gap, and say nothing.

    Args:
        repository: where the archived segments are.
        backup: the one that the restore begins with.
        accept: restore up to the gap, and tell of it.

    Returns:
        The accepted gaps, a sentence each.

    Raises:
        BackupError: there is a gap, and nobody has accepted it.
    """
    new, _old = gaps(repository, backup.first_wal)
    if new and not accept:
        raise BackupError(
            f"{new[0]} Commits after the gap cannot be restored from the backup {backup.label}.",
            (
                'Choose a time before the gap: -e to="...". Or restore up to the gap: -e accept_gap=true (on the host: '
                "--accept-gap)"
            ),
        )
    return [f"{gap} Commits after the gap are not in the database." for gap in new]


def need_whole_log(found: Source, wanted: Target, accept_gap: bool) -> None:
    """See that there is no gap on the way to now, where that is the target.

    Raises:
        BackupError: there is a gap, and nobody has accepted it.
    """
    if wanted.kind == "latest":
        need_no_gap(found.folder, choose(found.backrest.info(), wanted, found.line), accept=accept_gap)


def salvage(cluster: Cluster, repository: Path, aside: Path, info: Info, timeline: int) -> None:
    """Take from the old data the segments that never were whole: the last commits before a crash.

    Args:
        cluster: the cluster, restored and not started yet.
        repository: where the archived segments are.
        aside: the old data.
        info: what is in the repository.
        timeline: the one that the old data is on; 0 where it is not known.
    """
    if control_data(cluster, aside).get("Database system identifier") != info.system:
        return
    log, fresh = aside / "pg_wal", cluster.data / "pg_wal"
    # A newer timeline may be of a restore that was taken back.
    ours = [name for _archive, name in segments(repository) if segment_timeline(name) <= (timeline or 1 << 32)]
    newest = max(ours, default="0" * 24)
    for path in sorted(log.iterdir()) if log.is_dir() else []:
        if not SEGMENT.fullmatch(path.name):
            continue
        if path.name >= newest or segment_timeline(path.name) > segment_timeline(newest):
            # As postgres, whose folders both are: root would follow a link in either.
            done = tools.run(["cp", "--no-dereference", "--", path, fresh / path.name], user=cluster.user)
            if done.status:
                raise explain(done, "The end of the write-ahead log")
