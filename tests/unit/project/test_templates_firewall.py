"""The template of the firewall, rendered as Ansible does it: which ports are open, and to whom."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rendering import render


def rules(connection: str = "", **variables: Any) -> list[str]:
    facts = {"env": {"SSH_CONNECTION": connection}} if connection else {}
    text = render("firewall", "rules.nft.j2", facts, **variables)
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def opened(**variables: Any) -> list[str]:
    """The rules that an option has added: those that are not there without it."""
    usual = rules()
    return [line for line in rules(**variables) if line not in usual]


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        ({"port": 9100}, ["tcp dport 9100 accept"]),
        ({"port": 9100, "from": []}, ["tcp dport 9100 accept"]),
        ({"port": 51820, "protocol": "udp"}, ["udp dport 51820 accept"]),
        ({"port": 9100, "from": ["203.0.113.0/24"]}, ["ip saddr { 203.0.113.0/24 } tcp dport 9100 accept"]),
        ({"port": 9100, "from": ["2001:db8::/32"]}, ["ip6 saddr { 2001:db8::/32 } tcp dport 9100 accept"]),
        (
            {"port": 53, "protocol": "udp", "from": ["198.51.100.7", "2001:db8::1", "203.0.113.0/24"]},
            [
                "ip saddr { 198.51.100.7, 203.0.113.0/24 } udp dport 53 accept",
                "ip6 saddr { 2001:db8::1 } udp dport 53 accept",
            ],
        ),
    ],
)
def test_a_port_is_open_to_those_who_are_named(rule: dict[str, Any], lines: list[str]) -> None:
    assert opened(firewall_allow=[rule]) == lines


def test_vrrp_is_open_to_the_hosts_that_share_an_address() -> None:
    peers = ["10.0.0.12/32", "10.0.0.13/32"]
    come, go = (f"ip {way} {{ 10.0.0.12/32, 10.0.0.13/32 }} meta l4proto 112 accept" for way in ("saddr", "daddr"))
    line = "# VRRP. Whoever can send it can take the address."
    assert opened(firewall_vrrp_peers=peers) == [line, come]
    listed = rules(firewall_egress="listed", firewall_vrrp_peers=peers)
    assert [item for item in listed if "112" in item] == [come, go]


def test_public_ports_are_open_to_everybody() -> None:
    assert opened(firewall_public_ports=[80, 443]) == ["tcp dport { 80, 443 } accept"]
    assert opened(firewall_public_ports=[]) == []
    assert opened(firewall_public_udp_ports=[443]) == ["udp dport { 443 } accept"]


@pytest.mark.parametrize(
    ("connection", "ports", "line"),
    [
        ("", [22], "tcp dport { 22 } accept"),
        ("203.0.113.9 50000 192.0.2.1 22", [22], "tcp dport { 22 } accept"),
        ("203.0.113.9 50000 192.0.2.1 2222", [22], "tcp dport { 22, 2222 } accept"),
        ("2001:db8::9 50000 2001:db8::1 2222", [2022, "22"], "tcp dport { 22, 2022, 2222 } accept"),
    ],
)
def test_the_port_that_the_operator_came_in_by_stays_open(connection: str, ports: list[Any], line: str) -> None:
    assert line in rules(connection, firewall_ssh_ports=ports)


def test_the_table_is_ours_and_drops_what_nobody_asked_for() -> None:
    lines = rules()
    assert lines[:3] == ["table inet flaskhost", "delete table inet flaskhost", "table inet flaskhost {"]
    assert [line for line in lines if line.startswith("type filter hook")] == [
        "type filter hook input priority filter; policy drop;",
        "type filter hook output priority filter - 1; policy accept;",
    ]
    unit_file = render("firewall", "flaskhost-firewall.service.j2")
    for line in [*lines, *unit_file.splitlines()]:
        assert line.startswith("#") or "flush" not in line
    assert re.findall(r"delete table .*", unit_file) == ["delete table inet flaskhost"]


def test_ipv6_finds_its_neighbours() -> None:
    neighbours = [line for line in rules() if "nd-neighbor-solicit" in line]
    assert len(neighbours) == 1
    assert neighbours[0].endswith("accept")
    for kind in ("nd-router-advert", "nd-neighbor-advert"):
        assert kind in neighbours[0]


def test_hosts_that_work_together_come_in_by_their_addresses_alone() -> None:
    peers = [{"port": 5432, "from": ["10.0.0.2/32", "2001:db8::3/128"]}, {"port": 5433, "from": []}]
    found = [line for line in rules(firewall_peers=peers) if "543" in line]
    assert found == [
        "ip saddr { 10.0.0.2/32 } tcp dport 5432 accept",
        "ip6 saddr { 2001:db8::3/128 } tcp dport 5432 accept",
    ], "without an address nobody"
