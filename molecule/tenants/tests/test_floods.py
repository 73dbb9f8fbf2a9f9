"""What one visitor, or one app, can fill: the web server's disk, and the journal."""

from __future__ import annotations

import contextlib
import ssl
import time
import uuid
from typing import Any

from tenants import APPS, attack, hosts

testinfra_hosts = hosts("trixie")

#: MB. The largest body that an app takes by default, and how many of one address nginx keeps at a time.
BODY, UPLOADS = APPS["alice"].get("limits", {}).get("body", 16), 8


def upload(visitor: Any, megabytes: int) -> ssl.SSLSocket:
    """Begin an upload of the largest body that is allowed, send the first of it, and wait."""
    connection = visitor.handshake("alice.test")
    head = f"POST /upload HTTP/1.1\r\nHost: alice.test\r\nContent-Length: {BODY << 20}\r\n\r\n"
    connection.sendall(head.encode())
    with contextlib.suppress(OSError):  # refused, and closed
        connection.sendall(b"x" * (megabytes << 20))
    return connection


def test_one_address_fills_no_more_of_the_disk_than_is_said(host: Any, visitor: Any) -> None:
    assert visitor.ask("https://alice.test/").status == 200
    connections: list[ssl.SSLSocket] = []
    try:
        connections += [upload(visitor, 1) for _ in range(30)]
        time.sleep(1)
        files = host.check_output("find /var/lib/nginx/body -type f | wc -l")
        size = int(host.check_output("du -sm /var/lib/nginx/body").split()[0])
        # nginx unlinks a file while it is written or not: what it holds open counts too.
        held = host.check_output("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c /var/lib/nginx/body || true")
        assert 1 <= max(int(files), int(held)) <= UPLOADS, "uploads are kept, and not more than so many"
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
