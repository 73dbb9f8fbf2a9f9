"""A PostgreSQL server that runs with what is on the disk: what it needs for that is asked of the server itself.

A setting that only a restart takes in is one thing, a setting that has changed another: PostgreSQL knows both, and says
of the files on the disk what it cannot take in while it runs (the view ``pg_file_settings``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

#: Where Debian keeps the settings and the data of clusters, by version and name.
SETTINGS, DATA = Path("/etc/postgresql"), Path("/var/lib/postgresql")
#: PgBouncer's settings.
POOLS = Path("/etc/pgbouncer/pgbouncer.ini")
#: What ``error`` says in ``pg_file_settings`` of a setting that is in order and waits for a restart; and, without a
#: name beside it, of one that was taken out of the files.
WAITS = "setting could not be applied"
#: What it says of a rule for TLS, which the same settings are about to switch on.
WAITS_TLS = "hostssl record cannot match because SSL is disabled"
WAITS_REMOVED = re.compile(r'parameter "([\w.]+)" cannot be changed without restarting')

#: SQL that answers with one JSON object: what is wrong with the files on the disk, and whether pages have checksums.
QUESTION = """
SELECT json_build_object(
  'settings', (SELECT coalesce(json_agg(json_build_array(coalesce(name, ''), error)), '[]')
    FROM pg_file_settings WHERE error IS NOT NULL),
  'access', (SELECT coalesce(json_agg(json_build_array(line_number, error)), '[]')
    FROM pg_hba_file_rules WHERE error IS NOT NULL),
  'checksums', current_setting('data_checksums') = 'on');
"""


class ServerError(Exception):
    """A server that cannot be as it was asked for; the text says why and what to do."""


def clusters(name: str, settings: Path = SETTINGS) -> dict[str, Path]:
    """The clusters of a name that have data, by their major version.

    Args:
        name: the clusters' name, such as ``main``.
        settings: the folder of the settings.

    Returns:
        The folders of the data.
    """
    found = {}
    for folder in settings.glob(f"*/{name}"):
        data = data_folder(folder)
        if (data / "PG_VERSION").is_file():
            found[folder.parent.name] = data
    return found


def data_folder(folder: Path) -> Path:
    """Where the data of a cluster is.

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
    """The port of a cluster, by its settings.

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
    """Whether a cluster is started at boot, by its ``start.conf``.

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
    """Stop where the data is another version's.

    Args:
        version: the major version that is wanted.
        found: what :func:`clusters` returns.
        started: the versions of those that are started at boot.

    Raises:
        ServerError: there is data of another version, and none of the wanted one, or only what an upgrade has left.
    """
    others = sorted(found.keys() - {version})
    started = set(started)
    if not others or (version in found and (version in started or not started & set(others))):
        return
    other = ([item for item in others if item in started] or others)[-1]
    raise ServerError(
        f"this host has its data in PostgreSQL {other} ({found[other]}), and {version} is wanted. Nothing was touched."
        f'\nTo stay with it: postgres_version: "{other}" in the inventory.'
        "\nTo move the data, with a way back: ansible-playbook playbooks/upgrade_postgres.yml"
    )


def leaving(access: str, pools: str, wanted: Mapping[str, int]) -> list[dict[str, Any]]:
    """Whom the files on the disk let in that is no longer to be let in.

    The release that serves may be one that still needs it: it has to be withdrawn after the next one serves.

    Args:
        access: the text of ``pg_hba.conf``, as the role writes it.
        pools: the text of PgBouncer's settings, likewise.
        wanted: the databases that are to be reached, with the connections of each to share; 0 for none.

    Returns:
        ``name`` of each database and ``pool``, the connections to share.
    """
    sizes = {name: int(size) for name, size in re.findall(r"^(\S+) = host=\S+ pool_size=(\d+)$", pools, re.MULTILINE)}
    found = []
    for name, mapped in re.findall(r'^local\s+"([^"]+)" "\1" peer( map=flaskhost)?$', access, re.MULTILINE):
        pool = sizes.get(name, 0) if mapped else 0
        if name not in wanted or (pool and not wanted[name]):
            found.append({"name": name, "pool": pool})
    return found


def refusals(text: str) -> str:
    """What PostgreSQL says against a file of settings, without the times, and the name that the file had meanwhile."""
    found = re.findall(r" (?:LOG|ERROR|HINT|DETAIL): +(.+)", text)
    return "; ".join(re.sub(r' in file "[^"]*" line \d+', "", line) for line in found)


def missing_libraries(text: str, folder: Path) -> list[str]:
    """The libraries that a file of settings has preloaded, and that are not installed.

    PostgreSQL says nothing of them while it reads its settings: it does not start, or refuses each connection.

    Args:
        text: the file's content, as the role writes it: a name and a value in quotes on each line.
        folder: where the libraries of this version are.
    """
    if re.search(r"^dynamic_library_path\b", text, re.MULTILINE):
        return []
    found = []
    for kind, value in re.findall(r"^(shared|session|local)_preload_libraries = '(.*)'$", text, re.MULTILINE):
        for part in value.split(","):
            name = part.strip().strip('"').strip()
            bare = name.removeprefix("$libdir/").removesuffix(".so")
            # What a session may load by itself has a folder of its own.
            places = [folder / f"{bare}.so", *([folder / "plugins" / f"{bare}.so"] if kind == "local" else [])]
            if bare and not any(place.is_file() for place in places):
                found.append(name)
    return found


def restart_reasons(answer: Mapping[str, Any]) -> list[str]:
    """The settings on the disk that only a restart takes in.

    Args:
        answer: the answer to :data:`QUESTION`.
    """
    reasons = []
    for name, error in answer["settings"]:
        if name and error == WAITS:
            reasons.append(name)
        elif not name and (removed := WAITS_REMOVED.search(error)):
            reasons.append(removed[1])
    return sorted(set(reasons))


def file_problems(answer: Mapping[str, Any]) -> list[str]:
    """What is wrong with the files on the disk, and no restart would cure.

    Args:
        answer: the answer to :data:`QUESTION`.
    """
    access = [f"line {number} of pg_hba.conf: {error}" for number, error in answer["access"] if error != WAITS_TLS]
    return access + [
        f"{name or 'a file of settings'}: {error}"
        for name, error in answer["settings"]
        if error != WAITS and not WAITS_REMOVED.search(error)
    ]


def service_steps(steps: Iterable[str], reasons: Iterable[str]) -> list[str]:
    """What to do about the service, once the server has said what it cannot take in while it runs.

    Args:
        steps: what :func:`service_state.steps` returns.
        reasons: what :func:`restart_reasons` returns.
    """
    steps = list(steps)
    if not list(reasons) or {"start", "restart"} & set(steps):
        return steps
    return [*(step for step in steps if step != "reload"), "restart"]
