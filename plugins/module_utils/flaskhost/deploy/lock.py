"""The lock of an app: one deploy at a time. A process holds it, so that no lock outlives its holder.

The kernel releases a ``flock`` when the last process with the open file ends. Within a phase, that process is the
module itself. Between the phases of a deploy to several hosts, it is a sleeping process that ends after a while.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.flaskhost.host import lock as lock_file
from ansible.module_utils.flaskhost.host.runner import ReleaseError

#: Seconds that the lock is held for the next phase. A later phase takes it again, if nobody else has it.
KEEP_SECONDS = 300
#: Seconds to wait until a killed process has ended.
END_SECONDS = 5.0


class Locked(ReleaseError):
    """Another deploy holds the lock.

    Args:
        holder: what the lock file says about it: ``deploy``, ``by``, ``controller`` and ``since``.
    """

    def __init__(self, holder: dict[str, Any]) -> None:
        since = holder.get("since")
        when = f" since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC" if since else ""
        super().__init__(
            "Lock the app",
            f"another deploy of the app is running: {holder.get('by') or 'somebody'}{when}.",
            "Wait until it has finished, then run the same command again.",
        )
        self.holder = holder


def processes_with(path: Path) -> list[int]:
    """Return the other processes that hold the lock of a file, without those that only have the file open."""
    wanted = path.stat()
    return [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and int(folder.name) != os.getpid() and _holds(folder, (wanted.st_dev, wanted.st_ino))
    ]


def _holds(process: Path, wanted: tuple[int, int]) -> bool:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        # The process has just ended.
        return False
    for item in descriptors:
        try:
            status = item.stat()
            # proc(5), /proc/pid/fdinfo: locks belong to the open file description, which a child inherits.
            if (status.st_dev, status.st_ino) == wanted and "FLOCK" in (process / "fdinfo" / item.name).read_text():
                return True
        except OSError:
            # The descriptor has just been closed.
            continue
    return False


class Lock:
    """The lock of one app.

    Args:
        path: the lock file.
        deploy: ID of this run of the playbook; the phases of one run share the lock.
        by: who runs it, as ``user@controller``.
        controller: Ansible's process on the control node, recorded for anyone who finds the lock taken.
        takeover: ID of a run whose lock can be taken over, because its process on the control node is dead.
        pause: sleeps for a number of seconds; replaced in tests.
    """

    def __init__(
        self,
        path: Path,
        *,
        deploy: str,
        by: str = "",
        controller: dict[str, Any] | None = None,
        takeover: str = "",
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path, self.takeover, self.pause = path, takeover, pause
        self.holder = {"deploy": deploy, "by": by, "controller": controller or {}}
        self.stream: IO[str] | None = None

    def acquire(self) -> None:
        """Acquire the lock.

        Raises:
            Locked: another run holds it.
        """
        stream = lock_file.open_file(self.path)
        if not lock_file.acquire(stream):
            holder = _read(stream)
            ours = {item for item in (self.holder["deploy"], self.takeover) if item}
            if holder.get("deploy") not in ours or not self._end_holders(stream):
                stream.close()
                raise Locked(holder)
        self.stream = stream
        try:
            _write(stream, {**self.holder, "since": self._since(stream)})
        except OSError:
            self.release()
            raise

    def _since(self, stream: IO[str]) -> float:
        before = _read(stream)
        same = before.get("deploy") == self.holder["deploy"] and self.holder["deploy"]
        return float(before.get("since", 0)) if same else time.time()

    def _end_holders(self, stream: IO[str]) -> bool:
        """Kill the processes that hold the lock. A module can be killed at any time without harm."""
        for process in processes_with(self.path):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        waited = 0.0
        while not lock_file.acquire(stream):
            if waited >= END_SECONDS:
                return False
            self.pause(0.05)
            waited += 0.05
        return True

    def keep(self, seconds: int = KEEP_SECONDS) -> None:
        """Pass the lock to a sleeping process, from which the next phase of the same run takes it.

        Args:
            seconds: maximum time to hold it.
        """
        if not self.stream:
            return
        subprocess.Popen(
            ["/usr/bin/sleep", str(seconds)],
            pass_fds=[self.stream.fileno()],
            start_new_session=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.release()

    def release(self) -> None:
        """Release the lock."""
        if self.stream:
            self.stream.close()
            self.stream = None


def _write(stream: IO[str], values: dict[str, Any]) -> None:
    stream.seek(0)
    stream.truncate(0)
    stream.write(json.dumps(values) + "\n")
    stream.flush()


def _read(stream: IO[str]) -> dict[str, Any]:
    stream.seek(0)
    try:
        found = json.loads(stream.read() or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
