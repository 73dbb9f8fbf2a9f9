"""The drill: it finds what is damaged, and every run does its work in its sandbox."""

from __future__ import annotations

import re
import time
from typing import Any

from backups import backup, settled, sql, version_of

testinfra_hosts = ["ansible://fh-backup-bookworm", "ansible://fh-backup-trixie"]


def test_the_drill_finds_a_damaged_backup(host):
    settled(host)
    backup(host, "full")
    time.sleep(3)
    output = backup(host, "drill")
    assert "the same number of rows" in output
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


#: An index whose order is no longer that of its comparison: neither a checksum nor a count of rows shows it.
UNORDERED = """
CREATE FUNCTION drill_order(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT sign(a - b)::int';
CREATE OPERATOR CLASS drill_ops FOR TYPE int USING btree AS
  OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 drill_order(int, int);
CREATE TABLE drilled AS SELECT generate_series(1, 20000) AS a;
CREATE INDEX drilled_a ON drilled (a drill_ops);
ALTER TABLE drilled OWNER TO guestbook;
CREATE OR REPLACE FUNCTION drill_order(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT sign(b - a)::int';
"""
HEALED = """
DELETE FROM entry WHERE author = 'nobody we know';
DROP TABLE IF EXISTS drilled; DROP OPERATOR FAMILY IF EXISTS drill_ops USING btree CASCADE;
DROP FUNCTION IF EXISTS drill_order;
"""
#: A row more in what was counted when the newest backup was made.
ONE_MORE = """
import json, pathlib
record = max(pathlib.Path("/var/backups/flaskhost/records").glob("*F.json"))
found = json.loads(record.read_text())
found["databases"]["guestbook"]["public.entry"] += 1
record.write_text(json.dumps(found))
"""


def test_each_check_of_the_drill_finds_what_the_others_do_not(host):
    """Five damages in one backup: a row, an index, a page that holds no row, what the site says of itself, a file."""
    settled(host)
    sql(host, UNORDERED)
    sql(host, "INSERT INTO entry (author, message, created_at) VALUES ('nobody we know', 'x', now())")
    # The map of free space is made by VACUUM, and no query reads it.
    sql(host, "VACUUM drilled")
    sql(host, "CHECKPOINT")
    data = f"/var/lib/postgresql/{version_of(host)}/main"
    space = f"{data}/{sql(host, 'SELECT pg_relation_filepath($$drilled$$)')}_fsm"
    host.run_expect([0], f"printf XXXXXXXX | dd of={space} bs=1 seek=17000 conv=notrunc")
    pack = host.run("find /var/backups/flaskhost/files/data -type f | sort | head -1").stdout.strip()
    try:
        backup(host, "full", good=None)
        host.run_expect([0], f"mv {pack} /var/tmp/pack; python3 -c '{ONE_MORE}'")
        output = backup(host, "drill", good=False)
        assert re.search(r"public\.entry of guestbook has \d+ rows, and had \d+", output)
        assert "drilled_a" in output
        assert f'/{"/".join(space.split("/")[-3:])}"' in output
        assert "backup.assertions.guestbook says 'f', and not true" in output
        assert "The local repository of files" in output
    finally:
        host.run(f"test -e /var/tmp/pack && mv /var/tmp/pack {pack}")
        sql(host, HEALED)
    backup(host, "full")
    output = backup(host, "drill")
    assert "All is well" in output
    for line in ("the same number of rows", "pg_amcheck found no damage", "of your assertions are true", "checksum"):
        assert line in output


#: A table of a size that a worker of pgBackRest copies for some seconds.
BULKY = "CREATE TABLE bulky{} AS SELECT g, md5(g::text) || md5((g * 7)::text) AS t FROM generate_series(1, 1500000) g"


def killed(host: Any, folder: str) -> None:
    """Begin a full backup and kill its main process while pgBackRest's workers copy files: they go on for a while."""
    unit = "killed-backup.service"
    half = f'l=$(ls -d {folder}/*F | tail -1); ! [ -e $l/backup.manifest ] && [ -n "$(ls $l/pg_data/base/*/*.zst)" ]'
    loop = (
        f"for i in $(seq 3000); do if {half}; then systemctl kill --kill-whom=main -s KILL {unit}; exit 0; fi; "
        "sleep 0.02; done 2>/dev/null; exit 9"
    )
    start = f"systemd-run --quiet --collect --unit={unit} --property=KillMode=process flaskhost-backup full"
    done = host.run(f"{start} && ({loop})")
    assert done.rc == 0, done.stdout + done.stderr


def test_a_killed_backup_leaves_nothing_that_spoils_the_next_one(host):
    """The defect D6: workers of the killed backup wrote into the repeated one, which could not be restored."""
    settled(host)
    for number in (1, 2):
        sql(host, f"DROP TABLE IF EXISTS bulky{number}; {BULKY.format(number)}")
    folder = "/var/backups/flaskhost/postgres/backup/main"
    try:
        killed(host, folder)
        backup(host, "full")
        assert "is damaged" not in backup(host, "drill")
        assert host.run("ps -u postgres -o args= | grep 'backup:[l]ocal'").stdout == ""
        # Of one of an earlier version that was spoilt, the drill says how to get rid of it; that is what it prints.
        newest = host.run(f"ls -d {folder}/*F | tail -1").stdout.strip()
        spoil = f"$(ls -S {newest}/pg_data/base/*/*.zst | head -1)"
        host.run(f"printf XXXXXXXX | dd of={spoil} bs=1 seek=100000 conv=notrunc")
        output = backup(host, "drill", good=False)
        assert "is damaged (checksum invalid: 1) and cannot be restored" in output
        cure = re.search(r"delete this one: (sudo flaskhost-backup full; sudo flaskhost-backup forget \S+)", output)[1]
        done = host.run(cure)
        assert done.rc == 0, done.stderr
        assert "All is well" in backup(host, "drill")
        backup(host, "copy")
        assert "All is well" in backup(host, "drill", "--from second")
    finally:
        sql(host, "DROP TABLE bulky1; DROP TABLE bulky2")


def test_a_killed_copy_keeps_no_later_run_from_its_work(host):
    """restic leaves its lock, at which the next full backup and the drill failed until somebody unlocked by hand."""
    settled(host)
    locks, bulk = "/var/backups/flaskhost/files/locks", "/etc/flaskhost/bulk"
    host.run(f"systemctl stop flaskhost-backup-copy.timer; head -c 100M /dev/urandom > {bulk}")
    try:
        start = "systemd-run --quiet --collect --unit=killed-copy flaskhost-backup files"
        loop = f'for i in $(seq 1000); do [ -n "$(ls {locks})" ] && break; sleep 0.02; done'
        host.run(f"{start}; {loop}; systemctl kill -s KILL killed-copy.service; sleep 0.2; rm {bulk}")
        assert host.run(f"ls {locks}").stdout, "it was killed in time"
        backup(host, "full")
        assert "is intact" in backup(host, "drill")
    finally:
        host.run(f"rm -f {bulk}; systemctl start flaskhost-backup-copy.timer")


def test_the_wrong_passphrase_is_named(host):
    settled(host)
    conf = "/etc/pgbackrest/pgbackrest.conf"
    host.run(f"cp -p {conf} /var/tmp/conf; sed -i 's/^repo1-cipher-pass=.*/repo1-cipher-pass=another/' {conf}")
    output = backup(host, "drill", good=False)
    host.run(f"cp -p /var/tmp/conf {conf}")
    assert "backup.passphrase is not the passphrase of" in output


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
