"""The audit of caches and queues: each check passes on a host as the roles leave it, and finds its own fault."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.audit import backup as audit_backup
from ansible.module_utils.flaskhost.audit import instances
from ansible.module_utils.flaskhost.operate import instances as operate_instances
from socket_server import answering, info, stats

ME = pwd.getpwuid(os.geteuid()).pw_name
QUEUE, CACHE = "flask-shop_queue.service", "flask-shop_cache.service"
PASSED = {
    **{f"{QUEUE}/{name}": "passed" for name in ("running", "sandbox", "socket", "persistence", "backup")},
    **{f"{CACHE}/{name}": "passed" for name in ("running", "sandbox", "socket")},
}


class Host:
    """A host with a queue and a cache of Memcached.

    Args:
        folder: where all of it is.
    """

    def __init__(self, folder: Path) -> None:
        self.places = instances.Places(folder / "units", folder / "run", folder / "backup.json")
        self.active, self.exposed, self.user = {QUEUE, CACHE}, {QUEUE: 0.2, CACHE: 0.3}, "shop_x"
        self.answers = {QUEUE: info(), CACHE: stats()}
        self.places.units.mkdir()
        for unit, engine, state in ((QUEUE, "redis", "/var/lib/flask-shop_queue"), (CACHE, "memcached", "")):
            text = f"[Service]\n\n[X-Flaskhost]\nEngine={engine}\nUser={ME}\nState={state}\n"
            (self.places.units / unit).write_text(text)
            self.folder(unit).mkdir(mode=0o750, parents=True)
        (self.places.units / "nginx.service").write_text("[Service]\n")
        self.configure()

    def configure(self, **more: Any) -> None:
        self.places.config.write_text(json.dumps({"enabled": True, "queues": [{"unit": QUEUE}], **more}))

    def folder(self, unit: str) -> Path:
        return self.places.run / unit.removesuffix(".service")

    def ask(self, words: Sequence[str]) -> tuple[int, str, str]:
        if words[0] == "systemd-analyze":
            return 0, json.dumps([{"unit": unit, "exposure": most} for unit, most in self.exposed.items()]), ""
        unit = words[-1]
        if words[1] == "is-active":
            return (0 if unit in self.active else 3), "", ""
        return 0, f"User={self.user}\nRuntimeDirectory={self.folder(unit).name}\nActiveState=active\n", ""

    def scan(self, socket_mode: int = 0o660) -> dict[str, str]:
        queue, cache = self.folder(QUEUE) / "s", self.folder(CACHE) / "s"
        with answering(queue, [self.answers[QUEUE]]), answering(cache, [self.answers[CACHE]]):
            queue.chmod(socket_mode)
            cache.chmod(0o660)
            scan = instances.scan(self.ask, self.places)
        queue.unlink()
        cache.unlink()
        assert all(item.advice for item in scan.findings if item.status == "failed")
        return {item.id: item.status for item in scan.findings}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    # This machine can be busy.
    monkeypatch.setattr(operate_instances, "SECONDS", 60.0)
    return Host(tmp_path)


def test_what_the_roles_leave_passes(host: Host) -> None:
    assert host.scan() == PASSED


def down(host: Host) -> set[str]:
    host.active.remove(CACHE)
    return {f"{CACHE}/running"}


def mute(host: Host) -> set[str]:
    host.answers[QUEUE] = b"-LOADING\r\n"
    return {f"{QUEUE}/running", f"{QUEUE}/persistence"}


def exposed(host: Host) -> set[str]:
    host.exposed[CACHE] = 0.4
    return {f"{CACHE}/sandbox"}


def unknown(host: Host) -> set[str]:
    del host.exposed[QUEUE]
    return {f"{QUEUE}/sandbox"}


def root(host: Host) -> set[str]:
    host.user = ""
    return {f"{QUEUE}/sandbox", f"{CACHE}/sandbox"}


def open_folder(host: Host) -> set[str]:
    host.folder(QUEUE).chmod(0o751)
    return {f"{QUEUE}/socket"}


def not_saved(host: Host) -> set[str]:
    host.answers[QUEUE] = info(saves=0)
    return {f"{QUEUE}/persistence"}


def not_written(host: Host) -> set[str]:
    host.answers[QUEUE] = info(wrote="err")
    return {f"{QUEUE}/persistence"}


def not_in_backup(host: Host) -> set[str]:
    host.configure(queues=[])
    return {f"{QUEUE}/backup"}


def no_backups(host: Host) -> set[str]:
    host.configure(enabled=False)
    return {f"{QUEUE}/backup"}


def no_program(host: Host) -> set[str]:
    host.places.config.unlink()
    return {f"{QUEUE}/backup"}


@pytest.mark.parametrize(
    "make",
    [down, mute, exposed, unknown, root, open_folder, not_saved, not_written, not_in_backup, no_backups, no_program],
)
def test_each_check_finds_its_own_fault(host: Host, make: Callable[[Host], set[str]]) -> None:
    faults = make(host)
    assert {name for name, status in host.scan().items() if status == "failed"} == faults


def test_a_socket_that_everybody_can_open_is_found(host: Host) -> None:
    assert {name for name, status in host.scan(0o666).items() if status == "failed"} == {f"{QUEUE}/socket"}


def test_a_host_without_any_has_nothing_to_find(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    scan = instances.scan(lambda _words: (1, "", ""), instances.Places(tmp_path / "units"))
    assert (scan.ran, scan.findings, scan.score_text) == (True, [], "none")


def test_the_last_backup_of_each_queue_is_a_finding_of_the_backups() -> None:
    good, bad = {"at": 0.0, "ok": True}, {"at": 7200.0, "ok": False, "problems": ["It is too large."]}
    state = {"last": good, "good": good}
    status = {
        "enabled": True, "database": False, "second": False, "problems": [], "files_state": state, "drill_state": state,
        "queues": {"shop": {"last": bad, "good": good}, "blog": state},
    }  # fmt: skip
    found = {item.id: item for item in audit_backup.parse(json.dumps(status), 3600.0).findings}
    assert [found[name].status for name in ("queue/shop", "queue/blog", "drill")] == ["failed", "passed", "passed"]
    assert "It is too large." in found["queue/shop"].detail
