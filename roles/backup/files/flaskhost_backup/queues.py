"""Copy the queues of the apps, so that they are backed up together with the files.

A queue is an instance of Redis that appends each command to a file. The file has several parts, and a manifest that
names them. When Redis writes the file anew, it begins parts with other names, and then removes the old ones. An open
part stays complete. So a copy is consistent if all parts of one manifest could be opened. A part that grows meanwhile
is copied up to some command. This needs no answer of Redis, which an app can keep busy, and no right in it.

The folder belongs to the queue's user, who could replace its files: links and files of other users are refused, and
the size is limited. Each copy is loaded by a Redis of its own (queue_check.py), which counts its keys.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.failures import system_error

from flaskhost_backup import queue_check
from flaskhost_backup.cluster import human
from flaskhost_backup.config import BackupError, Config, Queue
from flaskhost_backup.paths import remove
from flaskhost_backup.result import Result, run_part
from flaskhost_backup.state import State, read_json, write_json

#: The folder with the parts of a queue's file below its folder, and the file that names the parts: Redis' defaults.
PARTS, MANIFEST = "appendonlydir", "appendonly.aof.manifest"
#: The file with the numbers of keys, next to the copied parts.
RECORD = "record.json"
#: A queue's file can have so many times the size of the instance's memory. Redis writes it anew when it has doubled.
MOST_TIMES = 8
#: A line of the manifest. A part of the type "h" is left from an earlier file, and about to be removed. Since Redis 8,
#: a line can end with offsets of the replication.
_LINE = re.compile(
    r"file (appendonly\.aof\.\d{1,18}\.(?:base|incr)\.(?:rdb|aof)) seq \d{1,18} type ([bih])"
    r"(?: (?:start|end)offset \d{1,18})*"
)
#: Maximum number of bytes of the manifest.
_LONGEST_MANIFEST = 65_536
#: Number of attempts to open all parts before Redis removes one of them, and the seconds between two.
_TRIES, _PAUSE = 20, 0.1


def folder(config: Config, app: str) -> Path:
    """Return the folder of the copy of a queue. It has the same path in each backup."""
    return config.state / "queues" / app


def kind(app: str) -> str:
    """Return the name of the part of a backup, in the state of the program."""
    return f"queue-{app}"


@contextlib.contextmanager
def copied(config: Config, result: Result, now: float) -> Iterator[list[Path]]:
    """Provide a copy of each queue during a block. A queue that cannot be copied does not stop the others.

    Args:
        config: the configuration.
        result: receives a line or a problem for each queue, and its entry; see :func:`note`.
        now: seconds since 1970.

    Yields:
        The folders of the copies.
    """
    forget_copies(config)
    copies = []
    try:
        for queue in config.queues:
            if run_part(result, kind(queue.app), now, functools.partial(_copy, config, queue))["ok"]:
                copies.append(folder(config, queue.app))
            else:
                remove(folder(config, queue.app))
        yield copies
    finally:
        forget_copies(config)


def note(config: Config, result: Result, state: State) -> None:
    """Record the backup of each queue, when the files were backed up or not.

    Args:
        config: the configuration.
        result: the entries of :func:`copied`, and that of the files.
        state: the program's state.
    """
    lost = result.data["files"]["problems"]
    for queue in config.queues:
        entry = result.data[kind(queue.app)]
        if entry["ok"] and lost:
            entry |= {"ok": False, "problems": [f"It was copied, but not backed up: {lost[0]}"]}
        state.note(kind(queue.app), entry)


def forget_copies(config: Config) -> None:
    """Delete the copies, which are not encrypted, and the one that a killed drill left behind."""
    remove(config.state / "queues")
    remove(config.state / "drill-queue")


def _copy(config: Config, queue: Queue) -> tuple[str, dict[str, Any]]:
    """Copy a queue, load the copy, and record the numbers of its keys.

    Raises:
        BackupError: it cannot be copied or loaded.
    """
    there = folder(config, queue.app)
    there.parent.mkdir(mode=0o700, exist_ok=True)
    there.mkdir(mode=0o700)
    parts = there / PARTS
    parts.mkdir(mode=0o700)
    try:
        size = _copy_parts(config, queue, parts)
    except BackupError:
        raise
    except OSError as error:
        raise BackupError(
            f"The queue of {queue.app} was not backed up: {system_error(error)}.",
            f"Check that it runs: systemctl status {queue.unit}",
        ) from error
    # The last command is incomplete if the copy ended in the middle of it.
    loaded = queue_check.load(config, queue, there, whole=False)
    for name, length in loaded.sizes.items():
        os.truncate(parts / name, min(length, (parts / name).stat().st_size))
    write_json(there / RECORD, {"keys": {name: list(keys) for name, keys in loaded.keys.items()}})
    total = sum(keys.all for keys in loaded.keys.values())
    return f"Queue of {queue.app}: {total} keys, {human(size)}.", {"keys": total, "size": size}


def recorded(copy: Path) -> dict[str, queue_check.Keys]:
    """Return the numbers of keys that were counted when a queue was backed up.

    Raises:
        BackupError: they are missing.
    """
    try:
        found = read_json(copy / RECORD)["keys"]
        return {str(name): queue_check.Keys(int(keys[0]), int(keys[1])) for name, keys in found.items()}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise BackupError(
            f"The backup does not say how many keys the queue of {copy.name} had.",
            "Create a new backup: sudo flaskhost-backup files",
        ) from None


def _copy_parts(config: Config, queue: Queue, there: Path) -> int:
    """Copy the parts of a queue's file and its manifest. Return their bytes."""
    try:
        user = pwd.getpwnam(queue.user).pw_uid
    except KeyError:
        raise BackupError(
            f"The queue of {queue.app} was not backed up: its user {queue.user} does not exist.", "Run site.yml."
        ) from None
    with tree.folder(queue.state, PARTS) as above, contextlib.ExitStack() as stack:
        lines, opened = _opened(queue, above, user, stack)
        sizes = [os.fstat(descriptor).st_size for _name, descriptor in opened]
        need_room(config, queue, sum(sizes))
        for (name, descriptor), size in zip(opened, sizes, strict=True):
            _copy_part(descriptor, there / name, size)
        (there / MANIFEST).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return sum(sizes)


