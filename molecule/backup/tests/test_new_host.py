"""A new server takes the place of a lost one, from the second repository and the vault alone."""

from __future__ import annotations

from backups import backup, name_of, play, served, settled
from lost_host import came_back, lose, there, upload_came_back

testinfra_hosts = ["ansible://fh-backup-fresh"]
LOST = "fh-backup-bookworm"


def test_a_new_host_takes_the_place_of_a_lost_one(host, visitor, capsys):
    writer, died = lose(LOST)

    # From now on the new one has the lost one's repository.
    settled(host)
    play("site", name_of(host), "--tags=backup", store_folder=LOST)
    of_the_lost = {"from": "second", "of": LOST}
    play("restore", name_of(host), store_folder=LOST, **of_the_lost, confirm=name_of(host))
    came_back(host, LOST, writer, died, capsys)
    play("restore", name_of(host), store_folder=LOST, **of_the_lost, app="guestbook", what="files", confirm="guestbook")
    upload_came_back(host)
    served(visitor)

    # Sessions go on, too: the apps' keys are what they were.
    keys, lost = "cat /etc/flaskhost/guestbook/*", there(LOST)
    assert host.run(keys).stdout != lost.run(keys).stdout
    backup(host, "restore-files", "--app=flaskhost", "--from=second", f"--of={LOST}", "--confirm=flaskhost")
    assert host.run(keys).stdout == lost.run(keys).stdout
    play("site", name_of(host), store_folder=LOST)
    served(visitor)
    owner = "psql guestbook --command='CREATE TABLE owned (a int)' --command='DROP TABLE owned'"
    assert "DROP TABLE" in play("run", name_of(host), app="guestbook", owner=True, command=owner, store_folder=LOST)
    settled(host)
    backup(host, "check")
