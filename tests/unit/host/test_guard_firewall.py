"""The firewall's rules that could cut the operator off, or let everything out; nft's own verdict is for real hosts."""

from __future__ import annotations

from typing import Any

import pytest
from rendering import render

CAME_BY = {"env": {"SSH_CONNECTION": "203.0.113.9 50000 192.0.2.1 2222"}}


def chain(name: str, **variables: Any) -> list[str]:
    """The rules of a chain; none where there is no such chain."""
    text = render("firewall", "rules.nft.j2", CAME_BY, **variables)
    _before, _found, rest = text.partition(f"chain {name} {{\n")
    lines = [line.strip() for line in rest.partition("\n\t}")[0].splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_too_many_new_connections_wait_and_the_others_come_in() -> None:
    rules = chain("input", firewall_ssh_rate=12)
    limits = [
        number for number, line in enumerate(rules) if "limit rate over 12/minute burst 12 packets } drop" in line
    ]
    assert len(limits) == 2
    # Connections that are there are let in before, and everybody else after.
    assert rules.index("ct state established,related accept") < limits[0]
    assert rules[limits[1] + 1] == "tcp dport { 22, 2222 } accept"
    assert all(rules[number].startswith("tcp dport { 22, 2222 } update @ssh_new") for number in limits)


def test_no_limit_leaves_no_set_behind() -> None:
    text = render("firewall", "rules.nft.j2", CAME_BY, firewall_ssh_rate=0)
    assert "ssh_new" not in text
    assert "tcp dport { 22, 2222 } accept" in chain("input", firewall_ssh_rate=0)


def test_everything_goes_out_unless_it_is_listed() -> None:
    assert chain("output") == []


def test_what_goes_out_is_listed() -> None:
    allowed = [{"port": 443}, {"port": 587, "to": ["203.0.113.25", "2001:db8::1"]}, {"port": 514, "protocol": "udp"}]
    rules = chain("output", firewall_egress="listed", firewall_egress_allow=allowed)
    assert rules[0].endswith("policy drop;")
    assert rules[-1].startswith("counter reject")
    for line in (
        "tcp dport 443 accept",
        "ip daddr { 203.0.113.25 } tcp dport 587 accept",
        "ip6 daddr { 2001:db8::1 } tcp dport 587 accept",
        "udp dport 514 accept",
        "udp dport { 53, 123, 67, 547 } accept",
        "meta l4proto ipv6-icmp accept",
    ):
        assert line in rules
    assert "tcp dport 80 accept" not in rules
    # The operator's own connection, which began before anybody kept track.
    assert "tcp sport { 22, 2222 } accept" in rules


@pytest.mark.parametrize("kind", ["141", "148", "mld2-listener-report", "packet-too-big"])
def test_rfc_4890_is_kept(kind: str) -> None:
    assert [line for line in chain("input") if line.startswith("icmpv6") and kind in line and line.endswith("accept")]


def test_redirects_are_not_taken() -> None:
    assert not [line for line in chain("input") if "redirect" in line]


def fallback(**variables: Any) -> list[str]:
    """The lines of what is loaded where the rules do not load."""
    text = render("firewall", "fallback.nft.j2", CAME_BY, **variables)
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


@pytest.mark.parametrize("egress", ["open", "listed"])
def test_the_fallback_lets_ssh_in_and_has_nothing_that_can_fail(egress: str) -> None:
    lines = fallback(firewall_egress=egress, firewall_public_ports=[80, 443])
    assert lines[:3] == ["table inet flaskhost", "delete table inet flaskhost", "table inet flaskhost {"]
    assert "type filter hook input priority filter; policy drop;" in lines
    assert [line for line in lines if line.startswith("tcp dport") and "53" not in line] == [
        "tcp dport 22 accept",
        "tcp dport 2222 accept",
    ]
    # No sets, no rates, no reject, no index of an interface: each needs something that may be missing at boot.
    for line in lines:
        assert not any(word in line for word in ("{ ", "limit", "update", "reject", "iif ", "oif ", "counter")), line
    assert ("type filter hook output priority filter; policy drop;" in lines) is (egress == "listed")


def test_the_metadata_service_is_roots() -> None:
    for lines in (chain("metadata", firewall_metadata_addresses=["192.0.2.9"]), fallback()):
        # Before the owner is looked at only what answers, and names, DHCP and the time.
        owner = next(number for number, line in enumerate(lines) if line.startswith("meta skuid"))
        assert lines[owner] in ("meta skuid { 0 } accept", "meta skuid 0 accept")
    assert chain("output_metadata", firewall_metadata_addresses=["192.0.2.9", "fd00::9"])[1:] == [
        "ip daddr 192.0.2.9 goto metadata",
        "ip6 daddr fd00::9 goto metadata",
    ]
    assert chain("metadata")[-1].startswith("counter reject")
    assert not chain("metadata", firewall_metadata_addresses=[])
    assert not [line for line in fallback(firewall_metadata_addresses=[]) if "skuid" in line]


def test_a_user_who_is_named_reaches_the_metadata_service_and_one_who_is_missing_is_no_obstacle() -> None:
    """By number: a name that is gone at the next boot would keep the rules from loading."""
    accounts = {
        "results": [
            {"item": "shop", "ansible_facts": {"getent_passwd": {"shop": ["x", "1001", "1001", "", "/", "/bin/sh"]}}},
            {"item": "gone", "ansible_facts": {"getent_passwd": {"gone": None}}},
            {"item": "other", "skipped": True},
        ]
    }
    assert "meta skuid { 0, 1001 } accept" in chain("metadata", __firewall_metadata_accounts=accounts)
