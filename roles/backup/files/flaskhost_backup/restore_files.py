"""Restore an app's data folder, the configuration, or another folder or file that is backed up."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from ansible.module_utils.flaskhost.host.reader import Reader

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
    """Restore the data folder of an app, the backed-up part of /etc/flaskhost, or one of ``backup.paths``.

    Args:
        config: the configuration.
        name: the app; ``flaskhost`` for the configuration; or the absolute path.
        when: use the newest snapshot up to this time; the newest of all if None.
        where: local or second.
        host: the host whose backups to use; this host if empty.
        folder: an empty folder for an inspection; None to restore in place.
        now: seconds since 1970.
        command: the command to repeat if the restore is killed.
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
    """Check whether the data folder of an app can be restored. Takes the arguments of :func:`files`, changes nothing.

    Raises:
        BackupError: the restore is not possible.
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
            f"{repository.where} contains no files{limit}.", "To list the backups: sudo flaskhost-backup list"
        )
    chosen = found[-1]
    if not any(path.is_relative_to(item) for item in chosen.paths):
        raise BackupError(
            f"The backup of {utc(chosen.at)} does not contain {path}.",
            "To list the backups: sudo flaskhost-backup list",
        )
    return repository, app, path, chosen


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
    path, aside = Path(left["path"]), Path(left["aside"]) if left["aside"] else None
    if aside and os.path.lexists(aside):
        if not os.path.lexists(path):
            move(aside, path)
        elif path.lstat().st_ino == left.get("former"):
            remove(aside)  # the names were not exchanged yet: this is the restored data
    remove(_fresh(path))
    start_left(config.state, [unit for app in config.apps if app.name == left["app"] for unit in app.units])
    progress.done()
    if aside and os.path.lexists(aside):
        return [
            f"The data from before the restore that was killed: {aside}. When you no longer need it: sudo rm -r {aside}"
        ]
    return [f"A restore of {path} was killed. The previous data is in its place again."]


def _fresh(path: Path) -> Path:
    """Return the folder to restore into: next to the final place, so that a rename on the same disk suffices."""
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
            # An entry of backup.paths can be a file.
            if not inside.is_dir() and (app or not inside.is_file()):
                raise BackupError(
                    f"The backup of {utc(chosen.at)} does not contain {path}.",
                    "To list the backups: sudo flaskhost-backup list",
                )
            _translate(inside, path)
            if app:
                settled = [*settled, *_let_read(app, inside)]
            if config.secrets.is_relative_to(path) and config.secrets.is_dir():
                # The passphrase and other secrets are never in a backup.
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
