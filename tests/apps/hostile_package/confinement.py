# An attacker's package, in as few words as will do.
"""What the process that runs this is held to, read from inside; and what it gets of what is not its own.

TEST PACKAGE ONLY.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import pwd
import resource
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any


def attempt(action: Callable[[], Any]) -> Any:
    """What an action returns, or ``refused`` and why."""
    try:
        return action()
    except Exception as error:  # whatever it is, the report goes on
        return f"refused: {error!r}"


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def status(name: str) -> str:
    """A line of /proc/self/status."""
    return next(line.split(":")[1].strip() for line in read("/proc/self/status").splitlines() if line.startswith(name))


def cgroup(*names: str) -> str:
    """A limit of the unit, whichever version of control groups the host has."""
    for line in read("/proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        for name in names:
            for file in (f"/sys/fs/cgroup/{controllers}{path}/{name}", f"/sys/fs/cgroup{path}/{name}"):
                if os.path.exists(file):
                    return read(file).strip()
    return "none"


def give_away() -> None:
    with tempfile.NamedTemporaryFile() as file:
        os.chown(file.name, os.getuid(), os.getgid())


def personality() -> int:
    # PER_LINUX32: as linux32(8) would ask for it.
    return ctypes.CDLL(None, use_errno=True).personality(0x0008)


def connect(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
    return "connected"


def report() -> dict[str, Any]:
    return {
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "seccomp": status("Seccomp"),
        "no_new_privileges": status("NoNewPrivs"),
        "capabilities": status("CapBnd"),
        "users": read("/proc/self/uid_map").split(),
        "tasks": cgroup("pids.max"),
        "memory": cgroup("memory.max", "memory.limit_in_bytes"),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
        "chown": attempt(give_away),
        "personality": attempt(personality),
        "data": attempt(lambda: os.listdir("/srv/mallory/data")),
        "database": attempt(lambda: connect("/run/postgresql/.s.PGSQL.5432")),
        "neighbor": attempt(lambda: os.listdir("/srv/alice/releases")),
        "secrets": attempt(lambda: os.listdir("/etc/flaskhost")),
        "bus": attempt(lambda: connect("/run/dbus/system_bus_socket")),
        "others_cache": attempt(lambda: os.listdir("/var/cache/flaskhost/alice")),
        "code": [len(read(path)) for path in glob.glob("/srv/mallory/releases/*/src/app.py")],
    }


if __name__ == "__main__":
    json.dump(report(), sys.stdout)
