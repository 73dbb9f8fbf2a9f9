"""A web host's part in the address that moves between the web hosts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.flaskhost.settings.shared_address import interface_of, own_addresses, shared_address

HOSTS: dict[str, dict[str, Any]] = {
    name: {"private_address": f"10.0.0.{number}"} for number, name in enumerate(("w1", "w2", "w3", "a1"), 11)
}
GROUPS = {"web": ["w1", "w2", "w3"], "app": ["a1"]}
INTERFACES = {"lo": ["127.0.0.1/8"], "eth0": ["203.0.113.11/24"], "eth1": ["10.0.0.11/24", "10.0.0.10/32"]}


def test_each_web_host_knows_the_others() -> None:
    found = shared_address(GROUPS, "w2", HOSTS, "203.0.113.10", INTERFACES)
    assert found == {
        "address": "203.0.113.10",
        "interface": "eth0",
        "own": "10.0.0.12",
        "peers": ["10.0.0.11", "10.0.0.13"],
        "priority": 199,
    }


@pytest.mark.parametrize(("host", "address"), [("a1", "203.0.113.10"), ("w1", ""), ("w1", None)])
def test_other_hosts_have_no_part_in_it(host: str, address: Any) -> None:
    # Nothing of another host is read: a single server is as it was.
    found = shared_address(GROUPS, host, {}, address, INTERFACES)
    assert (found["address"], found["interface"], found["peers"]) == ("", "", [])


@pytest.mark.parametrize(
    ("address", "interface"),
    [("10.0.0.10", "eth1"), ("10.0.0.200", "eth1"), ("203.0.113.10", "eth0"), ("192.0.2.1", ""), ("none", "")],
)
def test_the_interface_is_the_one_with_the_network(address: str, interface: str) -> None:
    assert interface_of(INTERFACES, address) == interface


def test_nothing_is_known_of_a_host_that_was_not_asked() -> None:
    for nothing in (None, {}, {"eth0": None}, {"eth0": ["x"]}, {"eth0": ["10.0.0.10/32"]}):
        assert interface_of(nothing, "10.0.0.10") == ""
    assert own_addresses(INTERFACES) == ["127.0.0.1", "203.0.113.11", "10.0.0.11", "10.0.0.10"]
    assert own_addresses(None) == []
