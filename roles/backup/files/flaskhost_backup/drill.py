"""The drill, a scheduled restore test: restore the newest backup into a scratch cluster, start it, and check it.

The files are verified, and each queue is restored, loaded and counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.flaskhost.host.failures import system_error

from flaskhost_backup import counts, queue_check, queues, restic, tools
from flaskhost_backup.cluster import DRILL_PORT, Scratch, Server, human
from flaskhost_backup.config import BackupError, Config, Queue, need_enabled
from flaskhost_backup.explain import explain
from flaskhost_backup.paths import remove
from flaskhost_backup.pgbackrest import Backup, PgBackRest, gaps
from flaskhost_backup.restore_beside import into_scratch, place, scratch_arguments
from flaskhost_backup.result import Result
from flaskhost_backup.sources import Source, source
from flaskhost_backup.state import State, read_json
from flaskhost_backup.targets import Target, choose
from flaskhost_backup.wal import hand_over

#: The commands in most messages.
FULL, COPY = "sudo flaskhost-backup full", "sudo flaskhost-backup copy"


def drill(config: Config, where: str, now: float, timeout: float = 3600.0) -> Result:
    """Run the drill.

    Args:
        config: the configuration.
        where: the repository to restore from: local or second.
        now: seconds since 1970.
        timeout: time limit of the recovery in seconds.
    """
    need_enabled(config)
    result, began = Result(changed=True), time.monotonic()
    entry: dict[str, Any] = {"from": where}
    try:
        if config.cluster:
            with source(config, where) as found:
                _cluster(config, found, result, entry, timeout)
        _files(config, where, result, entry)
    except BackupError as error:
        result.problems.append(str(error))
    except OSError as error:
        result.problems.append(f"A file or connection failed: {system_error(error)}.")
    entry |= {
        "at": now,
        "ok": not result.problems,
        "seconds": round(time.monotonic() - began, 1),
        "problems": result.problems,
    }
    State(config.state).note("drill", entry)
    result.data["drill"] = entry
    word = "All is well" if entry["ok"] else "The drill found a problem"
    result.lines.append(f"{word} after {entry['seconds']:.0f} s.")
    return result


def _cluster(config: Config, found: Source, result: Result, entry: dict[str, Any], timeout: float) -> None:
    scratch = Scratch(config.need_cluster(), config.state / "drill", DRILL_PORT)
    info = found.backrest.info()
    if not info.backups:
        raise BackupError("There is no backup to test.", f"Create one: {FULL}")
    newest = info.backups[-1]
    entry |= {"label": newest.label, "size": newest.size, "backup_at": newest.stop}
    # Only the newest backup is restored below.
    here = PgBackRest(config).info().backups if found.fetched else info.backups
    if not _whole(found, scratch, newest, here, result):
        return
    new, old = gaps(found.folder, newest.first_wal)
    result.problems += [f"{gap} Create a new backup: {FULL}" for gap in new]
    result.lines += [f"{gap} No time between it and the next backup can be restored." for gap in old]
    records = (found.fetched / "records") if found.fetched else config.records
    record = read_json(records / f"{newest.label}.json")
    between = _between(config, found, newest.stop)
    target = _target(newest.label, record)
    began = time.monotonic()
    into_scratch(config, scratch, found, target, timeout)
    try:
        entry["restore_seconds"] = round(time.monotonic() - began, 1)
        took = f"restored, recovered and started in {entry['restore_seconds']:.0f} s"
        result.lines.append(f"{newest.label}, {human(newest.size)}: {took}.")
        _compare(scratch, record, result, entry)
        _pages(scratch, result)
        _assertions(config, scratch, result, entry)
        scratch.stop()
        _checksums(scratch, result)
        for also in [*([Target("time", str(between))] if between else []), Target()]:
            _recovers(scratch, found, also, result, timeout)
    finally:
        scratch.remove()


def _whole(found: Source, scratch: Scratch, newest: Backup, here: Sequence[Backup], result: Result) -> bool:
    """Compare all backups and all WAL with their checksums.

    Args:
        found: the repository.
        scratch: the scratch cluster into which backups are restored that pgBackRest calls invalid.
        newest: the newest backup in it.
        here: the backups in this host's own repository.
        result: receives the problems.

    Returns:
        Whether the newest backup can be restored, according to the checksums.
    """
    damage = found.backrest.verify()
    result.problems += [f"The repository is damaged: {line}. Create a new backup: {FULL}" for line in damage.rest]
    for name in damage.segments:
        what = f"A WAL segment is damaged: {name}."
        if name >= newest.first_wal:
            result.problems.append(f"{what} Nothing after it can be restored. Create a new backup: {FULL}")
        else:
            result.lines.append(f"{what} No time between it and the next backup can be restored.")
    backups = {item.label: item for item in found.backrest.info().backups}
    unusable = set()
    for label, wrong in damage.backups.items():
        if label not in backups:
            result.lines.append(f"The backup {label} is incomplete. The next full backup deletes it.")
            continue
        cure = f"Create a new backup, then delete this one: {FULL}; sudo flaskhost-backup forget {label}"
        if found.fetched:
            # A repair of the local repository is copied to the second one.
            is_here = label in {item.label for item in here}
            cure = (
                f"{cure}; {COPY}"
                if is_here
                else f"This host has deleted it already. The next copy deletes it in the second repository: {COPY}"
            )
        try:
            # verify compares partly with pgBackRest's own notes about a file. A restore compares the file itself.
            place(scratch, found, backups[label], Target("backup", label))
        except BackupError as error:
            unusable.add(label)
            result.problems.append(
                f"The backup {label} is damaged ({wrong}) and cannot be restored: {error.reason} {cure}"
            )
        else:
            result.lines.append(
                f"pgBackRest reports the backup {label} as invalid ({wrong}), but all its files can be restored with "
                f"the right checksums. You can use it. To delete it: {cure}"
            )
        finally:
            scratch.remove()
    return newest.label not in unusable


def _between(config: Config, found: Source, stop: float) -> float:
    """Return a time between the newest backup and now to which a restore is possible; 0 if none is certain.

    Args:
        config: the configuration.
        found: the repository.
        stop: when the newest backup was complete.
    """
    server, now = Server(config.need_cluster()), time.time()
    if found.fetched or not server.runs() or hand_over(server):
        # PostgreSQL needs a commit after the target time, and only that of hand_over() is certain.
        return 0
    # pgBackRest's times are whole seconds.
    return (stop + 1 + now) / 2 if now > stop + 2 else 0


def _recovers(scratch: Scratch, found: Source, target: Target, result: Result, timeout: float) -> None:
    """Restore again, to the most common kinds of targets, from an older backup if the target needs one.

    Files that are already the same in the scratch cluster are not copied again.
    """
    scratch.stop()
    backup = choose(found.backrest.info(), target, found.line)
    try:
        found.backrest.restore(scratch.data, "--delta", *scratch_arguments(scratch, backup, target, found.line))
        scratch.start(timeout)
    except BackupError as error:
        result.problems.append(f"The restore {target.text} failed: {error}")
        return
    result.lines.append(f"The restore {target.text} succeeded.")


def _target(label: str, record: dict[str, Any]) -> Target:
    """Return the restore point of the row counts; for a backup without a record, the backup itself."""
    if not record.get("point"):
        return Target("backup", label)
    # Its time is later than the backup's own, because the rows are counted after the backup.
    return Target("point", record["point"], {"at": float("inf"), "timeline": record.get("timeline")})


def _compare(scratch: Scratch, record: dict[str, Any], result: Result, entry: dict[str, Any]) -> None:
    if not record.get("databases") and not record.get("failed"):
        result.lines.append("No rows were counted for this backup, so none are compared.")
        return
    for database, reason in record.get("failed", {}).items():
        result.problems.append(f"The rows of {database} were not counted for this backup: {reason}")
    problems, compared = counts.compare(record, scratch.server)
    result.problems += problems
    entry["tables"], entry["exact"] = compared, record["exact"]
    how = "the same number of rows" if record["exact"] else "present; their rows were not counted exactly"
    if not problems:
        result.lines.append(f"{compared} tables compared: {how}.")


def _pages(scratch: Scratch, result: Result) -> None:
    """Check every table and index with pg_amcheck. Damage that it finds is in the backup too.

    It runs as a session role. The superuser only installs the functions, in a schema that belongs to PostgreSQL.
    """
    well = True
    for database in scratch.server.databases():
        with scratch.server.tenant(database) as login:
            ready = scratch.server.add_amcheck(database, login.role)
            # Without a name pattern, it connects only to this database.
            done = ready if ready.status else login.program("pg_amcheck", "--jobs=2")
        if done.status == 2 or (done.status and done.out.strip()):
            lines = [line.strip() for line in done.out.splitlines() if line.strip()]
            result.problems.append(
                f"Tables or indexes are damaged: {' '.join(lines)[:400]}. To find an intact backup, test an older one."
            )
        elif done.status:
            result.problems.append(str(explain(done, "pg_amcheck")))
        well = well and not done.status
    if well:
        result.lines.append("pg_amcheck found no damage in tables and indexes.")


def _assertions(config: Config, scratch: Scratch, result: Result, entry: dict[str, Any]) -> None:
    """Run the site's assertions about its data."""
    there = scratch.server.databases()
    for database, sql in config.assertions.items():
        if database not in there:
            result.problems.append(f"backup.assertions.{database}: the backup contains no database {database}.")
            continue
        with scratch.server.tenant(database, reads_all=True) as login:
            # Read-only and in one transaction. Names resolve in the app's search path.
            finding = login.pinning(search_path=None)
            done = finding.run(f"BEGIN READ ONLY;\n{sql.strip().rstrip(';')};\nROLLBACK;", 600.0)
        answer = done.out.strip()
        if done.status:
            result.problems.append(f"backup.assertions.{database} failed: {done.last}")
        elif answer != "t":
            result.problems.append(
                f"backup.assertions.{database} returned {answer[:80] or 'nothing'!r} instead of true."
            )
    entry["assertions"] = len(config.assertions)
    if config.assertions and not any("backup.assertions" in problem for problem in result.problems):
        result.lines.append(f"{len(config.assertions)} of your assertions are true.")


