"""A restore of the whole cluster into its place, which is taken back where it fails or is killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from flaskhost_backup import tools
from flaskhost_backup.cluster import Server, need_room
from flaskhost_backup.config import BackupError, Cluster, Config
from flaskhost_backup.explain import explain
from flaskhost_backup.pgbackrest import PgBackRest
from flaskhost_backup.sources import Request, Source, source
from flaskhost_backup.state import State, held, read_json, stamp, write_json
from flaskhost_backup.targets import arguments, choose, need_version
from flaskhost_backup.tools import Done
from flaskhost_backup.units import start_units, stopped
from flaskhost_backup.verbs import Result, move, move_aside, need_enabled, remove
from flaskhost_backup.wal import complete, hand_over, need_no_gap, salvage


class Progress:
    """How far a restore into place has come, on the disk: one that was killed is taken back by the next.

    Args:
        config: the configuration.
    """

    def __init__(self, config: Config) -> None:
        self.path, self.config = config.state / "restoring.json", config

    def read(self) -> dict[str, Any]:
        """What is under way; empty when nothing is."""
        return read_json(self.path)

    def note(self, **values: Any) -> None:
        """Remember a step before it is taken."""
        write_json(self.path, {**self.read(), **values})

    def done(self) -> None:
        """All is in place, or all is as before."""
        self.path.unlink(missing_ok=True)


def in_place(config: Config, request: Request) -> Result:
    """Restore the whole cluster into its place; the data that is there is put aside, and nothing of it deleted.

    Args:
        config: the configuration.
        request: what was asked for.

    Raises:
        BackupError: it cannot be; what was there before is in its place again.
    """
    need_enabled(config)
    cluster = config.need_cluster()
    take_back(config)
    locks = [app.lock for app in config.apps if app.lock]
    with held(locks), source(config, request.where, request.host, request.before) as found:
        wanted = request.target(found)
        server = Server(cluster)
        # All that can be found out is found out before anything is stopped.
        info = found.backrest.info()
        backup = choose(info, wanted)
        need_version(cluster, info)
        need_room(cluster.data.parent, backup.size, "The restored database")
        notes: list[str] = []
        patterns = [unit for app in config.apps for unit in app.units]
        with stopped(config.state, patterns, start=request.start) as units:
            began = time.monotonic()
            progress = Progress(config)
            progress.note(units=units, running=server.runs())
            try:
                if request.where == "local" and server.runs():
                    notes += hand_over(server)
                if request.where == "local":
                    # Before PostgreSQL stops, too: its last checkpoint writes over segments that it has handed over.
                    complete(found.backrest, found.folder, cluster, cluster.data, info)
                _stop(cluster)
                if request.where == "local":
                    notes += complete(found.backrest, found.folder, cluster, cluster.data, info)
                if wanted.kind == "latest":
                    notes += need_no_gap(found.folder, backup, accept=request.accept_gap)
                aside = _swap(config, cluster, found, progress, request.now)
                done = found.backrest if not found.fetched else PgBackRest(config)
                done.restore(cluster.data, *arguments(backup, wanted))
                if aside and request.where == "local":
                    salvage(cluster, config.database_repository, aside, info)
                last = _start(cluster, request.timeout)
            except (BackupError, OSError) as error:
                raise _failed(config, error) from None
            progress.done()
    seconds = round(time.monotonic() - began, 1)
    result = Result(changed=True)
    result.lines = [f"The database was restored {wanted.text}, from the backup {backup.label}, in {seconds:.0f} s."]
    if last:
        result.lines.append(f"The last commit in it is of {last}.")
    if aside:
        result.lines.append(f"The data that was there before: {aside}. When all is well: rm -r {aside}")
    result.lines += notes
    result.data["restore"] = {
        "at": request.now, "ok": True, "problems": [], "seconds": seconds, "target": wanted.text,
        "backup": backup.label, "aside": str(aside or ""), "units": units, "point": wanted.point or {},
        "system": backup.system,
    }  # fmt: skip
    State(config.state).note("restore", result.data["restore"])
    return result


def _swap(config: Config, cluster: Cluster, found: Source, progress: Progress, now: float) -> Path | None:
    """Put what is there aside, and an empty data folder into its place."""
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
                f"The cluster has tablespaces outside of its folder ({', '.join(path.name for path in links)}), which "
                "cannot be put aside with it.",
                "Restore beside it instead: playbooks/restore.yml -e beside=true",
            )
        progress.note(data=str(cluster.data), aside=_next(cluster.data, mark))
        aside = move_aside(cluster.data, mark)
    progress.note(data=str(cluster.data), new=True)
    cluster.data.parent.mkdir(parents=True, exist_ok=True)
    tools.make_folder(cluster.data, cluster.user)
    return aside


def _next(path: Path, mark: str) -> str:
    """The name that :func:`move_aside` is about to give."""
    aside, number = path.with_name(f"{path.name}.before-{mark}"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.before-{mark}-{number}")
    return str(aside)


def _stop(cluster: Cluster) -> None:
    """Stop PostgreSQL.

    Raises:
        BackupError: it goes on running.
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
        The time of the last commit that was recovered, as its log has it; empty where it says nothing of it.

    Raises:
        BackupError: it does not, with what its log says.
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
            f"The restored database has not recovered for {timeout:.0f} s.",
            f"Look at its log, journalctl -u {log.unit}, and give it more time: -e timeout={timeout * 4:.0f}",
        )
    raise explain(Done(done.status or 1, "", said or done.text), "The restored database")


