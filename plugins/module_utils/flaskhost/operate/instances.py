"""Whether an app's cache and queue run and answer, how much memory they use, and how many keys a queue has."""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Absolute imports: Mitogen does not find relative ones.
from ansible.module_utils.flaskhost.host.cache_client import NoAnswer, info_of_redis, keys_of_redis, memcached_stats
from ansible.module_utils.flaskhost.host.runner import Run

#: Time limit for an answer in seconds. A client of a hostile app can make its own instance wait forever.
SECONDS = 3.0
#: The share of the memory from which on a queue is reported: when it is full, it refuses further jobs.
FULL = 0.9
_MB = 1024**2


@dataclass(frozen=True)
class Found:
    """What an instance says.

    Attributes:
        problem: why it does not answer, or what is wrong; empty if all is well.
        answers: whether it answers.
        used: the bytes of its data.
        most: the maximum of them.
        keys: the number of keys; None for Memcached.
        saves: whether it keeps its data on the disk, and the last write succeeded.
    """

    problem: str = ""
    answers: bool = False
    used: int = 0
    most: int = 0
    keys: int | None = None
    saves: bool = False

    @property
    def text(self) -> str:
        """The cell of the status table."""
        if not self.answers:
            return "no answer"
        keys = "" if self.keys is None else f", {self.keys} keys"
        return f"{self.used / _MB:.0f}/{self.most / _MB:.0f} MB{keys}"


def look(run: Run, instance: Mapping[str, Any]) -> Found:
    """Ask an instance.

    Args:
        run: runs a command.
        instance: ``kind``, ``engine``, ``unit``, ``user`` and ``socket``.
    """
    kind, unit = instance["kind"], instance["unit"]
    if run(["systemctl", "is-active", "--quiet", unit])[0]:
        return Found(f"{kind} down: sudo systemctl status {unit}")
    try:
        user, path = pwd.getpwnam(instance["user"]).pw_uid, Path(instance["socket"])
        if instance["engine"] == "memcached":
            stats = memcached_stats(path, user, SECONDS)
            return Found(answers=True, used=int(stats["bytes"]), most=int(stats["limit_maxbytes"]))
        info = info_of_redis(path, user, SECONDS)
        used, most = int(info["used_memory"]), int(info["maxmemory"])
        keys = sum(item.all for item in keys_of_redis(info).values())
        saves = info["aof_enabled"] == "1" and info["aof_last_write_status"] == "ok"
    except (NoAnswer, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, NoAnswer) else "its answer cannot be understood"
        return Found(f"{kind} does not answer ({reason}): sudo systemctl status {unit}")
    problem = ""
    if kind == "queue" and not saves:
        problem = f"queue does not reach the disk, its jobs would be lost: df -h, sudo systemctl status {unit}"
    elif kind == "queue" and used >= FULL * most:
        problem = f"queue is almost full ({used / _MB:.0f} of {most / _MB:.0f} MB) and will refuse jobs: raise queue_mb"
    return Found(problem, True, used, most, keys, saves)
