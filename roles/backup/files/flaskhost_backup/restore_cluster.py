"""Restore the whole cluster in place.

A failed or killed restore is undone, unless PostgreSQL has run on the restored data. Then the restore is finished.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.failures import system_error

from flaskhost_backup import tools
from flaskhost_backup.cluster import Server, need_room, system_identifier
from flaskhost_backup.config import BackupError, Cluster, Config, need_enabled
from flaskhost_backup.explain import explain
from flaskhost_backup.paths import move, move_aside, remove
from flaskhost_backup.pgbackrest import Backup, Info, PgBackRest
from flaskhost_backup.progress import DATABASE, Progress
from flaskhost_backup.result import Result
from flaskhost_backup.sources import Request, Source, source
from flaskhost_backup.state import State, held, stamp
from flaskhost_backup.targets import Target, arguments, choose, need_version
from flaskhost_backup.timelines import Line, line, of_cluster, remember
from flaskhost_backup.tools import Done
from flaskhost_backup.units import start_left, start_units, stopped
from flaskhost_backup.wal import complete, hand_over, need_no_gap, salvage


def in_place(config: Config, request: Request) -> Result:
    """Restore the whole cluster in place. The current data is moved aside, and none of it is deleted.

    Args:
        config: the configuration.
        request: the request.

    Raises:
        BackupError: the restore failed; the previous data is in its place again.
    """
    need_enabled(config)
    cluster, server, progress = config.need_cluster(), Server(config.need_cluster()), Progress(config)
    locks = [app.lock for app in config.apps if app.lock]
    patterns = [unit for app in config.apps for unit in app.units]
    with held(locks), source(config, request.where, request.host, request.before) as found:
        settled, wanted, info, backup, line_now = _chosen(config, request, found)
        if settled.finished:
            return Result(changed=True, lines=[settled.says], data={"restore": settled.entry})
        need_room(cluster.data.parent, backup.size, "The restored database")
        notes: list[str] = []
        with stopped(config.state, patterns, start=request.start) as units:
            began = time.monotonic()
            progress.note(
                units=units, running=server.runs(), at=request.now, asked=request.asked(wanted),
                command=request.command, backup=backup.label, system=backup.system, point=wanted.point or {},
            )  # fmt: skip
            try:
                if request.where == "local" and server.runs():
                    notes += hand_over(server, "The end of the WAL was copied from the previous data")
                if request.where == "local":
                    # Also before PostgreSQL stops, because its last checkpoint overwrites archived segments.
                    complete(found.backrest, found.folder, cluster, cluster.data, info)
                _stop(cluster)
                if request.where == "local":
                    notes += complete(found.backrest, found.folder, cluster, cluster.data, info)
                if wanted.kind == "latest":
                    notes += need_no_gap(found.folder, backup, accept=request.accept_gap)
                aside = _swap(config, cluster, found, progress, request.now)
                done = found.backrest if not found.fetched else PgBackRest(config)
                done.restore(cluster.data, *arguments(backup, wanted, line_now))
                if aside and request.where == "local":
                    salvage(cluster, config.database_repository, aside, info, line_now.timeline)
                last = _start(cluster, request.timeout)
            except (BackupError, OSError) as error:
                raise _failed(config, error) from None
            remember(config.records, of_cluster(cluster))
            progress.done()
            # The record of a database belongs to the data that was moved aside.
            Progress(config, DATABASE).done()
    seconds = round(time.monotonic() - began, 1)
    result = Result(changed=True)
    result.lines = [f"The database was restored {wanted.text}, from the backup {backup.label}, in {seconds:.0f} s."]
    if last:
        result.lines.append(f"Its last commit is from {last}.")
    if aside:
        result.lines.append(f"The previous data: {aside}. When you no longer need it: sudo rm -r {aside}")
    result.lines += notes
    result.data["restore"] = {
        "at": request.now, "ok": True, "problems": [], "seconds": seconds, "target": wanted.text,
        "backup": backup.label, "aside": str(aside or ""), "units": units, "point": wanted.point or {},
        "system": backup.system,
    }  # fmt: skip
    State(config.state).note("restore", result.data["restore"])
    return result


def _chosen(config: Config, request: Request, found: Source) -> tuple[Settled, Target, Info, Backup, Line]:
    """Choose the target, the backup and the timeline before anything is stopped or moved. Settle a killed restore.

    Returns:
        The outcome of the killed restore, which is finished if it had the same request; the target; the contents of
        the repository; the backup to start from; and the timeline to follow.

    Raises:
        BackupError: the restore is not possible.
    """
    left = Progress(config).read()
    if left.get("repository_aside") and not has_run(config, left):
        # The repository was moved too, so it cannot be read before this.
        settle(config)
        left = {}
    wanted = request.target(found)
    info = found.backrest.info()
    backup = choose(info, wanted, found.line)
    need_version(config.need_cluster(), info)
    if not left:
        return Settled(), wanted, info, backup, found.line
    settled = settle(config, timeout=request.timeout, start=request.start)
    if settled.finished and left.get("asked") == request.asked(wanted):
        return settled, wanted, info, backup, found.line
    info = found.backrest.info()
    along = found.line if found.fetched else line(found.backrest, found.folder, of_cluster(config.need_cluster()))
    return Settled(), wanted, info, choose(info, wanted, along), along


def _swap(config: Config, cluster: Cluster, found: Source, progress: Progress, now: float) -> Path | None:
    """Move the current data aside, and create an empty data folder in its place."""
    mark = stamp(now)
    aside: Path | None = None
    if found.fetched:
        repository = config.database_repository
        if repository.exists():
            progress.note(repository=str(repository), repository_aside=_next(repository, mark))
            move_aside(repository, mark)
        progress.note(repository=str(repository), repository_new=True)
        found.folder.rename(repository)
        records = found.fetched / "records"
        if records.exists():
            config.records.mkdir(mode=0o700, exist_ok=True)
            for path in records.iterdir():
                shutil.copy(path, config.records / path.name)
    if os.path.lexists(cluster.data):
        links = list((cluster.data / "pg_tblspc").glob("*")) if cluster.data.is_dir() else []
        if links:
            raise BackupError(
                f"The cluster has tablespaces outside of its folder ({', '.join(path.name for path in links)}). A "
                "restore cannot keep them with the previous data.",
                "Restore into a separate cluster instead: ansible-playbook playbooks/restore.yml -e beside=true",
            )
        progress.note(data=str(cluster.data), aside=_next(cluster.data, mark))
        aside = move_aside(cluster.data, mark)
    progress.note(data=str(cluster.data), new=True)
    cluster.data.parent.mkdir(parents=True, exist_ok=True)
    tools.make_folder(cluster.data, cluster.user)
    return aside


def _next(path: Path, mark: str) -> str:
    """Return the name that :func:`move_aside` would choose."""
    aside, number = path.with_name(f"{path.name}.before-{mark}"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.before-{mark}-{number}")
    return str(aside)


def _stop(cluster: Cluster) -> None:
    """Stop PostgreSQL.

    Raises:
        BackupError: it still runs.
    """
    done = tools.run(cluster.stop)
    pid = cluster.data / "postmaster.pid"
    try:
        process = int(tools.head(pid, 64).split()[0])
    except (ValueError, IndexError):
        return
    if Path(f"/proc/{process}").exists() and _is_postgres(process):
        raise explain(
            Done(done.status or 1, "", done.text or "unable to restore while PostgreSQL is running"), "PostgreSQL"
        )


def _is_postgres(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text(encoding="utf-8").strip() in ("postgres", "postmaster")
    return False


def _start(cluster: Cluster, timeout: float) -> str:
    """Start PostgreSQL, and wait until it has recovered.

    Returns:
        The time of the last recovered commit, according to its log; empty if the log does not contain it.

    Raises:
        BackupError: it does not start; the message quotes its log.
    """
    log = _Log(cluster)
    done = tools.run(cluster.start, timeout=timeout)
    server, end = Server(cluster), time.monotonic() + timeout
    while True:
        answer = server.run("SELECT pg_is_in_recovery()")
        if not answer.status and answer.out.strip() == "f":
            found = re.findall(r"last completed transaction was at log time ([^\n]+)", log.read())
            return found[-1].strip() if found else ""
        running = (cluster.data / "postmaster.pid").exists()
        if not running or time.monotonic() > end:
            break
        time.sleep(0.5)
    lines = log.read().splitlines()
    said = "\n".join([line for line in lines if re.search(r"FATAL|PANIC|ERROR", line)][-6:] or lines[-3:])
    if running:
        raise BackupError(
            f"The restored database did not finish its recovery within {timeout:.0f} s.",
            f"See its log (sudo journalctl -u {log.unit}), and allow more time: -e timeout={timeout * 4:.0f}",
        )
    raise explain(Done(done.status or 1, "", said or done.text), "The restored database")


class _Log:
    """PostgreSQL's log from now on: first Debian's log file, then, with our settings, the journal.

    Args:
        cluster: the cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.unit = f"postgresql@{cluster.version}-{cluster.name}.service"
        self.file = Path(f"/var/log/postgresql/postgresql-{cluster.version}-{cluster.name}.log")
        self.seen = self.file.stat().st_size if self.file.exists() else 0
        self.since = f"--since=@{time.time():.6f}"

    def read(self) -> str:
        """Return its text."""
        text = tools.head(self.file, 1024**2, self.seen)
        command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--unit={self.unit}", self.since]
        return f"{text}\n{tools.run(command, timeout=60).out}"


