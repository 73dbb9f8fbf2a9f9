"""A real proxy in front of a host: another nginx, on the other one. fh-bookworm trusts that of fh-trixie."""

import json
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra

#: Where the proxy listens, on the loopback of the host that it runs on.
PORT = 8099
CONFIGURATION = """
pid /run/proxy-of-a-test.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass https://{backend}:443;
            proxy_ssl_server_name on;
            proxy_ssl_name $host;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""
#: Two who visit the proxy (RFC 5737: addresses for documentation), and an address that only a forged header names.
VISITOR, OTHER, NOBODY = "203.0.113.70", "203.0.113.71", "203.0.113.66"


@dataclass
class Proxy:
    """A proxy on one host, in front of the other.

    Attributes:
        host: the host that it runs on.
        address: its address.
        behind: the other one, which serves.
        trusted: whether that believes the proxy.
    """

    host: Any
    address: str
    behind: Any
    trusted: bool

    def command(self, address, app, path, *headers, options=""):
        """A command of the shell that sends requests by way of the proxy."""
        more = " ".join(f"--header {shlex.quote(header)}" for header in (f"Host: {app}.test", *headers))
        return f"curl --silent --max-time 20 --interface {address} {more} {options} 'http://127.0.0.1:{PORT}{path}'"

    def statuses(self, *commands):
        """The statuses of the requests of several commands, one after the other and without a pause."""
        return [found.split() for found in self.host.run("; echo ,; ".join(commands)).stdout.split(",")]

    @property
    def seen(self):
        """Who VISITOR is for the host behind, and whose address it does not see."""
        return (VISITOR, self.address) if self.trusted else (self.address, VISITOR)


STATUS = "--output /dev/null --write-out '%{http_code}\\n'"


@pytest.fixture
def proxy(host):
    """The proxy on this host, which runs."""
    here = host.ansible.get_variables()["inventory_hostname"]
    other = {"fh-trixie": "fh-bookworm", "fh-bookworm": "fh-trixie"}[here]
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    behind = testinfra.get_host(f"ansible://{other}", ansible_inventory=str(inventory), sudo=True)
    address = host.run_expect([0], f"getent ahostsv4 {other}").stdout.split()[0]
    text = CONFIGURATION.format(port=PORT, backend=address)
    host.run_expect([0], f"printf %s {shlex.quote(text)} > /root/proxy.conf")
    for visitor in (VISITOR, OTHER):
        host.run_expect([0], f"ip address replace {visitor}/32 dev lo")
    host.run_expect(
        [0], "systemd-run --quiet --collect --unit=proxy-of-a-test nginx -c /root/proxy.conf -g 'daemon off;'"
    )
    found = Proxy(host, host.run("hostname --ip-address").stdout.split()[0], behind, trusted=here == "fh-trixie")
    try:
        eventually(lambda: host.run(found.command(OTHER, "hello", "/whoami", options="--fail")).rc, 0)
        yield found
    finally:
        host.run("systemctl stop proxy-of-a-test.service; rm /root/proxy.conf")
        for visitor in (VISITOR, OTHER):
            host.run(f"ip address delete {visitor}/32 dev lo")


def eventually(question, wanted):
    """Wait until a question has the wanted answer."""
    deadline = time.monotonic() + 20
    while (answer := question()) != wanted:
        assert time.monotonic() < deadline, f"{answer!r} and not {wanted!r}"
        time.sleep(0.3)


@pytest.mark.parametrize("lie", [(), (f"X-Forwarded-For: {NOBODY}",)])
def test_only_a_proxy_that_is_trusted_says_who_visits(proxy, lie):
    """Of the list that comes in, only what the proxy has added counts; one that nobody trusts is a visitor itself."""
    said = proxy.host.run_expect([0], proxy.command(VISITOR, "hello", "/headers", *lie, options="--fail")).stdout
    visitor, other = proxy.seen
    assert f'"X-Forwarded-For":"{visitor}"' in said
    assert other not in said
    assert NOBODY not in said


def test_limits_count_the_visitor_of_a_trusted_proxy(proxy):
    """And nobody else, whom the visitor names: without trust, all visitors are one.

    The page exists: 40 missing pages in a minute are a ban, and how many of 70 requests get past the limit is a matter
    of speed.
    """
    at_once = f"--parallel --parallel-max 70 {STATUS}"
    flood = proxy.command(VISITOR, "ledger", "/?n=[1-70]", f"X-Forwarded-For: {OTHER}", options=at_once)
    few = proxy.command(OTHER, "ledger", "/?n=[1-25]", options=at_once)
    of_visitor, of_other = proxy.statuses(flood, few)
    assert (len(of_visitor), len(of_other)) == (70, 25)
    assert of_visitor.count("429") > 0, of_visitor
    assert (of_other.count("429") == 0) is proxy.trusted, of_other


def test_bans_are_of_the_visitor_of_a_trusted_proxy(proxy):
    """In the site's log there is the visitor, and no address that a visitor has made up."""
    paths = [f"/{name}.php" for name in ("wp-login", "xmlrpc", "setup")]
    asked = [proxy.command(VISITOR, "hello", path, f"X-Forwarded-For: {NOBODY}", options=STATUS) for path in paths]
    log = proxy.behind.file("/var/log/nginx/hello.access.log")
    before = len(log.content_string.splitlines())
    home, other_site = (proxy.command(VISITOR, app, "/", options=STATUS) for app in ("hello", "ledger"))
    try:
        assert proxy.statuses(*asked) == [["404"]] * 3
        lines = [json.loads(line) for line in log.content_string.splitlines()[before:]]
        seen = [(line["path"], line["remote_addr"]) for line in lines if line["path"] in paths]
        assert seen == [(path, proxy.seen[0]) for path in paths]
        eventually(lambda: proxy.statuses(home), [["403"]])
        # Without trust, all visitors of the proxy are one. Other sites have nothing to do with the ban.
        other = proxy.command(OTHER, "hello", "/", options=STATUS)
        assert proxy.statuses(other, other_site) == [["200" if proxy.trusted else "403"], ["200"]]
        assert NOBODY not in proxy.behind.check_output("fail2ban-client banned")
    finally:
        proxy.behind.run(f"fail2ban-client unban {proxy.seen[0]}")
    eventually(lambda: proxy.statuses(home), [["200"]])
