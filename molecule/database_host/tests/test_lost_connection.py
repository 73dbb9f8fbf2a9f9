"""The app's host loses its way to the database's: visitors hear of it soon, nothing is lost, and it heals by itself."""

from __future__ import annotations

import time
from typing import Any

from hosts import DATABASE, database, sql

testinfra_hosts = ["ansible://fh-database-app"]
#: What the packets to the database's host get into.
TABLE = "flaskhost-test-lost"


def ask(visitor: Any) -> tuple[int, float]:
    """The status of the health path, and the seconds that the answer took."""
    began = time.monotonic()
    return visitor.ask("https://guestbook.test/readyz", timeout=60).status, round(time.monotonic() - began, 1)


def test_lost_connection_to_the_database_host(host, visitor, capsys):
    """The packets are swallowed, as by a cable that is out or a firewall between: nobody refuses anything."""
    assert ask(visitor)[0] == 200
    kept = "INSERT INTO entry (author, message, created_at) VALUES ('x', 'before the cut', now())"
    sql(kept)
    address = host.check_output("getent ahostsv4 %s", DATABASE).split()[0]
    rules = f"add table inet {TABLE}; add chain inet {TABLE} out {{ type filter hook output priority -10; }}"
    assert host.run(f"nft '{rules}; add rule inet {TABLE} out ip daddr {address} tcp dport 5432 drop'").rc == 0
    try:
        during = [ask(visitor) for _number in range(4)]
    finally:
        host.run(f"nft delete table inet {TABLE}")
    with capsys.disabled():
        print(f"\nwithout the database's host: {during} (status, seconds)")
    # Nginx would answer 504 after 35 seconds. The app has given up before.
    assert {status for status, _seconds in during} == {503}, during
    end = time.monotonic() + 60
    while (answer := ask(visitor))[0] != 200:
        assert time.monotonic() < end, answer
    assert sql("SELECT count(*) FROM entry WHERE message = 'before the cut'") == "1"
    assert database().run("systemctl is-active 'postgresql@*'").stdout.strip() == "active"
