"""The drill: it finds what is damaged, and every run does its work in its sandbox."""

from __future__ import annotations

import re
import time

from backups import backup, settled

testinfra_hosts = ["ansible://fh-backup-bookworm", "ansible://fh-backup-trixie"]


def test_the_drill_finds_a_damaged_backup(host):
    settled(host)
    backup(host, "full")
    time.sleep(3)
    output = backup(host, "drill")
    assert "row by row as counted" in output
    assert "A restore to now recovers." in output
    assert re.search(r"A restore to 20\S+ \S+ UTC recovers\.", output)
    folder = "/var/backups/flaskhost/postgres/backup/main"
    newest = host.run(f"ls -td {folder}/*F | head -1").stdout.strip()
    file = host.run(f"find {newest}/bundle -type f | head -1").stdout.strip()
    host.run(f"cp -p {file} /var/tmp/whole")
    host.run(f"printf XXXXXXXX | dd of={file} bs=1 seek=100000 conv=notrunc")
    try:
        output = backup(host, "drill", good=False)
        assert "is damaged" in output
        host.run("systemctl start flaskhost-backup@drill")
        assert host.run("systemctl is-failed flaskhost-backup@drill").stdout.strip() == "failed"
    finally:
        host.run(f"cp -p /var/tmp/whole {file}")
    assert "All is well" in backup(host, "drill")


def test_the_wrong_passphrase_is_named(host):
    settled(host)
    conf = "/etc/pgbackrest/pgbackrest.conf"
    host.run(f"cp -p {conf} /var/tmp/conf; sed -i 's/^repo1-cipher-pass=.*/repo1-cipher-pass=another/' {conf}")
    output = backup(host, "drill", good=False)
    host.run(f"cp -p /var/tmp/conf {conf}")
    assert "The passphrase does not open" in output


def test_the_sandbox_lets_every_run_do_its_work(host):
    settled(host)
    for verb in ("full", "diff", "files", "copy", "drill", "check"):
        done = host.run(f"systemctl start flaskhost-backup@{verb}.service")
        assert done.rc == 0, host.run(f"journalctl --no-pager -n 40 -u flaskhost-backup@{verb}").stdout


def test_a_second_repository_that_cannot_be_reached_keeps_nothing_else_from_being_done(host):
    settled(host)
    before = host.run("flaskhost-backup list").stdout.count(" full ")
    host.run("cp /etc/hosts /var/tmp/hosts; echo '127.0.0.9 fh-backup-store' | cat - /var/tmp/hosts > /etc/hosts")
    try:
        output = backup(host, "full", good=False)
    finally:
        host.run("cat /var/tmp/hosts > /etc/hosts")
    assert "cannot be reached" in output
    assert host.run("flaskhost-backup list").stdout.count(" full ") == before + 1
    backup(host, "full")
