"""Restore an app's data folder and its queue, the configuration, or another folder or file that is backed up."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.reader import Reader

from flaskhost_backup import queues, restic, restore_queue
from flaskhost_backup.config import App, BackupError, Config, Queue, need_enabled
from flaskhost_backup.paths import move, name_aside, remove
from flaskhost_backup.progress import FILES, Progress
from flaskhost_backup.result import Result
from flaskhost_backup.sources import all_below
from flaskhost_backup.state import held, stamp, utc
from flaskhost_backup.tools import exchange
from flaskhost_backup.units import start_left, stop_units, stopped

#: The parts of an app's files.
PARTS = ("all", "data", "queue")


@dataclass(frozen=True)
class Place:
    """A folder or file to restore.

    Attributes:
        path: its place.
        inside: its path in the backup.
        queue: the queue whose folder it is; None for files.
    """

    path: Path
    inside: Path
    queue: Queue | None = None

    @property
    def fresh(self) -> Path:
        """The folder to restore into: next to the final place, so that a rename on the same disk suffices."""
        return _fresh(self.path)

    @property
    def restored(self) -> Path:
        """The restored folder or file in it."""
        return self.fresh / self.inside.relative_to("/")


@dataclass(frozen=True)
class Choice:
    """What to restore, and from which snapshot.

    Attributes:
        repository: the repository.
        snapshot: the snapshot.
        app: the app; None for other files.
        places: the folders.
        notes: what is not restored, for the operator.
    """

    repository: restic.Restic
    snapshot: restic.Snapshot
    app: App | None
    places: list[Place]
    notes: list[str]

    @property
    def what(self) -> str:
        """Describe the places for messages."""
        return " and ".join(str(place.path) for place in self.places)


def files(
    config: Config,
    name: str,
    *,
    when: float | None,
    where: str,
    host: str,
    folder: Path | None,
    now: float,
    command: str = "",
    part: str = "all",
) -> Result:
    """Restore an app's data folder and queue, the backed-up part of /etc/flaskhost, or one of ``backup.paths``.

    Args:
        config: the configuration.
        name: the app; ``flaskhost`` for the configuration; or the absolute path.
        when: use the newest snapshot up to this time; the newest of all if None.
        where: local or second.
        host: the host whose backups to use; this host if empty.
        folder: an empty folder for an inspection; None to restore in place.
        now: seconds since 1970.
        command: the command to repeat if the restore is killed.
        part: one of :data:`PARTS`, for an app.
    """
    chosen = _choose(config, name, when=when, where=where, host=host, part=part)
    if folder:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BackupError(f"{folder} is not empty.", "Choose an empty folder, or a new one.")
        chosen.repository.restore(chosen.snapshot.id, folder, [str(place.inside) for place in chosen.places])
        at = utc(chosen.snapshot.at)
        lines = [f"{place.path} from {at} was restored to {folder}{place.inside}." for place in chosen.places]
        return Result(changed=True, lines=[*lines, *chosen.notes])
    settled = _settle(config)
    return _in_place(config, chosen, settled, now=now, command=command)


def check(config: Config, name: str, *, when: float | None, where: str, host: str, part: str = "all") -> Result:
    """Check whether the files of an app can be restored. Takes the arguments of :func:`files`, changes nothing.

    Raises:
        BackupError: the restore is not possible.
    """
    chosen = _choose(config, name, when=when, where=where, host=host, part=part)
    with held([chosen.app.lock] if chosen.app and chosen.app.lock else []):
        at = utc(chosen.snapshot.at)
        return Result(lines=[f"{chosen.what} can be restored from the backup of {at}.", *chosen.notes])


def _choose(config: Config, name: str, *, when: float | None, where: str, host: str, part: str) -> Choice:
    need_enabled(config)
    repository = restic.local(config) if where == "local" else restic.second(config)
    app, path = _place(config, name)
    queue = config.queue(name) if app else None
    if part == "queue" and not queue:
        raise BackupError(f"{name} has no queue.", "To restore its files: --part data")
    found = [
        item for item in repository.snapshots(restic.FILES, [host or config.host]) if when is None or item.at <= when
    ]
    if not found:
        limit = f" from before {utc(when)}" if when is not None else ""
        raise BackupError(
            f"{repository.where} contains no files{limit}.", "To list the backups: sudo flaskhost-backup list"
        )
    chosen = found[-1]
    copy = queues.folder(config, name)
    places, notes = [] if part == "queue" else [Place(path, path)], []
    if app and part != "data" and copy in map(Path, chosen.paths):
        if queue:
            places.append(Place(queue.state, copy, queue))
        else:
            notes.append(f"The backup also contains a queue. {name} has none, so it was not restored.")
    elif queue and part == "all":
        notes.append(f"The backup of {utc(chosen.at)} does not contain the queue of {name}, which was not restored.")
    missing = [path for path in ([copy] if part == "queue" else [path]) if not _is_in(path, chosen)]
    if missing:
        raise BackupError(
            f"The backup of {utc(chosen.at)} does not contain {missing[0]}.",
            "To list the backups: sudo flaskhost-backup list",
        )
    return Choice(repository, chosen, app, places, notes)


def _is_in(path: Path, snapshot: restic.Snapshot) -> bool:
    return any(path.is_relative_to(item) for item in snapshot.paths)


def _place(config: Config, name: str) -> tuple[App | None, Path]:
    """Return the app, if there is one, and the path to restore.

    Raises:
        BackupError: nothing with that name is backed up.
    """
    if name.startswith("/"):
        if Path(name) not in config.paths:
            kept = ", ".join(map(str, config.paths)) or "none"
            raise BackupError(f"{name} is not in backup.paths.", f"Available: {kept}.")
        for owner in config.apps:
            # The app can write there, so it could redirect root's rename with a link.
            if Path(name).is_relative_to(owner.data):
                raise BackupError(
                    f"{name} is part of the data of {owner.name}.", f"Restore all of it: --app {owner.name}"
                )
        return None, Path(name)
    app = None if name == "flaskhost" else config.app(name)
    return app, app.data if app else Path("/etc/flaskhost")


def abandon(config: Config) -> Result:
    """Undo a killed restore of files."""
    lines = _settle(config)
    return Result(changed=bool(lines), lines=lines)


def _settle(config: Config) -> list[str]:
    """Move back the data that a killed restore moved aside, if its place is empty, and start the stopped units.

    Returns:
        What was done, and the place of the previous data; empty if there was no such restore.
    """
    progress = Progress(config, FILES)
    left = progress.read()
    if not left:
        return []
    kept = []
    # An earlier version of this program noted only one place, in the record itself.
    for item in left.get("places") or [left]:
        path, aside = Path(item["path"]), Path(item["aside"]) if item["aside"] else None
        if aside and os.path.lexists(aside):
            if not os.path.lexists(path):
                move(aside, path)
            elif path.lstat().st_ino == item.get("former"):
                remove(aside)  # the names were not exchanged yet: this is the restored data
        remove(_fresh(path))
        if aside and os.path.lexists(aside):
            kept.append(aside)
            if path in [queue.state for queue in config.queues]:
                restore_queue.put_away(aside)
    # Before its workers.
    restore_queue.start_left(config, str(left.get("queue") or ""))
    start_left(config.state, [unit for app in config.apps if app.name == left["app"] for unit in app.units])
    progress.done()
    if kept:
        return [
            f"The data from before the restore that was killed: {aside}. When you no longer need it: sudo rm -r {aside}"
            for aside in kept
        ]
    return [f"A restore of {left['path']} was killed. The previous data is in its place again."]


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}.restored")


def _in_place(config: Config, chosen: Choice, settled: Sequence[str], *, now: float, command: str) -> Result:
    progress, app, places = Progress(config, FILES), chosen.app, chosen.places
    asides = [name_aside(place.path, stamp(now)) if os.path.lexists(place.path) else None for place in places]
    queue = next((place.queue for place in places if place.queue), None)
    lines, keys = list(settled), {}
    with held([app.lock] if app and app.lock else []):
        for place in places:
            remove(place.fresh)
        progress.note(
            app=app.name if app else "", path=chosen.what, at=now, command=command, queue=queue.unit if queue else "",
            places=[_noted(place.path, aside) for place, aside in zip(places, asides, strict=True)],
        )  # fmt: skip
        try:
            for place in places:
                _fetch(config, chosen, place)
                if place.queue:
                    keys = restore_queue.prepare(config, place.queue, place.restored)
                elif app:
                    lines += _let_read(app, place.restored)
            with (
                stopped(config.state, list(app.units) if app else []),
                restore_queue.stopped(queue) if queue else contextlib.nullcontext(),
                _replaced(places, asides),
            ):
                if queue:
                    lines.append(restore_queue.prove(queue, keys))
        finally:
            progress.done()
            for place in places:
                remove(place.fresh)
    at = utc(chosen.snapshot.at)
    lines += [*(f"{place.path} was restored from the backup of {at}." for place in places), *chosen.notes]
    lines += [f"The previous data: {path}. When you no longer need it: sudo rm -r {path}" for path in asides if path]
    return Result(changed=True, lines=lines, data={"restore": _entry(places, asides, now)})


def _noted(path: Path, aside: Path | None) -> dict[str, Any]:
    return {"path": str(path), "aside": str(aside or ""), "former": path.lstat().st_ino if aside else 0}


def _entry(places: Sequence[Place], asides: Sequence[Path | None], now: float) -> dict[str, Any]:
    return {
        "at": now, "ok": True, "problems": [], "path": str(places[0].path), "aside": str(asides[0] or ""),
        "asides": {str(place.path): str(aside or "") for place, aside in zip(places, asides, strict=True)},
    }  # fmt: skip


def _fetch(config: Config, chosen: Choice, place: Place) -> None:
    """Restore a folder or file next to its place.

    Raises:
        BackupError: the backup does not contain it.
    """
    place.fresh.mkdir(mode=0o700)
    chosen.repository.restore(chosen.snapshot.id, place.fresh, [str(place.inside)])
    inside, path = place.restored, place.path
    # An entry of backup.paths can be a file.
    if not inside.is_dir() and (chosen.app or not inside.is_file()):
        raise BackupError(
            f"The backup of {utc(chosen.snapshot.at)} does not contain {place.inside}.",
            "To list the backups: sudo flaskhost-backup list",
        )
    if place.queue:
        return
    _translate(inside, path)
    if config.secrets.is_relative_to(path) and config.secrets.is_dir():
        # The passphrase and other secrets are never in a backup.
        secrets = inside / config.secrets.relative_to(path)
        shutil.copytree(config.secrets, secrets, symlinks=True, dirs_exist_ok=True)
        secrets.chmod(0o700)


@contextlib.contextmanager
def _replaced(places: Sequence[Place], asides: Sequence[Path | None]) -> Iterator[None]:
    """Put restored folders in their places, and keep them there if a block succeeds.

    Raises:
        OSError: one cannot be put there; nothing has changed.
    """
    done: list[tuple[Place, Path | None]] = []
    try:
        for place, aside in zip(places, asides, strict=True):
            _put(place.restored, place.path, aside)
            done.append((place, aside))
        yield
    except BaseException:
        for place, aside in reversed(done):
            if place.queue:
                stop_units([place.queue.unit])
            _put_back(place, aside)
        raise
    for place, aside in done:
        if place.queue and aside:
            restore_queue.put_away(aside)


def _put(restored: Path, path: Path, aside: Path | None) -> None:
    """Put a restored folder in its place, which is never empty: without /etc/flaskhost, no program of ours can run.

    Args:
        restored: the folder, on the same disk.
        path: its final path.
        aside: the new name of the previous folder; None if there is none.

    Raises:
        OSError: it cannot be put there; nothing has changed.
    """
    if not aside:
        restored.rename(path)
        return
    restored.rename(aside)
    try:
        if exchange(aside, path):
            return
    except OSError:
        aside.rename(restored)
        raise
    aside.rename(restored)
    move(path, aside)
    try:
        restored.rename(path)
    except OSError:
        move(aside, path)
        raise


def _let_read(app: App, restored: Path) -> list[str]:
    """Give the web server the rights to restored data that it has now: the backup can be from before.

    Returns:
        A line that says why that failed; the data is restored all the same.
    """
    try:
        Reader(pwd.getpwnam(app.web_user).pw_uid, restored.stat().st_uid).settle(restored, app.protected_folder)
    except KeyError:
        # The host has no web server, so nobody has such rights.
        return []
    except OSError as error:
        # The next deploy tries again, and says what is wrong.
        place = f"{app.data}/{app.protected_folder}"
        return [f"The web server cannot read {place}: {error.strerror}. Run deploy.yml for {app.name}."]
    return []


def _put_back(place: Place, aside: Path | None) -> None:
    """Undo :func:`_put`: the previous folder gets its place again."""
    if aside and exchange(aside, place.path):
        remove(aside)
        return
    place.path.rename(place.restored)
    if aside:
        move(aside, place.path)


def _translate(restored: Path, there: Path) -> None:
    """Change the owner of restored files to the current owner: on another host, the app's user can have another UID."""
    try:
        now, then = there.stat(), restored.stat()
    except OSError:
        return
    if (now.st_uid, now.st_gid) == (then.st_uid, then.st_gid):
        return
    for path in all_below(restored):
        status = path.lstat()
        user = now.st_uid if status.st_uid == then.st_uid else -1
        group = now.st_gid if status.st_gid == then.st_gid else -1
        os.chown(path, user, group, follow_symlinks=False)