class _Log:
    """What PostgreSQL says from now on: first into Debian's file, then, with our settings, to the journal.

    Args:
        cluster: the cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.unit = f"postgresql@{cluster.version}-{cluster.name}.service"
        self.file = Path(f"/var/log/postgresql/postgresql-{cluster.version}-{cluster.name}.log")
        self.seen = self.file.stat().st_size if self.file.exists() else 0
        self.since = f"--since=@{time.time():.6f}"

    def read(self) -> str:
        """Read it."""
        text = tools.head(self.file, 1024**2, self.seen)
        command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--unit={self.unit}", self.since]
        return f"{text}\n{tools.run(command, timeout=60).out}"


def _failed(config: Config, error: BaseException) -> BackupError:
    """Put back what was there, and say so."""
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename else ""
        error = BackupError(f"The disk refused: {error.strerror or error}{place}.", "Look at it: df -h, dmesg.")
    if not isinstance(error, BackupError):
        return BackupError(str(error))
    try:
        back = take_back(config, start=False)
    except (BackupError, OSError) as second:
        return BackupError(
            f"{error.reason} Besides, what was there before could not be put back: {second}.",
            f"It is beside {config.need_cluster().data}, named *.before-*; run the same command again.",
        )
    return BackupError(f"{error.reason} {back}".strip(), error.cure)


def take_back(config: Config, *, start: bool = True) -> str:
    """Take back a restore that failed or was killed: what was there before is in its place again.

    Args:
        config: the configuration.
        start: whether to start the apps as well, which nobody else does if the restore was killed.

    Returns:
        What was done, a sentence; empty where nothing was under way.
    """
    progress = Progress(config)
    found = progress.read()
    if not found:
        return ""
    cluster = config.need_cluster()
    data, aside = Path(found.get("data") or cluster.data), found.get("aside")
    if found.get("new"):
        _stop(cluster)
    if aside and Path(aside).exists():
        if data.exists():
            # It was made by us, from a backup that is still there.
            remove(data)
        move(Path(aside), data)
    elif found.get("new") and not aside:
        remove(data)
    repository, before = found.get("repository"), found.get("repository_aside")
    if repository and (found.get("repository_new") or before):
        if before and Path(before).exists():
            remove(Path(repository))
            move(Path(before), Path(repository))
        elif not before and found.get("repository_new"):
            remove(Path(repository))
    started = "."
    if found.get("running"):
        _start(cluster, 600)
        started = " and runs."
        try:
            start_units(list(found.get("units") or []) if start else [])
        except BackupError as problem:
            # The data is back all the same.
            started = f" and runs. {problem}"
    progress.done()
    return f"What was there before is in its place again{started}"
