"""What is open: seen from outside, from a neighbour over IPv6, and from within."""

import contextlib
import socket

import pytest

OPEN = {22, 80, 443}


def address(host):
    """The host's address on the test network."""
    return host.run("hostname --all-ip-addresses").stdout.split()[0]


@contextlib.contextmanager
def listener(host, port):
    """Something that listens on all addresses of the host, without having been asked for by anybody."""
    unit = f"listener-{port}"
    command = f"systemd-run --quiet --unit={unit} python3 -m http.server {port} --bind ::"
    host.run_expect([0], command)
    try:
        for _attempt in range(50):
            if host.run(f"curl --silent --max-time 1 --output /dev/null http://[::1]:{port}/").rc == 0:
                break
        yield
    finally:
        host.run(f"systemctl stop {unit}.service")


@contextlib.contextmanager
def neighbour(host):
    """Another machine on the host's link, by IPv6: a network namespace. Yields a way to run commands there."""
    host.run_expect([0], "ip netns add neighbour")
    try:
        for command in (
            "ip link add near type veth peer name far netns neighbour",
            "ip address add fd00:99::1/64 dev near nodad",
            "ip link set near up",
            "ip -netns neighbour address add fd00:99::2/64 dev far nodad",
            "ip -netns neighbour link set far up",
        ):
            host.run_expect([0], command)
        yield lambda command: host.run(f"ip netns exec neighbour {command}")
    finally:
        host.run("ip netns delete neighbour; ip link delete near")


@pytest.mark.parametrize("port", sorted(OPEN))
def test_port_is_open(host, port):
    with socket.create_connection((address(host), port), timeout=5):
        pass


@pytest.mark.parametrize("port", [5432, 8000, 9100])
def test_port_is_closed_even_where_something_listens(host, port):
    with listener(host, port), pytest.raises(TimeoutError), socket.create_connection((address(host), port), timeout=2):
        pass


def test_refusal_is_the_firewalls(host):
    def refused():
        rules = host.run("nft list table inet flaskhost").stdout
        return int(next(line for line in rules.splitlines() if "counter packets" in line).split()[2])

    before = refused()
    with pytest.raises(TimeoutError), socket.create_connection((address(host), 8000), timeout=1.5):
        pass
    assert refused() > before


def test_ipv6_neighbour_reaches_the_site_and_nothing_else(host):
    with neighbour(host) as run, listener(host, 8000):
        # The neighbour is found by neighbour discovery, which a careless default drop forbids.
        assert run("ping -6 -c 1 -W 3 fd00:99::1").rc == 0
        site = "--resolve guestbook.test:443:[fd00:99::1] https://guestbook.test/healthz"
        assert run(f"curl --silent --insecure --max-time 5 {site}").rc == 0
        assert run("curl --silent --max-time 2 http://[fd00:99::1]:8000/").rc == 28


def test_only_what_was_asked_for_listens_beyond_the_host(host):
    lines = host.run("ss --tcp --listening --numeric --no-header").stdout.splitlines()
    ports = {line.split()[3].rsplit(":", 1)[1] for line in lines if not line.split()[3].startswith(("127.", "[::1]"))}
    assert ports == {str(port) for port in OPEN}


def test_other_tables_survive_a_reload_of_the_rules(host):
    host.run_expect([0], "nft add table inet somebodys_own")
    host.run_expect([0], "systemctl reload flaskhost-firewall.service")
    tables = host.run("nft list tables").stdout
    host.run_expect([0], "nft delete table inet somebodys_own")
    assert "table inet somebodys_own" in tables
    assert tables.count("table inet flaskhost") == 1


def test_rules_are_loaded_before_the_network_at_boot(host):
    order = host.run("systemctl show --property=Before,UnitFileState flaskhost-firewall.service").stdout
    assert "network-pre.target" in order
    assert "UnitFileState=enabled" in order
