"""PostgreSQL's data moves to another major version, with a backup before and after it, and back again."""

from __future__ import annotations

from backups import backup, name_of, play, served, settled, sql

# After test_new_host.py, which it finds the other version on.
testinfra_hosts = ["ansible://fh-backup-fresh"]
VERSION = "SHOW server_version_num"


def test_data_of_another_version_stops_the_run_before_anything_is_touched(host, visitor):
    before = host.run("cat /etc/pgbackrest/pgbackrest.conf; ls /usr/lib/postgresql").stdout
    output = play("site", name_of(host), good=False, postgres_version="17")
    assert "playbooks/upgrade_postgres.yml" in output
    assert host.run("cat /etc/pgbackrest/pgbackrest.conf; ls /usr/lib/postgresql").stdout == before
    served(visitor)


def test_an_upgrade_wants_to_be_confirmed(host):
    assert "-e confirm=upgrade" in play("upgrade_postgres", name_of(host), good=False, postgres_version="17")
    assert sql(host, VERSION).startswith("15")


def test_the_data_moves_with_backups_before_and_after(host, visitor):
    settled(host)
    sql(host, "DROP TABLE IF EXISTS moved; CREATE TABLE moved (a int); INSERT INTO moved VALUES (7)")
    backups = host.run("flaskhost-backup list").stdout.count("full")
    play("upgrade_postgres", name_of(host), postgres_version="17", confirm="upgrade")
    assert sql(host, VERSION).startswith("17")
    assert sql(host, "SELECT a FROM moved") == "7"
    assert sql(host, "SHOW data_checksums") == "on"
    served(visitor)
    settled(host)
    assert host.run("flaskhost-backup list").stdout.count("full") >= backups + 2
    play("site", name_of(host), postgres_version="17")
    served(visitor)
    assert "the same number of rows" in backup(host, "drill")
    backup(host, "check")


def test_there_is_a_way_back(host, visitor):
    play("upgrade_postgres", name_of(host), postgres_version="17", confirm="back")
    play("site", name_of(host), postgres_version="15")
    assert sql(host, VERSION).startswith("15")
    assert sql(host, "SELECT a FROM moved") == "7"
    served(visitor)
    settled(host)
    assert "the same number of rows" in backup(host, "drill")
