"""What is spoken: HTTP/2 everywhere, HTTP/3 where the inventory asks for it, and TLS 1.3 alone by the modern policy."""

import ssl

import pytest
from fleet import play
from http3 import ask_by_http3

pytestmark = pytest.mark.usefixtures("corrected")


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
        command = "curl --silent --insecure --max-time 10 --output /dev/null --write-out %{http_version} --http2"
        answer = ca.run(f"{command} --resolve shop.test:443:{web.address} https://shop.test/")
        assert (answer.rc, answer.stdout) == (0, "2"), web.name


def test_http_3_is_spoken_where_it_is_asked_for(bookworm, trixie):
    """By the host's own address, so that the firewall has a say in it, and after a reload.

    A worker that still finishes requests after a reload refuses new connections by HTTP/3 (nginx's issue 425), and the
    tests before have reloaded: so once all that were there have gone.
    """
    gone = "for worker in $workers; do while kill -0 $worker; do sleep 0.2; done; done 2> /dev/null"
    trixie.run(f"workers=$(pgrep --full '[n]ginx: worker'); systemctl reload nginx; {gone}", timeout=90)
    for _request in range(20):
        assert ask_by_http3(trixie.address, "shop.test").get(":status") == "200"
    assert "h3=" in trixie.visitor.ask("https://shop.test/").headers["alt-svc"]
    assert not ask_by_http3(bookworm.address, "shop.test")
    assert "alt-svc" not in bookworm.visitor.ask("https://shop.test/").headers


def test_modern_policy_is_tls_1_3_alone(bookworm, trixie):
    """On one host; the other one keeps the usual policy."""
    assert handshake(trixie, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    status, output = play(limit=bookworm.name, tls_policy="modern")
    assert status == 0, output
    assert handshake(bookworm, ssl.TLSVersion.TLSv1_2) == ""
    assert handshake(bookworm, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
