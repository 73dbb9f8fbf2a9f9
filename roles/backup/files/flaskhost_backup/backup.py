"""What the program does by the clock: back up, copy to the second repository, and see that it was done."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flaskhost_backup import aside, counts, restic, tools
from flaskhost_backup.cluster import Server, control_data, human
from flaskhost_backup.config import BackupError, Config, NotEnabled
from flaskhost_backup.pgbackrest import Backup, Info, PgBackRest
from flaskhost_backup.progress import unfinished
from flaskhost_backup.state import State, read_json, utc, write_json
from flaskhost_backup.timelines import of_cluster, remember

#: The name of a restore point: letters, digits and what separates them; PostgreSQL takes 63 characters.
POINT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,62}")
#: Seconds that a hook may take.
HOOK_SECONDS = 60.0
HOUR, DAY = 3600, 86400
#: What pgBackRest has not finished writing.
PARTIAL = "*.pgbackrest.tmp"
#: Why nothing is backed up, as far as the host knows: it has what site.yml has brought, and not the inventory.
OFF = "There are no backups: backup.passphrase is not set, or site.yml has not run since it was."
#: What a host without a second repository cannot outlast.
ONLY_HERE = "All backups are on this host: if it is lost, they are lost with it. Set backup.second (docs/backup.md)."


@dataclass
class Result:
    """What a run has done.

    Attributes:
        changed: whether anything on the host changed, or would.
        lines: what there is to tell, a line each.
        problems: what is wrong, a sentence each.
        data: the same for programs.
    """

    changed: bool = False
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The result as one object."""
        return {"changed": self.changed, "lines": self.lines, "problems": self.problems, **self.data}


def defect(error: BaseException) -> str:
    """A sentence for what should not have happened."""
    where = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(where[-1].filename).name}:{where[-1].lineno}" if where else ""
    return f"This is a defect of flaskhost-backup: {type(error).__name__}{place}: {str(error)[:200]}"


def need_enabled(config: Config) -> None:
    """Stop where nothing is backed up.

    Raises:
        NotEnabled: there is no passphrase.
    """
    if not config.enabled:
        raise NotEnabled(OFF, "Set it if need be (docs/backup.md), then run site.yml.")


# --- Backups ---------------------------------------------------------------------------------------------------------


def backup(config: Config, kind: str, now: float) -> Result:
    """Back up the cluster and the files, and copy both to the second repository.

    One part that fails keeps the others from nothing.

    Args:
        config: the configuration.
        kind: full, diff, or files for the files alone.
        now: seconds since 1970.
    """
    need_enabled(config)
    result, state = Result(changed=True), State(config.state)
    if config.cluster and kind != "files":
        _noted(result, state, "database", now, lambda: _database(config, kind, now))
    _noted(result, state, "files", now, lambda: _files(config, restic.local(config), prune=kind != "diff"))
    if config.second:
        if config.cluster and kind != "files":
            _noted(result, state, "copy", now, lambda: _copy(config, _reached(config), prune=True))
        _noted(result, state, "second_files", now, lambda: _files(config, _reached(config), prune=kind != "diff"))
    return result


def copy(config: Config, now: float) -> Result:
    """Copy what is new in the database's repository to the second one."""
    need_enabled(config)
    restic.second(config)
    result = Result(changed=True)
    config.need_cluster()
    _noted(result, State(config.state), "copy", now, lambda: _copy(config, restic.second(config), prune=False))
    return result


def unreachable(config: Config, now: float) -> Result | None:
    """See that the second repository can be reached; called before a copy has the lock, which a restore may want.

    Args:
        config: the configuration.
        now: seconds since 1970.

    Returns:
        The copy that failed, where it cannot be reached.
    """
    if not (config.enabled and config.second and config.cluster):
        return None
    problems: list[str] = []
    try:
        _reached(config)
    except BackupError as error:
        problems.append(str(error))
    if not problems:
        return None
    entry = {"at": now, "ok": False, "seconds": 0, "problems": problems}
    State(config.state).note("copy", entry)
    return Result(problems=problems, data={"copy": entry})


def _reached(config: Config) -> restic.Restic:
    second = restic.second(config)
    second.reach()
    return second


