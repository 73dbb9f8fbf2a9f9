"""The settings of the other application servers than gunicorn, and of gunicorn's other worker classes.

Here they are read as Python. test_servers_burst.py runs gunicorn, and the scenario `servers` each of them.
"""

from __future__ import annotations

import gc
import itertools
import os
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nginx_config import nginx, proxied, site
from rendering import render
from slot_units import unit

#: Headers of a response, and what is added for nginx.
EVENTS = [
    ([("Content-Type", "text/event-stream")], ["no"]),
    ([("content-type", "Text/Event-Stream; charset=utf-8")], ["no"]),
    ([("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "yes")], ["yes"]),
    ([("Content-Type", "text/html")], []),
    ([], []),
]


def app(**changes: Any) -> dict[str, Any]:
    """An app, as the roles take it."""
    return {"name": "shop", "config": "/etc/x.py", "workers": 2, "threads": 8, "timeout": 30, "drain": 20, **changes}


def execute(text: str, name: str = "settings") -> dict[str, Any]:
    """Run the settings as a module."""
    settings: dict[str, Any] = {"__name__": name, "__file__": "server.conf.py"}
    exec(compile(text, "server.conf.py", "exec"), settings)  # noqa: S102 - our own file
    return settings


def respond(application: Callable[..., Any], headers: list[tuple[str, str]], **environ: str) -> dict[str, Any]:
    """Call a WSGI app, and return what the server gets: the headers, and what the app saw."""
    seen: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], *error: Any) -> None:
        seen.update(status=status, headers=headers, error=error)

    environment = {"wsgi.url_scheme": "http", "sent": headers, **environ}
    seen["body"] = application(environment, start_response)
    seen["scheme"] = environment["wsgi.url_scheme"]
    return seen


def answering(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """An app that sends the headers that the test wants."""
    start_response("200 OK", environ["sent"])
    return [b"body"]


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The app's module."""
    module = types.ModuleType("shop")
    module.made = []

    def create_app(*words: str, **named: str) -> Callable[..., Any]:
        module.made.append((words, named))
        return answering

    module.create_app, module.app = create_app, answering
    monkeypatch.setitem(sys.modules, "shop", module)
    return module


# -- uWSGI -----------------------------------------------------------------------------------------------------------


def started(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, str]:
    """The options with which the program starts uWSGI."""
    commands: list[tuple[str, list[str]]] = []

    def execv(program: str, words: list[str]) -> None:
        commands.append((program, words))
        raise SystemExit

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setenv("FLASKHOST_RELEASE", "20261126-r1")
    monkeypatch.setattr(sys, "executable", "/srv/shop/slots/blue/venv/bin/python")
    with pytest.raises(SystemExit):
        execute(render("uwsgi", "uwsgi.conf.py.j2", item=app(**changes)), "__main__")
    ((program, words),) = commands
    assert program == "/srv/shop/slots/blue/venv/bin/uwsgi"
    return {name: value for name, _, value in (word.removeprefix("--").partition("=") for word in words[1:])}


def test_uwsgi_gets_the_settings_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    options = started(monkeypatch, workers=3, threads=5, timeout=40, drain=50)
    wanted = {"workers": "3", "threads": "5", "harakiri": "40", "worker-reload-mercy": "50"}
    assert options.items() >= wanted.items()
    assert options["add-header"] == "Server: 20261126-r1"
    assert options["wsgi-file"] == str(Path("server.conf.py").absolute())
    # systemd hands over the only socket.
    assert not options.keys() & {"http", "http-socket", "socket"}


@pytest.mark.parametrize(
    ("option", "value", "otherwise"),
    [
        ("protocol", "http", "nginx speaks HTTP"),
        ("master", "", "nobody replaces a worker that has ended"),
        ("need-app", "", "a release without its app would be ready"),
        ("single-interpreter", "", "extensions in C fail in a second interpreter"),
        ("enable-threads", "", "threads that the app starts do not run"),
        ("harakiri-verbose", "", "nobody knows where a worker was stuck"),
        ("hook-master-start", "unix_signal:15 gracefully_kill_them_all", "SIGTERM reloads, and the slot never stops"),
        ("thunder-lock", "", "all workers wake up for each connection"),
        ("post-buffering", "65536", "a body that the app does not read breaks the connection"),
        ("umask", "027", "files that the app writes are everybody's to read"),
        ("disable-logging", "", "each request is in the journal"),
        ("ignore-sigpipe", "", "each visitor who goes away is an error in the journal"),
        ("ignore-write-errors", "", "each visitor who goes away is an error in the journal"),
        ("disable-write-exception", "", "each visitor who goes away is an exception in the app"),
    ],
)
def test_uwsgi_has_what_it_needs_beside_the_apps_settings(
    monkeypatch: pytest.MonkeyPatch, option: str, value: str, otherwise: str
) -> None:
    assert started(monkeypatch).get(option) == value, otherwise


def test_headers_that_nginx_accepts_fit_into_uwsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """If they do not, uWSGI closes the connection, and nginx responds with 502, as if the release were broken."""
    options = started(monkeypatch)
    assert int(options["buffer-size"]) == 2**16 - 1, "the largest that uWSGI accepts"
    # 32 KB of the shortest different headers; uWSGI has room for twice this number.
    assert int(options["max-vars"]) >= 32 * 1024 // len("abc:1\r\n") // 2


def test_workers_are_a_line_of_their_own() -> None:
    """Then a change of their number restarts the release, and makes no new one."""
    assert "\nworkers = 3\n" in render("uwsgi", "uwsgi.conf.py.j2", item=app(workers=3))


@pytest.mark.parametrize("timeout", [1, 30, 3600])
def test_waits_follow_each_other(monkeypatch: pytest.MonkeyPatch, timeout: int) -> None:
    options = started(monkeypatch, timeout=timeout, drain=timeout)
    assert int(unit("slot.service.j2", drain=timeout)["TimeoutStopSec"][0]) > int(options["worker-reload-mercy"])
    read = proxied(nginx(site(timeout=timeout)))[0].one("proxy_read_timeout").words[1]
    assert int(read.removesuffix("s")) > int(options["harakiri"])


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch, shop: types.ModuleType) -> Callable[[str], dict[str, Any]]:
    """Load the settings as uWSGI does, for a value of FLASK_APP."""
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))

    def load(target: str) -> dict[str, Any]:
        monkeypatch.setenv("FLASK_APP", target)
        settings = execute(render("uwsgi", "uwsgi.conf.py.j2", item=app()))
        assert frozen == [True]
        return settings

    return load


