"""Restores: the whole cluster into place, one database of it, a cluster beside it for a look, and files."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flaskhost_backup import restic, tools
from flaskhost_backup.cluster import Scratch, Server, control_data, literal, need_room, quoted
from flaskhost_backup.config import App, BackupError, Cluster, Config
from flaskhost_backup.explain import explain
from flaskhost_backup.pgbackrest import SEGMENT, Backup, Info, PgBackRest, gaps, segment_timeline, segments
from flaskhost_backup.state import State, held, read_json, stamp, utc, write_json
from flaskhost_backup.tools import Done
from flaskhost_backup.verbs import Result, move_aside, need_enabled, remove

#: Names of the sockets of scratch clusters; nothing listens on the network.
BESIDE_PORT, DRILL_PORT = 5433, 5434


@dataclass(frozen=True)
class Target:
    """To which point a restore is to go.

    Attributes:
        kind: latest, time, point or backup.
        value: the time in seconds since 1970, the point's name, or the backup's label.
        release: where it is a point before a migration, the entry of :meth:`State.points`.
    """

    kind: str = "latest"
    value: str = ""
    point: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The point for people."""
        if self.kind == "time":
            return f"to {utc(float(self.value))}"
        if self.kind == "point":
            return f"to before the migration of {self.value}"
        return "to now" if self.kind == "latest" else f"to the end of the backup {self.value}"


def parse_time(text: str, now: float) -> float:
    """Read a time; UTC where it names no zone.

    Args:
        text: such as ``2026-11-21 10:15``, ``2026-11-21T10:15:00+01:00``.
        now: seconds since 1970.

    Raises:
        BackupError: it is none, or is still to come.
    """
    try:
        found = datetime.fromisoformat(text.strip().replace(" UTC", "+00:00"))
    except ValueError:
        raise BackupError(f"{text!r} is no time.", 'Write it as "2026-11-21 10:15:00", in UTC.') from None
    seconds = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    if seconds > now:
        raise BackupError(f"{utc(seconds)} is still to come.", "Without a time the newest state is restored.")
    return seconds


def release_target(config: Config, app: str, release: str, points: list[dict[str, Any]] | None = None) -> Target:
    """Find the point before a release's migration.

    Raises:
        BackupError: there is none.
    """
    found = State(config.state).points() if points is None else points
    names = [item for item in found if item.get("release") == release and app in ("", item.get("app"))]
    if not names:
        known = ", ".join(str(item["release"]) for item in found if app in ("", item.get("app")))
        raise BackupError(
            f"No point is known before the migration of {release}.",
            f"Known are: {known or 'none'}; or name a time: flaskhost-backup list",
        )
    return Target("point", str(names[-1]["name"]), names[-1])


def choose(info: Info, target: Target) -> Backup:
    """Choose the backup to begin with.

    Raises:
        BackupError: there is none that lies before the target.
    """
    backups = [item for item in info.backups if item.system == info.system]
    if not backups:
        raise BackupError(
            "There is no backup yet.",
            "Make one: flaskhost-backup full; or use the second repository: playbooks/restore.yml -e from=second",
        )
    if target.kind == "backup":
        chosen = [item for item in backups if item.label == target.value]
        if not chosen:
            raise BackupError(f"There is no backup {target.value}.", "What there is: flaskhost-backup list")
        return chosen[-1]
    if target.kind == "latest":
        return backups[-1]
    limit = float(target.value) if target.kind == "time" else float((target.point or {}).get("at") or 0)
    before = [item for item in backups if item.stop < limit]
    if target.kind == "point":
        # On the timeline that the point is on, or on one that it came from.
        before = [item for item in before if item.timeline <= int((target.point or {}).get("timeline") or 1 << 31)]
    if not before:
        raise BackupError(
            f"There is no backup from before {utc(limit)}; the first one was whole at {utc(backups[0].stop)}.",
            "Ask for a later time, or look into the second repository: playbooks/restore.yml -e from=second",
        )
    return before[-1]


