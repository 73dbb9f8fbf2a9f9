"""Warn if the host cannot enforce disk limits for apps. A warning instead of an error, as few file systems can."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from .report import get

#: The folders of the apps' files and of PostgreSQL's databases.
FILES, DATABASES = "/srv", "/var/lib/postgresql"


def disk_warnings(facts: Any, host: str, *, runs_apps: bool, runs_database: bool) -> list[str]:
    """Warn if ``limits.disk`` has no effect.

    Args:
        facts: the host's facts, without the prefix ``ansible_``.
        host: its name.
        runs_apps: whether apps run there.
        runs_database: whether PostgreSQL runs there.
    """
    mounts = [entry for entry in get(facts, list, "mounts") or [] if isinstance(entry, dict)]
    places = [*([FILES] if runs_apps else []), *([DATABASES] if runs_database else [])]
    open_ = [place for place in places if not _has_quotas(mounts, PurePosixPath(place))]
    if not open_:
        return []
    return [
        f"{host}: limits.disk has no effect. The file system of {' and '.join(open_)} has no project quotas, so one "
        "app can fill it. docs/isolation.md, The disk, shows how to turn them on."
    ]


def _has_quotas(mounts: list[dict[str, Any]], place: PurePosixPath) -> bool:
    above = [entry for entry in mounts if place.is_relative_to(str(entry.get("mount") or "/nowhere"))]
    nearest = max(above, key=lambda entry: len(str(entry["mount"])), default={})
    return bool({"prjquota", "pquota"} & {*str(nearest.get("options") or "").split(",")})
