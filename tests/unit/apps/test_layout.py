"""What the groups of the inventory make of a host: it serves visitors, forwards them, or serves those that do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.flaskhost.settings.layout import layout, peer_certificates

HOSTS: dict[str, dict[str, Any]] = {
    name: {"private_address": f"10.0.0.{number}"} for number, name in enumerate(("w1", "w2", "a1", "a2", "d1"), 1)
}
APART = {"web": ["w1", "w2"], "app": ["a1", "a2"], "db": ["d1"]}
NOTHING = {
    "serves": False,
    "forwards": False,
    "backends": [],
    "private": False,
    "address": "",
    "clients": [],
    "peers": [],
}


def test_a_web_host_forwards_to_all_app_hosts() -> None:
    assert layout(APART, "w1", HOSTS) == {
        **NOTHING,
        "serves": True,
        "forwards": True,
        "backends": ["10.0.0.3", "10.0.0.4"],
        "peers": ["a1", "a2"],
    }


def test_an_app_host_serves_only_the_web_hosts() -> None:
    assert layout(APART, "a2", HOSTS, ["203.0.113.0/24"]) == {
        **NOTHING,
        "private": True,
        "address": "10.0.0.4",
        "clients": ["10.0.0.1", "10.0.0.2"],
        "peers": ["w1", "w2"],
    }


@pytest.mark.parametrize("groups", [APART, {"db": ["d1"]}, {}])
def test_a_database_host_does_neither(groups: dict[str, list[str]]) -> None:
    assert layout(groups, "d1", HOSTS) == NOTHING


@pytest.mark.parametrize("groups", [{"web": ["a1"], "app": ["a1"]}, {"web": ["a1", "a2"], "app": ["a2", "a1"]}])
def test_a_host_with_apps_of_its_own_serves_them_itself(groups: dict[str, list[str]]) -> None:
    # Nothing of another host is read: a single server is as it was.
    assert layout(groups, "a1", {}) == {**NOTHING, "serves": True}


def test_behind_a_load_balancer_of_the_sites_own() -> None:
    groups = {"app": ["a1", "a2"]}
    assert layout(groups, "a1", HOSTS, ["203.0.113.0/24"]) == {**NOTHING, "serves": True}
    assert layout(groups, "a1", HOSTS) == NOTHING


def test_only_certificates_of_this_run_are_known() -> None:
    known = {"a1": {"identity_certificate": "PEM"}, "a2": {}}
    assert peer_certificates(["a1", "a2"], known) == {"a1": "PEM", "a2": ""}