def _checksums(scratch: Scratch, result: Result) -> None:
    """Compare every page with its checksum."""
    done = tools.run([scratch.cluster.bin / "pg_checksums", "--check", "-D", scratch.data], user=scratch.cluster.user)
    if "not enabled" in done.text:
        result.lines.append("The cluster has no page checksums, so none were verified.")
    elif done.status:
        # The last line is a summary without a file name.
        found = [line.partition("error: ")[2] for line in done.err.splitlines() if "error: " in line]
        result.problems.append(f"Pages of the database are damaged: {'; '.join(found)[:400] or done.last}.")
    else:
        result.lines.append("All page checksums are correct.")


def _files(config: Config, where: str, result: Result, entry: dict[str, Any]) -> None:
    """Compare the files' repository with its checksums: all of a local one, a part of a remote one."""
    repository = restic.local(config) if where == "local" else restic.second(config)
    snapshots = repository.snapshots(restic.FILES, [config.host])
    if not snapshots:
        result.problems.append(
            f"{repository.where} contains no files yet. Create a backup: sudo flaskhost-backup files"
        )
        return
    # Before the check of the whole repository, which ends the drill if it finds damage.
    for queue in config.queues:
        _queue(config, queue, repository, snapshots[-1], result)
    repository.check("" if where == "local" else "5%")
    entry["files"] = True
    result.lines.append(f"{repository.where} is intact.")


def _queue(config: Config, queue: Queue, repository: restic.Restic, snapshot: restic.Snapshot, result: Result) -> None:
    """Restore a queue, load it, and count its keys."""
    copy, scratch = queues.folder(config, queue.app), config.state / "drill-queue"
    if str(copy) not in snapshot.paths:
        result.problems.append(
            f"The newest backup of the files does not contain the queue of {queue.app}. See why: sudo flaskhost-backup "
            "files"
        )
        return
    remove(scratch)
    scratch.mkdir(mode=0o700)
    restored = scratch / copy.relative_to("/")
    try:
        repository.restore(snapshot.id, scratch, [str(copy)])
        wanted = queues.recorded(restored)
        differences = queues.differences(queue.app, wanted, queue_check.load(config, queue, restored, whole=True).keys)
    except BackupError as error:
        result.problems.append(str(error))
        return
    finally:
        remove(scratch)
    result.problems += differences
    if not differences:
        total = sum(keys.all for keys in wanted.values())
        result.lines.append(f"The queue of {queue.app} was loaded: the same {total} keys.")
