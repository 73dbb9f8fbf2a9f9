"""One deploy at a time: a lock that is held by a process, and never by one that has ended."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import lock as lock_module
from ansible.module_utils.flaskhost.deploy.lock import Lock, Locked, processes_with


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / ".lock"
    yield path
    for process in processes_with(path) if path.exists() else ():
        os.kill(process, signal.SIGKILL)


@pytest.fixture
def holder(path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Another process that takes the lock."""
    found: list[subprocess.Popen[str]] = []
    script = (
        "import fcntl, json, sys\n"
        "stream = open(sys.argv[1], 'a+')\n"
        "fcntl.flock(stream, fcntl.LOCK_EX)\n"
        "stream.truncate(0)\n"
        "stream.write(json.dumps({'deploy': sys.argv[2], 'by': 'grace@desk', 'since': 1e9})); stream.flush()\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )

    def start(deploy: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-S", "-c", script, str(path), deploy]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        found.append(process)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in found:
        process.kill()
        process.communicate()


def test_a_second_run_is_told_who_holds_it_and_since_when(path: Path) -> None:
    first = Lock(path, deploy="run-1", by="ada@laptop", controller={"pid": 7})
    first.acquire()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Locked) as caught:
        Lock(path, deploy="run-2").acquire()
    assert caught.value.holder["controller"] == {"pid": 7}
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(caught.value.holder["since"]))
    assert f"ada@laptop since {when}" in caught.value.reason
    assert caught.value.cure
    first.release()
    Lock(path, deploy="run-2").acquire()


def test_runs_without_a_name_share_nothing(path: Path) -> None:
    first = Lock(path, deploy="")
    first.acquire()
    with pytest.raises(Locked):
        Lock(path, deploy="").acquire()


def test_it_is_kept_for_the_next_phase_by_a_process_and_since_the_first(path: Path) -> None:
    first = Lock(path, deploy="run-1", by="ada@laptop")
    first.acquire()
    first.keep()
    assert len(processes_with(path)) == 1
    with pytest.raises(Locked) as caught:
        Lock(path, deploy="run-2").acquire()
    second = Lock(path, deploy="run-1", by="ada@laptop")
    second.acquire()
    assert processes_with(path) == []
    with pytest.raises(Locked) as later:
        Lock(path, deploy="run-2").acquire()
    assert later.value.holder["since"] == caught.value.holder["since"]
    second.release()
    other = Lock(path, deploy="run-2")
    other.acquire()
    other.release()


def test_what_is_kept_ends_by_itself(path: Path) -> None:
    first = Lock(path, deploy="run-1")
    first.acquire()
    first.keep(seconds=0)
    deadline = time.monotonic() + 60
    while processes_with(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    Lock(path, deploy="run-2").acquire()


def test_no_lock_outlives_a_process_that_was_killed(path: Path, holder: Callable[[str], Any]) -> None:
    process = holder("run-1")
    with pytest.raises(Locked):
        Lock(path, deploy="run-2").acquire()
    process.kill()
    process.wait()
    Lock(path, deploy="run-2").acquire()


def test_a_dead_run_is_taken_over_and_no_other(path: Path, holder: Callable[[str], Any]) -> None:
    process = holder("run-1")
    with pytest.raises(Locked, match="grace@desk since 2001-09-09"):
        Lock(path, deploy="run-2", takeover="run-0").acquire()
    assert process.poll() is None
    Lock(path, deploy="run-2", takeover="run-1").acquire()
    assert process.wait() == -signal.SIGKILL


def test_who_only_looks_at_the_file_is_left_alone(path: Path, holder: Callable[[str], Any]) -> None:
    holding = holder("run-1")
    looking = subprocess.Popen(["/usr/bin/sleep", "60"], stdin=path.open())
    try:
        assert processes_with(path) == [holding.pid]
        Lock(path, deploy="run-1").acquire()
        assert looking.poll() is None
    finally:
        looking.kill()
        looking.wait()


def test_one_that_does_not_end_is_not_waited_for_for_ever(
    path: Path, holder: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder("run-1")
    monkeypatch.setattr(lock_module.os, "kill", lambda *_: None)
    pauses: list[float] = []
    with pytest.raises(Locked):
        Lock(path, deploy="run-1", pause=pauses.append).acquire()
    assert sum(pauses) == pytest.approx(lock_module.END_SECONDS, abs=0.1)


def test_a_damaged_file_is_no_obstacle(path: Path) -> None:
    for text in ("{", "[]", "\0", '{"since": null}'):
        path.write_text(text, encoding="utf-8")
        lock = Lock(path, deploy="run-1")
        lock.acquire()
        lock.release()


def test_a_full_disk_leaves_no_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lock_module, "_write", full)
        lock = Lock(path, deploy="run-1")
        with pytest.raises(OSError, match="No space"):
            lock.acquire()
    Lock(path, deploy="run-2").acquire()