@pytest.mark.parametrize(
    ("target", "made"),
    [
        ("shop:app", []),
        ("shop:create_app()", [((), {})]),
        ("shop:create_app('prod', mode='x')", [(("prod",), {"mode": "x"})]),
    ],
)
def test_uwsgi_calls_the_apps_factory_with_its_arguments(
    uwsgi: Callable[[str], dict[str, Any]], shop: types.ModuleType, target: str, made: list[Any]
) -> None:
    assert respond(uwsgi(target)["application"], [])["body"] == [b"body"]
    assert shop.made == made


@pytest.mark.parametrize(("sent", "added"), EVENTS)
def test_events_pass_uwsgi_at_once(
    uwsgi: Callable[[str], dict[str, Any]], sent: list[tuple[str, str]], added: list[str]
) -> None:
    headers = respond(uwsgi("shop:app")["application"], sent)["headers"]
    assert [value for name, value in headers if name == "X-Accel-Buffering"] == added


def test_workers_of_uwsgi_inherit_no_database_connection(
    uwsgi: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Engine:
        disposed = False

        def dispose(self) -> None:
            self.disposed = True

    module = types.ModuleType("sqlalchemy.engine.base")
    module.Engine = Engine
    monkeypatch.setitem(sys.modules, module.__name__, module)
    engine = Engine()
    uwsgi("shop:app")
    assert engine.disposed


# -- Waitress --------------------------------------------------------------------------------------------------------


@pytest.fixture
def waitress(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of Waitress, without Waitress."""
    server = types.ModuleType("waitress.server")
    server.create_server = None
    for module in (types.ModuleType("waitress"), types.ModuleType("waitress.wasyncore"), server):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("FLASKHOST_RELEASE", "20261126-r1")
    return execute(render("waitress", "waitress.conf.py.j2", item=app(threads=5, timeout=40, drain=50)))


def test_waitress_gets_the_settings_of_the_app(waitress: dict[str, Any], shop: types.ModuleType) -> None:
    assert (waitress["SETTINGS"]["threads"], waitress["TIMEOUT"], waitress["DRAIN"]) == (5, 40, 50)
    assert waitress["SETTINGS"]["ident"] == "20261126-r1"
    waitress["load"]("shop:create_app('prod')")
    assert shop.made == [(("prod",), {})]


@pytest.mark.parametrize(("sent", "added"), EVENTS)
def test_events_pass_waitress_at_once(waitress: dict[str, Any], sent: list[tuple[str, str]], added: list[str]) -> None:
    seen = respond(waitress["wrap"](answering), sent)
    assert [value for name, value in seen["headers"] if name == "X-Accel-Buffering"] == added


def test_the_app_sees_the_visitors_scheme(waitress: dict[str, Any]) -> None:
    assert respond(waitress["wrap"](answering), [], HTTP_X_FORWARDED_PROTO="https")["scheme"] == "https"
    assert respond(waitress["wrap"](answering), [])["scheme"] == "http"


@pytest.mark.parametrize(
    ("request_", "requests", "unsent", "busy"),
    [(None, [], 0, False), (object(), [], 0, True), (None, [object()], 0, True), (None, [], 7, True)],
)
def test_a_stop_waits_for_requests_in_flight(
    waitress: dict[str, Any], request_: Any, requests: list[Any], unsent: int, busy: bool
) -> None:
    idle = types.SimpleNamespace(request=None, requests=[], total_outbufs_len=0)
    channel = types.SimpleNamespace(request=request_, requests=requests, total_outbufs_len=unsent)
    server = types.SimpleNamespace(active_channels={3: idle, 4: channel})
    assert waitress["is_busy"](server) is busy


@pytest.mark.parametrize(
    ("option", "value", "otherwise"),
    [
        ("connection_limit", 2048, "the 101st connection waits"),
        ("backlog", 2048, "nginx is refused in a burst"),
        ("max_request_body_size", 2**63, "a body of 1 GB is refused that nginx has let through"),
        ("asyncore_use_poll", True, "more than 1,024 connections end the process"),
        ("clear_untrusted_proxy_headers", False, "the app does not see the visitor"),
    ],
)
def test_waitress_has_none_of_its_own_limits(
    waitress: dict[str, Any], option: str, value: object, otherwise: str
) -> None:
    assert waitress["SETTINGS"].get(option) == value, otherwise


class Serving:
    """Waitress' loop, with a clock of its own: the service is stopped after ten seconds."""

    def __init__(self, settings: dict[str, Any], done_after: float) -> None:
        self.settings, self.done_at, self.now = settings, 10 + done_after, 0.0
        self.told: list[tuple[float, tuple[str, ...]]] = []
        self.signals: dict[Any, Callable[..., None]] = {}
        self.pulled: list[float] = []
        self.server = types.SimpleNamespace(
            accepting=True, active_channels={}, _map={1: "map"}, pull_trigger=lambda: self.pulled.append(self.now)
        )
        signals = types.SimpleNamespace(SIGTERM="TERM", signal=self.signals.__setitem__)
        settings.update(
            create_server=self.create, tell=lambda *lines: self.told.append((self.now, lines)), signal=signals,
            socket=types.SimpleNamespace(socket=lambda fileno: f"socket {fileno}"),
            time=types.SimpleNamespace(monotonic=lambda: self.now), is_busy=lambda _server: self.now < self.done_at,
            os=types.SimpleNamespace(_exit=self.exit), waitress=types.SimpleNamespace(wasyncore=self),
        )  # fmt: skip

    def create(self, app: Callable[..., Any], sockets: list[str], **given: Any) -> Any:
        assert respond(app, [("Content-Type", "text/event-stream")])["headers"][1:] == [("X-Accel-Buffering", "no")]
        assert sockets == ["socket 3"], "the one that systemd passes"
        assert given == self.settings["SETTINGS"]
        return self.server

    def loop(self, timeout: float, map: dict[int, str], count: int, use_poll: bool) -> None:
        assert (map, count, use_poll) == (self.server._map, 1, True)
        self.now += timeout
        if self.now == 10:
            self.signals["TERM"](15, None)

    def exit(self, status: int) -> None:
        raise SystemExit(status)


@pytest.mark.parametrize(("done_after", "ends"), [(0, 10), (3, 13), (1000, 60)])
def test_waitress_stops_when_requests_have_ended_or_the_time_is_over(
    waitress: dict[str, Any], done_after: float, ends: float
) -> None:
    serving = Serving(waitress, done_after)
    with pytest.raises(SystemExit) as ended:
        waitress["serve"](answering)
    assert (ended.value.code, serving.now) == (0, ends)
    assert serving.server.accepting is False
    assert serving.pulled == [10], "else the loop would notice only after its timeout"


def test_waitress_tells_systemd_that_it_is_ready_and_alive(waitress: dict[str, Any]) -> None:
    serving = Serving(waitress, 5)
    with pytest.raises(SystemExit):
        waitress["serve"](answering)
    (ready, *alive) = serving.told
    assert ready == (0, ("READY=1", "WATCHDOG_USEC=40000000"))
    assert {lines for _moment, lines in alive} == {("WATCHDOG=1",)}
    moments = [moment for moment, _lines in alive]
    assert moments[0] == 1.25
    assert {later - earlier for earlier, later in itertools.pairwise(moments)} == {1.25}
    assert moments[-1] > 13, "also while it finishes its requests"


def test_waitress_tells_it_to_the_address_of_systemd(
    waitress: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waitress["tell"]("READY=1")  # nothing happens without systemd
    for address in (os.path.relpath(tmp_path / "notify"), f"@flaskhost-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(address.replace("@", "\0"))
            systemd.settimeout(10)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            waitress["tell"]("READY=1", "WATCHDOG_USEC=1")
            assert systemd.recv(100) == b"READY=1\nWATCHDOG_USEC=1"


# -- gunicorn's other worker classes ---------------------------------------------------------------------------------


def test_gevent_is_first() -> None:
    """Before anything imports a module that gevent replaces, as psycopg and the app do."""
    text = render("gunicorn", "gunicorn.conf.py.j2", item=app(worker_class="gevent", threads=1))
    code = [line for line in text.partition('"""\n')[2].splitlines() if line and not line.startswith("#")]
    assert code[:2] == ["import gevent.monkey", "gevent.monkey.patch_all()"]
    assert "gevent" not in render("gunicorn", "gunicorn.conf.py.j2", item=app())


@pytest.mark.parametrize(("sent", "added"), EVENTS)
@pytest.mark.parametrize("encoded", [True, False])
def test_asgi_names_the_release_and_lets_events_pass(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, str]], added: list[str], encoded: bool
) -> None:
    started: list[tuple[Any, ...]] = []

    class ASGIProtocol:
        def _send_response_start(self, status: int, headers: list[Any], request: Any, close: bool = False) -> None:
            started.append((status, headers, request, close))

    protocol = types.ModuleType("gunicorn.asgi.protocol")
    protocol.ASGIProtocol = ASGIProtocol
    asgi, gunicorn = types.ModuleType("gunicorn.asgi"), types.ModuleType("gunicorn")
    gunicorn.asgi, asgi.protocol = asgi, protocol
    for module in (gunicorn, asgi, protocol):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("FLASKHOST_RELEASE", "20261126-r1")
    execute(render("gunicorn", "gunicorn.conf.py.j2", item=app(worker_class="asgi", threads=1)))["on_starting"](None)
    headers: list[Any] = [*sent, ("server", "the app's own")]
    if encoded:
        headers = [(name.encode(), value.encode()) for name, value in headers]
    ASGIProtocol()._send_response_start(200, headers, "request", close=True)
    ((status, found, request, close),) = started
    assert (status, request, close) == (200, "request", True)
    assert [value for name, value in found if name.lower() == b"server"] == [b"20261126-r1"]
    assert [value.decode() for name, value in found if name.lower() == b"x-accel-buffering"] == added