def _noted(result: Result, state: State, kind: str, now: float, do: Callable[[], tuple[str, dict[str, Any]]]) -> None:
    """Do a part, and remember how it went."""
    began = time.monotonic()
    problems: list[str] = []
    line, entry = "", {}
    try:
        line, entry = do()
        result.lines.append(line)
    except BackupError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(
            f"The disk refused: {error.strerror or error}{': ' + str(error.filename) if error.filename else ''}."
        )
    entry |= {"at": now, "ok": not problems, "seconds": round(time.monotonic() - began, 1), "problems": problems}
    state.note(kind, entry)
    result.data[kind] = entry
    result.problems += problems


def _database(config: Config, kind: str, now: float) -> tuple[str, dict[str, Any]]:
    backrest, server = PgBackRest(config), Server(config.need_cluster())
    remember(config.records, of_cluster(config.need_cluster()))
    backrest.backup(kind)
    newest = backrest.info().backups[-1]
    # After the backup, so that a drill also replays some of the log.
    record = counts.take(server, f"flaskhost-{newest.label}")
    server.hand_over()
    write_json(config.records / f"{newest.label}.json", record)
    _forget_records(config, backrest.info())
    if newest.faulty:
        raise BackupError(
            f"The backup {newest.label} was made, but pages of the database are damaged.",
            "Which ones: sudo -u postgres pgbackrest info --set=" + newest.label + "; keep the older backups.",
        )
    tables = sum(len(item) for item in record["databases"].values())
    line = (
        f"The database: {newest.label} ({newest.kind}), {human(newest.size)}, {human(newest.stored)} stored; "
        f"{tables} tables counted{'' if record['exact'] else ', not exactly: somebody writes all the time'}."
    )
    if record["failed"]:
        line += "".join(f" {name} was not counted: {reason}" for name, reason in record["failed"].items())
    return line, {
        "label": newest.label,
        "kind": newest.kind,
        "size": newest.size,
        "stored": newest.stored,
        "exact": record["exact"],
        "held_ms": record["held_ms"],
    }


def _forget_records(config: Config, info: Info) -> None:
    """Forget the counts of backups that are no more."""
    labels = {backup.label for backup in info.backups}
    for path in config.records.glob("*.json"):
        if path.stem not in labels:
            path.unlink(missing_ok=True)


def _files(config: Config, repository: restic.Restic, *, prune: bool) -> tuple[str, dict[str, Any]]:
    paths = [*(app.data for app in config.apps), *config.paths]
    taken = repository.backup([restic.FILES], paths, [*config.exclude, str(config.secrets)])
    repository.forget(restic.FILES, config.keep_days, prune=prune)
    line = f"{repository.where}: {taken.files} files, {human(taken.size)}, {human(taken.added)} new."
    return line, {"snapshot": taken.snapshot, "files": taken.files, "size": taken.size, "unread": list(taken.warnings)}


def _copy(config: Config, second: restic.Restic, *, prune: bool) -> tuple[str, dict[str, Any]]:
    """Copy the database's repository, as it is: it is encrypted already, and restic encrypts it again."""
    info = PgBackRest(config).info()
    _same_cluster(config, second, info)
    remember(config.records, of_cluster(config.need_cluster()))
    taken = second.backup(
        [restic.DATABASE, f"system-{info.system}"],
        [config.database_repository, config.records],
        [PARTIAL],
        timeout=restic.COPY_SECONDS,
    )
    if prune:
        second.forget(restic.DATABASE, config.keep_days, prune=True)
    return f"{second.where}: the database's repository, {human(taken.size)}, {human(taken.added)} new.", {
        "snapshot": taken.snapshot,
        "size": taken.size,
        "system": info.system,
        "repository": config.second,
    }


def _same_cluster(config: Config, second: restic.Restic, info: Info) -> None:
    """See that the second repository holds this cluster's backups, or those of a major version before, and no other's.

    A host that was set up anew would else bury the backups that it is to be restored from under its own empty ones.

    Raises:
        BackupError: they are another one's.
    """
    ours = {info.system, *info.former}
    state = State(config.state)
    # Nobody asks a repository far away every five minutes what it was asked before; and who has restored another
    # cluster into the place of this one has said which of them is meant.
    copied, restored = (state.read(kind)["good"] for kind in ("copy", "restore"))
    here = copied.get("repository", config.second) == config.second
    if (here and copied.get("system") in ours) or restored.get("system") in ours:
        return
    found = second.snapshots(restic.DATABASE, [config.host])
    if found and found[-1].system not in ours:
        raise BackupError(
            f"The second repository holds backups of another cluster of {config.host}, the newest of "
            f"{utc(found[-1].at)}. Nothing is copied over them.",
            f"To restore them here: ansible-playbook playbooks/restore.yml -e from=second -e confirm={config.host}. "
            "To do without them: sudo flaskhost-backup adopt",
        )


