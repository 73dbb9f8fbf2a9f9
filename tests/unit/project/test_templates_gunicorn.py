"""The templates of gunicorn, rendered as Ansible does it: the slots' units, their settings and their profiles."""

from __future__ import annotations

import gc
import sys
import types
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host.runner import temporary
from nginx_config import nginx, proxied, site
from rendering import render


def slot(**changes: Any) -> dict[str, Any]:
    return {
        "name": "shop",
        "user": "shop",
        "unit": "flask-shop",
        "config": "/etc/gunicorn/shop.conf.py",
        "root": "/srv/shop",
        "slots": "/srv/shop/slots",
        "data": "/srv/shop/data",
        "socket_dir": "/run/flask-shop",
        "worker_class": "gthread",
        "workers": 2,
        "threads": 8,
        "timeout": 30,
        "drain": 30,
        "memory_mb": 512,
        **changes,
    }


def unit(template: str, **changes: Any) -> dict[str, list[str]]:
    """The settings of a systemd unit: each with all its values."""
    found: dict[str, list[str]] = {}
    for line in render("gunicorn", template, item=slot(**changes)).splitlines():
        if line and not line.startswith(("#", "[")):
            name, _equals, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def gunicorn(**changes: Any) -> dict[str, Any]:
    """Run the settings of gunicorn, as gunicorn does."""
    text = render("gunicorn", "gunicorn.conf.py.j2", item=slot(**changes))
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
    item = {name: value for name, value in slot().items() if name != "worker_class"}
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
    wsgi.Response = Response  # type: ignore[attr-defined]
    for name, module in (("gunicorn", types.ModuleType("gunicorn")), ("gunicorn.http", types.ModuleType("http"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "gunicorn.http.wsgi", wsgi)
    sys.modules["gunicorn"].http = sys.modules["gunicorn.http"]  # type: ignore[attr-defined]
    sys.modules["gunicorn.http"].wsgi = wsgi  # type: ignore[attr-defined]
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
        module.Engine = FakeEngine  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    engine, collector, settings = FakeEngine(), FakeCollector(), gunicorn()
    settings["gc"] = collector
    settings["when_ready"](None)
    assert engine.disposed is loaded
    assert collector.searched is loaded
    assert collector.frozen
    assert ("sqlalchemy" in sys.modules) is False


def test_a_slot_runs_the_release_that_its_link_names() -> None:
    service = unit("slot.service.j2")
    assert service["WorkingDirectory"] == ["/srv/shop/slots/%i/app"]
    assert service["EnvironmentFile"] == ["/srv/shop/slots/%i/env"]
    (command,) = service["ExecStart"]
    assert command.startswith("/srv/shop/slots/%i/venv/bin/gunicorn --config /srv/shop/slots/%i/server.conf.py ")
    # Braces: one word, whatever is in it, such as create_app('production').
    assert command.endswith(" ${FLASK_APP}")


def test_an_app_that_may_not_connect_has_a_network_of_its_own() -> None:
    assert "PrivateNetwork" not in unit("slot.service.j2")
    assert unit("slot.service.j2", outbound=False)["PrivateNetwork"] == ["yes"]


def test_a_slot_writes_its_data_and_nothing_else() -> None:
    service = unit("slot.service.j2", memory_mb=300)
    assert service["User"] == service["Group"] == ["shop"]
    assert service["ReadWritePaths"] == ["/srv/shop/data"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["CapabilityBoundingSet"] == [""]
    assert (service["MemoryMax"], service["MemorySwapMax"]) == (["300M"], ["150M"])


def test_a_slot_is_confined_by_the_profile_that_is_on_the_disk() -> None:
    service = unit("slot.service.j2")
    # Neither is fatal: a host without AppArmor runs the app in its sandbox.
    assert service["AppArmorProfile"] == ["-flask-shop"]
    load = service["ExecStartPre"][-1]
    assert load.startswith("-+/bin/sh -c ")
    assert load.endswith("/usr/sbin/apparmor_parser --replace /etc/apparmor.d/flask-shop'")


def test_a_slot_has_temporary_files_of_its_own_in_its_apps_folder() -> None:
    service = unit("slot.service.j2")
    # The same as every other unit of the app.
    remove, close, create, tmp, var_tmp, removed = temporary("/srv/shop", "%N", "shop")
    assert [f"ExecStartPre={line}" for line in service["ExecStartPre"][:3]] == [remove, close, create]
    assert close.endswith("install -d -m 0700 /srv/shop/tmp"), "the app's other units have the same user"
    assert [f"BindPaths={line}" for line in service["BindPaths"]] == [tmp, var_tmp]
    assert [f"ExecStopPost={line}" for line in service["ExecStopPost"]] == [removed]


def test_only_the_temporary_files_of_apps_are_removed_at_boot() -> None:
    limits = [{"app": "shop", "root": "/srv/shop", "disk": "1G"}, {"app": "blog", "root": "/srv/blog", "disk": "50%"}]
    lines = render("app", "tmpfiles.conf.j2", app_limits=limits).splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["R! /srv/shop/tmp/*", "R! /srv/blog/tmp/*"]


def test_each_app_has_a_journal_of_its_own() -> None:
    assert unit("slot.service.j2")["LogNamespace"] == ["flask-shop"]
    lines = render("gunicorn", "journal.conf.j2", item=slot(), gunicorn_journal_max_use="70M").splitlines()
    assert {"Storage=persistent", "SystemMaxUse=70M", "SystemKeepFree=1G"} < set(lines)
    socket = unit("journal.socket.j2")
    assert (socket["SocketGroup"], socket["SocketMode"]) == (["shop"], ["0660"])
    service = unit("journal.service.j2")
    # Else journald makes the sockets its own group's.
    assert service["RuntimeDirectory"] == [""]
    # A message that is too large for its memory ends it, and it comes back each time.
    assert (service["MemoryMax"], service["Restart"]) == (["64M"], ["on-failure"])
    assert service["StartLimitIntervalSec"] == ["0"]
    # Commands that follow each other would find units of the journal that are about to stop.
    assert socket["StopWhenUnneeded"] == unit("journal.units.j2")["StopWhenUnneeded"] == ["no"]


def profile(name: str, **changes: Any) -> tuple[list[str], dict[str, str]]:
    """A profile of an app: its lines, and the rights by path."""
    text = render("gunicorn", "apparmor.j2", item=slot(**changes))
    _, begin, rest = text.partition(f"profile {name} ")
    lines = [line.split("#")[0].strip() for line in (begin + rest.partition("\n}\n")[0]).splitlines()]
    return lines, dict(line.rstrip(",").rsplit(" ", 1) for line in lines if line.startswith("/"))


def test_a_build_writes_the_new_environment_and_its_cache() -> None:
    _lines, rules = profile("flask-shop_build")
    written = {path for path, rights in rules.items() if "w" in rights}
    writable = {"/tmp/{,**}", "/var/tmp/{,**}", "/dev/shm/{,**}"}
    assert written == {"/srv/shop/venvs/**", "/var/cache/flaskhost/shop/{,**}"} | writable
    assert not [path for path in rules if "data" in path or "/run" in path]


def test_a_build_command_writes_the_code_too_and_the_app_does_not() -> None:
    without, rules = (
        render("gunicorn", "apparmor.j2", item=slot()),
        profile("flask-shop_build", build_command="make")[1],
    )
    assert rules["/srv/shop/releases/*/src/{,**}"] == "mrwklix"
    assert profile("flask-shop")[1] == profile("flask-shop", build_command="make")[1]
    # A change of this file restarts an app in a new release.
    assert render("gunicorn", "apparmor.j2", item=slot(build_command="")) == without


def test_a_profile_lets_nothing_run_that_the_app_can_write() -> None:
    lines, rules = profile("flask-shop")
    assert {path for path, rights in rules.items() if set(rights) & set("wk") and set(rights) & set("mix")} == set()
    assert rules["/srv/shop/data/**"] == "rwkl"
    assert rules["/srv/shop/{releases,venvs}/**"] == "mrix"
    # Another app's folders are in no rule.
    assert {path for path in rules if path.startswith("/srv/")} == {
        path for path in rules if path.startswith("/srv/shop/")
    }
    assert "profile flask-shop flags=(attach_disconnected) {" in lines


def test_a_slot_has_a_socket_of_its_own() -> None:
    socket, service = unit("slot.socket.j2"), unit("slot.service.j2")
    assert socket["ListenStream"] == ["/run/flask-shop/%i.sock"]
    assert (socket["SocketMode"], socket["SocketGroup"]) == (["0660"], ["www-data"])
    assert service["Requires"] == ["flask-shop@%i.socket"]
    # systemd counts the starts of a socket as well, and a service does not start without its socket.
    assert socket["StartLimitIntervalSec"] == service["StartLimitIntervalSec"] == ["0"]
    # A folder that a service owns goes when it stops, and the other slot's socket with it.
    assert "RuntimeDirectory" not in service
