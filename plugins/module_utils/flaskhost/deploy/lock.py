"""The lock of an app: one deploy at a time, held by a process, so that no lock outlives the one who took it.

The kernel lets go of a ``flock`` when the last process with the open file ends. Within a phase that is the module
itself. Between the phases of a deploy to several hosts it is a sleeping process that ends by itself after a while.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.flaskhost.host.runner import ReleaseError

#: Seconds that the lock is kept for the next phase. One that comes later takes it anew, if nobody else has.
KEEP_SECONDS = 300
#: Seconds to wait for a process that has been told to end.
END_SECONDS = 5.0


class Locked(ReleaseError):
    """Another deploy holds the lock.

    Args:
        holder: what is known of it: ``deploy``, ``by``, ``controller`` and ``since``.
    """

    def __init__(self, holder: dict[str, Any]) -> None:
        since = holder.get("since")
        when = f" since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC" if since else ""
        super().__init__(
            "Lock the app",
            f"another deploy holds it: {holder.get('by') or 'somebody'}{when}.",
            "Wait until it has ended, then run the same command again.",
        )
        self.holder = holder


def processes_with(path: Path) -> list[int]:
    """The processes that hold the lock of a file, but for this one; not those that only look at the file."""
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
        # It has just ended.
        return False
    for item in descriptors:
        try:
            status = item.stat()
            # proc(5), /proc/pid/fdinfo: the locks of the open file, which is what a child inherits.
            if (status.st_dev, status.st_ino) == wanted and "FLOCK" in (process / "fdinfo" / item.name).read_text():
                return True
        except OSError:
            # It has just been closed.
            continue
    return False


class Lock:
    """The lock of one app.

    Args:
        path: its file.
        deploy: names this run of the playbook; the phases of one run share the lock.
        by: who runs it, as ``user@controller``.
        controller: the controller's process, kept for whoever finds the lock taken.
        takeover: the run whose lock may be taken away, since its controller is known to be dead.
        pause: waits some seconds; another one in tests.
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
        """Take the lock.

        Raises:
            Locked: another run has it.
        """
        stream = self.path.open("a+", encoding="utf-8")
        # Who can open it can hold it.
        os.fchmod(stream.fileno(), 0o600)
        if not _try(stream):
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
        """End what holds the lock; a module may be killed at any moment without harm."""
        for process in processes_with(self.path):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        waited = 0.0
        while not _try(stream):
            if waited >= END_SECONDS:
                return False
            self.pause(0.05)
            waited += 0.05
        return True

    def keep(self, seconds: int = KEEP_SECONDS) -> None:
        """Leave the lock to a process that only sleeps, for the next phase of the same run to take.

        Args:
            seconds: how long at most.
        """
        if not self.stream:
            return
        subprocess.Popen(  # noqa: S603 - no argument of anybody's
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
        """Let go of the lock."""
        if self.stream:
            self.stream.close()
            self.stream = None


def _try(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
