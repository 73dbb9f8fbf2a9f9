"""What is spoken: HTTP/2 everywhere, HTTP/3 where the inventory asks for it, and TLS 1.3 alone by the modern policy."""

import ssl

import pytest
from fleet import play

pytestmark = pytest.mark.usefixtures("corrected")


def spoken(ca, web, *options):
    """The version of HTTP that a visitor from another host gets; empty where there is no answer."""
    command = (
        f"curl --silent --insecure --max-time 10 --output /dev/null --write-out %{{http_version}} {' '.join(options)}"
    )
    answer = ca.run(f"{command} --resolve shop.test:443:{web.address} https://shop.test/")
    return answer.stdout.strip() if answer.rc == 0 else ""


def handshake(web, version):
    """The version of TLS that is agreed on when a client offers no other one; empty where there is none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    try:
        with web.visitor.handshake("shop.test", context) as connection:
            return connection.version()
    except (ssl.SSLError, ConnectionError):
        return ""


def test_http_2_is_spoken_everywhere(ca, webs):
    for web in webs:
        assert spoken(ca, web, "--http2") == "2", web.name


def test_http_3_is_spoken_where_it_is_asked_for(ca, bookworm, trixie):
    """From another host, so that the firewall has a say in it."""
    assert spoken(ca, trixie, "--http3-only") == "3"
    assert "h3=" in trixie.visitor.ask("https://shop.test/").headers["alt-svc"]
    assert spoken(ca, bookworm, "--http3-only") == ""
    assert "alt-svc" not in bookworm.visitor.ask("https://shop.test/").headers


def test_modern_policy_is_tls_1_3_alone(webs):
    web = webs[0]
    assert handshake(web, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    status, output = play(limit=web.name, tls_policy="modern")
    assert status == 0, output
    assert handshake(web, ssl.TLSVersion.TLSv1_2) == ""
    assert handshake(web, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
