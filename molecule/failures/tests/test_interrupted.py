"""After runs that were killed, and one that was not: as if nothing had happened."""

import pytest


@pytest.mark.parametrize("app", ["guestbook", "hello"])
def test_app_serves(visitor, app):
    assert visitor.ask(f"https://{app}.test/").status == 200


@pytest.mark.parametrize("app", ["guestbook", "hello"])
def test_nothing_half_made_is_left(host, app):
    for release in host.run(f"ls /srv/{app}/releases").stdout.split():
        assert host.file(f"/srv/{app}/releases/{release}/release.json").exists
    for environment in host.run(f"ls /srv/{app}/venvs").stdout.split():
        assert host.file(f"/srv/{app}/venvs/{environment}/.complete").exists


def test_packages_are_whole(host):
    assert host.run("dpkg --audit").stdout == ""


def test_services_run_with_what_is_on_the_disk(host):
    assert host.run("systemctl --failed --no-legend --plain").stdout == ""
    needs_reload = host.run("systemctl show --property=Id,NeedDaemonReload '*.service'").stdout
    assert "NeedDaemonReload=yes" not in needs_reload
