"""A burst of visitors waits in the queue of the slot's socket, and nobody is refused: with a real gunicorn."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loading import ROOT
from rendering import render
from slot_units import unit

#: More than asyncio's own queue of 100, and fewer than the slot's socket has room for.
VISITORS = 500
APP = """
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
#: Starts gunicorn as systemd does: the socket is number 3, and LISTEN_PID names the process.
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *sys.argv[2:]])
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"

Serve = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The socket's path, short enough for the kernel."""
    return os.path.relpath(tmp_path / "slot.sock")


@pytest.fixture
def serve(tmp_path: Path, path: str) -> Iterator[Serve]:
    """Start gunicorn with the role's settings, on a socket as systemd makes it for a slot."""
    started: list[subprocess.Popen[bytes]] = []
    (tmp_path / "shop.py").write_text(APP)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(int(unit("slot.socket.j2")["Backlog"][0]))

        def start(worker_class: str) -> subprocess.Popen[bytes]:
            item = {"name": "shop", "workers": 1, "threads": 4, "timeout": 60, "drain": 1, "worker_class": worker_class}
            settings = tmp_path / "server.conf.py"
            settings.write_text(render("gunicorn", "gunicorn.conf.py.j2", item=item))
            target = "shop:asgi" if worker_class == "asgi" else "shop:wsgi"
            process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(listener.fileno()), "-c", settings, target],
                cwd=tmp_path, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip
            started.append(process)
            return process

        yield start
    for process in started:
        _signal(process, signal.SIGCONT)
        process.terminate()
        process.wait(30)


def _workers(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    for pid in (process.pid, *_workers(process)):
        os.kill(pid, number)


def _connect(path: str) -> socket.socket:
    """Connect without waiting, as nginx does: a full queue refuses with EAGAIN."""
    visitor = socket.socket(socket.AF_UNIX)
    visitor.setblocking(False)
    try:
        visitor.connect(path)
    except OSError:
        visitor.close()
        raise
    visitor.settimeout(60)
    return visitor


def _answer(visitor: socket.socket) -> bytes:
    with visitor, visitor.makefile("rb") as answer:
        return answer.readline().strip()


@pytest.mark.parametrize("worker_class", ["gthread", "sync", "asgi"])
def test_burst_waits_and_nobody_is_refused(serve: Serve, path: str, worker_class: str) -> None:
    process = serve(worker_class)
    first = _connect(path)
    first.sendall(REQUEST)
    assert _answer(first) == b"HTTP/1.1 200 OK"
    # The worker accepts nobody, as while it is busy.
    _signal(process, signal.SIGSTOP)
    waiting: list[socket.socket] = []
    refused: list[Any] = []
    for _number in range(VISITORS):
        try:
            waiting.append(_connect(path))
        except BlockingIOError as error:
            refused.append(error)
    _signal(process, signal.SIGCONT)
    for visitor in waiting:
        visitor.sendall(REQUEST)
    assert {_answer(visitor) for visitor in waiting} == {b"HTTP/1.1 200 OK"}
    assert len(refused) == 0


def test_gunicorn_is_the_one_that_releases_get() -> None:
    pins = [
        re.findall(r"gunicorn==([\d.]+)", (ROOT / name).read_text())
        for name in ("roles/gunicorn/files/server.in", "pyproject.toml")
    ]
    assert pins[0] == pins[1]
