"""What was acknowledged comes back: after a kill, a lost data folder, to a time, and one app without the other."""

from __future__ import annotations

import time

import pytest
from backups import APPS, Writer, backup, kill, name_of, now, play, rows, served, settled, sql, utc, version_of

testinfra_hosts = ["ansible://fh-backup-bookworm", "ansible://fh-backup-trixie"]
#: Seconds after which PostgreSQL hands over a segment that is not full: what may be lost with the data folder.
ARCHIVE_TIMEOUT = 60


@pytest.mark.parametrize("round_", [1, 2])
def test_rows_come_back_when_the_data_folder_is_gone(host, visitor, round_):
    settled(host)
    writer = Writer(host)
    time.sleep(3)
    backup(host, "full")
    time.sleep(5)
    middle = now(host)
    time.sleep(5)
    sql(host, "SELECT pg_switch_wal()")
    time.sleep(5)
    safe = now(host) - 5
    kill(host, remove=True)
    writer.stop()
    acknowledged = writer.numbers()
    assert len(acknowledged) > 200

    output = play("restore", name_of(host), confirm=name_of(host))
    there = rows(host)
    assert there == acknowledged[: len(there)], "no hole, and nothing that was never written"
    assert set(writer.numbers(safe - ARCHIVE_TIMEOUT)) <= set(there)
    assert set(writer.numbers(middle)) <= set(there), "its segment was handed over before the kill"
    assert "Its last commit is from" in output
    served(visitor)

    output = play("restore", name_of(host), confirm=name_of(host), to=utc(middle))
    there = rows(host)
    assert there == acknowledged[: len(there)]
    # The number that was on its way at that very moment may be on either side of it.
    assert abs(len(there) - len(writer.numbers(middle))) <= 1
    assert f"/var/lib/postgresql/{version_of(host)}/main.before-" in output
    served(visitor)


def test_nothing_committed_is_lost_while_the_log_is_there(host):
    settled(host)
    writer = Writer(host)
    time.sleep(5)
    kill(host)
    writer.stop()
    acknowledged = writer.numbers()
    play("restore", name_of(host), confirm=name_of(host))
    assert set(acknowledged) <= set(rows(host))
    # One that was committed and not acknowledged any more may be there too.
    assert len(rows(host)) <= len(acknowledged) + 1


def test_losing_power_loses_no_commit(host):
    writer = Writer(host)
    time.sleep(5)
    kill(host)
    writer.stop()
    host.run_expect([0], f"systemctl start postgresql@{version_of(host)}-main.service")
    assert set(writer.numbers()) <= set(rows(host))


def test_one_app_goes_back_and_the_other_stays(host, visitor):
    settled(host)
    sql(host, "CREATE TABLE IF NOT EXISTS kept (a int); DELETE FROM kept; INSERT INTO kept VALUES (1)", "ledger")
    backup(host, "full")
    time.sleep(2)
    before = now(host)
    time.sleep(2)
    insert = "INSERT INTO entry (author, message, created_at) SELECT 'x', 'y', now() FROM generate_series(1, 3)"
    sql(host, insert)
    sql(host, "INSERT INTO kept VALUES (2)", "ledger")
    count = sql(host, "SELECT count(*) FROM kept", "ledger")
    play("restore", name_of(host), app="guestbook", confirm="guestbook", to=utc(before))
    assert sql(host, "SELECT count(*) FROM entry WHERE author = 'x' AND message = 'y'") == "0"
    assert sql(host, "SELECT count(*) FROM kept", "ledger") == count
    served(visitor)


def test_a_restore_wants_to_be_confirmed(host):
    output = play("restore", name_of(host), good=False)
    assert f"-e confirm={name_of(host)}" in output
    assert host.run("systemctl is-active 'postgresql@*'").stdout.strip() == "active"


def test_a_look_beside_leaves_the_real_one_alone(host, visitor):
    before = sql(host, "SELECT pg_postmaster_start_time()")
    output = play("restore", name_of(host), beside=True)
    look = output.partition("Look at it: sudo -u postgres ")[2].partition(" DATABASE")[0]
    assert host.run(f"cd / && runuser -u postgres -- {look} guestbook -Atc 'TABLE entry'").rc == 0
    assert host.run("runuser -u guestbook -- ls /var/lib/flaskhost/backup/beside").rc != 0
    assert sql(host, "SELECT pg_postmaster_start_time()") == before
    served(visitor)
    backup(host, "remove")
    assert not host.file("/var/lib/flaskhost/backup/beside").exists


def test_a_time_before_the_first_backup_is_refused_and_nothing_is_stopped(host, visitor):
    before = sql(host, "SELECT pg_postmaster_start_time()")
    output = play("restore", name_of(host), confirm=name_of(host), to="2026-01-01T00:00:00", good=False)
    assert "There is no backup from before" in output
    assert sql(host, "SELECT pg_postmaster_start_time()") == before
    served(visitor)


def test_a_migration_is_undone_and_the_release_before_it_serves_again(host, visitor):
    """The deploy notes a point in the log right before its release command."""
    settled(host)
    backup(host, "full")
    served_before = host.run("readlink /srv/guestbook/current").stdout.strip()
    sql(host, "DELETE FROM entry; INSERT INTO entry (author, message, created_at) VALUES ('a', 'before', now())")
    harmful = "sh -c 'psql guestbook --command=\"DELETE FROM entry\"'"
    apps = {**APPS, "guestbook": {**APPS["guestbook"], "release_command": harmful, "env": {"WITH": "it"}}}
    play("deploy", name_of(host), app="guestbook", flask_apps=apps)
    release = host.run("readlink /srv/guestbook/current").stdout.strip()
    assert release != served_before
    assert sql(host, "SELECT count(*) FROM entry") == "0"
    play("restore", name_of(host), app="guestbook", confirm="guestbook", release=release.rpartition("/")[2])
    assert sql(host, "SELECT message FROM entry") == "before"
    assert host.run("readlink /srv/guestbook/current").stdout.strip() == served_before
    served(visitor)
