"""The settings of the other application servers than gunicorn, and of gunicorn's other worker classes.

Here they are read as Python. The scenario `servers` runs each of them.
"""

from __future__ import annotations

import gc
import os
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
    module.made = []  # type: ignore[attr-defined]

    def create_app(*words: str, **named: str) -> Callable[..., Any]:
        module.made.append((words, named))
        return answering

    module.create_app, module.app = create_app, answering  # type: ignore[attr-defined]
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
    module.Engine = Engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    engine = Engine()
    uwsgi("shop:app")
    assert engine.disposed


# -- Waitress --------------------------------------------------------------------------------------------------------


@pytest.fixture
def waitress(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of Waitress, without Waitress."""
    server = types.ModuleType("waitress.server")
    server.create_server = None  # type: ignore[attr-defined]
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
    protocol.ASGIProtocol = ASGIProtocol  # type: ignore[attr-defined]
    asgi, gunicorn = types.ModuleType("gunicorn.asgi"), types.ModuleType("gunicorn")
    gunicorn.asgi, asgi.protocol = asgi, protocol  # type: ignore[attr-defined]
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
