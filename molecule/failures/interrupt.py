#!/usr/bin/env python3
"""Kill runs of site.yml, as when a laptop is closed: what runs on the host goes on by itself, or dies.

    python3 molecule/failures/interrupt.py INVENTORY

Each run is killed within a named task, or after a number of tasks that is drawn. The seed is printed;
`FLASKHOST_SEED=... molecule side-effect -s failures` draws the same again.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "molecule"))

from runs import NIGHTLY, kill, start

_RELEASE = "app : Deploy | Deploy, roll back or restart each app"
#: Where a run is killed in a nightly run, by the beginnings of its tasks' names in their order, and what holds on the
#: host by then: amid packages, a guarded change of what could lock the operator out, a service that begins, the
#: certificates, and each step of a release.
POINTS = (
    ("base : Install | Install the base packages", ""),
    ("firewall : Configure | Change the rules", ""),
    ("hardening : SSH | Configure sshd", ""),
    ("postgres : Server | Configure and start PostgreSQL", ""),
    ("certbot : Prepare | Install the program", ""),
    ("nginx : Configure | Write the sites", ""),
    (_RELEASE, "ls -d /srv/guestbook/venvs/*/"),
    (_RELEASE, "ls /srv/guestbook/venvs/*/.complete"),
    (_RELEASE, "systemctl is-active 'flask-guestbook@*.service'"),
    (_RELEASE, "test -e /srv/guestbook/live.sock"),
)
#: Where `make test` kills one: amid packages, the change of sshd, and a release that has just begun to serve.
FEW = (POINTS[0], POINTS[2], POINTS[-1])
#: How many more runs are killed after a drawn number of tasks.
MOMENTS = int(os.environ.get("FLASKHOST_MOMENTS") or (3 if NIGHTLY else 1))
#: Seconds into the task at most, and those after which a run hangs.
DEEP, LIMIT = 1.5, 900.0


class Missed(Exception):
    """A run that was not killed where it should have been."""


def on_host(condition: str) -> bool:
    """Whether a command of the shell succeeds on the host."""
    command = ["docker", "exec", "fh-failures", "sh", "-c", condition]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def killed(
    command: Sequence[str | Path],
    is_it: Callable[[int, str], bool],
    deep: float,
    holds: Callable[[], bool] = lambda: True,
) -> tuple[int, str]:
    """Run a playbook, and kill it with all its processes within a task.

    Args:
        command: the run.
        is_it: whether it is this task, by its number from 1 and its name.
        deep: seconds into it.
        holds: what has to be so first.

    Returns:
        The number of the task and its name; an empty name where the run ended before it.

    Raises:
        Missed: it failed before.
    """
    number, last = 0, [""]
    with start([str(word) for word in command]) as process:
        hangs = threading.Timer(LIMIT, process.kill)
        hangs.start()
        try:
            assert process.stdout
            for line in process.stdout:
                last = [*last[-40:], line]
                if not line.startswith("TASK ["):
                    continue
                number, name = number + 1, line.partition("[")[2].rpartition("]")[0]
                if is_it(number, name):
                    while not holds() and process.poll() is None:
                        time.sleep(0.05)
                    time.sleep(deep)
                    if process.poll() is not None:
                        break
                    kill(process)
                    return number, name
            status = process.wait()
        finally:
            hangs.cancel()
    if status:
        raise Missed(f"The run ended with {status} before it was killed:\n{''.join(last)}")
    return number, ""


def at_points(command: Sequence[str | Path], points: Sequence[tuple[str, str]], chance: random.Random) -> int:
    """Kill a run within each named task.

    Returns:
        The most tasks that a run had begun.

    Raises:
        Missed: a run never came to its task, or had ended within it.
    """
    most = 0
    for point, condition in points:
        deep = round(chance.uniform(0, 0.3 if condition else DEEP), 2)
        number, name = killed(
            command,
            lambda _number, task, point=point: task.startswith(point),
            deep,
            lambda condition=condition: not condition or on_host(condition),
        )
        if not name:
            raise Missed(f"No run was killed at {point!r}: it ended after {number} tasks. Is the task named so still?")
        print(f"killed {deep} s into task {number}: {name}{condition and f', after {condition}'}", flush=True)
        most = max(most, number)
    return most


def at_random(command: Sequence[str | Path], most: int, chance: random.Random) -> None:
    """Kill runs after so many tasks as are drawn, at most ``most``."""
    for _moment in range(MOMENTS):
        wanted, deep = chance.randint(1, most), round(chance.uniform(0, DEEP), 2)
        number, name = killed(command, lambda task, _name, wanted=wanted: task == wanted, deep)
        print(f"killed {deep} s into task {number}: {name}" if name else f"ended before task {wanted}", flush=True)


def main() -> int:
    """Kill them all."""
    seed = os.environ.get("FLASKHOST_SEED") or str(random.randrange(10**6))
    print(f"FLASKHOST_SEED={seed}", flush=True)
    chance = random.Random(seed)
    command = ["ansible-playbook", "--inventory", sys.argv[1], "site.yml"]
    try:
        at_random(command, at_points(command, POINTS if NIGHTLY else FEW, chance), chance)
    except Missed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
