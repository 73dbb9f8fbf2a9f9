"""The settings of gunicorn, rendered as Ansible does it, and what the slots' units and nginx have to do with them."""

from __future__ import annotations

import gc
import sys
import types
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from loading import ROOT
from nginx_config import nginx, proxied, site
from rendering import render
from slot_units import unit


def app(**changes: Any) -> dict[str, Any]:
    """An app, as the role gunicorn takes it."""
    return {
        "name": "shop",
        "config": "/etc/gunicorn/shop.conf.py",
        "worker_class": "gthread",
        "workers": 2,
        "threads": 8,
        "timeout": 30,
        "drain": 30,
        **changes,
    }


def gunicorn(**changes: Any) -> dict[str, Any]:
    """Run the settings of gunicorn, as gunicorn does."""
    text = render("gunicorn", "gunicorn.conf.py.j2", item=app(**changes))
    settings: dict[str, Any] = {}
    exec(compile(text, "gunicorn.conf.py", "exec"), settings)  # noqa: S102 - our own file
    return settings


@pytest.mark.parametrize("drain", [1, 30, 3600])
def test_systemd_waits_longer_than_gunicorn(drain: int) -> None:
    service = unit("slot.service.j2", drain=drain)
    stop, start = int(service["TimeoutStopSec"][0]), int(service["TimeoutStartSec"][0])
    assert stop > gunicorn(drain=drain)["graceful_timeout"]
    # What an app prolongs by sd_notify(3) ends all the same.
    assert int(service["JobRunningTimeoutSec"][0]) > stop + start


@pytest.mark.parametrize("timeout", [1, 30, 3600])
def test_nginx_waits_longer_than_gunicorn(timeout: int) -> None:
    read = proxied(nginx(site(timeout=timeout)))[0].one("proxy_read_timeout").words[1]
    assert int(read.removesuffix("s")) > gunicorn(timeout=timeout)["timeout"]


def test_nginx_closes_an_idle_connection_before_gunicorn_does() -> None:
    """Else nginx sends a request into a connection that has just been closed."""
    idle = nginx(site()).one("upstream", "flask-shop").one("keepalive_timeout").words[1]
    assert int(idle.removesuffix("ms")) < gunicorn()["keepalive"] * 1000


def test_the_settings_are_those_of_the_app() -> None:
    settings = gunicorn(workers=3, threads=5, worker_class="sync")
    assert (settings["workers"], settings["threads"], settings["worker_class"]) == (3, 5, "sync")
    # READY is true only when the app has been loaded, and systemd hands over the only socket.
    assert settings["preload_app"] is True
    assert settings["control_socket_disable"] is True
    assert "bind" not in settings


def test_a_worker_class_may_be_left_out() -> None:
    item = {name: value for name, value in app().items() if name != "worker_class"}
    assert 'worker_class = "gthread"' in render("gunicorn", "gunicorn.conf.py.j2", item=item)


@pytest.mark.parametrize(
    ("sent", "added"),
    [
        ([("Content-Type", "text/event-stream")], ["no"]),
        ([("content-type", "Text/Event-Stream; charset=utf-8")], ["no"]),
        ([("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "yes")], ["yes"]),
        ([("Content-Type", "text/html")], []),
        ([], []),
    ],
)
def test_nginx_buffers_no_server_sent_events(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, str]], added: list[str]
) -> None:
    class Response:
        def __init__(self) -> None:
            self.headers: list[tuple[str, str]] = []

        def process_headers(self, headers: list[tuple[str, str]]) -> None:
            self.headers += headers

    wsgi = types.ModuleType("gunicorn.http.wsgi")
    wsgi.Response = Response
    for name, module in (("gunicorn", types.ModuleType("gunicorn")), ("gunicorn.http", types.ModuleType("http"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "gunicorn.http.wsgi", wsgi)
    sys.modules["gunicorn"].http = sys.modules["gunicorn.http"]
    sys.modules["gunicorn.http"].wsgi = wsgi
    gunicorn()["on_starting"](None)
    response = Response()
    response.process_headers(sent)
    assert [value for name, value in response.headers if name == "X-Accel-Buffering"] == added


class FakeEngine:
    """Stands for an SQLAlchemy engine that the app made while it was loaded."""

    disposed = False

    def dispose(self) -> None:
        self.disposed = True


class FakeCollector:
    """Stands for the module gc, so that the tests' own objects are not frozen."""

    def __init__(self) -> None:
        self.searched = self.frozen = False

    def get_objects(self) -> list[Any]:
        self.searched = True
        return gc.get_objects()

    def freeze(self) -> None:
        self.frozen = True


@pytest.mark.parametrize("loaded", [True, False])
def test_database_connections_are_not_inherited(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the workers are forked the engines are emptied. An app without SQLAlchemy is not given it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "sqlalchemy"]:
        monkeypatch.delitem(sys.modules, name)
    if loaded:
        module = types.ModuleType("sqlalchemy.engine.base")
        module.Engine = FakeEngine
        monkeypatch.setitem(sys.modules, module.__name__, module)
    engine, collector, settings = FakeEngine(), FakeCollector(), gunicorn()
    settings["gc"] = collector
    settings["when_ready"](None)
    assert engine.disposed is loaded
    assert collector.searched is loaded
    assert collector.frozen
    assert ("sqlalchemy" in sys.modules) is False


def test_each_app_has_a_file_of_its_own_that_is_checked() -> None:
    init_plugin_loader([])  # without this, Ansible finds no lookup plugin
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "roles/gunicorn"))
    known = loader.load_from_file(str(ROOT / "roles/gunicorn/vars/main.yml"), trusted_as_template=True)
    apps = [app(), app(name="blog", config="/etc/gunicorn/blog.conf.py", workers=5)]
    variables = {**known, "gunicorn_apps": apps, "ansible_managed": "Ansible managed"}
    files = Templar(loader=loader, variables=variables).template(known["__gunicorn_files"])
    assert [file["path"] for file in files] == ["/etc/gunicorn/shop.conf.py", "/etc/gunicorn/blog.conf.py"]
    assert ["workers = 5" in file["content"] for file in files] == [False, True]
    assert {file["validate"][-1] for file in files} == {"%s"}
    assert files[0]["content"] == render("gunicorn", "gunicorn.conf.py.j2", item=apps[0])
