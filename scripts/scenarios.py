#!/usr/bin/env python3
"""Run Molecule scenarios, two at a time, and report at the end how long each took and why it failed.

A scenario spends much of its time waiting: a playbook waits for its host, a test waits for a playbook. Two scenarios
side by side use that time. They share nothing: each has its own hosts, ports and network. A scenario that floods its
hosts runs first, and by itself, so that lost or late responses are its host's fault and not another scenario's.
"""

from __future__ import annotations

import argparse
import sys
import threading

from common import guarded
from side_by_side import Job, run, say_at_the_end, status_of

#: Scenarios that flood their hosts.
ALONE = ("hardening",)


def main() -> int:
    """Run the scenarios from the command line in order, the longest one first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="how many side by side (2)")
    parser.add_argument("scenario", nargs="+", help="a folder under molecule/")
    wanted = parser.parse_args()
    scenarios = [Job(name, ["molecule", "test", "--no-command-borders", "-s", name]) for name in wanted.scenario]
    failed = threading.Event()
    run([each for each in scenarios if each.name in ALONE], 1, failed)
    run([each for each in scenarios if each.name not in ALONE], wanted.at_once, failed)
    say_at_the_end(scenarios)
    print("\n".join(each.row() for each in scenarios), flush=True)
    return status_of(scenarios)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
