"""The results of earlier runs, and the lock that allows one run at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host import lock as lock_file
from ansible.module_utils.flaskhost.host.json_state import read as read_json
from ansible.module_utils.flaskhost.host.json_state import write as write_json

from flaskhost_backup.config import BackupError

#: The lock file. The kernel releases the lock when its process ends, however it ends.
LOCK = Path("/run/lock/flaskhost-backup.lock")
#: Seconds to wait for another run, unless the caller says otherwise: a backup of a large database takes an hour.
LOCK_SECONDS = 3600.0
#: Number of restore points to keep for each app.
POINTS = 50


def utc(seconds: float) -> str:
    """Format a time for messages."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def stamp(seconds: float) -> str:
    """Format a time for the name of a file or folder."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%SZ}"


class State:
    """The results of earlier runs: one JSON file for each kind of run, so that no two runs write the same file.

    Each file contains the ``last`` run (``at``, ``ok``, ``seconds``, ``problems`` and the run's own values) and the
    last ``good`` one.

    Args:
        folder: the folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, kind: str) -> dict[str, Any]:
        """Return the entries for a kind of run: ``last`` and ``good``, each empty if there was none."""
        found = read_json(self.folder / f"{kind}.json")
        return {name: found.get(name) if isinstance(found.get(name), dict) else {} for name in ("last", "good")}

    def note(self, kind: str, entry: Mapping[str, Any]) -> None:
        """Record a run."""
        found = self.read(kind)
        found["last"] = dict(entry)
        if entry.get("ok"):
            found["good"] = dict(entry)
        write_json(self.folder / f"{kind}.json", found)

    def points(self) -> list[dict[str, Any]]:
        """List the restore points, oldest first: ``name``, ``app``, ``release``, ``at``, ``lsn``, ``timeline``."""
        found = read_json(self.folder / "points.json").get("points")
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def add_point(self, point: Mapping[str, Any]) -> None:
        """Record a restore point, and drop the oldest of the same app beyond :data:`POINTS`."""
        points = [item for item in self.points() if item.get("name") != point["name"]] + [dict(point)]
        same = [item for item in points if item.get("app") == point["app"]]
        drop = {item["name"] for item in same[:-POINTS]}
        kept = [item for item in points if item.get("name") not in drop]
        write_json(self.folder / "points.json", {"points": kept})


class Busy(BackupError):
    """Another run holds the lock.

    Args:
        holder: the verb of that run, its process, and since when.
    """

    def __init__(self, holder: str) -> None:
        self.is_copy = holder.startswith("copy,")
        ended = "it has ended"
        if self.is_copy:
            ended += ", or end it with: sudo systemctl stop flaskhost-backup@copy (the next copy continues)"
        super().__init__(
            f"Another run is active: {holder}.",
            f"Wait until {ended}. Then run the same command again. To list the runs: systemctl list-units "
            "'flaskhost-backup@*'",
        )


@contextlib.contextmanager
def lock(
    who: str, path: Path = LOCK, seconds: float = LOCK_SECONDS, pause: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the lock during a block.

    Args:
        who: the verb, for other runs that find the lock taken.
        path: the lock file.
        seconds: maximum time to wait.
        pause: sleeps for a number of seconds; replaced in tests.

    Raises:
        Busy: another run held the lock for that time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock_file.hold(path, who, seconds, pause):
            yield
    except lock_file.Busy as error:
        raise Busy(error.holder) from None


def holder(path: Path = LOCK) -> str:
    """Return who holds the lock: the verb, its process, and since when; empty if nobody does."""
    return lock_file.holder(path)


@contextlib.contextmanager
def held(paths: list[Path]) -> Iterator[None]:
    """Hold the deploy locks of the apps, all or none, so that no deploy runs during a restore.

    Raises:
        BackupError: a deploy is running.
    """
    with contextlib.ExitStack() as stack:
        for path in paths:
            if not path.parent.is_dir():
                continue
            stream = stack.enter_context(lock_file.open_file(path))
            if not lock_file.acquire(stream):
                raise BackupError(
                    f"A deploy has locked {path}.", "Wait until it has ended, then run the same command again."
                )
        yield
