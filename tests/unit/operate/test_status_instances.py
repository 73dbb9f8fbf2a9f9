"""What the status says of caches and queues: whether they answer, how full they are, and whether a queue is kept."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.operate import instances, status
from ansible.module_utils.flaskhost.requests import status as status_request
from socket_server import answering, info, stats

ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine can be busy."""
    monkeypatch.setattr(instances, "SECONDS", 60.0)


def instance(path: Path, kind: str = "queue", engine: str = "redis", user: str = ME) -> dict[str, str]:
    return {"kind": kind, "engine": engine, "unit": f"flask-shop_{kind}.service", "user": user, "socket": str(path)}


def run(active: bool) -> Any:
    def answer(words: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        assert words[:2] == ["systemctl", "is-active"]
        return (0 if active else 3), "", ""

    return answer


@pytest.mark.parametrize(
    ("kind", "engine", "answer", "text", "problem"),
    [
        ("queue", "redis", info(), "3/64 MB, 9 keys", ""),
        ("cache", "redis", info(saves=0), "3/64 MB, 9 keys", ""),
        ("cache", "memcached", stats(), "2/8 MB", ""),
        # A full cache drops what it can do without.
        ("cache", "redis", info(used=64 << 20, saves=0), "64/64 MB, 9 keys", ""),
        ("queue", "redis", info(used=60 << 20), "60/64 MB, 9 keys", "queue is almost full (60 of 64 MB)"),
        ("queue", "redis", info(saves=0), "3/64 MB, 9 keys", "queue does not reach the disk"),
        ("queue", "redis", info(wrote="err"), "3/64 MB, 9 keys", "queue does not reach the disk"),
        ("queue", "redis", b"-LOADING it loads\r\n", "no answer", "queue does not answer (LOADING it loads)"),
        (
            "queue",
            "redis",
            b"$9\r\nloading:0\r\n",
            "no answer",
            "queue does not answer (its answer cannot be understood)",
        ),
        ("cache", "memcached", b"STAT a b\r\nEND\r\n", "no answer", "cache does not answer"),
    ],
)
def test_an_instance_is_told_as_it_is(
    tmp_path: Path, *, kind: str, engine: str, answer: bytes, text: str, problem: str
) -> None:
    with answering(tmp_path / "s", [answer]):
        found = instances.look(run(active=True), instance(tmp_path / "s", kind, engine))
    assert found.text == text
    assert found.problem.startswith(problem)
    assert bool(found.problem) is bool(problem)


def test_an_instance_that_is_down_is_not_asked(tmp_path: Path) -> None:
    found = instances.look(run(active=False), instance(tmp_path / "s"))
    assert (found.text, found.problem) == ("no answer", "queue down: sudo systemctl status flask-shop_queue.service")
    found = instances.look(run(active=True), instance(tmp_path / "s", user="nobody-we-know"))
    assert "queue does not answer" in found.problem


def test_the_status_asks_for_the_instances_that_an_app_has() -> None:
    apps = {"shop": {"cache": "memcached", "queue": "redis"}, "blog": {"cache": "no such", "queue": None}, "odd": 3}
    asked = {item["app"]: item["instances"] for item in status_request.apps_to_ask(apps)}
    assert [(item["kind"], item["engine"], item["user"]) for item in asked["shop"]] == [
        ("cache", "memcached", "shop_cache"), ("queue", "redis", "shop_queue"),
    ]  # fmt: skip
    assert asked["blog"] == asked["odd"] == []


def test_a_row_has_what_they_say_and_the_last_backup_of_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "backups").touch()
    kept = {"queues": {"shop": "5 h"}, "backup": "1 h", "drill": "2 d", "aside": []}
    monkeypatch.setattr(status, "backup_status", lambda *_arguments: (dict(kept), status.Notes()))
    app = {
        "app": "shop", "root": str(tmp_path), "unit": "flask-shop", "socket_dir": str(tmp_path), "host": "shop.test",
        "live_socket": str(tmp_path / "live.sock"), "certificate": str(tmp_path / "none"), "health": {},
        "maintenance": str(tmp_path / "none"),
    }  # fmt: skip

    def row(**more: Any) -> dict[str, Any]:
        none = tmp_path / "none"
        (found,) = status.read(
            run(active=True), [{**app, **more}], none, tmp_path, 1e9, certificates=none, backups=tmp_path / "backups"
        )
        return found

    with answering(tmp_path / "s", [info()]):
        assert "queue" not in row(instances=[instance(tmp_path / "s")]), "such as on a host that only has nginx"
        for kind in ("cache", "queue"):
            (tmp_path / f"flask-shop_{kind}.service").touch()
        found = row(instances=[instance(tmp_path / "s"), instance(tmp_path / "t", "cache")])
    assert found["queue"] == "3/64 MB, 9 keys, backup 5 h"
    assert found["cache"] == "no answer"
    assert [text for text in found["problems"] if "cache does not answer (No such file" in text]
    assert "queues" not in found
    assert not {"cache", "queue"} & row().keys()
