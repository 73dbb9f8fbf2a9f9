"""A host that is lost with all that is on it, and what another one must have of it when it has taken its place."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import testinfra
from backups import INVENTORY, Writer, now, play, rows, settled, sql

UPLOAD = "/srv/guestbook/data/upload"
#: What the guide promises for `second.every: 1`: commits of a minute and of PostgreSQL's 60 s can be lost, and what the
#: copy itself takes.
BOUND, COPY = 60 + 60, 30


def there(name: str) -> Any:
    """A host that a test is not about."""
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY), sudo=True)


def docker(verb: str, name: str) -> None:
    """Do something to a whole host."""
    subprocess.run(["docker", verb, name], check=True, capture_output=True, timeout=60)


def start(name: str) -> None:
    """Start a host, and wait until it can be reached."""
    docker("start", name)
    for _second in range(60):
        try:
            there(name).run("true")
            return
        except RuntimeError:
            time.sleep(1)
    raise AssertionError(f"{name} cannot be reached a minute after its start")


def lose(name: str) -> tuple[Writer, float]:
    """Kill a host while it is written to, without a last backup or a last copy.

    Returns:
        The writer, and when the host was killed.
    """
    lost = there(name)
    settled(lost)
    sql(lost, "DROP TABLE IF EXISTS kept; CREATE TABLE kept (a int); INSERT INTO kept VALUES (42)")
    lost.run(f"echo kept | install --owner=guestbook --group=guestbook --mode=640 /dev/stdin {UPLOAD}")
    play("backup", name, kind="full")
    writer = Writer(lost)
    time.sleep(BOUND + COPY + 45)
    died = now(lost)
    docker("kill", name)
    return writer, died


def came_back(host: Any, name: str, writer: Writer, died: float, capsys: Any) -> None:
    """See that a host has the rows of the lost one, which is started again: only to be asked what it had noted."""
    assert sql(host, "SELECT a FROM kept") == "42"
    restored = set(rows(host))
    start(name)
    acknowledged, owed = writer.numbers(), set(writer.numbers(died - BOUND - COPY))
    with capsys.disabled():
        lost = [number for number in acknowledged if number not in restored]
        print(f"\n{len(acknowledged)} rows were safe, {len(owed)} are owed, {len(lost)} are lost")
    assert owed
    assert owed <= restored


def upload_came_back(host: Any) -> None:
    """See that a host has the upload of the lost one."""
    file = host.file(UPLOAD)
    assert (file.content_string, file.user, file.mode) == ("kept\n", "guestbook", 0o640)
