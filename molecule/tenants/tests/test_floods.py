"""What one visitor, or one app, can fill: the web server's disk, and the journal."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
import uuid
from collections.abc import Iterator
from typing import Any

from http2 import Client
from tenants import APPS, attack, hosts

testinfra_hosts = hosts("trixie")

#: MB. The largest body that an app takes by default, and how many of one address nginx keeps at a time.
BODY, UPLOADS = APPS["alice"].get("limits", {}).get("body", 16), 8


METHODS = ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT"]


def upload(visitor: Any, megabytes: int) -> ssl.SSLSocket:
    """Begin an upload of the largest body that is allowed, send the first of it, and wait."""
    connection = visitor.handshake("alice.test")
    head = f"POST /upload HTTP/1.1\r\nHost: alice.test\r\nContent-Length: {BODY << 20}\r\n\r\n"
    connection.sendall(head.encode())
    with contextlib.suppress(OSError):  # refused, and closed
        connection.sendall(b"x" * (megabytes << 20))
    return connection


def kept(host: Any) -> int:
    """How many bodies nginx keeps on the disk: files, or those that it has open and has unlinked already."""
    files = host.check_output("find /var/lib/nginx/body -type f | wc -l")
    held = host.check_output("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c /var/lib/nginx/body || true")
    return max(int(files), int(held))


@contextlib.contextmanager
def http2(visitor: Any) -> Iterator[Client]:
    client = Client(visitor, "alice.test")
    try:
        yield client
    finally:
        client.connection.close()


def test_one_address_fills_no_more_of_the_disk_than_is_said(host: Any, visitor: Any) -> None:
    assert visitor.ask("https://alice.test/").status == 200
    connections: list[ssl.SSLSocket] = []
    try:
        connections += [upload(visitor, 1) for _ in range(30)]
        time.sleep(1)
        size = int(host.check_output("du -sm /var/lib/nginx/body").split()[0])
        assert 1 <= kept(host) <= UPLOADS, "uploads are kept, and not more than so many"
        assert size <= UPLOADS * BODY
        answers = []
        for connection in connections:
            connection.settimeout(0.2)
            try:
                answers.append(connection.recv(12))
            except (TimeoutError, OSError):
                answers.append(b"")
        assert answers.count(b"HTTP/1.1 429") >= 30 - UPLOADS - 5, answers
        assert visitor.ask("https://alice.test/").status == 200, "pages go on being served to the same address"
        form = visitor.ask("https://mallory.test/run", "POST", body="print('small')")
        assert form.body.strip() == "small", "and small bodies taken"
    finally:
        for connection in connections:
            connection.close()


def test_bodies_of_undeclared_length_are_bounded_as_well(host: Any, visitor: Any) -> None:
    """Over HTTP/2 a body needs no length, and nginx cannot tell by its head whether a request has one."""
    requests = [(method, "/") for method in METHODS] + [("GET", "/static/none"), ("HEAD", "/static/none")]
    with http2(visitor) as client:
        for method, path in requests * 10:
            client.body(client.request(method, path), 60_000)
        client.read(1.5)
        assert kept(host) <= UPLOADS
        assert set(client.answers.values()) <= {413, 429}, "those that are not kept are refused"
        assert len(client.answers) >= 10 * len(requests) - UPLOADS
        page = client.request("GET", "/", ends=True)
        client.read(1.5)
        assert client.answers[page] == 200, "pages go on being served over the same connection"


def test_bodies_in_chunks_are_bounded_as_well(host: Any, visitor: Any) -> None:
    connections: list[ssl.SSLSocket] = []
    try:
        for method in METHODS * 10:
            connections.append(visitor.handshake("alice.test"))
            head = f"{method} / HTTP/1.1\r\nHost: alice.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            with contextlib.suppress(OSError):  # refused, and closed
                connections[-1].sendall(head.encode() + b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        time.sleep(1)
        assert kept(host) <= UPLOADS
    finally:
        for connection in connections:
            connection.close()


def test_a_small_body_passes_whatever_the_method(host: Any, visitor: Any) -> None:
    with http2(visitor) as client:
        undeclared, declared = (
            client.request("GET", "/headers"),
            client.request("GET", "/headers", {"content-length": "60000"}),
        )
        client.body(undeclared, 8000, ends=True)
        client.body(declared, 60_000, ends=True)
        client.read(1.5)
        assert (client.answers[undeclared], client.answers[declared]) == (200, 200), client.answers
        assert json.loads(client.bodies[undeclared])["headers"]["Content-Length"] == "8000"
        assert json.loads(client.bodies[declared])["headers"]["Content-Length"] == "60000"


def test_an_app_that_floods_its_log_loses_its_own_lines(host: Any, visitor: Any) -> None:
    marker = uuid.uuid4().hex
    host.run_test("systemd-cat --identifier=innocent echo %s", f"{marker}-innocent")
    began = host.check_output("date +@%s")
    # Aside from the request. journald says how much it has dropped with the first line after the 30 s.
    attack(
        visitor,
        f"""
        import os, time
        if not os.fork():
            for number in range(30000):
                os.write(2, b"{marker}-flood %d\\n" % number)
            time.sleep(31)
            os.write(2, b"{marker}-end\\n")
            os._exit(0)
        """,
    )
    told = ""
    for _ in range(30):
        time.sleep(3)
        host.run_test("journalctl --namespace=flask-mallory --sync")
        told = host.check_output(f"journalctl --namespace=flask-mallory --since {began} --output=cat")
        if f"{marker}-end" in told:
            break
    assert f"{marker}-end" in told, "the flood came to its end"
    # journald takes 1000 lines in 30 s, times up to six by the disk's free room.
    kept = told.count(f"{marker}-flood")
    assert 100 < kept < 13_000, kept
    assert "Suppressed " in told
    assert "messages from flask-mallory" in told
    assert host.run(f"journalctl --identifier=innocent --output=cat | grep {marker}-innocent").rc == 0
