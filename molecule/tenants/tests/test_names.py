"""An app does not take over a user or a group that the host already has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tenants import APPS, hosts, playbook

testinfra_hosts = hosts("bookworm")


@pytest.fixture
def neighbors(host: Any) -> Iterator[None]:
    """Carol works on the host, and a group gives rights to its members."""
    host.run_expect([0], "useradd --create-home carol && groupadd --system couriers")
    yield
    host.run("userdel --remove carol; groupdel couriers")


def test_an_account_of_the_host_is_no_apps(host: Any, neighbors: None) -> None:
    before = host.check_output("getent passwd carol"), host.check_output("getent group couriers")
    apps = {**APPS, "carol": APPS["alice"] | {"domains": ["carol.test"]}}
    apps["couriers"] = APPS["alice"] | {"domains": ["couriers.test"]}
    status, output = playbook("site", host, flask_apps=apps)
    assert status != 0
    # The apps of the host itself have their own accounts, of which nothing is said.
    assert "Preflight has found 2 problems" in output, output
    assert "flask_apps.carol What is wrong: The host has a user carol with the home folder" in output
    assert "flask_apps.couriers What is wrong: The host has a group couriers that is not this app's" in output
    assert "Nothing has been changed" in output
    assert (host.check_output("getent passwd carol"), host.check_output("getent group couriers")) == before
    assert not host.file("/srv/carol").exists
