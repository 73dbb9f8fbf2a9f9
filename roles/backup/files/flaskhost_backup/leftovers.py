"""Processes and copies that outlive a run that was killed.

pgBackRest's main process ends with the run, but its workers first finish their file, or wait forever for more work. A
repeated backup would take over the killed one's folder while they still write into it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from flaskhost_backup import queue_check, queues, tools
from flaskhost_backup.config import BackupError, Config

#: pgBackRest's commands that write and that only this program calls.
_WRITING = frozenset(f"{verb}{role}" for verb in ("backup", "restore") for role in ("", ":local", ":remote"))
#: Seconds for the processes to end.
SECONDS = 10.0


def end_left(config: Config, pause: Callable[[float], None] = time.sleep) -> None:
    """End the processes that a killed run left behind. The caller holds the lock, so there are no others.

    Args:
        config: the configuration.
        pause: sleeps for a number of seconds; replaced in tests.

    Raises:
        BackupError: a process does not end.
    """
    queue_check.end(config)
    queues.forget_copies(config)
    waited = 0.0
    while left := _left(config):
        if waited > SECONDS:
            raise BackupError(
                f"Processes of a killed backup or restore are still running: {', '.join(map(str, left))}.",
                "Check the disk (dmesg | tail), then run the same command again.",
            )
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        pause(0.1)
        waited += 0.1


def _left(config: Config) -> list[int]:
    if not config.cluster:
        return []
    # As that user, because in its sandbox this program sees no processes of other users.
    user, ours = config.cluster.user, f"--config={config.pgbackrest}"
    listed = tools.run(["ps", "-ww", "--user", user, "-o", "pid=,args="], user=user)
    found = []
    for line in listed.out.splitlines():
        process, *words = line.split()
        if words and words[0].endswith("pgbackrest") and words[-1] in _WRITING and ours in words:
            found.append(int(process))
    return found
