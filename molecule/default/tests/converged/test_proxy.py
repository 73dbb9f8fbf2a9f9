"""A real proxy in front of fh-bookworm, which trusts it: another nginx, on the other host."""

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
def test_visitor_behind_a_trusted_proxy_has_an_address_of_its_own(host, proxied, lie):
    """And not the one that it claims: of the list that comes in, only what the proxy has added counts."""
    if host.ansible.get_variables()["inventory_hostname"] != "fh-trixie":
        pytest.skip("the proxy that is trusted is on the other host")
    said = proxied(*lie)
    assert '"X-Forwarded-For":"127.0.0.5"' in said
    assert own_address(host) not in said
    assert "203.0.113.66" not in said


def test_proxy_that_is_not_trusted_is_a_visitor_like_any_other(host, proxied):
    if host.ansible.get_variables()["inventory_hostname"] != "fh-bookworm":
        pytest.skip("fh-bookworm trusts the other host")
    said = proxied(LIE)
    assert f'"X-Forwarded-For":"{own_address(host)}"' in said
    assert "203.0.113.66" not in said
    assert "127.0.0.5" not in said
