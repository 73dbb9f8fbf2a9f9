"""The source of a database restore: this host's repository, or a copy fetched from the second one."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flaskhost_backup import restic
from flaskhost_backup.config import BackupError, Config
from flaskhost_backup.paths import remove
from flaskhost_backup.pgbackrest import PgBackRest
from flaskhost_backup.state import read_json
from flaskhost_backup.targets import Target
from flaskhost_backup.timelines import Line, line, of_cluster, recorded

#: The files of pgBackRest's repository that list the backups and timelines.
LOOK = ("backup/*/backup.info*", "archive/*/archive.info*", "archive/*/*/*.history")


@dataclass(frozen=True)
class Source:
    """A repository of the database to restore from.

    Attributes:
        backrest: pgBackRest with this repository.
        folder: its folder.
        points: its restore points; None for those of this host.
        fetched: whether it was fetched from the second repository, and must be put in place or removed.
        line: the current timeline of the cluster whose backups these are.
    """

    backrest: PgBackRest
    folder: Path
    points: list[dict[str, Any]] | None = None
    fetched: Path | None = None
    line: Line = field(default_factory=Line)


@dataclass(frozen=True)
class Request:
    """A request to restore the database.

    Attributes:
        target: returns the target, given the source.
        where: local or second.
        host: the host whose backups to use; this host if empty.
        before: for the second repository: use the newest copy up to this time, in seconds since 1970.
        timeout: time limit of the recovery in seconds.
        now: seconds since 1970.
        accept_gap: whether to restore to now although WAL is missing; all changes after the gap are lost.
        start: whether to start the apps again; false if a rollback to an earlier release follows.
        command: the command to repeat if the restore is killed.
    """

    target: Callable[[Source], Target]
    where: str
    host: str
    before: float | None
    timeout: float
    now: float
    accept_gap: bool = False
    start: bool = True
    command: str = ""

    def asked(self, wanted: Target) -> list[str]:
        """Return what identifies this request: repeating it after a kill only finishes the restore.

        Args:
            wanted: the target.
        """
        return [wanted.text, self.where, self.host]


@contextlib.contextmanager
def source(
    config: Config, where: str, host: str = "", before: float | None = None, *, whole: bool = True
) -> Iterator[Source]:
    """Provide a repository to restore from, fetched if it is not on this host.

    Args:
        config: the configuration.
        where: local or second.
        host: the host whose backups to use; this host if empty.
        before: use the newest copy up to this time, if the repository was damaged later.
        whole: whether to fetch all of it, or only the lists of backups and timelines.

    Raises:
        BackupError: there is no repository, or it cannot be fetched.
    """
    if where == "local":
        backrest, repository = PgBackRest(config), config.database_repository
        timeline = of_cluster(config.need_cluster()) or recorded(config.records)
        yield Source(backrest, repository, line=line(backrest, repository, timeline))
        return
    fetched = config.repository / "fetched"
    try:
        yield _fetch(config, fetched, host or config.host, before, whole=whole)
    finally:
        remove(fetched)


def _fetch(config: Config, folder: Path, host: str, before: float | None, *, whole: bool) -> Source:
    second = restic.second(config)
    found = second.snapshots(restic.DATABASE, [host])
    if before is not None:
        found = [item for item in found if item.at <= before]
    if not found:
        others = sorted({item.host for item in second.snapshots(restic.DATABASE)} - {host})
        hint = f" It contains backups of: {', '.join(others)} (-e of=NAME)." if others and before is None else ""
        raise BackupError(
            f"The second repository contains no backup of the database of {host}.{hint}",
            "To list the backups: sudo flaskhost-backup list",
        )
    remove(folder)
    # Its path in the snapshot is its path on the host that created the snapshot.
    inside = Path(next((path for path in found[-1].paths if path.endswith("/postgres")), found[-1].paths[0]))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Only root can enter it while its files change their owner.
    folder.mkdir(mode=0o700)
    second.restore(
        found[-1].id, folder, () if whole else [*(f"{inside}/{item}" for item in LOOK), str(_records(inside))]
    )
    cluster = config.need_cluster()
    repository, records = folder / "postgres", folder / "records"
    (folder / inside.relative_to("/")).rename(repository)
    other = folder / _records(inside).relative_to("/")
    if other.exists():
        other.rename(records)
    _own(repository, cluster.user)
    # The user postgres has to reach its own part of it.
    folder.chmod(0o711)
    points = read_json(records / "points.list").get("points")
    backrest = PgBackRest(config, repository, "The copy that was fetched from the second repository")
    return Source(
        backrest,
        repository,
        points if isinstance(points, list) else [],
        folder,
        line(backrest, repository, recorded(records)),
    )


def _records(repository: Path) -> Path:
    return repository.parent / "records"


def _own(folder: Path, user: str) -> None:
    """Change the owner of a folder and its contents, because UIDs can differ between hosts."""
    entry = pwd.getpwnam(user)
    for path in all_below(folder):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def all_below(folder: Path) -> Iterator[Path]:
    yield folder
    for parent, folders, files_in_it in os.walk(folder):
        yield from (Path(parent) / name for name in (*folders, *files_in_it))
