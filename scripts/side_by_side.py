"""Commands that run side by side: each line says whose it is, and what was begun ends with the run.

For scripts/scenarios.py and scripts/stages.py.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from common import ROOT

#: Lines of a failed command that are shown once more at the end, below those of all others.
SHOWN = 80

printing = threading.Lock()


def show(line: str) -> None:
    """Print a line as a whole, whoever else prints."""
    with printing:
        sys.stdout.write(line)
        sys.stdout.flush()


@dataclass
class Job:
    """One command: run it, and keep what there is to say at the end.

    Attributes:
        name: what its lines begin with.
        command: the program and its arguments.
        status: its exit status, 1 where a signal has ended it; ``None`` until it has ended.
        seconds: what it took.
        last: its last lines.
        process: it, once it runs.
    """

    name: str
    command: Sequence[str]
    status: int | None = None
    seconds: float = 0.0
    last: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN))
    process: subprocess.Popen[str] | None = None

    def run(self, prefix: str) -> None:
        """Run it to its end, each of its lines after the prefix."""
        started = time.monotonic()
        with subprocess.Popen(
            self.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,  # so that all of it can be ended
        ) as self.process:  # fmt: skip
            assert self.process.stdout is not None  # noqa: S101  # for the type checker: we asked for a pipe
            for line in self.process.stdout:
                self.last.append(line)
                show(prefix + line)
        # A signal's number is below zero.
        self.status = max(1, self.process.returncode) if self.process.returncode else 0
        self.seconds = time.monotonic() - started

    def row(self) -> str:
        """What it took and how it ended, as a row of a table."""
        if self.status is None:
            return f"  {self.name:<18}not run"
        return f"  {self.name:<18}{'FAILED' if self.status else 'ok':<8}{self.seconds:7.1f} s"


def run(jobs: Sequence[Job], at_once: int, failed: threading.Event) -> None:
    """Run jobs in their order, so many at a time; none begins after one has failed.

    Args:
        jobs: the jobs, the longest first.
        at_once: how many side by side.
        failed: set as soon as one has failed, here or elsewhere.

    Raises:
        KeyboardInterrupt: as it came; what was running has been ended.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    width = max((len(job.name) for job in jobs), default=0)

    def work() -> None:
        while not failed.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            show(f"==> {job.name}: begins\n")
            try:
                job.run(f"{job.name:<{width}} | ")
            finally:
                # Also where it could not even begin.
                if job.status != 0:
                    failed.set()
            show(f"==> {job.name}: {'FAILED' if job.status else 'ok'} after {job.seconds:.0f} s\n")

    workers = [threading.Thread(target=work, daemon=True) for _number in range(at_once)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        for job in jobs:
            if job.process and job.process.poll() is None:
                os.killpg(job.process.pid, signal.SIGTERM)
                job.process.wait(timeout=60)
        raise


def say_at_the_end(jobs: Sequence[Job]) -> None:
    """Show the last lines of those that have failed, for whoever reads the end of a long log."""
    for job in jobs:
        if job.status:
            print(f"\nThe last lines of {job.name}, which failed:\n\n{''.join(job.last)}")


def status_of(jobs: Sequence[Job]) -> int:
    """0 where all have succeeded; else the status of the worst, at the least 1: one may not even have begun."""
    if all(job.status == 0 for job in jobs):
        return 0
    return max(1, *(job.status or 0 for job in jobs))
