"""One deploy at a time, also between the phases of a run on several hosts."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy.app import RETURN
from ansible.module_utils.flaskhost.deploy.lock import Lock, Locked, processes_with
from ansible.module_utils.flaskhost.deploy.release import Deployment
from ansible.module_utils.flaskhost.deploy.sources import folders
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from release_site import Site, assert_in_order, to

# -- one at a time --------------------------------------------------------------------------------------------------


def test_a_second_deploy_is_refused_and_told_who_is_at_it(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            held = Lock(site.root / ".lock", deploy="run-0", by="grace@desk")
            held.acquire()
            os.write(writer, b"!")
            signal.pause()
        os._exit(1)
    os.close(writer)
    try:
        os.read(reader, 1)
        error = site.refused()
        assert error.step == "Lock the app"
        assert re.search(r"grace@desk since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", error.reason)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # A lock of a process that was killed is none.
    assert_in_order(site, site.deploy())


def test_the_lock_is_held_to_the_end_and_by_nothing_that_is_started(site: Site) -> None:
    held: list[str] = []

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        with (site.root / ".lock").open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(f"free at {args}")
            except BlockingIOError:
                assert not os.get_inheritable(stream.fileno())
        return site.host(args, **options)

    digest = folders.digest(site.code)
    folders.pack(site.code, site.folder / "a.tar.gz")
    options = {**site.options, "source_digest": digest, "archive": str(site.folder / "a.tar.gz")}
    Deployment(run, options, pause=site.pauses.append).go()
    assert held == []
    assert len(site.host.calls) > 10


# -- the lock between phases ------------------------------------------------------------------------------------------


def test_the_lock_is_kept_between_phases_for_the_same_run_alone(locked: Site) -> None:
    site = locked
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    asked = to(site, "gate")
    assert len(processes_with(site.root / ".lock")) == 1
    with pytest.raises(Locked) as caught:
        site.deploy(deploy="run-2", by="grace@desk")
    assert "ada@laptop since " in caught.value.reason
    assert caught.value.holder["deploy"] == "run-1"
    # A return of a run that does not have it takes nothing back.
    assert not site.phase(RETURN, deploy="run-2", release=asked.release, previous=asked.previous).changed
    assert set(site.host.running) == {"blue", "green"}
    for name in ("flip", "finish"):
        site.phase(name, release=asked.release)
    assert processes_with(site.root / ".lock") == []
    assert_in_order(site)


def test_the_lock_of_a_dead_run_is_taken_over(locked: Site) -> None:
    site = locked
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    to(site, "gate")
    outcome = site.deploy(deploy="run-2", takeover="run-1")
    assert_in_order(site, outcome)
    assert processes_with(site.root / ".lock") == []


@pytest.mark.parametrize(("timeout", "kept"), [(100, "300"), (900, "960")])
def test_the_lock_is_kept_as_long_as_the_release_command_of_another_host_may_take(
    locked: Site, timeout: int, kept: str
) -> None:
    to(locked, "prepare", release_timeout=timeout)
    (process,) = processes_with(locked.root / ".lock")
    command = Path(f"/proc/{process}/cmdline")
    # Empty while the kernel is starting the program.
    while not (words := command.read_text(encoding="utf-8")):
        time.sleep(0.01)
    assert words.split("\0")[1] == kept


def test_a_phase_that_fails_lets_go_of_the_lock(locked: Site) -> None:
    site = locked
    site.deploy()
    site.change({"fails-the-gate": ""})
    asked = to(site, "migrate")
    assert len(processes_with(site.root / ".lock")) == 1
    with pytest.raises(ReleaseError):
        site.phase("gate", release=asked.release)
    assert processes_with(site.root / ".lock") == []
