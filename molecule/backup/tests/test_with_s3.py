"""A new server takes the place of a lost one from a store that speaks S3."""

from __future__ import annotations

from backups import backup, name_of, play, served, settled, version_of
from lost_host import came_back, lose, upload_came_back
from test_second import S3

# After the other tests of this host, which is emptied first, and of the host that is lost.
testinfra_hosts = ["ansible://fh-backup-fresh"]
LOST = "fh-backup-trixie"
#: Makes the host forget all data, as a server on which site.yml is run for the first time.
EMPTIED = """
systemctl stop 'flaskhost-backup-*.timer' 'flaskhost-backup@*.service'
pg_lsclusters --no-header | while read version name _rest; do pg_dropcluster --stop $version $name; done
rm -r /var/backups/flaskhost /var/lib/flaskhost/backup /srv/guestbook/data/*
"""


def test_a_new_server_takes_the_place_of_a_lost_one_from_s3(host, visitor, capsys):
    host.run(EMPTIED)
    assert host.run("pg_lsclusters --no-header").stdout == ""
    writer, died = lose(LOST)
    given = {**S3, "store_folder": LOST, "postgres_version": version_of(host)}
    play("site", name_of(host), "--tags=postgres,backup", **given)
    settled(host)
    of_the_lost = {"from": "second", "of": LOST}
    play("restore", name_of(host), **given, **of_the_lost, confirm=name_of(host))
    came_back(host, LOST, writer, died, capsys)
    play("restore", name_of(host), **given, **of_the_lost, app="guestbook", what="files", confirm="guestbook")
    upload_came_back(host)
    served(visitor)
    settled(host)
    backup(host, "check")
