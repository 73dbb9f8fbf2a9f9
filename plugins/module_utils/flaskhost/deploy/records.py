"""What is known of an app's releases on one host: a record in each release's folder, and the history of what served."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.deploy import virtualenv
from ansible.module_utils.flaskhost.host import atomic

#: The record of a release. Written last: a release without it is not whole.
RECORD = "release.json"
#: Entries of the history that are kept.
HISTORY_LENGTH = 200
#: The verbs of the history by which an earlier release serves again.
BACK = ("rollback", "return")


@dataclass
class Record:
    """What is known of a release; ``release.json`` in its folder, which only root reads.

    Attributes:
        id: UTC time and the beginning of the commit or digest.
        identity: digest of all that decides how the release behaves; the same identity is the same release.
        version: what the user asked for: a branch, a tag, a commit, the folder or the archive.
        revision: the commit, or the digest of the folder or archive.
        venv: the name of the environment.
        created: seconds since 1970.
        by: who built it, as ``user@controller``.
        healthy: whether it has passed the gate and the watch at least once.
        static: the folder of its own static files, relative to the release; empty when it has none.
        processes: the commands of its long-running processes beside the web server, by name.
        timers: ``command`` and ``on_calendar`` of its scheduled commands, by name.
        memory_mb: MB that each of its processes may take.
        drain: seconds that each of them gets to finish.
        release_command: the command that was run before it served for the first time.
        schema_before: the revision of the database's schema before that command; empty when unknown.
        schema_after: the revision after it.
        restore_point: the point in the database's log right before that command; empty where there is none.
        restore_time: the time right before it by the clock of a database on another host, UTC; empty where it is not.
        migrates_from: the release that served then.
        failed: why it was taken out of service; empty when it was not. It is not gone back to without being named.
        parts: the digest of each part of the identity, to tell what a new release differs in.
    """

    id: str
    identity: str
    version: str
    revision: str
    venv: str = ""
    created: float = field(default_factory=time.time)
    by: str = ""
    healthy: bool = False
    static: str = ""
    processes: dict[str, str] = field(default_factory=dict)
    timers: dict[str, dict[str, str]] = field(default_factory=dict)
    memory_mb: int = 512
    drain: int = 30
    release_command: str = ""
    schema_before: str = ""
    schema_after: str = ""
    restore_point: str = ""
    restore_time: str = ""
    migrates_from: str = ""
    failed: str = ""
    parts: dict[str, str] = field(default_factory=dict)


_FIELDS = frozenset(item.name for item in fields(Record))


class Store:
    """The releases of one app on this host.

    Args:
        root: the app's folder under /srv.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.releases, self.venvs = root, root / "releases", root / "venvs"
        self.history_file = root / "history.json"

    def path(self, release: str) -> Path:
        """The folder of a release."""
        return self.releases / release

    def record(self, release: str) -> Record | None:
        """Read the record of a release; None where it is not whole."""
        try:
            return self._read(release)
        except OSError:
            return None

    def _read(self, release: str) -> Record | None:
        """Read the record of a release; None where what is written there is none.

        Raises:
            OSError: there is no record, or it cannot be read.
        """
        text = (self.releases / release / RECORD).read_bytes()
        try:
            # Written by an older or a newer Flaskhost: what both know counts.
            return Record(**{name: value for name, value in json.loads(text).items() if name in _FIELDS})
        except (ValueError, TypeError, AttributeError):
            return None

    def is_whole(self, release: str) -> bool:
        """Whether a release was finished; also where its record is there and the disk does not give it away."""
        try:
            return self._read(release) is not None
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def all_records(self) -> list[Record]:
        """The records of all whole releases, the newest first."""
        if not self.releases.is_dir():
            return []
        found = [self.record(path.name) for path in self.releases.iterdir()]
        return sorted((item for item in found if item), key=lambda item: item.created, reverse=True)

    def write(self, record: Record) -> None:
        """Write the record of a release, whole or not at all."""
        text = json.dumps(asdict(record), indent=2, sort_keys=True) + "\n"
        atomic.write(self.releases / record.id / RECORD, text)

    def has_environment(self, record: Record) -> bool:
        """Whether the environment of a release is there and whole."""
        return bool(record.venv) and virtualenv.is_whole(self.venvs / record.venv)

    # -- the history --------------------------------------------------------------------------------------------------

    def history(self) -> list[dict[str, Any]]:
        """What served when, the oldest first: ``at`` (seconds since 1970), ``release``, ``from``, ``by``, ``verb``."""
        try:
            found = json.loads(self.history_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def remember(self, release: str, came_from: str, by: str, verb: str) -> None:
        """Add an entry to the history.

        Args:
            release: what serves from now on; empty when nothing does.
            came_from: what served until now; empty when nothing.
            by: who did it, as ``user@controller``.
            verb: ``deploy``, ``rollback`` or ``return`` (taken back by the watch, or since another host failed).
        """
        entry = {"at": time.time(), "release": release, "from": came_from, "by": by, "verb": verb}
        text = json.dumps([*self.history(), entry][-HISTORY_LENGTH:], indent=1) + "\n"
        atomic.write(self.history_file, text)

    def last_served(self) -> dict[str, tuple[int, float]]:
        """The order in which the releases last began to serve; before them, those that never did, by their age.

        The order is that of the history and not of its times, since a host's clock can jump.

        Returns:
            For each release what sorts it: its last place in the history from 1 on, or 0 and the seconds when it was
            made.
        """
        order = {item.id: (0, item.created) for item in self.all_records()}
        for place, entry in enumerate(self.history(), 1):
            if entry.get("release") in order:
                order[entry["release"]] = (place, 0.0)
        return order

    def previous_healthy(self, live: str) -> str:
        """The release to go back to: the last one that served well before the one that serves; empty when none.

        Args:
            live: the release that serves.
        """
        served = self.last_served()
        candidates = [
            item
            for item in self.all_records()
            if item.id != live and item.healthy and not item.failed and self.has_environment(item)
        ]
        return max(candidates, key=lambda item: served[item.id]).id if candidates else ""

    def is_back(self, release: str, live: str) -> bool:
        """Whether a move from what serves to another release is one back, to what served before it.

        Built, or served, longest ago is not the question. After a deploy of A, of B and of A again it is B that served
        before; and after a deploy of A and B and a move back to A it is nothing: B is what is ahead.

        Args:
            release: where to.
            live: what serves.
        """
        trail: list[str] = []
        history = self.history()
        for entry in history:
            name = str(entry.get("release") or "")
            if entry.get("verb") in BACK and name in trail:
                # What was gone back from is not behind it any more.
                while trail[-1] != name:
                    trail.pop()
            elif name and trail[-1:] != [name]:
                trail.append(name)
        behind = trail[:-1] if trail[-1:] == [live] else trail
        if release in behind:
            return True
        if any(entry.get("release") == release for entry in history):
            return False
        # The history does not reach back to it, or was lost: then what was built before it served before it.
        target, present = self.record(release), self.record(live)
        return bool(target and present and target.created < present.created)

    # -- removing -----------------------------------------------------------------------------------------------------

    def held(self) -> set[str]:
        """The releases that a slot holds, or that ``current`` leads to: they are never removed."""
        links = [*(self.root / "slots" / slot for slot in SLOTS), self.root / "current"]
        return {link.readlink().name for link in links if link.is_symlink()}

    def remove_partial(self) -> None:
        """Remove releases that were never finished, or whose record is damaged, so that nobody can use them."""
        held = self.held()
        for path in self.releases.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in held and not self.is_whole(path.name):
                shutil.rmtree(path)

    def refused(self, serving: str) -> set[str]:
        """The releases beside the one that serves that have never been healthy, or are not whole."""
        held = self.held()
        found = set()
        for path in self.releases.iterdir():
            if path.name == serving or not path.is_dir() or path.is_symlink():
                continue
            record = self.record(path.name)
            if not record.healthy if record else path.name not in held and not self.is_whole(path.name):
                found.add(path.name)
        return found

    def prune(self, keep: int) -> None:
        """Remove releases beyond the number to keep, those that served longest ago first, and what is not whole.

        Args:
            keep: how many healthy releases stay.
        """
        held, served = self.held(), self.last_served()
        records = sorted(self.all_records(), key=lambda item: served[item.id], reverse=True)
        kept = [item for item in records if item.healthy][:keep]
        kept += [item for item in records if item.id in held and item not in kept]
        for item in records:
            if item not in kept:
                # The record first: what is removed in part is then no release any more.
                (self.releases / item.id / RECORD).unlink()
                shutil.rmtree(self.releases / item.id)
        self.remove_partial()
        self.remove_unused_environments()

    def remove_unused_environments(self) -> None:
        """Remove the environments that no release has."""
        # Asked of the links, not of the records: a release that serves keeps its environment, whatever its record says.
        used = {link.readlink().name for link in self.releases.glob("*/venv")}
        for path in self.venvs.iterdir():
            if path.is_dir() and path.name not in used:
                virtualenv.remove(path)
