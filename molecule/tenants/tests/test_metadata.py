"""The provider's metadata service: it hands out the host's keys, and no app may ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tenants import attack, hosts, playbook

testinfra_hosts = hosts("trixie")

ADDRESSES = ("169.254.169.254", "168.63.129.16", "fd00:ec2::254")
#: Where a provider of its own kind could have it.
ELSEWHERE = "192.0.2.80"
#: Not TimeoutError: a program that looks for the service does not wait for it.
REFUSED = {"ConnectionRefusedError", "PermissionError", "OSError"}
#: Ways to a service on port 80 of an address; 262 is a multipath socket, whose owner older kernels do not know.
ASK = """
import json, socket
found = {{}}
for address in {addresses}:
    for kind in (0, 262):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM, kind) as stream:
                stream.settimeout(3)
                stream.connect((address, 80))
                stream.sendall(b"GET / HTTP/1.0\\r\\nHost: alice.test\\r\\n\\r\\n")
                found[f"{{address}} {{kind}}"] = stream.recv(12).decode()
        except OSError as error:
            found[f"{{address}} {{kind}}"] = type(error).__name__
print(json.dumps(found))
"""


@pytest.fixture(scope="module", autouse=True)
def service(host: Any) -> Iterator[None]:
    """A metadata service at the addresses of three providers, which are the host's own for the moment."""
    for address in (*ADDRESSES, ELSEWHERE):
        mask = 128 if ":" in address else 32
        host.run_expect([0], f"ip addr add {address}/{mask} dev lo")
    # nginx listens on port 80 of all addresses, and redirects what asks for a site.
    yield
    for address in (*ADDRESSES, ELSEWHERE):
        mask = 128 if ":" in address else 32
        host.run(f"ip addr del {address}/{mask} dev lo")


def test_root_reaches_the_metadata_service(host: Any) -> None:
    """The positive control: something listens there."""
    for address in ADDRESSES:
        url = f"[{address}]" if ":" in address else address
        ask = "curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' --header 'Host: alice.test'"
        assert host.run(f"{ask} http://{url}/").stdout == "301", address


def test_an_app_is_refused_at_once(visitor: Any) -> None:
    found = json.loads(attack(visitor, ASK.format(addresses=ADDRESSES)))
    assert len(found) == 2 * len(ADDRESSES)
    assert set(found.values()) <= REFUSED, found


def test_other_accounts_are_refused_and_names_are_not(host: Any) -> None:
    # As a release command or a build would ask, with the app's user and outside of the slot's sandbox.
    ask = "curl --silent --max-time 5 --output /dev/null"
    for user in ("mallory", "postgres", "www-data", "nobody"):
        assert host.run(f"setpriv --reuid={user} --clear-groups {ask} http://{ADDRESSES[0]}/").rc == 7, user
    # Google's resolver is at the same address: a datagram to port 53 is sent, and refused by nobody but the port.
    send = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect((%r, %d)); s.send(b'x')"
    for port, fine in ((53, True), (8125, False)):
        code = send % (ADDRESSES[0], port)
        done = host.run("setpriv --reuid=mallory --clear-groups python3 -c %s", code)
        assert (done.rc == 0) is fine, (port, done.stderr)


@pytest.fixture(scope="module")
def changed_firewall(host: Any) -> Iterator[None]:
    """The firewall is as it was after the tests that change it."""
    yield
    status, output = playbook("site", host, "--tags", "firewall")
    assert status == 0, output


@pytest.mark.usefixtures("changed_firewall")
def test_an_app_that_is_named_is_let_through(host: Any, visitor: Any) -> None:
    status, output = playbook("site", host, "--tags", "firewall", firewall_metadata_users=["mallory", "not-there-yet"])
    assert status == 0, output
    found = json.loads(attack(visitor, ASK.format(addresses=ADDRESSES[:1])))
    assert found[f"{ADDRESSES[0]} 0"] == "HTTP/1.1 301", found
    refused = host.run(f"setpriv --reuid=alice --clear-groups curl --silent --max-time 5 http://{ADDRESSES[0]}/")
    assert refused.rc == 7


@pytest.mark.usefixtures("changed_firewall")
def test_service_at_another_address_is_closed_when_it_is_named(host: Any, visitor: Any) -> None:
    ask = ASK.format(addresses=(ELSEWHERE, ADDRESSES[0]))
    # Nobody has named it yet.
    assert json.loads(attack(visitor, ask))[f"{ELSEWHERE} 0"] == "HTTP/1.1 301"
    status, output = playbook("site", host, "--tags", "firewall", firewall_metadata_addresses=[ELSEWHERE])
    assert status == 0, output
    found = json.loads(attack(visitor, ask))
    assert {found[f"{ELSEWHERE} {kind}"] for kind in (0, 262)} <= REFUSED, found
    # The list is the whole of it: what it does not name is closed to nobody.
    assert found[f"{ADDRESSES[0]} 0"] == "HTTP/1.1 301", found
    root = f"curl --silent --max-time 5 --output /dev/null --header 'Host: alice.test' http://{ELSEWHERE}/"
    assert host.run(root).rc == 0