def adopt(config: Config, now: float) -> Result:
    """Let this cluster's backups follow on another's in the second repository; the old snapshots age as usual."""
    need_enabled(config)
    system = PgBackRest(config).info().system
    if not system:
        raise BackupError("There is no local repository yet.", "Run site.yml, which makes it.")
    entry = {"at": now, "ok": True, "problems": [], "seconds": 0, "system": system, "repository": config.second}
    State(config.state).note("copy", entry)
    return Result(changed=True, lines=["The next copy goes to the second repository, beside what is there."])


def unlock(config: Config) -> Result:
    """Take away the locks of runs that were killed."""
    need_enabled(config)
    repositories = [restic.local(config), *([restic.second(config)] if config.second else [])]
    for repository in repositories:
        repository.unlock()
    return Result(changed=True, lines=["Locks of runs that have ended are gone."])


def point(config: Config, app: str, release: str, previous: str, now: float) -> Result:
    """Put a point into the write-ahead log that a restore can go to: right before a release's migration.

    Args:
        config: the configuration.
        app: the app's name.
        release: the release that is about to migrate.
        previous: the release that serves until then.
        now: seconds since 1970.
    """
    need_enabled(config)
    name = f"{app}@{release}"
    if not POINT_NAME.fullmatch(name):
        raise BackupError(
            f"{name!r} is no name for a restore point.", "It is made of the app's name and the release's."
        )
    lsn, timeline = Server(config.need_cluster()).point(name)
    entry = {
        "name": name,
        "app": app,
        "release": release,
        "previous": previous,
        "at": now,
        "lsn": lsn,
        "timeline": timeline,
    }
    State(config.state).add_point(entry)
    # In the repository too: who restores on another host finds it there.
    write_json(config.records / "points.list", {"points": State(config.state).points()})
    return Result(changed=True, lines=[f"The point {name} is at {lsn}."], data={"point": entry})


# --- Preparing -------------------------------------------------------------------------------------------------------


def prepare(config: Config, *, dry: bool, now: float) -> Result:
    """Make the repositories that are missing; called by Ansible when PostgreSQL runs.

    What is wrong with the second repository is a problem that keeps nothing else from being done.
    """
    result = Result()
    if not config.enabled:
        result.problems.append(
            "There are no backups: backup.passphrase is not set. Put it into the vault (docs/backup.md)."
        )
        return result
    if not dry and not read_json(config.state / "since.json"):
        # From here on it is too late, some time, for what has never been made.
        write_json(config.state / "since.json", {"at": now})
    if config.cluster:
        _prepare_cluster(config, result, dry=dry)
    local = restic.local(config)
    if not (config.files_repository / "config").exists():
        result.changed = True
        if not dry:
            local.make()
            result.lines.append(f"{local.where} was made.")
    if config.second:
        _prepare_second(config, result, dry=dry)
    return result


def _prepare_cluster(config: Config, result: Result, *, dry: bool) -> None:
    cluster, backrest = config.need_cluster(), PgBackRest(config)
    info = backrest.info()
    here = control_data(cluster, cluster.data).get("Database system identifier", "")
    if not info.there or not info.system:
        result.changed = True
        if not dry:
            backrest.make()
            result.lines.append(f"{backrest.where} was made.")
        result.data["first"] = True
        return
    if here and info.version == cluster.version and info.system != here:
        raise BackupError(
            f"{backrest.where} holds the backups of another cluster than the one that runs here.",
            f"To get that one's data back: ansible-playbook playbooks/restore.yml -e confirm={config.host}. To "
            f"begin anew: sudo mv {config.database_repository} {config.database_repository}.old, then site.yml.",
        )
    if here and info.system != here:
        result.changed = True
        if not dry:
            backrest.upgrade()
            result.lines.append(f"{backrest.where} now is for PostgreSQL {cluster.version} too.")
        result.data["first"] = True
        return
    result.data["first"] = not [item for item in info.backups if item.system == info.system]


