"""The templates of the role slots, rendered as Ansible does it: units, AppArmor profiles and journals."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.apps.options import APP_OPTIONS
from ansible.module_utils.flaskhost.host.runner import temporary
from loading import ROOT
from rendering import render
from slot_units import slot, unit

SERVERS = APP_OPTIONS["server"].choices


def test_a_slot_runs_the_release_that_its_link_names() -> None:
    service = unit("slot.service.j2")
    assert service["WorkingDirectory"] == ["/srv/shop/slots/%i/app"]
    assert service["EnvironmentFile"] == ["/srv/shop/slots/%i/env"]


def test_a_slot_starts_what_the_server_says() -> None:
    plain = unit("slot.service.j2")
    assert plain["ExecStart"] == ["/srv/shop/slots/%i/venv/bin/gunicorn ${FLASK_APP}"]
    assert "Documentation" not in plain
    command = "/srv/shop/slots/%i/venv/bin/foo --file /srv/shop/slots/%i/server.conf.py ${FLASK_APP}"
    other = unit("slot.service.j2", server="foo", command=command, documentation="https://foo.test/")
    assert (other["ExecStart"], other["Documentation"]) == ([command], ["https://foo.test/"])
    # Nothing else depends on it.
    changed = {name for name in other if other[name] != plain.get(name)}
    assert changed == {"ExecStart", "Documentation"}


@pytest.mark.parametrize("server", SERVERS)
def test_the_name_of_the_app_is_one_word_to_a_server(server: str) -> None:
    """Whatever is in it, such as create_app('production'): systemd splits what has no braces."""
    said = yaml.safe_load((ROOT / "roles" / server / "meta/server.yml").read_text())
    assert re.fullmatch(
        r"\{release\}/venv/bin/\w+( --config)? \{release\}/server\.conf\.py( \$\{FLASK_APP\})?", said["command"]
    )


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
    lines = render("slots", "journal.conf.j2", item=slot(), slots_journal_max_use="70M").splitlines()
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
    text = render("slots", "apparmor.j2", item=slot(**changes))
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
        render("slots", "apparmor.j2", item=slot()),
        profile("flask-shop_build", build_command="make")[1],
    )
    assert rules["/srv/shop/releases/*/src/{,**}"] == "mrwklix"
    assert profile("flask-shop")[1] == profile("flask-shop", build_command="make")[1]
    # A change of this file restarts an app in a new release.
    assert render("slots", "apparmor.j2", item=slot(build_command="")) == without


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
