"""The slots: what serves is not touched until a gated release takes over, by one rename."""

from __future__ import annotations

import os
import shutil
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import slots
from ansible.module_utils.flaskhost.deploy.slots import Slots, probe
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError

HOST = "www.shop.example"
GATE = "unix:/var/lib/nginx/gate/gate.sock"
HEALTH = {"path": "/healthz", "status": 200, "probes": 3, "timeout": 5}


class Recorder:
    """A ``run`` that writes down what it is asked for, and where the links point to meanwhile."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.fail, self.status = root, [], "", 1
        self.shown = "NRestarts=0\nInvocationID=1\n"
        self.seen: list[tuple[str, str]] = []

    def __call__(self, args: list[str], **_options: Any) -> tuple[int, str, str]:
        self.calls.append(" ".join(args))
        live = self.root / "live.sock"
        self.seen.append((" ".join(args[:2]), live.readlink().stem if live.is_symlink() else ""))
        if "journalctl" in args and "--sync" not in args:
            return 0, "\n".join(f"line {number}" for number in range(30)), ""
        if args[:2] == ["systemctl", "show"]:
            return 0, self.shown, ""
        return (self.status if self.fail and self.fail in self.calls[-1] else 0), "", ""


class App:
    """A place for the sockets with a path that is short enough, and the slots of one app."""

    def __init__(self, root: Path, sockets: Path) -> None:
        self.root, self.sockets = root, sockets
        self.run = Recorder(root)
        self.pauses: list[float] = []
        (root / "releases").mkdir()
        self.slots = Slots(
            self.run,
            unit="flask-shop",
            root=root,
            socket_dir=sockets,
            live_socket=root / "live.sock",
            pause=self.pauses.append,
        )

    def hold(self, slot: str, release: str) -> None:
        (self.root / "slots").mkdir(exist_ok=True)
        atomic.link(self.root / "slots" / slot, f"../releases/{release}")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    sockets = Path(tempfile.mkdtemp(prefix="fh"))
    yield App(tmp_path, sockets)
    shutil.rmtree(sockets)


# -- which slot is which --------------------------------------------------------------------------------------------


def test_before_the_first_release_nothing_serves(app: App) -> None:
    assert app.slots.live() == ""
    assert app.slots.idle() == "blue"
    assert app.slots.release("blue") == app.slots.release("") == ""


def test_the_live_link_says_which_slot_serves(app: App) -> None:
    app.hold("blue", "r1")
    app.hold("green", "r2")
    for slot, other, release in (("blue", "green", "r1"), ("green", "blue", "r2")):
        atomic.link(app.root / "live.sock", app.slots.socket(slot))
        assert (app.slots.live(), app.slots.idle(), app.slots.release(slot)) == (slot, other, release)


def test_a_live_link_to_a_slot_without_a_release_is_none(app: App) -> None:
    atomic.link(app.root / "live.sock", app.slots.socket("green"))
    assert app.slots.live() == ""
    atomic.link(app.root / "live.sock", "/run/other/purple.sock")
    app.hold("green", "r1")
    assert app.slots.live() == ""


# -- the link -------------------------------------------------------------------------------------------------------


def test_a_link_is_made_changed_and_left(tmp_path: Path) -> None:
    link = tmp_path / "current"
    assert atomic.link(link, "a") is True
    before = link.lstat()
    assert atomic.link(link, "a") is False
    assert link.lstat() == before
    assert atomic.link(link, "b") is True
    assert str(link.readlink()) == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_a_link_is_never_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is done to the folder, the link is there before it and after it."""
    link = tmp_path / "live.sock"
    atomic.link(link, "old")
    seen: list[str] = []

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            seen.append(str(link.readlink()))
            result = real(*args, **options)
            seen.append(str(link.readlink()))
            return result

        return call

    for name in ("unlink", "symlink", "replace", "rename"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    atomic.link(link, "new")
    assert seen
    assert seen == sorted(seen, reverse=True)
    assert (seen[0], seen[-1]) == ("old", "new")


def test_a_link_that_a_killed_run_left_half_made_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".current.partial").symlink_to("somewhere")
    assert atomic.link(tmp_path / "current", "a") is True
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


