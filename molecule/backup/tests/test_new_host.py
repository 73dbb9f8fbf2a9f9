"""A new server takes the place of a lost one, from the second repository and the vault alone."""

from __future__ import annotations

import subprocess
import time

import testinfra
from backups import INVENTORY, Writer, backup, name_of, now, play, rows, served, settled, sql

testinfra_hosts = ["ansible://fh-backup-fresh"]
LOST = "fh-backup-bookworm"
UPLOAD = "/srv/guestbook/data/upload"
#: What the guide promises for `second.every: 1`: commits of a minute and of PostgreSQL's 60 s can be lost, and what the
#: copy itself takes.
BOUND, COPY = 60 + 60, 30


def docker(verb: str) -> None:
    """Do something to the whole host that is lost."""
    subprocess.run(["docker", verb, LOST], check=True, capture_output=True, timeout=60)


def test_a_new_host_takes_the_place_of_a_lost_one(host, visitor, capsys):
    # It is only asked for what it has written to the second repository.
    lost = testinfra.get_host(f"ansible://{LOST}", ansible_inventory=str(INVENTORY), sudo=True)
    settled(lost)
    sql(lost, "DROP TABLE IF EXISTS kept; CREATE TABLE kept (a int); INSERT INTO kept VALUES (42)")
    lost.run(f"echo kept | install --owner=guestbook --group=guestbook --mode=640 /dev/stdin {UPLOAD}")
    play("backup", LOST, kind="full")
    writer = Writer(lost)
    time.sleep(BOUND + COPY + 45)
    died = now(lost)
    # No last backup, and no last copy.
    docker("kill")

    # From now on the new one has the lost one's repository.
    settled(host)
    play("site", name_of(host), "--tags=backup", store_folder=LOST)
    of_the_lost = {"from": "second", "of": LOST}
    play("restore", name_of(host), store_folder=LOST, **of_the_lost, confirm=name_of(host))
    assert sql(host, "SELECT a FROM kept") == "42"
    there = set(rows(host))
    docker("start")
    acknowledged = writer.numbers()
    owed = set(writer.numbers(died - BOUND - COPY))
    with capsys.disabled():
        lost_since = [number for number in acknowledged if number not in there]
        print(f"\n{len(acknowledged)} rows were safe, {len(owed)} are owed, {len(lost_since)} are lost")
    assert owed
    assert owed <= there
    play("restore", name_of(host), store_folder=LOST, **of_the_lost, app="guestbook", what="files", confirm="guestbook")
    file = host.file(UPLOAD)
    assert (file.content_string, file.user, file.mode) == ("kept\n", "guestbook", 0o640)
    served(visitor)

    # Sessions go on, too: the apps' keys are what they were.
    keys = "cat /etc/flaskhost/guestbook/*"
    assert host.run(keys).stdout != lost.run(keys).stdout
    backup(host, "restore-files", "--app=flaskhost", "--from=second", f"--of={LOST}", "--confirm=flaskhost")
    assert host.run(keys).stdout == lost.run(keys).stdout
    play("site", name_of(host), store_folder=LOST)
    served(visitor)
    owner = "psql guestbook --command='CREATE TABLE owned (a int)' --command='DROP TABLE owned'"
    assert "DROP TABLE" in play("run", name_of(host), app="guestbook", owner=True, command=owner, store_folder=LOST)
    settled(host)
    backup(host, "check")