def arguments(backup: Backup, target: Target) -> list[str]:
    """What pgBackRest is told of the target."""
    found = [f"--set={backup.label}"]
    if target.kind == "backup":
        return [*found, "--type=immediate", "--target-action=promote"]
    if target.kind == "time":
        when = datetime.fromtimestamp(float(target.value), UTC)
        return [*found, "--type=time", f"--target={when:%Y-%m-%d %H:%M:%S.%f}+00", "--target-action=promote"]
    if target.kind == "point":
        timeline = int((target.point or {}).get("timeline") or 0)
        line = [f"--target-timeline={timeline}"] if timeline else []
        return [*found, "--type=name", f"--target={target.value}", *line, "--target-action=promote"]
    return [*found, "--type=default"]


# --- Where from ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A repository of the database to restore from.

    Attributes:
        backrest: pgBackRest on it.
        folder: where it is.
        points: the points that are known in it; None for those of this host.
        fetched: whether it was fetched from the second repository, and has to be put into place or removed.
    """

    backrest: PgBackRest
    folder: Path
    points: list[dict[str, Any]] | None = None
    fetched: Path | None = None


@contextlib.contextmanager
def source(config: Config, where: str, host: str = "", before: float | None = None) -> Iterator[Source]:
    """Have a repository to restore from, fetched where it is not on this host.

    Args:
        config: the configuration.
        where: local or second.
        host: whose backups; this host's own when empty.
        before: the newest copy that is not younger, for a repository that has been damaged since.

    Raises:
        BackupError: there is none, or it cannot be fetched.
    """
    if where == "local":
        yield Source(PgBackRest(config), config.database_repository)
        return
    fetched = config.repository / "fetched"
    try:
        yield _fetch(config, fetched, host or config.host, before)
    finally:
        remove(fetched)


def _fetch(config: Config, folder: Path, host: str, before: float | None) -> Source:
    second = restic.second(config)
    found = second.snapshots(restic.DATABASE, [host])
    if before is not None:
        found = [item for item in found if item.at <= before]
    if not found:
        others = sorted({item.host for item in second.snapshots(restic.DATABASE)} - {host})
        hint = f" There are some of: {', '.join(others)} (-e of=NAME)." if others and before is None else ""
        raise BackupError(
            f"The second repository holds no backup of the database of {host}.{hint}",
            "What there is: flaskhost-backup list",
        )
    remove(folder)
    # Where it lies in the snapshot is where it was on the host that took it.
    inside = Path(next((path for path in found[-1].paths if path.endswith("/postgres")), found[-1].paths[0]))
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    # postgres has to get through to its own part of it.
    folder.chmod(0o711)
    second.restore(found[-1].id, folder)
    cluster = config.need_cluster()
    repository, records = folder / "postgres", folder / "records"
    (folder / inside.relative_to("/")).rename(repository)
    other = folder / inside.relative_to("/").parent / "records"
    if other.exists():
        other.rename(records)
    _own(repository, cluster.user)
    points = read_json(records / "points.list").get("points")
    return Source(
        PgBackRest(config, repository, "The copy that was fetched from the second repository"),
        repository,
        points if isinstance(points, list) else [],
        folder,
    )


def _own(folder: Path, user: str) -> None:
    """Give a folder with all that is in it to a user; numbers may differ between hosts."""
    entry = pwd.getpwnam(user)
    for path in _all_below(folder):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _all_below(folder: Path) -> Iterator[Path]:
    yield folder
    for parent, folders, files_in_it in os.walk(folder):
        yield from (Path(parent) / name for name in (*folders, *files_in_it))


# --- Into place ------------------------------------------------------------------------------------------------------


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


def in_place(
    config: Config,
    target: Callable[[Source], Target],
    *,
    where: str,
    host: str,
    before: float | None,
    timeout: float,
    now: float,
    accept_gap: bool = False,
    start: bool = True,
) -> Result:
    """Restore the whole cluster into its place; the data that is there is put aside, and nothing of it deleted.

    Args:
        config: the configuration.
        target: works out the target, given the source.
        where: local or second.
        host: whose backups; this host's own when empty.
        before: for the second repository, the newest copy that is not younger.
        timeout: seconds that the recovery may take.
        now: seconds since 1970.
        accept_gap: restore to now although a part of the log is missing, and what came after it is lost.
        start: whether the apps are started again; not where an earlier release of them comes next.

    Raises:
        BackupError: it cannot be; what was there before is in its place again.
    """
    need_enabled(config)
    cluster = config.need_cluster()
    take_back(config)
    locks = [app.lock for app in config.apps if app.lock]
    with held(locks), source(config, where, host, before) as found:
        wanted = target(found)
        server = Server(cluster)
        # All that can be found out is found out before anything is stopped.
        info = found.backrest.info()
        backup = choose(info, wanted)
        _fits(cluster, info)
        need_room(cluster.data.parent, backup.size, "The restored database")
        notes: list[str] = []
        units = stop_units([unit for app in config.apps for unit in app.units])
        began = time.monotonic()
        progress = Progress(config)
        progress.note(units=units, running=server.runs())
        try:
            if where == "local" and server.runs():
                notes += _hand_over(server)
            if where == "local":
                # Before PostgreSQL stops, too: its last checkpoint writes over segments that it has handed over.
                _complete(found.backrest, found.folder, cluster, cluster.data, info)
            _stop(cluster)
            if where == "local":
                notes += _complete(found.backrest, found.folder, cluster, cluster.data, info)
            if wanted.kind == "latest":
                notes += _no_gap(found.folder, backup, accept=accept_gap)
            aside = _swap(config, cluster, found, progress, now)
            done = found.backrest if not found.fetched else PgBackRest(config)
            done.restore(cluster.data, *arguments(backup, wanted))
            if aside and where == "local":
                _salvage(cluster, config.database_repository, aside, info)
            last = _start(cluster, timeout)
        except (BackupError, OSError) as error:
            raise _failed(config, error) from None
        progress.done()
    if start:
        start_units(units)
    seconds = round(time.monotonic() - began, 1)
    result = Result(changed=True)
    result.lines = [f"The database was restored {wanted.text}, from the backup {backup.label}, in {seconds:.0f} s."]
    if last:
        result.lines.append(f"The last commit in it is of {last}.")
    if aside:
        result.lines.append(f"The data that was there before: {aside}. When all is well: rm -r {aside}")
    result.lines += notes
    result.data["restore"] = {
        "at": now, "ok": True, "problems": [], "seconds": seconds, "target": wanted.text, "backup": backup.label,
        "aside": str(aside or ""), "units": units, "point": wanted.point or {}, "system": backup.system,
    }  # fmt: skip
    State(config.state).note("restore", result.data["restore"])
    return result


def _fits(cluster: Cluster, info: Info) -> None:
    if info.version and info.version != cluster.version:
        raise BackupError(
            f"The backup is of PostgreSQL {info.version}, and this host has {cluster.version}.",
            f"Restore it on a host with PostgreSQL {info.version}, and upgrade there.",
        )


def _hand_over(server: Server) -> list[str]:
    """Get the last of the log into the repository; a restore to a time also needs one commit after it."""
    try:
        server.ask("SELECT pg_current_xact_id()")
        server.hand_over(seconds=30)
    except BackupError as error:
        return [f"The last of the write-ahead log was taken from the old data: {error.reason}"]
    return []


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
    cluster.data.mkdir(mode=0o700, parents=True)
    shutil.chown(cluster.data, cluster.user, cluster.user)
    return aside


def _next(path: Path, mark: str) -> str:
    """The name that :func:`move_aside` is about to give."""
    aside, number = path.with_name(f"{path.name}.before-{mark}"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.before-{mark}-{number}")
    return str(aside)


def _complete(backrest: PgBackRest, repository: Path, cluster: Cluster, data: Path, info: Info) -> list[str]:
    """Put into the repository what it lacks of the log, and a data folder still has: whole segments.

    Returns:
        What went wrong, a sentence each.
    """
    if control_data(cluster, data).get("Database system identifier") != info.system:
        return []
    there = {name for _archive, name in segments(repository)}
    log = data / "pg_wal"
    # A segment with such a mark is whole; one without may be an old one, kept to be written over.
    whole = {path.stem for path in (log / "archive_status").glob("*") if path.suffix in (".ready", ".done")}
    for name in sorted(whole - there):
        if SEGMENT.fullmatch(name) and (log / name).exists():
            try:
                backrest.push(log / name, data)
            except BackupError as error:
                return [f"A part of the log was not handed over to the repository: {error.reason}"]
    return []


def _no_gap(repository: Path, backup: Backup, *, accept: bool) -> list[str]:
    """See that the log goes on to its end: PostgreSQL itself would stop at a gap, and say nothing.

    Raises:
        BackupError: there is a gap, and nobody has accepted it.
    """
    new, _old = gaps(repository, backup.first_wal)
    if new and not accept:
        raise BackupError(
            f"{new[0]} What was committed after it cannot be restored from the backup {backup.label}.",
            'Name a time before it: -e to="..."; or go up to the gap: -e accept_gap=true (on the host: --accept-gap)',
        )
    return [f"{gap} What was committed after it is not in the database." for gap in new]


def _salvage(cluster: Cluster, repository: Path, aside: Path, info: Info) -> None:
    """Take from the old data the segments that never were whole: the last commits before a crash."""
    if control_data(cluster, aside).get("Database system identifier") != info.system:
        return
    log, fresh = aside / "pg_wal", cluster.data / "pg_wal"
    newest = max((name for _archive, name in segments(repository)), default="0" * 24)
    for path in sorted(log.iterdir()) if log.is_dir() else []:
        if not SEGMENT.fullmatch(path.name):
            continue
        if path.name >= newest or segment_timeline(path.name) > segment_timeline(newest):
            copied = fresh / path.name
            shutil.copyfile(path, copied)
            copied.chmod(0o600)
            shutil.chown(copied, cluster.user, cluster.user)


def _stop(cluster: Cluster) -> None:
    """Stop PostgreSQL.

    Raises:
        BackupError: it goes on running.
    """
    done = tools.run(cluster.stop)
    pid = cluster.data / "postmaster.pid"
    try:
        process = int(pid.read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError, IndexError):
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
        text = ""
        with contextlib.suppress(OSError), self.file.open(encoding="utf-8", errors="replace") as stream:
            stream.seek(self.seen)
            text = stream.read()
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
        back = take_back(config)
    except (BackupError, OSError) as second:
        return BackupError(
            f"{error.reason} Besides, what was there before could not be put back: {second}.",
            f"It is beside {config.need_cluster().data}, named *.before-*; run the same command again.",
        )
    return BackupError(f"{error.reason} {back}".strip(), error.cure)


def take_back(config: Config) -> str:
    """Take back a restore that failed or was killed: what was there before is in its place again.

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
        Path(aside).rename(data)
    elif found.get("new") and not aside:
        remove(data)
    repository, before = found.get("repository"), found.get("repository_aside")
    if repository and (found.get("repository_new") or before):
        if before and Path(before).exists():
            remove(Path(repository))
            Path(before).rename(repository)
        elif not before and found.get("repository_new"):
            remove(Path(repository))
    started = "."
    if found.get("running"):
        _start(cluster, 600)
        started = " and runs."
        start_units(list(found.get("units") or []))
    progress.done()
    return f"What was there before is in its place again{started}"


