"""Run commands side by side: each output line has the command's name, and all commands end with the run.

Used by scripts/scenarios.py and scripts/stages.py.
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

#: Number of lines of a failed command that are shown again at the end, below all other output.
SHOWN = 80

printing = threading.Lock()


def show(line: str) -> None:
    """Print a whole line, even if other threads print too."""
    with printing:
        sys.stdout.write(line)
        sys.stdout.flush()


@dataclass
class Job:
    """One command, with its result for the summary at the end.

    Attributes:
        name: prefix of its output lines.
        command: the program and its arguments.
        status: its exit status, 1 if a signal ended it; ``None`` until it has ended.
        seconds: its run time.
        last: its last output lines.
        process: its process, once it runs.
    """

    name: str
    command: Sequence[str]
    status: int | None = None
    seconds: float = 0.0
    last: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN))
    process: subprocess.Popen[str] | None = None

    def run(self, prefix: str) -> None:
        """Run the command to its end, and print its output lines with the prefix."""
        started = time.monotonic()
        with subprocess.Popen(
            self.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,  # so that all of its processes can be ended
        ) as self.process:  # fmt: skip
            assert self.process.stdout is not None  # noqa: S101  # for the type checker: it is a pipe
            for line in self.process.stdout:
                self.last.append(line)
                show(prefix + line)
        # Statuses of signals are negative.
        self.status = max(1, self.process.returncode) if self.process.returncode else 0
        self.seconds = time.monotonic() - started

    def row(self) -> str:
        """Return the result and the run time as a table row."""
        if self.status is None:
            return f"  {self.name:<18}not run"
        return f"  {self.name:<18}{'FAILED' if self.status else 'ok':<8}{self.seconds:7.1f} s"


def run(jobs: Sequence[Job], at_once: int, failed: threading.Event) -> None:
    """Run jobs in order, with a limit on how many run at a time. None begins after one has failed.

    Args:
        jobs: the jobs, longest first.
        at_once: maximum number of jobs at a time.
        failed: set as soon as one job has failed, here or elsewhere.

    Raises:
        KeyboardInterrupt: passed on, after the running jobs have been ended.
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
                # Also if the job could not start.
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
    """Print the last lines of the failed jobs again, for anyone who reads only the end of a long log."""
    for job in jobs:
        if job.status:
            print(f"\nThe last lines of {job.name}, which failed:\n\n{''.join(job.last)}")


def status_of(jobs: Sequence[Job]) -> int:
    """Return 0 if all jobs succeeded, else the highest status, at least 1: a job can be without a status."""
    if all(job.status == 0 for job in jobs):
        return 0
    return max(1, *(job.status or 0 for job in jobs))
