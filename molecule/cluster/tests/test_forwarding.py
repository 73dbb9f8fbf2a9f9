"""Visitors reach the apps through the web host, and nobody else reaches the app hosts' nginx."""

from __future__ import annotations

import json
import subprocess

import pytest
from cluster import FIRST, SECOND, WEB, WEB2, address, connect, play

testinfra_hosts = [f"ansible://{WEB}"]


def test_both_app_hosts_answer_visitors(visitor):
    before = {
        name: int(connect(name).check_output("wc --lines < /var/log/nginx/hello.access.log"))
        for name in (FIRST, SECOND)
    }
    for _number in range(20):
        assert visitor.ask("https://hello.test/whoami").status == 200
    for name, lines in before.items():
        now = int(connect(name).check_output("wc --lines < /var/log/nginx/hello.access.log"))
        assert now - lines >= 5, name
    assert visitor.ask("https://guestbook.test/readyz").status == 200, "with its rows on the database host"


def test_the_app_sees_the_visitor_and_nothing_that_a_visitor_forged(host, visitor):
    forged = {
        "X-Forwarded-For": "192.0.2.66",
        "X-Real-IP": "192.0.2.66",
        "X-Request-ID": "forged",
        "Forwarded": "for=x",
    }
    seen = visitor.ask("https://hello.test/headers", headers={**forged, "X-Flaskhost-Static": "1"}).json
    log = json.loads(host.check_output("tail --lines=1 /var/log/nginx/hello.access.log"))
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert headers["x-forwarded-for"] == headers["x-real-ip"] == log["remote_addr"]
    assert log["remote_addr"] not in ("192.0.2.66", address(WEB))
    assert headers["x-request-id"] == log["request_id"] != "forged"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == "hello.test"
    assert "forwarded" not in headers
    assert "x-flaskhost-static" not in headers
    assert log["release"] == visitor.ask("https://hello.test/whoami").json["release"]


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_only_the_web_host_reaches_an_app_host(host, name):
    place = f"https://{address(name)}:7443/whoami"
    identity = "--cert /etc/flaskhost/identity/own.crt --key /etc/flaskhost/identity/own.key"
    options = "--silent --insecure --max-time 8 --output /dev/null --write-out '%{http_code}' -H 'Host: hello.test'"
    ask = f"curl {options} {place}"
    assert host.run(f"{ask} {identity}").stdout == "200", "the positive control"
    assert host.run(ask).stdout == "400", "without a certificate"
    # The other app host is no web host: the firewall drops its packets.
    other = connect(SECOND if name == FIRST else FIRST)
    assert other.run(f"{ask} {identity}").rc == 28
    outside = subprocess.run(
        ["timeout", "4", "bash", "-c", f"exec 3<>/dev/tcp/{address(name)}/7443"], capture_output=True, check=False
    )
    assert outside.returncode == 124, "dropped, not answered"
    listening = connect(name).check_output("ss --no-header --listening --tcp --numeric").split()
    assert not [item for item in listening if item.endswith((":80", ":443"))]


def test_the_keys_stay_on_their_hosts():
    digests = {
        name: connect(name).check_output("sha256sum < /etc/flaskhost/identity/own.key")
        for name in (WEB, WEB2, FIRST, SECOND)
    }
    assert len(set(digests.values())) == 4
    for name in digests:
        folder = connect(name).file("/etc/flaskhost/identity")
        assert (folder.user, folder.mode) == ("root", 0o700)


def test_only_a_host_that_forwards_gives_up_lost_connections_sooner(host):
    assert host.sysctl("net.ipv4.tcp_retries2") == 5
    assert connect(FIRST).sysctl("net.ipv4.tcp_retries2") > 5


def test_static_files_are_those_of_the_app_hosts(visitor):
    page = visitor.ask("https://guestbook.test/static/style.css")
    assert page.status == 200
    assert "text/css" in page.headers["content-type"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert visitor.ask("https://guestbook.test/static/none.css").status == 404


def test_the_maintenance_page_is_shown_by_the_web_host(visitor):
    play("maintenance", app="hello", maintenance="on")
    try:
        assert visitor.ask("https://hello.test/whoami").status == 503
        assert visitor.ask("https://guestbook.test/readyz").status == 200
    finally:
        play("maintenance", app="hello", maintenance="off")
    assert visitor.ask("https://hello.test/whoami").status == 200