# --- The apps' units -------------------------------------------------------------------------------------------------


def stop_units(patterns: list[str]) -> list[str]:
    """Stop the units that run.

    Args:
        patterns: as ``systemctl list-units`` understands them.

    Returns:
        Those that ran, for :func:`start_units`.

    Raises:
        BackupError: one goes on running.
    """
    if not patterns:
        return []
    listed = tools.run(
        ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,reloading", "--", *patterns]
    )
    units = [line.split()[0] for line in listed.out.splitlines() if line.split()]
    if units:
        done = tools.run(["systemctl", "stop", "--", *units], timeout=600)
        if done.status:
            raise BackupError(f"An app could not be stopped: {done.last}", "Look at it: systemctl status 'flask-*'")
    return units


def start_units(units: list[str]) -> None:
    """Start units again; sockets first, so that nobody is refused while the services come up.

    Raises:
        BackupError: one does not start.
    """
    if not units:
        return
    ordered = sorted(units, key=lambda unit: not unit.endswith(".socket"))
    done = tools.run(["systemctl", "start", "--", *ordered], timeout=600)
    if done.status:
        raise BackupError(
            f"The data is restored, but an app does not start on it: {done.last}",
            "Is the release newer than the data? playbooks/rollback.yml. Else look: journalctl -u 'flask-*' -n 50",
        )


