"""The configuration of a PostgreSQL server: compare the files on the disk with what the running server has loaded.

Whether a setting has changed and whether it needs a restart are different questions. PostgreSQL knows both: the view
``pg_file_settings`` shows which settings in the files it cannot apply while it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

#: Debian's folders for the settings and the data of clusters, by version and name.
SETTINGS, DATA = Path("/etc/postgresql"), Path("/var/lib/postgresql")
#: PgBouncer's configuration.
POOLS = Path("/etc/pgbouncer/pgbouncer.ini")
#: The ``error`` in ``pg_file_settings`` for a valid setting that needs a restart; without a name, for a setting that
#: was removed from the files.
WAITS = "setting could not be applied"
#: The error for a TLS rule while TLS is off in the running server; the same files are about to enable it.
WAITS_TLS = "hostssl record cannot match because SSL is disabled"
WAITS_REMOVED = re.compile(r'parameter "([\w.]+)" cannot be changed without restarting')

#: SQL that returns one JSON object: the problems in the files on the disk, and whether pages have checksums.
QUESTION = """
SELECT json_build_object(
  'settings', (SELECT coalesce(json_agg(json_build_array(coalesce(name, ''), error)), '[]')
    FROM pg_file_settings WHERE error IS NOT NULL),
  'access', (SELECT coalesce(json_agg(json_build_array(line_number, error)), '[]')
    FROM pg_hba_file_rules WHERE error IS NOT NULL),
  'checksums', current_setting('data_checksums') = 'on');
"""


class ServerError(Exception):
    """The server cannot be brought into the requested state; the message contains the reason and the fix."""


def clusters(name: str, settings: Path = SETTINGS) -> dict[str, Path]:
    """Return the clusters of a name that have data, by major version.

    Args:
        name: the clusters' name, such as ``main``.
        settings: the folder of the settings.

    Returns:
        The data directories.
    """
    found = {}
    for folder in settings.glob(f"*/{name}"):
        data = data_folder(folder)
        if (data / "PG_VERSION").is_file():
            found[folder.parent.name] = data
    return found


def data_folder(folder: Path) -> Path:
    """Return the data directory of a cluster.

    Args:
        folder: the folder of its settings.
    """
    default = DATA / folder.parent.name / folder.name
    try:
        text = (folder / "postgresql.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return default
    named = re.findall(r"^\s*data_directory\s*=?\s*'([^']+)'", text, re.MULTILINE)
    return Path(named[-1]) if named else default


def port(folder: Path) -> int:
    """Return the port of a cluster from its settings.

    Args:
        folder: the folder of its settings.
    """
    try:
        text = (folder / "postgresql.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 5432
    named = re.findall(r"^\s*port\s*=?\s*'?(\d+)", text, re.MULTILINE)
    return int(named[-1]) if named else 5432


def starts(folder: Path) -> bool:
    """Check in a cluster's ``start.conf`` whether it starts at boot.

    Args:
        folder: the folder of its settings.
    """
    try:
        text = (folder / "start.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    words = [line.partition("#")[0].strip() for line in text.splitlines()]
    return next((word for word in words if word), "auto") == "auto"


def guard(version: str, found: Mapping[str, Path], started: Iterable[str]) -> None:
    """Raise an error if the data belongs to another version.

    Args:
        version: the requested major version.
        found: the result of :func:`clusters`.
        started: the versions that start at boot.

    Raises:
        ServerError: there is data of another version, and none of the requested version except what an upgrade has
            left behind.
    """
    others = sorted(found.keys() - {version})
    started = set(started)
    if not others or (version in found and (version in started or not started & set(others))):
        return
    other = ([item for item in others if item in started] or others)[-1]
    raise ServerError(
        f"this host has its data in PostgreSQL {other} ({found[other]}), not in {version}. Nothing has been changed."
        f'\nTo keep {other}: postgres_version: "{other}" in the inventory.'
        "\nTo upgrade the data (you can undo this): ansible-playbook playbooks/upgrade_postgres.yml"
    )


def leaving(access: str, pools: str, wanted: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the databases for which the files on the disk allow access that should be withdrawn.

    The live release can still need the access, so it is withdrawn only after the next release goes live.

    Args:
        access: the text of ``pg_hba.conf``, as the role writes it.
        pools: the text of PgBouncer's configuration, as the role writes it.
        wanted: the databases that should be accessible, each with its pool size; 0 for no pool.

    Returns:
        ``name`` of each database and ``pool``, its pool size.
    """
    sizes = {name: int(size) for name, size in re.findall(r"^(\S+) = host=\S+ pool_size=(\d+)$", pools, re.MULTILINE)}
    found = []
    for name, mapped in re.findall(r'^local\s+"([^"]+)" "\1" peer( map=flaskhost)?$', access, re.MULTILINE):
        pool = sizes.get(name, 0) if mapped else 0
        if name not in wanted or (pool and not wanted[name]):
            found.append({"name": name, "pool": pool})
    return found


def refusals(text: str) -> str:
    """Return PostgreSQL's errors for a settings file, without timestamps and without the temporary file's name."""
    found = re.findall(r" (?:LOG|ERROR|HINT|DETAIL): +(.+)", text)
    return "; ".join(re.sub(r' in file "[^"]*" line \d+', "", line) for line in found)


def missing_libraries(text: str, folder: Path) -> list[str]:
    """Return the libraries that a settings file preloads but that are not installed.

    PostgreSQL does not report them while it reads its settings: it fails to start, or rejects each connection.

    Args:
        text: the file's content, as the role writes it: a name and a quoted value on each line.
        folder: the folder of this version's libraries.
    """
    if re.search(r"^dynamic_library_path\b", text, re.MULTILINE):
        return []
    found = []
    for kind, value in re.findall(r"^(shared|session|local)_preload_libraries = '(.*)'$", text, re.MULTILINE):
        for part in value.split(","):
            name = part.strip().strip('"').strip()
            bare = name.removeprefix("$libdir/").removesuffix(".so")
            # Libraries that a session can load by itself have a folder of their own.
            places = [folder / f"{bare}.so", *([folder / "plugins" / f"{bare}.so"] if kind == "local" else [])]
            if bare and not any(place.is_file() for place in places):
                found.append(name)
    return found


def restart_reasons(answer: Mapping[str, Any]) -> list[str]:
    """Return the settings on the disk that only a restart applies.

    Args:
        answer: the result of :data:`QUESTION`.
    """
    reasons = []
    for name, error in answer["settings"]:
        if name and error == WAITS:
            reasons.append(name)
        elif not name and (removed := WAITS_REMOVED.search(error)):
            reasons.append(removed[1])
    return sorted(set(reasons))


def file_problems(answer: Mapping[str, Any]) -> list[str]:
    """Return the problems in the files on the disk that a restart would not solve.

    Args:
        answer: the result of :data:`QUESTION`.
    """
    access = [f"line {number} of pg_hba.conf: {error}" for number, error in answer["access"] if error != WAITS_TLS]
    return access + [
        f"{name or 'a settings file'}: {error}"
        for name, error in answer["settings"]
        if error != WAITS and not WAITS_REMOVED.search(error)
    ]


def service_steps(steps: Iterable[str], reasons: Iterable[str]) -> list[str]:
    """Return the steps for the service, given the settings that the running server cannot apply.

    Args:
        steps: the result of :func:`service_state.steps`.
        reasons: the result of :func:`restart_reasons`.
    """
    steps = list(steps)
    if not list(reasons) or {"start", "restart"} & set(steps):
        return steps
    return [*(step for step in steps if step != "reload"), "restart"]
