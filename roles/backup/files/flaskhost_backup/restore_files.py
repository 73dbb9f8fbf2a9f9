"""A restore of an app's data folder, of the configuration, or of a further folder or file that is kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from flaskhost_backup import restic
from flaskhost_backup.config import App, BackupError, Config, need_enabled
from flaskhost_backup.paths import move, name_aside, remove
from flaskhost_backup.progress import FILES, Progress
from flaskhost_backup.result import Result
from flaskhost_backup.sources import all_below
from flaskhost_backup.state import held, stamp, utc
from flaskhost_backup.tools import exchange
from flaskhost_backup.units import start_left, stopped


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
) -> Result:
    """Restore the data folder of an app, what is kept of /etc/flaskhost, or one of ``backup.paths``.

    Args:
        config: the configuration.
        name: the app; ``flaskhost`` for the configuration; or the path, which begins with a slash.
        when: the newest snapshot that is not younger; the newest of all when None.
        where: local or second.
        host: whose backups; this host's own when empty.
        folder: an empty folder to put it into for a look; into its place when None.
        now: seconds since 1970.
        command: the command by which it was asked for, to be typed again where it is killed.
    """
    repository, app, path, chosen = _choose(config, name, when=when, where=where, host=host)
    if folder:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BackupError(f"{folder} is not empty.", "Choose an empty folder, or a new one.")
        repository.restore(chosen.id, folder, [str(path)])
        return Result(changed=True, lines=[f"{path} from {utc(chosen.at)} was restored to {folder}{path}."])
    settled = _settle(config)
    return _files_in_place(config, repository, chosen, settled, app=app, path=path, now=now, command=command)


def check(config: Config, name: str, *, when: float | None, where: str, host: str) -> Result:
    """See whether the data folder of an app can be restored; as :func:`files`, but nothing is changed.

    Raises:
        BackupError: it cannot be.
    """
    _repository, app, path, chosen = _choose(config, name, when=when, where=where, host=host)
    with held([app.lock] if app and app.lock else []):
        return Result(lines=[f"{path} can be restored from the backup of {utc(chosen.at)}."])


def _choose(
    config: Config, name: str, *, when: float | None, where: str, host: str
) -> tuple[restic.Restic, App | None, Path, restic.Snapshot]:
    need_enabled(config)
    repository = restic.local(config) if where == "local" else restic.second(config)
    app, path = _place(config, name)
    found = [
        item for item in repository.snapshots(restic.FILES, [host or config.host]) if when is None or item.at <= when
    ]
    if not found:
        limit = f" from before {utc(when)}" if when is not None else ""
        raise BackupError(
            f"{repository.where} contains no files{limit}.", ("To list the backups: sudo flaskhost-backup list")
        )
    chosen = found[-1]
    if not any(path.is_relative_to(item) for item in chosen.paths):
        raise BackupError(
            f"The backup of {utc(chosen.at)} does not contain {path}.",
            "To list the backups: sudo flaskhost-backup list",
        )
    return repository, app, path, chosen


def _place(config: Config, name: str) -> tuple[App | None, Path]:
    """What is restored, and whose it is.

    Raises:
        BackupError: nothing of that name is kept.
    """
    if name.startswith("/"):
        if Path(name) not in config.paths:
            kept = ", ".join(map(str, config.paths)) or "none"
            raise BackupError(f"{name} is not in backup.paths.", f"Available: {kept}.")
        for owner in config.apps:
            # Whoever writes there could put a link in the way of what root moves.
            if Path(name).is_relative_to(owner.data):
                raise BackupError(
                    f"{name} is part of the data of {owner.name}.", (f"Restore all of it: --app {owner.name}")
                )
        return None, Path(name)
    app = None if name == "flaskhost" else config.app(name)
    return app, app.data if app else Path("/etc/flaskhost")


def abandon(config: Config) -> Result:
    """Take back a restore of files that was killed."""
    lines = _settle(config)
    return Result(changed=bool(lines), lines=lines)


def _settle(config: Config) -> list[str]:
    """Put back what a killed restore has put aside, where nothing is in its place; start what it has stopped.

    Returns:
        What was done, and where the data of before is; empty where there was no such restore.
    """
    progress = Progress(config, FILES)
    left = progress.read()
    if not left:
        return []
    path, aside = Path(left["path"]), Path(left["aside"]) if left["aside"] else None
    if aside and os.path.lexists(aside):
        if not os.path.lexists(path):
            move(aside, path)
        elif path.lstat().st_ino == left.get("former"):
            remove(aside)  # the two had not changed names yet: this one is the backup's
    remove(_fresh(path))
    start_left(config.state, [unit for app in config.apps if app.name == left["app"] for unit in app.units])
    progress.done()
    if aside and os.path.lexists(aside):
        return [
            f"The data from before the restore that was killed: {aside}. When you no longer need it: sudo rm -r {aside}"
        ]
    return [f"A restore of {path} was killed. The previous data is in its place again."]


def _fresh(path: Path) -> Path:
    """Where a folder is restored to: beside its place, so that what comes last is a rename, on the same disk."""
    return path.with_name(f".{path.name}.restored")


def _files_in_place(
    config: Config,
    repository: restic.Restic,
    chosen: restic.Snapshot,
    settled: list[str],
    *,
    app: App | None,
    path: Path,
    now: float,
    command: str,
) -> Result:
    fresh, progress = _fresh(path), Progress(config, FILES)
    aside = name_aside(path, stamp(now)) if os.path.lexists(path) else None
    with held([app.lock] if app and app.lock else []):
        remove(fresh)
        progress.note(
            app=app.name if app else "",
            path=str(path),
            aside=str(aside or ""),
            at=now,
            command=command,
            former=path.lstat().st_ino if aside else 0,
        )
        fresh.mkdir(mode=0o700)
        try:
            repository.restore(chosen.id, fresh, [str(path)])
            inside = fresh / path.relative_to("/")
            # Of backup.paths one may be a file.
            if not inside.is_dir() and (app or not inside.is_file()):
                raise BackupError(
                    f"The backup of {utc(chosen.at)} does not contain {path}.",
                    ("To list the backups: sudo flaskhost-backup list"),
                )
            _translate(inside, path)
            if config.secrets.is_relative_to(path) and config.secrets.is_dir():
                # The passphrase and its like are never in a backup.
                secrets = inside / config.secrets.relative_to(path)
                shutil.copytree(config.secrets, secrets, symlinks=True, dirs_exist_ok=True)
                secrets.chmod(0o700)
            with stopped(config.state, list(app.units) if app else []):
                _put(inside, path, aside)
        finally:
            progress.done()
            remove(fresh)
    result = Result(changed=True, lines=[*settled, f"{path} was restored from the backup of {utc(chosen.at)}."])
    if aside:
        result.lines.append(f"The previous data: {aside}. When you no longer need it: sudo rm -r {aside}")
    result.data["restore"] = {"at": now, "ok": True, "problems": [], "path": str(path), "aside": str(aside or "")}
    return result


def _put(restored: Path, path: Path, aside: Path | None) -> None:
    """Put a restored folder into its place, where the former one is until that moment: without /etc/flaskhost this
    program, and every other one of ours, could not run again.

    Args:
        restored: the folder, on the same disk.
        path: its place.
        aside: the new name of the former folder; None if there is no former folder.

    Raises:
        OSError: it cannot be put there; all is as before.
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


def _translate(restored: Path, there: Path) -> None:
    """On another host the app's user may have another number: what was the owner's becomes the present owner's."""
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