# --- Beside, and one database ----------------------------------------------------------------------------------------


def into_scratch(config: Config, scratch: Scratch, found: Source, target: Target, timeout: float) -> Backup:
    """Restore into a scratch cluster and start it.

    Returns:
        The backup that it was begun with.

    Raises:
        BackupError: it cannot be; the scratch cluster is gone.
    """
    cluster = config.need_cluster()
    info = found.backrest.info()
    backup = choose(info, target)
    _fits(cluster, info)
    need_room(scratch.folder.parent, backup.size, "A cluster beside the real one")
    scratch.make()
    try:
        tablespaces = scratch.folder / "tablespaces"
        tablespaces.mkdir(mode=0o700)
        shutil.chown(tablespaces, cluster.user, cluster.user)
        found.backrest.restore(
            scratch.data, *arguments(backup, target), f"--tablespace-map-all={tablespaces}", "--archive-mode=off",
        )  # fmt: skip
        scratch.start(timeout)
    except BaseException:
        scratch.remove()
        raise
    return backup


def beside(
    config: Config,
    target: Callable[[Source], Target],
    *,
    where: str,
    host: str,
    before: float | None,
    timeout: float,
    now: float,
    accept_gap: bool = False,
    start: bool = True,
) -> Result:
    """Restore into a cluster beside the real one, and leave it running for a look."""
    need_enabled(config)
    scratch = Scratch(config.need_cluster(), config.state / "beside", BESIDE_PORT)
    began = time.monotonic()
    with source(config, where, host, before) as found:
        wanted = target(found)
        if where == "local" and Server(config.need_cluster()).runs():
            _hand_over(Server(config.need_cluster()))
        _judge_log(found, wanted, accept_gap)
        backup = into_scratch(config, scratch, found, wanted, timeout)
    seconds = time.monotonic() - began
    look = f"sudo -u {scratch.cluster.user} psql -h {scratch.socket} -p {scratch.port}"
    return Result(
        changed=True,
        lines=[
            f"A cluster beside the real one was restored {wanted.text}, from {backup.label}, in {seconds:.0f} s.",
            f"Look at it: {look} DATABASE",
            "When you are done: flaskhost-backup remove",
        ],
        data={"beside": {"at": now, "socket": str(scratch.socket), "port": scratch.port}},
    )