def _failed(config: Config, error: BaseException) -> BackupError:
    """Restore the previous data, and return the error that reports it."""
    if isinstance(error, OSError):
        error = BackupError(f"A file operation failed: {system_error(error)}.", "Check the disk: df -h; dmesg.")
    if not isinstance(error, BackupError):
        return BackupError(str(error))
    try:
        back = settle(config, start=False).says
    except (BackupError, OSError) as second:
        return BackupError(
            f"{error.reason} The previous data could not be put back either: {second}.",
            f"It is next to {config.need_cluster().data} and named *.before-*. Run the same command again.",
        )
    return BackupError(f"{error.reason} {back}".strip(), error.cure)


def has_run(config: Config, left: Mapping[str, Any]) -> bool:
    """Check whether PostgreSQL has run on the restored data, which can then contain rows that exist nowhere else.

    Args:
        config: the configuration.
        left: the record of the restore.
    """
    data, system = Path(left.get("data") or "/nowhere"), left.get("system")
    if not left.get("new") or not _takes_rows(data):
        return False
    # After the kill, site.yml may have created another cluster in the empty place.
    return not system or system_identifier(config.need_cluster(), data) == system


def _takes_rows(data: Path) -> bool:
    """Check whether PostgreSQL accepts writes on a data folder, or has done so.

    It accepts none until it has recovered. Until then, ``recovery.signal`` exists, which pgBackRest writes before the
    file ``pg_control``. PostgreSQL removes it before it accepts the first write (StartupXLOG in xlog.c).
    """
    recovers = any(os.path.lexists(data / name) for name in ("recovery.signal", "standby.signal"))
    return os.path.lexists(data / "global/pg_control") and not recovers


