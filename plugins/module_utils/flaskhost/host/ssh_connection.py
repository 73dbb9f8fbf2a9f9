"""Find out when the SSH connection of a process was made."""

from __future__ import annotations

import os
from pathlib import Path

#: Where the kernel shows processes.
PROC = Path("/proc")


def connected_since(process: int, proc: Path = PROC) -> float | None:
    """Return when the SSH connection of a process was made, in seconds since boot; None if it has none.

    The nearest sshd among the ancestors of the process belongs to the connection. All sessions of a shared connection
    (OpenSSH's ControlMaster) have the same one, however late they began. sudo and su come in between.

    Args:
        process: the process.
        proc: where the kernel shows processes.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    while process > 1:
        try:
            # The name is in parentheses, and may contain any character: proc(5).
            head, _close, rest = (proc / str(process) / "stat").read_bytes().rpartition(b")")
        except OSError:
            return None
        fields = rest.split()
        if head.partition(b"(")[2].startswith(b"sshd"):
            # The kernel rounds down to a tick. The end of the tick is the latest possible time.
            return (int(fields[19]) + 1) / ticks
        process = int(fields[1])
    return None
