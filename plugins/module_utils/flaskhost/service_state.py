"""Whether a service runs with the configuration that is on the disk, asked of systemd rather than remembered.

A handler is lost when its run is killed between the write and the reload, and no later run brings it back: the file is
as it should be, so nothing notifies. Here the need is read from the host: a file that is younger than the service's
last change of state (a start, a restart, a reload) has not been loaded yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

#: Where the administrator's units and drop-ins are.
UNITS = "/etc/systemd/system/"
#: What ``systemctl show`` is asked for.
PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload", "StateChangeTimestamp")


def parse_show(text: str) -> dict[str, str]:
    """Turn the output of ``systemctl show --timestamp=us+utc`` into a mapping."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def state_changed_at(properties: Mapping[str, str]) -> float:
    """When the service last changed its state, in seconds since 1970; 0 when never.

    Args:
        properties: what :func:`parse_show` returns, with a time such as ``Sat 2026-11-21 10:30:12.123456 UTC``.
    """
    text = properties.get("StateChangeTimestamp", "")
    try:
        _day, date, time, _zone = text.split()
        return datetime.fromisoformat(f"{date}T{time}+00:00").timestamp()
    except ValueError:
        return 0.0


def youngest(paths: Iterable[str]) -> float:
    """When the youngest of some files was put in place, in seconds since 1970; folders count with their files.

    The time is that of the inode's change: a rename into place sets it, and no program sets it back.
    """
    times = [0.0]
    for path in map(Path, paths):
        for item in [path, *path.glob("*")] if path.is_dir() else [path]:
            if item.exists():
                times.append(item.stat().st_ctime)
    return max(times)


def make_younger(paths: Iterable[str]) -> None:
    """Set the time of the inodes' change to now, and nothing else about the files."""
    for path in map(Path, paths):
        if path.exists():
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


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