def _opened(
    queue: Queue, above: int, user: int, stack: contextlib.ExitStack
) -> tuple[list[str], list[tuple[str, int]]]:
    """Open all parts of a queue's file. Return the lines of the manifest, and the parts with their descriptors."""
    for _attempt in range(_TRIES):
        lines = _manifest(queue, above, user)
        opened: list[tuple[str, int]] = []
        with contextlib.ExitStack() as attempt:
            try:
                for line in lines:
                    name = line.split()[1]
                    opened.append((name, attempt.enter_context(_part(queue, name, above, user))))
            except FileNotFoundError:
                # Redis has just removed it.
                time.sleep(_PAUSE)
                continue
            stack.push(attempt.pop_all())
            return lines, opened
    raise BackupError(
        f"The queue of {queue.app} was not backed up: Redis writes its file anew all the time.",
        f"See why: sudo journalctl --namespace=+flask-{queue.app} -u {queue.unit}",
    )


def _manifest(queue: Queue, above: int, user: int) -> list[str]:
    """Read the manifest. Return its lines, without those of earlier files."""
    with (
        _part(queue, MANIFEST, above, user) as descriptor,
        open(descriptor, encoding="utf-8", errors="replace", closefd=False) as stream,
    ):
        text = stream.read(_LONGEST_MANIFEST + 1)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [_LINE.fullmatch(line) for line in lines]
    if len(text) > _LONGEST_MANIFEST or not lines or not all(found):
        raise BackupError(
            f"The queue of {queue.app} was not backed up: {queue.state / PARTS / MANIFEST} cannot be understood.",
            f"To restore the queue: sudo flaskhost-backup restore-files --app {queue.app} --part queue",
        )
    return [line for line, match in zip(lines, found, strict=True) if match and match[2] != "h"]


@contextlib.contextmanager
def _part(queue: Queue, name: str, above: int, user: int) -> Iterator[int]:
    """Open a file of a queue, which must be a regular file of the queue's user that has no other name."""
    with tree.regular_file(name, above) as descriptor:
        status = os.fstat(descriptor)
        if status.st_uid != user or status.st_nlink > 1:
            what = "has another name" if status.st_uid == user else "belongs to another user"
            raise BackupError(
                f"The queue of {queue.app} was not backed up: {queue.state / PARTS / name} {what}.",
                f"Redis does not do that. Find out who did: sudo ls -l {queue.state / PARTS}",
            )
        yield descriptor


def _copy_part(descriptor: int, there: Path, size: int) -> None:
    with open(descriptor, "rb", closefd=False) as source, there.open("wb") as target:
        left = size
        while left and (data := source.read(min(left, 1024**2))):
            target.write(data)
            left -= len(data)


def need_room(config: Config, queue: Queue, size: int) -> None:
    """Check that a queue is not too large to be copied and loaded.

    Raises:
        BackupError: it is.
    """
    most = MOST_TIMES * queue.memory_mb * 1024**2
    if size > most:
        raise BackupError(
            f"The queue of {queue.app} is too large to be backed up: its file has {human(size)}, and {human(most)} is "
            "the limit.",
            f"Restart it, so that Redis writes the file anew: sudo systemctl restart {queue.unit}. Or set a larger "
            "queue_mb.",
        )
    # The copy, and the one that is loaded, and as much again for the host.
    free = shutil.disk_usage(config.state).free
    if free < 3 * size:
        raise BackupError(
            f"The queue of {queue.app} was not backed up: {config.state} has {human(free)} of free space, and "
            f"{human(3 * size)} are needed.",
            "Free some space: df -h.",
        )


def differences(app: str, wanted: dict[str, queue_check.Keys], found: dict[str, queue_check.Keys]) -> list[str]:
    """Compare the keys of a queue with those that were counted. Return a sentence for each database that differs."""
    none = queue_check.Keys(0, 0)
    said = []
    for name in sorted({*wanted, *found}):
        before, now = wanted.get(name, none), found.get(name, none)
        if before != now:
            said.append(
                f"The database {name} of the queue of {app} has {now.all} keys ({now.expiring} of them expire), and "
                f"had {before.all} ({before.expiring}) when it was backed up."
            )
    return said


def all_lasting(keys: dict[str, queue_check.Keys]) -> dict[str, int]:
    """Return the numbers of keys that do not expire, which no passing of time changes, by database."""
    return {name: item.lasting for name, item in keys.items() if item.lasting}


def parts_of(copy: Path) -> Sequence[Path]:
    """Return the files of a copy that Redis loads."""
    return sorted((copy / PARTS).iterdir())
