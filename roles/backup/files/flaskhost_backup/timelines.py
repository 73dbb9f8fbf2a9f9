"""The timelines of the write-ahead log: the one that a cluster is on, and those that it came from.

Each restore begins a new timeline, and the archive keeps them all. The newest in the archive need not be the one that
the cluster is on: a restore may have been taken back. PostgreSQL itself would follow the newest.
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

#: The name of a history file, which says where a timeline comes from.
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
#: Among the records of the backups, which are copied to the second repository. Not .json: those are of backups.
_RECORD = "timeline.list"


@dataclass(frozen=True)
class Line:
    """A timeline and those that it came from.

    Attributes:
        timeline: its number; 0 where it is not known.
        left_at: for each timeline that it came from, the position of the log at which that was left; None where it is
            not known.
    """

    timeline: int = 0
    left_at: Mapping[int, int] | None = field(default_factory=dict)

    def holds(self, backup: Backup) -> bool:
        """Whether the log leads from a backup to the end of this timeline."""
        if not self.timeline or backup.timeline == self.timeline:
            return True
        if self.left_at is None:
            return backup.timeline < self.timeline
        return backup.timeline in self.left_at and lsn(backup.stop_lsn or "0/0") <= self.left_at[backup.timeline]


def parse_history(text: str) -> dict[int, int]:
    """Read a history file: for each timeline the position at which it was left.

    Args:
        text: lines of a timeline, a position such as ``0/3000158``, and a reason.
    """
    found = re.findall(r"^\s*([0-9]+)\s+([0-9A-F]+/[0-9A-F]+)", text, re.MULTILINE)
    return {int(timeline): lsn(position) for timeline, position in found}


def line(backrest: PgBackRest, repository: Path, timeline: int) -> Line:
    """A timeline with what the repository says of where it comes from.

    Args:
        backrest: pgBackRest on the repository.
        repository: where that is.
        timeline: the timeline; 0 where it is not known.
    """
    if timeline <= 1:
        return Line(timeline)
    # The newest of the archives, where there are several major versions.
    names = sorted((repository / "archive").glob(f"*/*/{timeline:08X}.history"))
    try:
        return Line(timeline, parse_history(backrest.get(names[-1].relative_to(repository))) if names else None)
    except BackupError:
        return Line(timeline, None)


def of_cluster(cluster: Cluster) -> int:
    """The timeline that the cluster on this host is on, whether it runs or not; 0 where it has no data."""
    answer = Server(cluster).run("SELECT pg_walfile_name(pg_current_wal_lsn()) WHERE NOT pg_is_in_recovery()")
    if not answer.status and re.fullmatch(r"[0-9A-F]{24}", answer.out.strip()):
        return int(answer.out.strip()[:8], 16)
    said = control_data(cluster, cluster.data).get("Latest checkpoint's TimeLineID", "")
    # A crash right after a recovery: the checkpoint is still one of before.
    histories = [_HISTORY.fullmatch(path.name) for path in (cluster.data / "pg_wal").glob("*.history")]
    return max([int(said), *(int(found[1], 16) for found in histories if found)]) if said.isdigit() else 0


def remember(records: Path, timeline: int) -> None:
    """Write down the timeline for the day when the data is gone."""
    if timeline and timeline != recorded(records):
        records.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(records / _RECORD, {"timeline": timeline})


def recorded(records: Path) -> int:
    """The timeline that was written down last; 0 where none was."""
    found = read_json(records / _RECORD).get("timeline")
    return found if isinstance(found, int) else 0
