"""The data that restores kept: its place, its size, and the command that deletes it, which only an operator runs."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flaskhost_backup.cluster import Server, human
from flaskhost_backup.config import Config
from flaskhost_backup.state import utc

#: Maximum number of files of a folder to count. The size of a larger folder is a minimum.
MOST_FILES = 100_000
#: The endings of the names that restores give to a file or folder, and to a database.
_FOLDER = re.compile(r".+\.before-(\d{8}T\d{6}Z)(?:-\d+)?")
_DATABASE = r"_before_[0-9]{8}t[0-9]{6}z$"
#: The files of tables that users created have numbers from 16384 on (FirstNormalObjectId). A database without such a
#: file is still as it was created. This needs no login to a tenant's database.
_DATABASES = f"""
SELECT pg_catalog.json_build_array(d.datname, pg_catalog.pg_database_size(d.oid),
  d.dattablespace = (SELECT t.oid FROM pg_catalog.pg_tablespace t WHERE t.spcname = 'pg_default') AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_ls_dir('base/' || d.oid, true, false) AS f (name)
    WHERE f.name ~ '^[0-9]+$' AND f.name::bigint >= 16384))
FROM pg_catalog.pg_database d
WHERE d.datname ~ '{_DATABASE}'
  OR EXISTS (SELECT FROM pg_catalog.pg_database b WHERE b.datname ~ ('^' || d.datname || '{_DATABASE}'))
ORDER BY d.datname
"""  # noqa: S608 - a constant


@dataclass(frozen=True)
class Aside:
    """Data that a restore kept.

    Attributes:
        name: its path, or the database's name.
        bytes: its size; a minimum if it has very many files.
        at: when, in seconds since 1970.
        remove: the command that removes it.
    """

    name: str
    bytes: int
    at: float
    remove: str

    @property
    def line(self) -> str:
        """Describe it in one line."""
        return f"{self.name}, {human(self.bytes)}, from {utc(self.at)}. To delete it: {self.remove}"


@dataclass(frozen=True)
class Found:
    """The result of :func:`find`.

    Attributes:
        things: the kept data, oldest first.
        problems: a sentence for each database that is empty although a restore kept its data.
    """

    things: tuple[Aside, ...]
    problems: tuple[str, ...]

    def as_data(self) -> list[dict[str, Any]]:
        """Return the kept data as mappings, for programs."""
        return [asdict(thing) for thing in self.things]


def find(config: Config) -> Found:
    """Find the data that restores kept. If PostgreSQL does not run, databases are left out.

    Args:
        config: the configuration.
    """
    things, problems = list(_folders(config)), []
    rows = _ask(config)
    filled = [name for name, _size, empty in rows if not empty]
    user = config.cluster.user if config.cluster else ""
    for name, size, empty in rows:
        mark = re.search(_DATABASE, name)
        if mark:
            at = _seconds(mark[0][len("_before_") :].upper())
            things.append(Aside(name, size, at, f"sudo -u {user} dropdb {shlex.quote(name)}"))
        elif empty:
            before = [other for other in filled if re.fullmatch(re.escape(name) + _DATABASE, other)]
            problems += [
                f"The database {name} is empty. A restore kept its previous data in {' and '.join(before)}. Check it: "
                f"sudo -u {user} psql {shlex.quote(before[-1])}"
            ][: len(before)]
    return Found(tuple(sorted(things, key=lambda item: (item.at, item.name))), tuple(problems))


def _ask(config: Config) -> list[tuple[str, int, bool]]:
    if not config.cluster:
        return []
    done = Server(config.cluster).run(_DATABASES, 10.0)
    lines = done.out.splitlines() if not done.status else []
    return [(str(name), int(size), bool(empty)) for name, size, empty in map(json.loads, lines)]


def _folders(config: Config) -> Iterator[Aside]:
    # /etc/flaskhost is among the paths already, in most configurations.
    places = list(dict.fromkeys([Path("/etc/flaskhost"), *config.paths]))
    places += [
        config.database_repository,
        *(app.data for app in config.apps),
        *(queue.state for queue in config.queues),
    ]
    if config.cluster:
        places.append(config.cluster.data)
    for place in places:
        for path in place.parent.glob(f"{place.name}.before-*"):
            mark = _FOLDER.fullmatch(path.name)
            if mark:
                yield Aside(str(path), _size(path), _seconds(mark[1]), f"sudo rm -r {shlex.quote(str(path))}")


def _size(path: Path) -> int:
    """Return the disk usage of a folder in bytes. Links are not followed."""
    total = count = 0
    for _folder, _names, files, folder in os.fwalk(path, follow_symlinks=False):
        for name in files:
            try:
                total += os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks * 512
            except OSError:
                # It has just been removed.
                continue
        count += len(files)
        if count > MOST_FILES:
            break
    return total


def _seconds(mark: str) -> float:
    try:
        return datetime.strptime(mark, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