@dataclass(frozen=True)
class Settled:
    """The outcome of a failed or killed restore.

    Attributes:
        says: a sentence; empty if there was no such restore.
        finished: whether the restored data stays.
        entry: the entry for the state, if it stays.
    """

    says: str = ""
    finished: bool = False
    entry: Mapping[str, Any] = field(default_factory=dict)


def settle(config: Config, *, timeout: float = 600, start: bool = True) -> Settled:
    """Finish a failed or killed restore if PostgreSQL has run on the restored data. Otherwise undo it.

    Data on which PostgreSQL has run is never removed.

    Args:
        config: the configuration.
        timeout: time limit in seconds for the start of PostgreSQL.
        start: whether to start the apps too. After a killed restore, nothing else starts them.

    Raises:
        BackupError: PostgreSQL does not start.
    """
    left = Progress(config).read()
    if not left:
        return Settled()
    if not has_run(config, left):
        if left.get("new"):
            _stop(config.need_cluster())
        # It can have recovered in the meantime.
        if not has_run(config, left):
            return Settled(_take_back(config, left, start=start))
    return _finish(config, left, timeout=timeout, start=start)


def _finish(config: Config, left: Mapping[str, Any], *, timeout: float, start: bool) -> Settled:
    cluster, server = config.need_cluster(), Server(config.need_cluster())
    if not server.runs():
        _start(cluster, timeout)
    text, aside = str((left.get("asked") or ["as requested"])[0]), str(left.get("aside") or "")
    says = f"The database was restored {text}. PostgreSQL has run on the restored data, so it stays in its place."
    if aside:
        says += f" The previous data: {aside}. When you no longer need it: sudo rm -r {aside}"
    entry = {
        "at": left.get("at") or time.time(), "ok": True, "problems": [], "seconds": 0, "target": text,
        "backup": left.get("backup") or "", "aside": aside, "units": left.get("units") or [],
        "point": left.get("point") or {}, "system": left.get("system") or "",
    }  # fmt: skip
    State(config.state).note("restore", entry)
    remember(config.records, of_cluster(cluster))
    says += _start_apps(config, left, start=start)
    Progress(config).done()
    return Settled(says, finished=True, entry=entry)


