#!/usr/bin/env python3
"""Run make targets one after the other, and print at the end how long each took.

It stops at the first target that fails, unless --keep-going is given. Targets joined by a plus run side by side:
lint+unit. A target can have variables: "vm RELEASE=bookworm".
"""

from __future__ import annotations

import argparse
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep-going", action="store_true", help="run the other targets if one fails")
    parser.add_argument("stage", nargs="+", help="a target of the Makefile")
    wanted = parser.parse_args()
    stages = [
        [Job(target, ["make", "--no-print-directory", *target.split()]) for target in stage.split("+")]
        for stage in wanted.stage
    ]
    jobs = [job for stage in stages for job in stage]
    for stage in stages:
        if len(stage) == 1:
            run_alone(stage[0])
        else:
            run(stage, len(stage), threading.Event())
            say_at_the_end(stage)
        if status_of(stage) != 0 and not wanted.keep_going:
            break
    print("\n" + "\n".join(job.row() for job in jobs), flush=True)
    return status_of(jobs)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
