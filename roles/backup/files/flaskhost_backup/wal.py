"""The WAL around a restore: archive missing segments, and check for gaps."""

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
    """Archive the end of the WAL. A restore to a time also needs a commit after that time.

    Args:
        server: the cluster.
        otherwise: the consequence of a failure, as the beginning of a sentence.

    Returns:
        The problems, a sentence each.
    """
    try:
        server.ask("SELECT pg_current_xact_id()")
        server.hand_over(seconds=30)
    except BackupError as error:
        return [f"{otherwise}: {error.reason}"]
    return []


def complete(backrest: PgBackRest, repository: Path, cluster: Cluster, data: Path, info: Info) -> list[str]:
    """Archive complete segments that the repository lacks and that a data folder still has.

    Returns:
        The problems, a sentence each.
    """
    if control_data(cluster, data).get("Database system identifier") != info.system:
        return []
    there = {name for _archive, name in segments(repository)}
    log = data / "pg_wal"
    # A segment with such a mark is complete. One without it can be an old segment that will be overwritten.
    whole = {path.stem for path in (log / "archive_status").glob("*") if path.suffix in (".ready", ".done")}
    for name in sorted(whole - there):
        if SEGMENT.fullmatch(name) and (log / name).exists():
            try:
                backrest.push(log / name, data)
            except BackupError as error:
                return [f"A part of the WAL was not archived: {error.reason}"]
    return []


def need_no_gap(repository: Path, backup: Backup, *, accept: bool) -> list[str]:
    """Check that the WAL has no gap: PostgreSQL itself would stop at a gap without an error.

    Args:
        repository: the folder of the archived segments.
        backup: the backup that the restore starts from.
        accept: whether to restore up to the gap, and report it.

    Returns:
        The accepted gaps, a sentence each.

    Raises:
        BackupError: there is a gap that was not accepted.
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
    """Check that the WAL has no gap up to now, if that is the target.

    Raises:
        BackupError: there is a gap that was not accepted.
    """
    if wanted.kind == "latest":
        need_no_gap(found.folder, choose(found.backrest.info(), wanted, found.line), accept=accept_gap)


def salvage(cluster: Cluster, repository: Path, aside: Path, info: Info, timeline: int) -> None:
    """Copy incomplete segments from the old data: they contain the last commits before a crash.

    Args:
        cluster: the cluster, restored and not started yet.
        repository: the folder of the archived segments.
        aside: the old data.
        info: the contents of the repository.
        timeline: the timeline of the old data; 0 if unknown.
    """
    if control_data(cluster, aside).get("Database system identifier") != info.system:
        return
    log, fresh = aside / "pg_wal", cluster.data / "pg_wal"
    # A newer timeline can belong to a restore that was undone.
    ours = [name for _archive, name in segments(repository) if segment_timeline(name) <= (timeline or 1 << 32)]
    newest = max(ours, default="0" * 24)
    for path in sorted(log.iterdir()) if log.is_dir() else []:
        if not SEGMENT.fullmatch(path.name):
            continue
        if path.name >= newest or segment_timeline(path.name) > segment_timeline(newest):
            # As the user postgres, who owns both folders: root would follow a link in them.
            done = tools.run(["cp", "--no-dereference", "--", path, fresh / path.name], user=cluster.user)
            if done.status:
                raise explain(done, "The end of the write-ahead log")
