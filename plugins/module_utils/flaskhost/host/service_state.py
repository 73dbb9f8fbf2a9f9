"""Check whether a service runs with the configuration on the disk, by its state in systemd instead of a handler.

A handler is lost if its run is killed between the write and the reload, and no later run repeats it: the file is
unchanged, so nothing notifies the handler. So the state is read from the host: a file that is newer than the service's
last state change (a start, a restart, a reload) has not been loaded yet.

A clock that is set back must not cause errors. The age of a state change is compared with a monotonic clock, and a file
with a time in the future gets the current time before its service loads it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

#: The folder of the administrator's units and drop-ins.
UNITS = "/etc/systemd/system/"
#: The properties to request from ``systemctl show``.
PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "StateChangeTimestamp",
    "StateChangeTimestampMonotonic",
)
#: Maximum difference of systemd's two clocks in seconds; beyond it, the settable clock is ignored.
_CLOCKS_DIFFER = 1.0


def parse_show(text: str) -> dict[str, str]:
    """Parse the output of ``systemctl show --timestamp=us+utc`` into a mapping."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def state_changed_at(properties: Mapping[str, str]) -> float:
    """Return when the service last changed its state, in seconds since 1970; 0 if never.

    Args:
        properties: the result of :func:`parse_show`, with a time such as ``Sat 2026-11-21 10:30:12.123456 UTC``, and
            the microseconds of the monotonic clock.
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
    # The clock was set back since: convert to the current clock. After a jump ahead, the recorded time stays right.
    actual = time.time() - elapsed
    return actual if noted - actual > _CLOCKS_DIFFER else noted


def _items(paths: Iterable[str]) -> list[Path]:
    """Return the existing files and folders, and the files in the folders."""
    found = [item for path in map(Path, paths) for item in ([path, *path.glob("*")] if path.is_dir() else [path])]
    return [item for item in found if item.exists()]


def youngest(paths: Iterable[str]) -> float:
    """Return when the newest of some files was put in place, in seconds since 1970. Folders count with their files.

    The time is the inode's change time: a rename into place sets it, and no program sets it back.
    """
    return max([0.0, *(item.stat().st_ctime for item in _items(paths))])


def make_younger(paths: Iterable[str]) -> None:
    """Set the inodes' change time to now, without any other change to the files."""
    for path in map(Path, paths):
        if path.exists():
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def settle(paths: Iterable[str]) -> None:
    """Set the current time for files that were put in place while the clock was ahead.

    Call this before a service loads its files. Otherwise they stay newer than the service, and every run would restart
    the service until the clock has caught up.

    Args:
        paths: the files; folders count with their files.
    """
    now = time.time()
    for item in _items(paths):
        # Ignore read-only disks.
        with contextlib.suppress(OSError):
            if item.stat().st_ctime > now:
                make_younger([str(item)])


def steps(
    properties: Mapping[str, str], enabled: bool, reload_files: Iterable[str], restart_files: Iterable[str]
) -> list[str]:
    """Return the steps after which the service runs with the files on the disk, also after a boot.

    Args:
        properties: the result of :func:`parse_show`.
        enabled: whether it should start at boot.
        reload_files: files that a reload loads.
        restart_files: files that only a restart loads.

    Returns:
        Any of ``daemon-reload``, ``enable``, and one of ``start``, ``restart`` and ``reload``, in that order.
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
    # If a folder of drop-ins was created after systemd last read its units, systemd does not read it, and reports that
    # no reload is needed.
    unread = bool({"start", "restart"} & set(needed)) and any(path.startswith(UNITS) for path in restart_files)
    return ["daemon-reload", *needed] if stale or unread else needed
