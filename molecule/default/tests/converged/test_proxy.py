"""A real proxy in front of a host: another nginx, on the other one. fh-bookworm trusts that of fh-trixie."""

import shlex
import time

import pytest

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
            proxy_ssl_name hello.test;
            proxy_set_header Host hello.test;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


@pytest.fixture
def proxied(host):
    """What hello says of a request that comes by way of a proxy on this host; its visitor has the address 127.0.0.5."""
    here = host.ansible.get_variables()["inventory_hostname"]
    backend = {"fh-trixie": "fh-bookworm", "fh-bookworm": "fh-trixie"}[here]
    address = host.run_expect([0], f"getent ahostsv4 {backend}").stdout.split()[0]
    text = CONFIGURATION.format(port=PORT, backend=address)
    host.run_expect([0], f"printf %s {shlex.quote(text)} > /root/proxy.conf")
    host.run_expect(
        [0], "systemd-run --quiet --collect --unit=proxy-of-a-test nginx -c /root/proxy.conf -g 'daemon off;'"
    )

    def ask(*headers):
        more = " ".join(f"--header {shlex.quote(header)}" for header in headers)
        command = f"curl --silent --fail --interface 127.0.0.5 {more} http://127.0.0.1:{PORT}/headers"
        deadline = time.monotonic() + 15
        while (answer := host.run(command)).rc and time.monotonic() < deadline:
            time.sleep(0.3)
        assert answer.rc == 0, (answer, host.run("journalctl --unit proxy-of-a-test --no-pager --lines 20").stdout)
        return answer.stdout

    yield ask
    host.run("systemctl stop proxy-of-a-test.service; rm /root/proxy.conf")


def own_address(host):
    return host.run("hostname --ip-address").stdout.split()[0]


LIE = "X-Forwarded-For: 203.0.113.66"


@pytest.mark.parametrize("lie", [(), (LIE,)])
def test_only_a_proxy_that_is_trusted_says_who_visits(host, proxied, lie):
    """Of the list that comes in, only what the proxy has added counts; one that nobody trusts is a visitor itself."""
    trusted = host.ansible.get_variables()["inventory_hostname"] == "fh-trixie"
    visitor, other = ("127.0.0.5", own_address(host)) if trusted else (own_address(host), "127.0.0.5")
    said = proxied(*lie)
    assert f'"X-Forwarded-For":"{visitor}"' in said
    assert other not in said
    assert "203.0.113.66" not in said
