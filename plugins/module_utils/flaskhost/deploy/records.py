"""The metadata of an app's releases on one host: a record in each release's folder, and the history."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.deploy import virtualenv
from ansible.module_utils.flaskhost.host import atomic, tree

#: The record of a release. Written last: a release without it is incomplete.
RECORD = "release.json"
#: Number of history entries that are kept.
HISTORY_LENGTH = 200
#: The verbs in the history that make an earlier release live again.
BACK = ("rollback", "return")


@dataclass
class Record:
    """The record of a release: ``release.json`` in its folder, readable only for root.

    Attributes:
        id: UTC time and the beginning of the commit or digest.
        identity: digest of everything that decides how the release behaves. Equal identities mean equal releases.
        version: what the user requested: a branch, a tag, a commit, the folder or the archive.
        revision: the commit, or the digest of the folder or archive.
        venv: the name of the virtual environment.
        created: seconds since 1970.
        by: who built it, as ``user@controller``.
        healthy: whether it has passed the gate and the watch at least once.
        static: the folder of its own static files, relative to the release; empty if it has none.
        processes: the commands of its worker processes, by name.
        timers: ``command`` and ``on_calendar`` of its scheduled commands, by name.
        size: digest of the figures in the application server's settings, such as its workers, with which it was last
            started.
        memory_mb: memory limit of each of its processes, in MB.
        drain: seconds that each of them has to finish.
        command: the command that starts its application server, as in a slot's unit; empty for a release of an earlier
            version of Flaskhost.
        key_names: the further names of the generated signing key in its variables.
        release_command: the command that ran before it first went live.
        driver: the driver in its database URL; empty if the URL is the user's own, or of an earlier version of
            Flaskhost.
        schema_before: the revision of the database schema before that command; empty if unknown.
        schema_after: the revision after it.
        restore_point: the recovery point in the WAL right before that command; empty if there is none.
        restore_time: the time right before it, by the clock of a database on another host, in UTC; empty for a local
            database.
        migrates_from: the release that was live then.
        failed: why it was taken out of service; empty if it was not. Rollbacks skip it unless it is named.
        parts: the digest of each part of the identity, to report how a new release differs.
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
    size: str = ""
    memory_mb: int = 512
    drain: int = 30
    command: str = ""
    key_names: list[str] = field(default_factory=list)
    release_command: str = ""
    driver: str = ""
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
        """Return the folder of a release."""
        return self.releases / release

    def record(self, release: str) -> Record | None:
        """Read the record of a release; None if the release is incomplete."""
        try:
            return self._read(release)
        except OSError:
            return None

    def _read(self, release: str) -> Record | None:
        """Read the record of a release; None if the file does not contain a valid record.

        Raises:
            OSError: there is no record, or it cannot be read.
        """
        text = (self.releases / release / RECORD).read_bytes()
        try:
            # An older or newer version of Flaskhost can have written it: use the fields that both know.
            return Record(**{name: value for name, value in json.loads(text).items() if name in _FIELDS})
        except (ValueError, TypeError, AttributeError):
            return None

    def is_whole(self, release: str) -> bool:
        """Check whether a release is complete. True also if its record exists but a disk error prevents reading it."""
        try:
            return self._read(release) is not None
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def all_records(self) -> list[Record]:
        """Return the records of all complete releases, newest first."""
        if not self.releases.is_dir():
            return []
        found = [self.record(path.name) for path in self.releases.iterdir()]
        return sorted((item for item in found if item), key=lambda item: item.created, reverse=True)

    def write(self, record: Record) -> None:
        """Write the record of a release atomically."""
        text = json.dumps(asdict(record), indent=2, sort_keys=True) + "\n"
        atomic.write(self.releases / record.id / RECORD, text)

    def has_environment(self, record: Record) -> bool:
        """Check whether the virtual environment of a release exists and is complete."""
        return bool(record.venv) and virtualenv.is_whole(self.venvs / record.venv)

    # -- the history --------------------------------------------------------------------------------------------------

    def history(self) -> list[dict[str, Any]]:
        """Read the history, oldest first: ``at`` (seconds since 1970), ``release``, ``from``, ``by``, ``verb``."""
        try:
            found = json.loads(self.history_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def remember(self, release: str, came_from: str, by: str, verb: str) -> None:
        """Add an entry to the history.

        Args:
            release: the release that is live from now on; empty if none is.
            came_from: the release that was live until now; empty if none was.
            by: who did it, as ``user@controller``.
            verb: ``deploy``, ``rollback`` or ``return`` (rolled back by the watch, or because another host failed).
        """
        entry = {"at": time.time(), "release": release, "from": came_from, "by": by, "verb": verb}
        text = json.dumps([*self.history(), entry][-HISTORY_LENGTH:], indent=1) + "\n"
        atomic.write(self.history_file, text)

    def last_served(self) -> dict[str, tuple[int, float]]:
        """Return sort keys for the order in which the releases last went live. Those that never did come first, by age.

        The order is that of the history's entries, not of their times, because a host's clock can jump.

        Returns:
            For each release a sort key: its last position in the history, from 1, or 0 and its creation time in
            seconds since 1970.
        """
        order = {item.id: (0, item.created) for item in self.all_records()}
        for place, entry in enumerate(self.history(), 1):
            if entry.get("release") in order:
                order[entry["release"]] = (place, 0.0)
        return order

    def previous_healthy(self, live: str) -> str:
        """Return the release to roll back to: the last healthy one before the live release; empty if there is none.

        Args:
            live: the live release.
        """
        served = self.last_served()
        candidates = [
            item
            for item in self.all_records()
            if item.id != live and item.healthy and not item.failed and self.has_environment(item)
        ]
        return max(candidates, key=lambda item: served[item.id]).id if candidates else ""

    def is_back(self, release: str, live: str) -> bool:
        """Check whether a change from the live release to another one goes back to a release that was live before it.

        Neither the build time nor the last time live decides this. After deploys of A, B and A again, B is back. After
        deploys of A and B and a rollback to A, nothing is back: B is ahead.

        Args:
            release: the target release.
            live: the live release.
        """
        trail: list[str] = []
        history = self.history()
        for entry in history:
            name = str(entry.get("release") or "")
            if entry.get("verb") in BACK and name in trail:
                # A release that was rolled back is no longer behind the live one.
                while trail[-1] != name:
                    trail.pop()
            elif name and trail[-1:] != [name]:
                trail.append(name)
        behind = trail[:-1] if trail[-1:] == [live] else trail
        if release in behind:
            return True
        if any(entry.get("release") == release for entry in history):
            return False
        # The history is too short or was lost: fall back to the build times.
        target, present = self.record(release), self.record(live)
        return bool(target and present and target.created < present.created)

    # -- removing -----------------------------------------------------------------------------------------------------

    def held(self) -> set[str]:
        """Return the releases that a slot or ``current`` links to. They are never removed."""
        links = [*(self.root / "slots" / slot for slot in SLOTS), self.root / "current"]
        return {link.readlink().name for link in links if link.is_symlink()}

    def remove_partial(self) -> None:
        """Remove releases that are incomplete or have a damaged record, so that nothing can use them."""
        held = self.held()
        for path in self.releases.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in held and not self.is_whole(path.name):
                self._remove(path.name)

    def _remove(self, release: str) -> None:
        with tree.folder(self.releases) as above:
            # A killed build command can have left folders that are nested deeper than shutil.rmtree() can go.
            tree.remove(release, above)

    def refused(self, serving: str) -> set[str]:
        """Return the releases, other than the live one, that were never healthy or are incomplete."""
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
        """Remove incomplete releases and those beyond the number to keep, starting with the ones live longest ago.

        Args:
            keep: number of healthy releases to keep.
        """
        held, served = self.held(), self.last_served()
        records = sorted(self.all_records(), key=lambda item: served[item.id], reverse=True)
        kept = [item for item in records if item.healthy][:keep]
        kept += [item for item in records if item.id in held and item not in kept]
        for item in records:
            if item not in kept:
                # The record first, so that a partly removed release no longer counts as a release.
                (self.releases / item.id / RECORD).unlink()
                self._remove(item.id)
        self.remove_partial()
        self.remove_unused_environments()

    def remove_unused_environments(self) -> None:
        """Remove the virtual environments that no release uses."""
        # Checks the links, not the records: the live release keeps its environment even if its record is damaged.
        used = {link.readlink().name for link in self.releases.glob("*/venv")}
        for path in self.venvs.iterdir():
            if path.is_dir() and path.name not in used:
                virtualenv.remove(path)
