#!/usr/bin/env python3
"""Run make targets one after the other, stop at the first that fails, and say at the end what each took.

Those joined by a plus run side by side: lint+unit.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from common import ROOT, guarded, say
from side_by_side import Job, run, say_at_the_end, status_of


def run_alone(job: Job) -> None:
    """Run one, which has the terminal for itself."""
    say(f"make {job.name}")
    started = time.monotonic()
    try:
        job.status = subprocess.run(job.command, cwd=ROOT, check=False).returncode
    except KeyboardInterrupt:
        job.status = 130
    job.seconds = time.monotonic() - started


def main() -> int:
    """Run the targets that the command line names."""
    stages = [
        [Job(target, ["make", "--no-print-directory", target]) for target in stage.split("+")] for stage in sys.argv[1:]
    ]
    jobs = [job for stage in stages for job in stage]
    for stage in stages:
        if len(stage) == 1:
            run_alone(stage[0])
        else:
            run(stage, len(stage), threading.Event())
            say_at_the_end(stage)
        if status_of(stage) != 0:
            break
    print("\n" + "\n".join(job.row() for job in jobs), flush=True)
    return status_of(jobs)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
