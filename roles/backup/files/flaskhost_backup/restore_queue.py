"""The queue's part of a restore of an app's files: test the copy, replace the data, start the queue, and count."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils.flaskhost.host import quotas
from ansible.module_utils.flaskhost.host.cache_client import Keys, NoAnswer, info_of_redis, keys_of_redis

from flaskhost_backup import queue_check, queues
from flaskhost_backup.config import BackupError, Config, Queue
from flaskhost_backup.units import running_units, start_after, start_units, stop_units

#: Seconds for a restored queue to answer. It has loaded its data by then, and the app is stopped.
SECONDS = 60.0


def prepare(config: Config, queue: Queue, restored: Path) -> dict[str, Keys]:
    """Test the restored copy of a queue, and make it the queue's own. Everything still runs meanwhile.

    Args:
        config: the configuration.
        queue: the queue.
        restored: the folder of the copy, which only root can reach.

    Returns:
        The numbers of its keys.

    Raises:
        BackupError: the copy cannot be loaded, or its keys are not those of the backup.
    """
    wanted = queues.recorded(restored)
    found = queue_check.load(config, queue, restored, whole=True).keys
    if differences := queues.differences(queue.app, wanted, found):
        raise BackupError(" ".join(differences), "Restore an older backup: sudo flaskhost-backup list")
    (restored / queues.RECORD).unlink()
    user = pwd.getpwnam(queue.user)
    group = queue.state.lstat().st_gid if queue.state.is_dir() else user.pw_gid
    for path in (*queues.parts_of(restored), restored / queues.PARTS, restored):
        os.chown(path, user.pw_uid, group, follow_symlinks=False)
    # So that it counts as the app's, where its disk space is limited.
    _count_as(restored, quotas.project_of(queue.app), queue.state)
    return wanted


@contextlib.contextmanager
def stopped(queue: Queue) -> Iterator[None]:
    """Keep a queue stopped while its data is replaced; start it again after an error.

    Args:
        queue: the queue, whose workers are stopped already.

    Raises:
        BackupError: it cannot be stopped, or does not start.
    """
    ran = running_units([queue.unit])
    try:
        stop_units([queue.unit])
        yield
    except BaseException as problem:
        start_after(problem, ran)
        raise


def prove(queue: Queue, wanted: dict[str, Keys]) -> str:
    """Start a queue with its restored data, and count its keys.

    Args:
        queue: the queue.
        wanted: the numbers of its keys.

    Returns:
        A line for the operator.

    Raises:
        BackupError: it does not start, or has other keys.
    """
    start_units([queue.unit])
    try:
        found = keys_of_redis(info_of_redis(queue.socket, pwd.getpwnam(queue.user).pw_uid, SECONDS))
    except NoAnswer as error:
        raise BackupError(
            f"The queue of {queue.app} does not answer with the restored data: {error}.",
            f"See why: sudo journalctl --namespace=+flask-{queue.app} -u {queue.unit}",
        ) from None
    # Keys that have expired since the backup are gone.
    if queues.all_lasting(found) != queues.all_lasting(wanted):
        raise BackupError(
            f"The queue of {queue.app} has other keys than the backup: {queues.all_lasting(found)} by database that do "
            f"not expire, instead of {queues.all_lasting(wanted)}.",
            "Check the disk: dmesg | tail.",
        )
    total = sum(keys.all for keys in wanted.values())
    return f"The queue of {queue.app} was restored with {total} keys. Jobs that were done since may be done again."


def put_away(aside: Path) -> None:
    """Give the previous data of a queue to root, and stop counting it as the app's.

    Its user could be deleted, and another one get its number.
    """
    _count_as(aside, 0, aside)
    os.chown(aside, 0, 0, follow_symlinks=False)
    aside.chmod(0o700)


def start_left(config: Config, unit: str) -> None:
    """Start a queue that a killed restore left stopped, unless the app has no queue any more.

    Raises:
        BackupError: it does not start.
    """
    start_units([queue.unit for queue in config.queues if queue.unit == unit])


def _count_as(folder: Path, project: int, place: Path) -> None:
    try:
        if quotas.file_system(place).has_quotas:
            quotas.adopt(folder, project)
    except quotas.QuotaError as error:
        raise BackupError(str(error)) from error
