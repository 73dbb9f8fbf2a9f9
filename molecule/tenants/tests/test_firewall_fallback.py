"""Firewall rules that do not load: the host closes everything but SSH, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tenants import hosts, playbook

testinfra_hosts = hosts("bookworm")

RULES = "/etc/nftables-flaskhost.conf"
SERVICE = "flaskhost-firewall.service"


@pytest.fixture(scope="module")
def broken(host: Any) -> Iterator[float]:
    """Rules that nft does not accept, loaded as at a boot; yields when that was."""
    host.run_expect([0], f"cp --preserve {RULES} {RULES}.test && echo garbage >> {RULES}")
    host.run_expect([0], "nft add table inet others")
    began = float(host.run("date +%s").stdout)
    host.run_expect([1], f"systemctl restart {SERVICE}")
    yield began
    host.run("nft delete table inet others")
    host.run_expect([0], f"mv {RULES}.test {RULES} && systemctl restart {SERVICE}")
    assert "tcp dport { 80, 443 } accept" in host.run("nft list table inet flaskhost").stdout


def answers(host: Any, port: int) -> bool:
    """Whether a port of the host lets in a connection from outside; from the controller a proxy of Docker's would."""
    # From a network of its own, whose packets come in by an interface and not by the loopback.
    command = f"ip netns exec outside timeout 3 bash -c 'exec 3<>/dev/tcp/192.0.2.1/{port}'"
    return host.run(command).rc == 0


@pytest.fixture(scope="module", autouse=True)
def outside(host: Any) -> Iterator[None]:
    """Another host, as a network namespace beside this one."""
    host.run_expect(
        [0],
        "ip netns add outside && ip link add fh-inside type veth peer name fh-outside netns outside"
        " && ip addr add 192.0.2.1/30 dev fh-inside && ip link set fh-inside up"
        " && ip -n outside addr add 192.0.2.2/30 dev fh-outside && ip -n outside link set fh-outside up",
    )
    yield
    host.run("ip link del fh-inside; ip netns del outside")


def test_before_sites_and_ssh_are_open_and_the_rest_is_not(host: Any) -> None:
    """The positive control of what follows: these connections do come in by an interface."""
    host.run_expect([0], "systemd-run --quiet --unit=fh-open --collect python3 -m http.server 8099")
    assert [port for port in (22, 80, 443, 8099) if answers(host, port)] == [22, 80, 443]


def test_all_but_ssh_is_closed_where_the_rules_do_not_load(host: Any, broken: float) -> None:
    assert host.run(f"systemctl is-failed {SERVICE}").stdout.strip() == "failed"
    host.run("timeout 10 bash -c 'until nft list table inet flaskhost; do sleep 0.2; done'")
    assert [port for port in (22, 80, 443, 8099) if answers(host, port)] == [22]
    # What the host itself begins goes on, and so does what is on the loopback.
    assert host.run("curl --silent --insecure --resolve alice.test:443:127.0.0.1 https://alice.test/").rc == 0
    # Only our own table: those of other programs are theirs.
    assert "table inet others" in host.run("nft list tables").stdout


def test_it_is_said_aloud(host: Any, broken: float) -> None:
    lines = host.run(f"journalctl --since=@{broken:.0f} --priority=emerg --output=cat").stdout
    assert "The firewall's rules did not load: this host blocks everything but SSH." in lines
    status, output = playbook("status", host)
    assert status != 0, output
    assert "firewall rules failed to load, all ports but SSH are blocked" in output


def test_the_next_run_mends_it(host: Any, broken: float) -> None:
    status, output = playbook("site", host, "--tags", "firewall")
    assert status == 0, output
    assert [port for port in (22, 80, 443, 8099) if answers(host, port)] == [22, 80, 443]
    host.run("systemctl stop fh-open.service")
    status, output = playbook("status", host)
    assert "firewall" not in output.lower().replace("test_firewall", ""), output