def _prepare_second(config: Config, result: Result, *, dry: bool) -> None:
    """Make the second repository, or see that it opens: once, and again when its log-in or the passphrase is new."""
    path = config.state / "second.json"
    written = max((file.stat().st_mtime for file in config.secrets.glob("*")), default=0.0)
    wanted = {"repository": config.second, "login_written": written}
    if wanted.items() <= read_json(path).items():
        return
    result.changed = True
    if dry:
        return
    try:
        second = restic.second(config)
        made = second.make()
        write_json(path, {**wanted, "at": time.time()})
        result.lines.append(f"{second.where} {'was made' if made else 'is there, and opens'}.")
    except BackupError as error:
        result.problems.append(str(error))


# --- Looking ---------------------------------------------------------------------------------------------------------


def status(config: Config, now: float) -> Result:
    """Tell what the status table shows; asks nobody but this host."""
    state = State(config.state)
    result = Result(data={"enabled": config.enabled, "database": bool(config.cluster), "second": bool(config.second)})
    for kind in ("database", "files", "copy", "second_files", "drill", "restore"):
        result.data[kind + "_state"] = state.read(kind)
    result.data["unfinished"] = unfinished(config)
    found = aside.find(config)
    result.data["aside"] = found.as_data()
    result.lines += [f"Put aside by a restore: {thing.line}" for thing in found.things]
    result.problems += [*late(config, now), *found.problems]
    if config.enabled and not config.second:
        result.lines.append(ONLY_HERE)
    return result


def late(config: Config, now: float) -> list[str]:
    """What is older than it should be, or has failed last; asks nobody but the files of this host."""
    if not config.enabled:
        return [f"{OFF} Set it if need be (docs/backup.md), then run site.yml."]
    state, found = State(config.state), unfinished(config)
    wanted = [("files", "backup of the files", config.alert_hours * HOUR, "files")]
    if config.cluster:
        wanted.insert(0, ("database", "backup of the database", config.alert_hours * HOUR, "full"))
    if config.second:
        wanted.append(
            ("second_files", "copy of the files in the second repository", config.alert_hours * HOUR, "files")
        )
        if config.cluster:
            # Three that fail in turn are no accident any more.
            limit = max(3 * config.copy_minutes * 60, 1800)
            wanted.append(("copy", "copy of the database in the second repository", limit, "copy"))
    if config.cluster:
        wanted.append(("drill", "good drill", config.drill_days * DAY, "drill"))
    for kind, what, limit, verb in wanted:
        last, good = state.read(kind)["last"], state.read(kind)["good"]
        began = float(read_json(config.state / "since.json").get("at") or now)
        age = now - float(good.get("at") or began)
        reason = (
            f" The last run says: {last['problems'][0]}" if last and not last.get("ok") and last.get("problems") else ""
        )
        if age > limit:
            when = f"is {_age(age)} old" if good else "has never been made"
            found.append(
                f"The last {what} {when}.{reason or f' Make one: sudo systemctl start flaskhost-backup@{verb}'}"
            )
        elif reason and kind in ("drill", "database"):
            found.append(f"The last {what.removeprefix('good ')} failed.{reason}")
    return found


def _age(seconds: float) -> str:
    if seconds < 2 * HOUR:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / HOUR:.0f} hours" if seconds < 2 * DAY else f"{seconds / DAY:.0f} days"


def check(config: Config, now: float) -> Result:
    """See that all is as it should be: nothing is late, and the write-ahead log arrives in the repository."""
    result = Result(problems=[*late(config, now), *aside.find(config).problems])
    if config.enabled and config.cluster:
        try:
            server = Server(config.cluster)
            rows = server.ask(
                "SELECT archived_count, failed_count, coalesce(last_archived_wal, ''),"
                " coalesce(extract(epoch FROM last_archived_time), 0)::bigint,"
                " coalesce(extract(epoch FROM last_failed_time), 0)::bigint, current_setting('archive_mode'),"
                " (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') FROM pg_stat_archiver"
            )[0]
            result.data["archive"] = {
                "last": rows[2],
                "at": int(rows[3]),
                "failed_at": int(rows[4]),
                "waiting": int(rows[6]),
            }
            if rows[5] == "off":
                result.problems.append(
                    "PostgreSQL hands over no write-ahead log (archive_mode is off): only backups themselves are kept. "
                    "Run site.yml, which sets archive_command."
                )
            elif int(rows[4]) > int(rows[3]):
                result.problems.append(
                    f"PostgreSQL has failed to hand over its write-ahead log since {utc(int(rows[4]))}; "
                    f"{rows[6]} segments wait. Look why: sudo journalctl -u 'postgresql@*' -n 30, and df -h."
                )
            PgBackRest(config).info()
        except BackupError as error:
            result.problems.append(str(error))
    if not result.problems:
        result.lines.append("All backups are as they should be." if config.second else ONLY_HERE)
    return result


