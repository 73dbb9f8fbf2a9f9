"""Whether a service runs with the configuration that is on the disk, asked of systemd rather than remembered.

A handler is lost when its run is killed between the write and the reload, and no later run brings it back: the file is
as it should be, so nothing notifies. Here the need is read from the host: a file that is younger than the service's
last change of state (a start, a restart, a reload) has not been loaded yet.

A clock that is set back must not confuse the two. The age of a change of state is checked against a clock that is never
set, and a file that seems to come from the future gets the present time before its service takes it in.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

#: Where the administrator's units and drop-ins are.
UNITS = "/etc/systemd/system/"
#: What ``systemctl show`` is asked for.
PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "StateChangeTimestamp",
    "StateChangeTimestampMonotonic",
)
#: Seconds by which the two clocks of systemd may differ before the one that can be set counts for nothing.
_CLOCKS_DIFFER = 1.0


def parse_show(text: str) -> dict[str, str]:
    """Turn the output of ``systemctl show --timestamp=us+utc`` into a mapping."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def state_changed_at(properties: Mapping[str, str]) -> float:
    """When the service last changed its state, in seconds since 1970; 0 when never.

    Args:
        properties: what :func:`parse_show` returns, with a time such as ``Sat 2026-11-21 10:30:12.123456 UTC``, and the
            microseconds of the monotonic clock.
    """
    text = properties.get("StateChangeTimestamp", "")
    try:
        _day, date, clock, _zone = text.split()
        noted = datetime.fromisoformat(f"{date}T{clock}+00:00").timestamp()
    except ValueError:
        return 0.0
    try:
        elapsed = time.clock_gettime(time.CLOCK_MONOTONIC) - int(properties["StateChangeTimestampMonotonic"]) / 1e6
    except (KeyError, ValueError):
        return noted
    # The clock was set back since: by what it says now, it was then. After a jump ahead what was noted stays right.
    actual = time.time() - elapsed
    return actual if noted - actual > _CLOCKS_DIFFER else noted


def _items(paths: Iterable[str]) -> list[Path]:
    """The files and folders that there are, and the files in the folders."""
    found = [item for path in map(Path, paths) for item in ([path, *path.glob("*")] if path.is_dir() else [path])]
    return [item for item in found if item.exists()]


def youngest(paths: Iterable[str]) -> float:
    """When the youngest of some files was put in place, in seconds since 1970; folders count with their files.

    The time is that of the inode's change: a rename into place sets it, and no program sets it back.
    """
    return max([0.0, *(item.stat().st_ctime for item in _items(paths))])


def make_younger(paths: Iterable[str]) -> None:
    """Set the time of the inodes' change to now, and nothing else about the files."""
    for path in map(Path, paths):
        if path.exists():
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def settle(paths: Iterable[str]) -> None:
    """Give the present time to files that were put in place while the clock was ahead.

    To be called before a service takes its files in: else they stay younger than the service, which would be restarted
    by every run until the clock has caught up.

    Args:
        paths: the files; folders count with their files.
    """
    now = time.time()
    for item in _items(paths):
        # Of a disk that only reads nothing is to be had.
        with contextlib.suppress(OSError):
            if item.stat().st_ctime > now:
                make_younger([str(item)])


def steps(
    properties: Mapping[str, str], enabled: bool, reload_files: Iterable[str], restart_files: Iterable[str]
) -> list[str]:
    """Say what has to be done so that the service runs, at boot too, with what is on the disk.

    Args:
        properties: what :func:`parse_show` returns.
        enabled: whether it should start at boot.
        reload_files: files that a reload takes in.
        restart_files: files that only a restart takes in.

    Returns:
        Of ``daemon-reload``, ``enable``, and one of ``start``, ``restart`` and ``reload``, in that order.
    """
    restart_files = list(restart_files)
    needed: list[str] = []
    if enabled and properties.get("UnitFileState") not in ("enabled", "static", "generated", "alias", "indirect"):
        needed.append("enable")
    since = state_changed_at(properties)
    if properties.get("ActiveState") not in ("active", "reloading"):
        needed.append("start")
    elif youngest(restart_files) > since:
        needed.append("restart")
    elif youngest(reload_files) > since:
        needed.append("reload")
    stale = properties.get("NeedDaemonReload") == "yes" or properties.get("LoadState") == "not-found"
    # systemd does not look into a folder of drop-ins that was made after it last read its units, and says that there is
    # no need to.
    unread = bool({"start", "restart"} & set(needed)) and any(path.startswith(UNITS) for path in restart_files)
    return ["daemon-reload", *needed] if stale or unread else needed