def _start_apps(config: Config, left: Mapping[str, Any], *, start: bool) -> str:
    """Start the units that the killed run stopped. Return problems instead of an error: the data is restored anyway."""
    try:
        if start:
            start_units(list(left.get("units") or []))
            start_left(config.state, [unit for app in config.apps for unit in app.units])
    except BackupError as problem:
        return f" {problem}"
    return ""


def _take_back(config: Config, left: Mapping[str, Any], *, start: bool) -> str:
    """Move the previous data back into its place."""
    cluster = config.need_cluster()
    data, aside = Path(left.get("data") or cluster.data), left.get("aside")
    other = ""
    if aside and Path(aside).exists():
        if _takes_rows(data):
            # It does not belong to this restore, see has_run().
            other = f" A cluster that was created in the meantime: {move_aside(data, stamp(time.time()))}."
        # PostgreSQL has never accepted a write on it, and its backup still exists.
        remove(data)
        move(Path(aside), data)
    elif left.get("new") and not aside and not _takes_rows(data):
        remove(data)
    repository, before = left.get("repository"), left.get("repository_aside")
    if repository and (left.get("repository_new") or before):
        if before and Path(before).exists():
            remove(Path(repository))
            move(Path(before), Path(repository))
        elif not before and left.get("repository_new"):
            remove(Path(repository))
    started = "."
    if left.get("running"):
        _start(cluster, 600)
        started = f" and runs.{_start_apps(config, left, start=start)}"
    Progress(config).done()
    return f"The previous data is in its place again{started}{other}"


def _again(left: Mapping[str, Any]) -> str:
    return f"sudo {left['command']}" if left.get("command") else "the same restore again"


def abandon(config: Config) -> Result:
    """Undo a killed restore.

    Raises:
        BackupError: PostgreSQL has run on the restored data, which can contain rows that exist nowhere else.
    """
    need_enabled(config)
    left = Progress(config).read()
    if has_run(config, left):
        aside = left.get("aside")
        where = f"The previous data is in {aside}" if aside else "There was no previous data"
        raise BackupError(
            f"PostgreSQL has run on the restored data, so rows may have been written. {where}.",
            f"Finish the restore: {_again(left)}. You can then restore to another time.",
        )
    return Result(changed=bool(left), lines=[settle(config).says] if left else [])
