"""Which tests run, and runs of playbooks that are killed with all that they have started on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

#: Whether a nightly run asks for everything: the tests with the marker ``nightly``, and slow tests on both releases.
NIGHTLY = bool(os.environ.get("FLASKHOST_NIGHTLY"))


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a run and all that it has started on this machine, as when the machine goes down.

    Ansible's workers are sessions of their own, so that no process group has them all. The SSH connection that is kept
    open for later has left the family and stays.
    """
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    doomed = [process.pid]
    for pid in doomed:
        doomed += children.get(pid, [])
    for pid in doomed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate(timeout=30)
