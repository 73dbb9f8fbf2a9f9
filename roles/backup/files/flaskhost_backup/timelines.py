"""The timelines of the WAL: the current one of a cluster, and its ancestors.

Each restore starts a new timeline, and the archive keeps them all. The newest one in the archive is not the current
one if a restore was undone, but PostgreSQL itself would follow the newest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flaskhost_backup.cluster import Server, control_data
from flaskhost_backup.config import BackupError, Cluster
from flaskhost_backup.pgbackrest import Backup, PgBackRest, lsn
from flaskhost_backup.state import read_json, write_json

#: The name of a history file, which contains the ancestors of a timeline.
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
#: In the folder of records, which is copied to the second repository. Files that end in .json belong to backups.
_RECORD = "timeline.list"


@dataclass(frozen=True)
class Line:
    """A timeline and its ancestors.

    Attributes:
        timeline: its number; 0 if unknown.
        left_at: for each ancestor, the WAL position at which the next timeline started; None if unknown.
    """

    timeline: int = 0
    left_at: Mapping[int, int] | None = field(default_factory=dict)

    def holds(self, backup: Backup) -> bool:
        """Check whether the WAL leads from a backup to the end of this timeline."""
        if not self.timeline or backup.timeline == self.timeline:
            return True
        if self.left_at is None:
            return backup.timeline < self.timeline
        return backup.timeline in self.left_at and lsn(backup.stop_lsn or "0/0") <= self.left_at[backup.timeline]


def parse_history(text: str) -> dict[int, int]:
    """Parse a history file: for each timeline, the position at which it ended.

    Args:
        text: lines with a timeline, a position such as ``0/3000158``, and a reason.
    """
    found = re.findall(r"^\s*([0-9]+)\s+([0-9A-F]+/[0-9A-F]+)", text, re.MULTILINE)
    return {int(timeline): lsn(position) for timeline, position in found}


def line(backrest: PgBackRest, repository: Path, timeline: int) -> Line:
    """Return a timeline with its ancestors, as recorded in the repository.

    Args:
        backrest: pgBackRest with the repository.
        repository: the folder of the repository.
        timeline: the timeline; 0 if unknown.
    """
    if timeline <= 1:
        return Line(timeline)
    # The newest archive, if there are several major versions.
    names = sorted((repository / "archive").glob(f"*/*/{timeline:08X}.history"))
    try:
        return Line(timeline, parse_history(backrest.get(names[-1].relative_to(repository))) if names else None)
    except BackupError:
        return Line(timeline, None)


def of_cluster(cluster: Cluster) -> int:
    """Return the current timeline of this host's cluster, whether it runs or not; 0 without data."""
    answer = Server(cluster).run("SELECT pg_walfile_name(pg_current_wal_lsn()) WHERE NOT pg_is_in_recovery()")
    if not answer.status and re.fullmatch(r"[0-9A-F]{24}", answer.out.strip()):
        return int(answer.out.strip()[:8], 16)
    said = control_data(cluster, cluster.data).get("Latest checkpoint's TimeLineID", "")
    # After a crash right after a recovery, the last checkpoint is still from the previous timeline.
    histories = [_HISTORY.fullmatch(path.name) for path in (cluster.data / "pg_wal").glob("*.history")]
    return max([int(said), *(int(found[1], 16) for found in histories if found)]) if said.isdigit() else 0


def remember(records: Path, timeline: int) -> None:
    """Record the timeline, for a restore after the data is lost."""
    if timeline and timeline != recorded(records):
        records.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(records / _RECORD, {"timeline": timeline})


def recorded(records: Path) -> int:
    """Return the last recorded timeline; 0 if there is none."""
    found = read_json(records / _RECORD).get("timeline")
    return found if isinstance(found, int) else 0