def _judge_log(found: Source, wanted: Target, accept_gap: bool) -> None:
    """See that there is no gap on the way to now."""
    if wanted.kind == "latest":
        _no_gap(found.folder, choose(found.backrest.info(), wanted), accept=accept_gap)


def remove_beside(config: Config) -> Result:
    """Delete the cluster beside the real one."""
    scratch = Scratch(config.need_cluster(), config.state / "beside", BESIDE_PORT)
    there = scratch.folder.exists()
    scratch.remove()
    return Result(changed=there, lines=["The cluster beside the real one is gone." if there else "There is none."])


def database(
    config: Config,
    name: str,
    target: Callable[[Source], Target],
    *,
    where: str,
    host: str,
    before: float | None,
    timeout: float,
    now: float,
    accept_gap: bool = False,
    start: bool = True,
) -> Result:
    """Restore one database, and leave the others as they are: by way of a cluster beside the real one.

    The database that is there gets another name, and stays.

    Raises:
        BackupError: it cannot be; the database that was there is in its place.
    """
    need_enabled(config)
    cluster = config.need_cluster()
    server = Server(cluster)
    if not server.runs():
        raise BackupError(
            "PostgreSQL does not run: one database alone can only be restored into a cluster that does.",
            "Restore the whole cluster: playbooks/restore.yml without app; or start it: systemctl start postgresql",
        )
    app = next((item for item in config.apps if item.name == name), None)
    scratch = Scratch(cluster, config.state / "database", BESIDE_PORT + 2)
    began = time.monotonic()
    with held([app.lock] if app and app.lock else []), source(config, where, host, before) as found:
        wanted = target(found)
        if where == "local":
            _hand_over(server)
        _judge_log(found, wanted, accept_gap)
        backup = into_scratch(config, scratch, found, wanted, timeout)
        try:
            if name not in scratch.server.databases():
                raise BackupError(f"There was no database {name} then.", "Ask for a later time.")
            dump = scratch.folder / "dump"
            _dump(scratch, name, dump)
            scratch.stop()
            remove(scratch.data)
            units = stop_units(list(app.units) if app else [])
            try:
                kept = replace(server, name, dump, stamp(now))
            except BaseException:
                start_units(units)
                raise
            if start:
                start_units(units)
        finally:
            scratch.remove()
    seconds = round(time.monotonic() - began, 1)
    result = Result(changed=True)
    result.lines = [f"The database {name} was restored {wanted.text}, from {backup.label}, in {seconds:.0f} s."]
    if kept:
        result.lines.append(
            f"The one that was there before: {kept}. When all is well: sudo -u {cluster.user} dropdb {kept}"
        )
    result.data["restore"] = {
        "at": now, "ok": True, "problems": [], "seconds": seconds, "target": wanted.text, "backup": backup.label,
        "database": name, "aside": kept, "units": units, "point": wanted.point or {},
    }  # fmt: skip
    State(config.state).note("restore", result.data["restore"])
    return result


