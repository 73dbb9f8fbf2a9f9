"""The verbs ``full``, ``diff`` and ``files``: back up the database and the files, here and to the second repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaskhost_backup import counts, queues, restic
from flaskhost_backup.cluster import Server, human
from flaskhost_backup.config import BackupError, Config, need_enabled
from flaskhost_backup.pgbackrest import Info, PgBackRest
from flaskhost_backup.result import Result, do_part
from flaskhost_backup.second_copy import copy_database, reached
from flaskhost_backup.state import State, write_json
from flaskhost_backup.timelines import of_cluster, remember


def backup(config: Config, kind: str, now: float) -> Result:
    """Back up the cluster, the files and the queues, and copy all to the second repository.

    A part that fails does not stop the others.

    Args:
        config: the configuration.
        kind: full, diff, or files for only the files and the queues.
        now: seconds since 1970.
    """
    need_enabled(config)
    result, state = Result(changed=True), State(config.state)
    if config.cluster and kind != "files":
        do_part(result, state, "database", now, lambda: _database(config, kind, now))
    prune = kind != "diff"
    with queues.copied(config, result, now) as copies:
        do_part(result, state, "files", now, lambda: _files(config, restic.local(config), copies, prune=prune))
        queues.note(config, result, state)
        if config.second:
            if config.cluster and kind != "files":
                do_part(result, state, "copy", now, lambda: copy_database(config, reached(config), prune=True))
            do_part(result, state, "second_files", now, lambda: _files(config, reached(config), copies, prune=prune))
    return result


def _database(config: Config, kind: str, now: float) -> tuple[str, dict[str, Any]]:
    """Back up the database, and record its row counts for the restore test."""
    backrest, server = PgBackRest(config), Server(config.need_cluster())
    remember(config.records, of_cluster(config.need_cluster()))
    backrest.backup(kind)
    newest = backrest.info().backups[-1]
    # After the backup, so that a restore test also replays some WAL.
    record = counts.take(server, f"flaskhost-{newest.label}")
    server.hand_over()
    write_json(config.records / f"{newest.label}.json", record)
    _forget_records(config, backrest.info())
    if newest.faulty:
        raise BackupError(
            f"The backup {newest.label} was created, but it contains damaged pages.",
            "To list them: sudo -u postgres pgbackrest info --set=" + newest.label + "; keep the older backups.",
        )
    tables = sum(len(item) for item in record["databases"].values())
    line = (
        f"Database backup {newest.label} ({newest.kind}): {human(newest.size)}, {human(newest.stored)} stored, rows "
        f"of {tables} tables counted{'' if record['exact'] else ', not exactly: the database changes all the time'}."
    )
    if record["failed"]:
        line += "".join(f" {name}'s rows were not counted: {reason}" for name, reason in record["failed"].items())
    return line, {
        "label": newest.label,
        "kind": newest.kind,
        "size": newest.size,
        "stored": newest.stored,
        "exact": record["exact"],
        "held_ms": record["held_ms"],
    }


def _forget_records(config: Config, info: Info) -> None:
    """Delete the row counts of backups that no longer exist."""
    labels = {backup.label for backup in info.backups}
    for path in config.records.glob("*.json"):
        if path.stem not in labels:
            path.unlink(missing_ok=True)


def _files(
    config: Config, repository: restic.Restic, copies: Sequence[Path], *, prune: bool
) -> tuple[str, dict[str, Any]]:
    """Back up the apps' data folders, the copies of their queues, and ``backup.paths`` to a repository."""
    paths = [*(app.data for app in config.apps), *copies, *config.paths]
    taken = repository.backup([restic.FILES], paths, [*config.exclude, str(config.secrets)])
    repository.forget(restic.FILES, config.keep_days, prune=prune)
    line = f"{repository.where}: {taken.files} files, {human(taken.size)}, {human(taken.added)} new."
    return line, {"snapshot": taken.snapshot, "files": taken.files, "size": taken.size, "unread": list(taken.warnings)}
