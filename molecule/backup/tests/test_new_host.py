"""A new server takes the place of a lost one, from the second repository and the vault alone."""

from __future__ import annotations

import testinfra
from backups import INVENTORY, backup, name_of, play, served, settled, sql

testinfra_hosts = ["ansible://fh-backup-fresh"]
LOST = "fh-backup-bookworm"
UPLOAD = "/srv/guestbook/data/upload"


def test_a_new_host_takes_the_place_of_a_lost_one(host, visitor):
    # It is only asked for what it has written to the second repository.
    lost = testinfra.get_host(f"ansible://{LOST}", ansible_inventory=str(INVENTORY), sudo=True)
    settled(lost)
    sql(lost, "DROP TABLE IF EXISTS kept; CREATE TABLE kept (a int); INSERT INTO kept VALUES (42)")
    lost.run(f"echo kept | install --owner=guestbook --group=guestbook --mode=640 /dev/stdin {UPLOAD}")
    play("backup", LOST, kind="full")

    # From now on the new one has the lost one's repository.
    settled(host)
    play("site", name_of(host), "--tags=backup", store_folder=LOST)
    of_the_lost = {"from": "second", "of": LOST}
    play("restore", name_of(host), store_folder=LOST, **of_the_lost, confirm=name_of(host))
    assert sql(host, "SELECT a FROM kept") == "42"
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