def _dump(scratch: Scratch, name: str, path: Path) -> None:
    cluster = scratch.cluster
    done = tools.run(
        [cluster.bin / "pg_dump", "--format=custom", "--create", "--compress=1", f"--file={path}", f"--dbname={name}"],
        user=cluster.user,
        env=scratch.server.variables,
    )
    if done.status:
        raise explain(done, "The restored cluster")


def take_in(config: Config, name: str, dump: Path, scrub: Path | None, now: float) -> Result:
    """Put a database of another host's into the place of one that is here, scrubbed before an app sees it.

    Args:
        config: the configuration.
        name: the database, here and there.
        dump: made by ``pg_dump --format=custom --create``.
        scrub: SQL that takes out what must not be here; None for none.
        now: seconds since 1970.

    Raises:
        BackupError: it cannot be, or it cannot be scrubbed; the database that was here is in its place.
    """
    server = Server(config.need_cluster())
    app = next((item for item in config.apps if item.name == name), None)
    with held([app.lock] if app and app.lock else []):
        units = stop_units(list(app.units) if app else [])
        try:
            kept = replace(server, name, dump, stamp(now), scrub)
        finally:
            start_units(units)
    result = Result(changed=True, lines=[f"The database {name} was taken in{', and scrubbed' if scrub else ''}."])
    if kept:
        result.lines.append(f"The one that was there before: {kept}. When all is well: sudo -u postgres dropdb {kept}")
    result.data["restore"] = {"at": now, "ok": True, "problems": [], "database": name, "aside": kept, "units": units}
    return result