# -- a real server behind the socket --------------------------------------------------------------------------------


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers on a Unix socket from a list of (status, body), the last one again and again."""

    daemon_threads = True

    def __init__(self, path: str, *answers: tuple[int, str]) -> None:
        self.answers, self.requests = list(answers), []
        super().__init__(path, Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """Say nothing where the client hangs up before the end of a long answer."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.requestline, dict(self.headers)))
        status, body = self.server.answers[0]
        if len(self.server.answers) > 1:
            self.server.answers.pop(0)
        self.send_response(status)
        if status in (301, 302):
            self.send_header("Location", "https://elsewhere.example/")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def serve(app: App) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*answers: tuple[int, str]) -> Server:
        servers.append(Server(app.slots.socket("green"), *answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_good_slot_passes_with_so_many_answers_in_a_row(app: App, serve: Callable[..., Server]) -> None:
    server = serve((200, "ok"))
    app.slots.gate("green", HOST, HEALTH)
    assert len(server.requests) == 3
    assert app.pauses == []
    assert not any(call.startswith("systemctl") and "show" not in call for call in app.run.calls)


def test_the_slot_is_asked_as_nginx_would(app: App, serve: Callable[..., Server]) -> None:
    server = serve((200, "ok"))
    app.slots.gate("green", HOST, {**HEALTH, "probes": 1})
    line, headers = server.requests[0]
    assert line == "GET /healthz HTTP/1.1"
    assert headers["Host"] == HOST
    assert headers["X-Forwarded-Proto"] == "https"
    assert headers["X-Forwarded-Host"] == HOST
    assert headers["Connection"] == "close"


def test_a_path_in_any_script_is_asked_for(app: App, serve: Callable[..., Server]) -> None:
    server = serve((200, "ok"))
    assert probe(app.slots.socket("green"), "/gesund-ä%20b?x=1", HOST) == (200, "ok")
    assert server.requests[0][0] == "GET /gesund-%C3%A4%20b?x=1 HTTP/1.1"


@pytest.mark.parametrize(("status", "body"), [(500, "Traceback: boom"), (400, "bad host"), (301, "moved"), (204, "")])
def test_another_status_is_refused_and_shown(app: App, serve: Callable[..., Server], status: int, body: str) -> None:
    server = serve((status, body))
    with pytest.raises(ReleaseError) as caught:
        app.slots.gate("green", HOST, {**HEALTH, "timeout": 0})
    assert caught.value.step == "Check the health of the green slot"
    assert f"/healthz returned {status}, expected 200; 0 of 3 responses" in caught.value.reason
    assert body in caught.value.reason
    assert "line 29" in caught.value.reason
    assert "line 14" not in caught.value.reason
    assert "elsewhere.example" not in str(server.requests)
    assert not any(call.startswith("systemctl") and "show" not in call for call in app.run.calls)


def test_a_status_that_is_asked_for_is_the_right_one(app: App, serve: Callable[..., Server]) -> None:
    serve((204, ""))
    app.slots.gate("green", HOST, {**HEALTH, "status": 204})


def test_a_bad_answer_begins_the_count_again(app: App, serve: Callable[..., Server]) -> None:
    server = serve((200, "1"), (200, "2"), (500, "3"), (200, "4"))
    app.slots.gate("green", HOST, HEALTH)
    assert len(server.requests) == 6
    assert app.pauses == [0.5]


def test_a_slot_that_answers_after_a_while_passes(app: App, serve: Callable[..., Server]) -> None:
    app.slots.pause = lambda _seconds: None if Path(app.slots.socket("green")).exists() else serve((200, "ok"))
    app.slots.gate("green", HOST, HEALTH)


def test_a_text_that_is_asked_for_has_to_be_in_the_body(app: App, serve: Callable[..., Server]) -> None:
    serve((200, "all is well"))
    app.slots.gate("green", HOST, {**HEALTH, "body": "well"})
    with pytest.raises(ReleaseError, match="expected 200 with 'database' in the body"):
        app.slots.gate("green", HOST, {**HEALTH, "body": "database", "timeout": 0})


def test_a_slot_has_to_go_on_answering(app: App, serve: Callable[..., Server]) -> None:
    server = serve(*[(200, "ok")] * 5, (500, "gone"), (200, "ok"))
    with pytest.raises(ReleaseError, match=r"returned 500(?s:.*)responses were good, a later one was not(?s:.*)gone"):
        app.slots.gate("green", HOST, HEALTH, settle=1)
    assert app.pauses == [slots.SETTLE_INTERVAL] * 3
    server.requests.clear()
    app.slots.gate("green", HOST, HEALTH, settle=1)
    assert len(server.requests) == 3 + 4


def test_a_slot_that_crashes_between_two_answers_is_noticed(app: App, serve: Callable[..., Server]) -> None:
    serve((200, "ok"))

    def crash(_seconds: float) -> None:
        app.run.shown = "NRestarts=1\nInvocationID=2\n"

    app.slots.pause = crash
    with pytest.raises(ReleaseError, match="crashed and was restarted"):
        app.slots.gate("green", HOST, HEALTH, settle=1)


def test_the_slot_is_asked_once_through_nginx(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    answers = {GATE: (502, "Bad Gateway")}

    def answer(path: str, _url: str, host: str, *_: float) -> tuple[int, str]:
        link = app.root / "gate.sock"
        asked.append((path, str(link.readlink()) if link.is_symlink() else ""))
        assert host == HOST
        return answers.get(path, (200, "ok"))

    monkeypatch.setattr(slots, "probe", answer)
    with pytest.raises(ReleaseError, match=r"returned 502(?s:.*)through nginx"):
        app.slots.gate("green", HOST, HEALTH, GATE)
    # The link leads to the slot before nginx is asked, and not before the slot itself is good.
    assert asked == [(app.slots.socket("green"), "")] * 3 + [(GATE, app.slots.socket("green"))]
    answers.clear()
    app.slots.gate("green", HOST, HEALTH, GATE)


@pytest.mark.parametrize("status", [200, 500])
def test_the_link_of_the_gate_is_gone_when_the_gate_is_over(
    app: App, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """nginx's listener leads through it, past the site's password and limits."""
    seen: list[bool] = []

    def answer(path: str, *_: Any) -> tuple[int, str]:
        seen.append((app.root / "gate.sock").is_symlink())
        return (status if path == GATE else 200), ""

    monkeypatch.setattr(slots, "probe", answer)
    with pytest.raises(ReleaseError) if status != 200 else nullcontext():
        app.slots.gate("green", HOST, HEALTH, GATE)
    assert seen[-1]
    assert not os.path.lexists(app.root / "gate.sock")


def test_a_listener_of_nginx_is_asked_by_the_address_that_nginx_has(app: App, serve: Callable[..., Server]) -> None:
    address = f"unix:{app.slots.socket('green')}"
    assert not slots.listens(address)
    server = serve((200, "ok"))
    assert slots.listens(address)
    assert probe(address, "/healthz", HOST) == (200, "ok")
    assert server.requests[0][1]["Host"] == HOST


def test_no_socket_is_no_answer(app: App) -> None:
    with pytest.raises(ReleaseError, match="returned no response, expected 200") as caught:
        app.slots.gate("green", HOST, {**HEALTH, "timeout": 0})
    assert "FileNotFoundError" in caught.value.reason


def test_a_slot_that_never_answers_is_waited_for_so_long_and_no_longer(app: App) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(app.slots.socket("green"))
        listener.listen()
        began = time.monotonic()
        with pytest.raises(ReleaseError, match=r"returned no response(?s:.*)TimeoutError"):
            app.slots.gate("green", HOST, {**HEALTH, "timeout": 1})
        assert 0.9 < time.monotonic() - began < 20


DRIPS = {
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "headers": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "more and more headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"x"),
    "body without a length": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "to be continued": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@contextmanager
def dripping(path: str, first: bytes, then: bytes, wait: float) -> Iterator[None]:
    """A server that sends a beginning, and then the same bytes again and again, for ten seconds at most."""
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        end = time.monotonic() + 10
        with connection, suppress(OSError):
            connection.recv(9999)
            connection.sendall(first)
            while not over.is_set() and time.monotonic() < end:
                connection.sendall(then)
                if wait:
                    over.wait(wait)

    def accept() -> None:
        with suppress(OSError):
            while not over.is_set():
                connection, _ = listener.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        threading.Thread(target=accept, daemon=True).start()
        yield
        over.set()


@pytest.mark.parametrize("kind", DRIPS)
def test_an_app_that_drips_is_waited_for_so_long_and_no_longer(app: App, kind: str) -> None:
    """A byte now and then begins the timeout of a socket again: it would hold deploys, watch and status without end."""
    with dripping(app.slots.socket("green"), *DRIPS[kind], wait=0.1):
        began = time.monotonic()
        status, reason = probe(app.slots.socket("green"), "/", HOST, 1)
        assert time.monotonic() - began < 3
    assert (status, reason.partition(":")[0]) == (0, "TimeoutError")


def test_an_app_that_drips_holds_the_gate_for_its_timeout(app: App) -> None:
    with dripping(app.slots.socket("green"), *DRIPS["body"], wait=0.1):
        began = time.monotonic()
        with pytest.raises(ReleaseError, match=r"returned no response(?s:.*)TimeoutError"):
            app.slots.gate("green", HOST, {**HEALTH, "timeout": 1})
        assert time.monotonic() - began < 4


def test_a_response_without_end_is_given_up(app: App) -> None:
    with dripping(app.slots.socket("green"), b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, wait=0):
        assert probe(app.slots.socket("green"), "/", HOST, 5) == (0, "HTTPException: the response is too long")


def test_a_slot_of_slow_answers_is_not_settled_for_longer_than_said(
    app: App, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve((200, "ok"))
    clock = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + 0.5 * len(server.requests))
    monkeypatch.setattr(slots, "time", clock)
    app.slots.gate("green", HOST, {**HEALTH, "probes": 1}, settle=2)
    assert len(server.requests) == 1 + 4


def test_what_is_no_http_is_no_answer(app: App) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(app.slots.socket("green"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            connection.recv(9999)
            connection.sendall(b"what?\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        status, body = probe(app.slots.socket("green"), "/", HOST, 2)
    assert status == 0
    assert "BadStatusLine" in body


def test_a_long_body_is_not_read_to_its_end(app: App, serve: Callable[..., Server]) -> None:
    serve((500, "x" * 100_000))
    status, body = probe(app.slots.socket("green"), "/", HOST)
    assert (status, len(body)) == (500, slots.BODY_BYTES)
    app.slots.pause = lambda _seconds: None
    with pytest.raises(ReleaseError) as caught:
        app.slots.gate("green", HOST, {**HEALTH, "timeout": 0})
    assert caught.value.reason.count("x") < 600


# -- starting, flipping, stopping -----------------------------------------------------------------------------------


def test_a_slot_is_started_with_its_release_and_only_then(app: App) -> None:
    app.hold("green", "old")
    app.slots.start("green", "new", 7)
    assert app.slots.release("green") == "new"
    stops = [number for number, call in enumerate(app.run.calls) if call.startswith("systemctl stop")]
    start = len(app.run.calls) - 1
    assert app.run.calls[start] == "timeout 7 systemctl start flask-shop@green.service"
    assert stops
    assert max(stops) < start
    assert not any("blue" in call for call in app.run.calls)


@pytest.mark.parametrize(("shown", "reloads"), [("no\n\nno\n", 0), ("no\n\nyes\n", 1)])
def test_systemd_reads_the_units_again_only_where_one_has_changed(app: App, shown: str, reloads: int) -> None:
    app.run.shown = shown
    app.slots.start("green", "new", 7)
    assert app.run.calls.count("systemctl daemon-reload") == reloads
    assert app.run.calls[-1].startswith("timeout 7 systemctl start")


def test_units_that_cannot_be_read_again_are_told_and_nothing_is_started(app: App) -> None:
    app.run.shown, app.run.fail = "yes\n", "daemon-reload"
    with pytest.raises(ReleaseError, match="systemctl daemon-reload failed") as caught:
        app.slots.start("green", "new", 7)
    assert caught.value.step == "Start the green slot"
    assert "still serves" in caught.value.cure
    assert not any("systemctl start" in call for call in app.run.calls)


def test_a_slot_is_withdrawn_before_it_is_stopped(app: App) -> None:
    app.hold("blue", "r1")
    app.slots.flip("blue")
    app.run.seen.clear()
    app.slots.withdraw("blue")
    assert not (app.root / "live.sock").is_symlink()
    assert not (app.root / "current").is_symlink()
    assert ("systemctl stop", "") in app.run.seen
    assert all(live == "" for _call, live in app.run.seen)
    assert (app.slots.live(), app.slots.idle()) == ("", "blue")
    assert app.pauses == [pytest.approx(slots.KEEPALIVE_SECONDS, abs=0.5)]
    # Once more, after a run that was killed.
    app.slots.withdraw("blue")


def test_a_slot_that_does_not_start_shows_its_log(app: App) -> None:
    app.run.fail = "systemctl start"
    with pytest.raises(ReleaseError, match=r"flask-shop@green\.service did not start") as caught:
        app.slots.start("green", "new", 7)
    assert "line 29" in caught.value.reason
    log = next(call for call in app.run.calls if "--since" in call)
    # Why a socket does not start is in its own log, and the service says no more than that it depends on it.
    assert log.endswith("--unit=flask-shop@green.socket --unit=flask-shop@green.service")
    assert "systemctl reset-failed flask-shop@green.socket flask-shop@green.service" in app.run.calls
    assert "still serves" in caught.value.cure


def test_a_slot_that_starts_too_slowly_is_told_apart(app: App) -> None:
    app.run.fail, app.run.status = "systemctl start", 124
    with pytest.raises(ReleaseError, match=r"did not start within 7 s \(health\.timeout\)"):
        app.slots.start("green", "new", 7)


@pytest.mark.parametrize("shown", ["Result=oom-kill\n", "Result=signal\nExecMainCode=2\nExecMainStatus=9\n"])
def test_a_slot_that_was_killed_for_its_memory_is_told_apart(app: App, shown: str) -> None:
    app.run.fail, app.run.shown = "systemctl start", shown
    with pytest.raises(ReleaseError, match=r"limits\.memory"):
        app.slots.start("green", "new", 7)


def test_a_slot_that_cannot_be_enabled_does_not_serve(app: App) -> None:
    app.hold("blue", "r1")
    app.slots.flip("blue")
    app.hold("green", "r2")
    app.run.fail = "systemctl enable"
    with pytest.raises(ReleaseError, match="Enabling its unit failed"):
        app.slots.flip("green")
    assert app.slots.live() == "blue"
    # The way back does not depend on it.
    atomic.link(app.root / "live.sock", app.slots.socket("green"))
    app.run.seen.clear()
    app.slots.flip_back("blue")
    assert app.run.seen == [("systemctl enable", "blue")]
    assert str((app.root / "current").readlink()) == "releases/r1"


def test_the_flip_enables_then_renames_then_follows(app: App) -> None:
    app.hold("blue", "r1")
    app.slots.flip("blue")
    app.hold("green", "r2")
    app.run.seen.clear()
    app.slots.flip("green")
    assert app.run.seen == [("systemctl enable", "blue")]
    assert app.run.calls[-1].endswith("flask-shop@green.service")
    assert app.slots.live() == "green"
    assert str((app.root / "live.sock").readlink()) == app.slots.socket("green")
    assert str((app.root / "current").readlink()) == "releases/r2"


def test_the_live_link_is_renamed_before_current(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = atomic.link
    app.hold("blue", "r1")
    monkeypatch.setattr(atomic, "link", lambda link, to: order.append(link.name) or real(link, to))
    app.slots.flip("blue")
    assert order == ["live.sock", "current"]


def test_a_slot_that_stops_is_not_started_by_a_reboot_or_a_late_connection(app: App) -> None:
    app.slots.stop("blue")
    # Asked first: systemd reads all units again when one is disabled, also one that was not enabled.
    assert app.run.calls[0].startswith("systemctl is-enabled ")
    assert app.run.calls[1] == "systemctl disable --quiet flask-shop@blue.service"
    assert app.run.calls[2] == "systemctl stop flask-shop@blue.socket flask-shop@blue.service"


def test_a_slot_that_does_not_stop_is_killed(app: App) -> None:
    app.run.fail = "systemctl stop"
    app.slots.stop("blue")
    stops = [call for call in app.run.calls if call.startswith(("systemctl stop", "systemctl kill"))]
    assert stops == [
        "systemctl stop flask-shop@blue.socket flask-shop@blue.service",
        "systemctl kill --signal=SIGKILL flask-shop@blue.service",
        "systemctl stop flask-shop@blue.socket flask-shop@blue.service",
    ]


def test_a_slot_is_drained_after_nginx_has_let_go_of_it(app: App) -> None:
    app.slots.drain("blue")
    assert app.pauses == [slots.KEEPALIVE_SECONDS]
    assert slots.KEEPALIVE_SECONDS > 1
    assert app.run.calls[2].startswith("systemctl stop")


def test_what_was_done_since_the_switch_counts(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch, records and workers: nginx has let go of the slot meanwhile."""
    app.hold("blue", "r1")
    app.hold("green", "r2")
    app.slots.flip("blue")
    now = time.monotonic()
    app.slots.flip("green")
    monkeypatch.setattr(slots, "time", SimpleNamespace(time=time.time, monotonic=lambda: now + 0.4))
    app.slots.drain("blue")
    assert app.pauses == [pytest.approx(slots.KEEPALIVE_SECONDS - 0.4, abs=0.1)]
    monkeypatch.setattr(slots, "time", SimpleNamespace(time=time.time, monotonic=lambda: now + 9))
    app.slots.drain("blue")
    assert len(app.pauses) == 1
    # Traffic has not left this slot, as far as this run knows.
    app.slots.drain("green")
    assert app.pauses[1:] == [slots.KEEPALIVE_SECONDS]