def list_backups(config: Config) -> Result:
    """Tell what can be restored: the backups, the times between which any can be chosen, the points, the files."""
    need_enabled(config)
    result = Result()
    if config.cluster:
        info = PgBackRest(config).info()
        result.data["backups"] = [_as_data(item) for item in info.backups]
        result.lines.append(f"Backups of the database, in {config.database_repository}:")
        result.lines += [f"  {_line(item)}" for item in info.backups] or ["  none"]
        if info.backups:
            result.lines.append(f"Any time from {utc(info.backups[0].stop)} on can be restored.")
        points = State(config.state).points()
        result.data["points"] = points
        if points:
            result.lines.append("Points before migrations (-e release=...):")
            result.lines += [f"  {item['release']} of {item['app']}, {utc(item['at'])}" for item in points]
    repositories = [restic.local(config), *([restic.second(config)] if config.second else [])]
    for repository in repositories:
        for tag, what in ((restic.FILES, "Files"), (restic.DATABASE, "The database's repository")):
            try:
                found = repository.snapshots(tag)
            except BackupError as error:
                result.problems.append(str(error))
                break
            if found:
                result.lines.append(f"{what} in {repository.where[:1].lower() + repository.where[1:]}:")
                result.lines += [f"  {item.id} of {utc(item.at)}, from {item.host}" for item in found]
            result.data.setdefault("snapshots", []).extend(
                {"repository": repository.repository, "tag": tag, "id": item.id, "at": item.at, "host": item.host}
                for item in found
            )
    return result


def _as_data(item: Backup) -> dict[str, Any]:
    return {"label": item.label, "kind": item.kind, "stop": item.stop, "size": item.size, "stored": item.stored}


def _line(item: Backup) -> str:
    damaged = ", with damaged pages" if item.faulty else ""
    return f"{item.label}  {item.kind}  of {utc(item.stop)}, {human(item.size)}, {human(item.stored)} stored{damaged}"


# --- Telling ---------------------------------------------------------------------------------------------------------


def tell(config: Config, verb: str, result: Result) -> str:
    """Tell the hook of what is wrong.

    Args:
        config: the configuration.
        verb: what was done.
        result: how it went; nobody is told where nothing is wrong.

    Returns:
        What is wrong with the hook itself; empty when it has run.
    """
    if not config.hook or not result.problems:
        return ""
    event = {"host": config.host, "verb": verb, "problems": result.problems}
    variables = {
        "FLASKHOST_HOST": config.host,
        "FLASKHOST_VERB": verb,
        "FLASKHOST_PROBLEM": result.problems[0][:2000],
    }
    done = tools.run(config.hook, env=variables, data=json.dumps(event) + "\n", timeout=HOOK_SECONDS)
    if done.status:
        return f"The hook {config.hook[0]} failed: {done.last} Look at backup.hook."
    return ""


def move_aside(path: Path, mark: str) -> Path:
    """Give a file or folder another name beside its own; nothing is copied, and nothing lost."""
    aside = name_aside(path, mark)
    move(path, aside)
    return aside


def name_aside(path: Path, mark: str) -> Path:
    """A name beside a file or folder that nothing has."""
    aside = path.with_name(f"{path.name}.before-{mark}")
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.before-{mark}-{number}")
    return aside


def move(path: Path, there: Path) -> None:
    """Rename a file or folder within its folder, which may belong to another user."""
    with tools.parent(path) as above:
        os.rename(path.name, there.name, src_dir_fd=above, dst_dir_fd=above)


def remove(path: Path) -> None:
    """Delete a folder, where it is there; links in it are deleted, and not followed."""
    if not os.path.lexists(path):
        return
    with tools.parent(path) as above:
        if stat.S_ISDIR(os.stat(path.name, dir_fd=above, follow_symlinks=False).st_mode):
            shutil.rmtree(path.name, dir_fd=above)
        else:
            os.unlink(path.name, dir_fd=above)