def replace(server: Server, name: str, dump: Path, mark: str, scrub: Path | None = None) -> str:
    """Put a database from a dump into the place of the one that is there, which gets another name.

    Args:
        server: the cluster.
        name: the database.
        dump: made by ``pg_dump --format=custom --create``.
        mark: ends the other name.
        scrub: SQL to run in the new one, all of it or nothing, before anybody is let in.

    Returns:
        That name; empty where there was none.

    Raises:
        BackupError: it cannot be; the one that was there is in its place again.
    """
    kept = f"{name}_before_{mark.lower()}"
    found = server.ask("SELECT datname FROM pg_database")
    there = [name] in found
    if there:
        rename(server, name, kept)
    # By its standard input: the file may be one that only root reads.
    with dump.open("rb") as stream:
        done = tools.run(
            [server.cluster.bin / "pg_restore", "--create", "--exit-on-error", "--dbname=postgres"],
            user=server.cluster.user,
            env=server.variables,
            stream=stream,
        )
    if not done.status and scrub:
        done = server.run(f"BEGIN;\n{scrub.read_text(encoding='utf-8')}\n;COMMIT;\n", name, None)
    if done.status:
        problem = explain(done, f"The database {name}")
        server.ask(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
        if there:
            rename(server, kept, name)
        raise BackupError(f"{problem.reason} What was there before is in its place again.", problem.cure)
    server.ask("ANALYZE", name, None)
    return kept if there else ""


def rename(server: Server, old: str, new: str) -> None:
    """Rename a database, and end who is in it; under a name of before no app gets in by mistake."""
    # Not closed for good: pg_upgrade refuses a database that nobody can connect to, and pg_dumpall leaves it out.
    limit = 0 if "_before_" in new else -1
    server.ask(f"ALTER DATABASE {quoted(old)} WITH ALLOW_CONNECTIONS false")
    there = f"datname = {literal(old)} AND pid <> pg_backend_pid()"
    server.ask(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {there}")  # noqa: S608 - quoted
    server.ask(f"ALTER DATABASE {quoted(old)} RENAME TO {quoted(new)}")
    server.ask(f"ALTER DATABASE {quoted(new)} WITH CONNECTION LIMIT {limit} ALLOW_CONNECTIONS true")


# --- Files -----------------------------------------------------------------------------------------------------------


def files(
    config: Config, name: str, *, when: float | None, where: str, host: str, folder: Path | None, now: float
) -> Result:
    """Restore the data folder of an app, or what is kept of /etc/flaskhost.

    Args:
        config: the configuration.
        name: the app; ``flaskhost`` for the configuration.
        when: the newest snapshot that is not younger; the newest of all when None.
        where: local or second.
        host: whose backups; this host's own when empty.
        folder: an empty folder to put it into for a look; into its place when None.
        now: seconds since 1970.
    """
    need_enabled(config)
    repository = restic.local(config) if where == "local" else restic.second(config)
    app = None if name == "flaskhost" else config.app(name)
    path = app.data if app else Path("/etc/flaskhost")
    found = [
        item for item in repository.snapshots(restic.FILES, [host or config.host]) if when is None or item.at <= when
    ]
    if not found:
        limit = f" from before {utc(when)}" if when is not None else ""
        raise BackupError(f"{repository.where} holds no files{limit}.", "What there is: flaskhost-backup list")
    chosen = found[-1]
    if not any(path.is_relative_to(item) for item in chosen.paths):
        raise BackupError(f"{path} is not in the backup of {utc(chosen.at)}.", "What there is: flaskhost-backup list")
    if folder:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BackupError(f"{folder} is not empty.", "Name an empty folder, or a new one.")
        repository.restore(chosen.id, folder, [str(path)])
        return Result(changed=True, lines=[f"{path} of {utc(chosen.at)} is in {folder}{path}."])
    return _files_in_place(config, repository, chosen, app=app, path=path, now=now)


def _files_in_place(
    config: Config, repository: restic.Restic, chosen: restic.Snapshot, *, app: App | None, path: Path, now: float
) -> Result:
    # Beside its place: what comes last is a rename, on the same disk.
    fresh = path.with_name(f".{path.name}.restored")
    with held([app.lock] if app and app.lock else []):
        remove(fresh)
        fresh.mkdir(mode=0o700)
        try:
            repository.restore(chosen.id, fresh, [str(path)])
            inside = fresh / path.relative_to("/")
            if not inside.is_dir():
                raise BackupError(f"{path} is not in the backup of {utc(chosen.at)}.", "See: flaskhost-backup list")
            _translate(inside, path)
            if app is None and config.secrets.is_dir():
                # The passphrase and its like are never in a backup.
                shutil.copytree(config.secrets, inside / config.secrets.name, symlinks=True, dirs_exist_ok=True)
                (inside / config.secrets.name).chmod(0o700)
            units = stop_units(list(app.units) if app else [])
            try:
                aside = move_aside(path, stamp(now)) if os.path.lexists(path) else None
                inside.rename(path)
            finally:
                start_units(units)
        finally:
            remove(fresh)
    result = Result(changed=True, lines=[f"{path} is as it was at {utc(chosen.at)}."])
    if aside:
        result.lines.append(f"What was there before: {aside}. When all is well: rm -r {aside}")
    result.data["restore"] = {"at": now, "ok": True, "problems": [], "path": str(path), "aside": str(aside or "")}
    return result


def _translate(restored: Path, there: Path) -> None:
    """On another host the app's user may have another number: what was the owner's becomes the present owner's."""
    try:
        now, then = there.stat(), restored.stat()
    except OSError:
        return
    if (now.st_uid, now.st_gid) == (then.st_uid, then.st_gid):
        return
    for path in _all_below(restored):
        status = path.lstat()
        user = now.st_uid if status.st_uid == then.st_uid else -1
        group = now.st_gid if status.st_gid == then.st_gid else -1
        os.chown(path, user, group, follow_symlinks=False)
