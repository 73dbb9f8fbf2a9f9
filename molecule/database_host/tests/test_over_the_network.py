"""The apps' host reaches the database over TLS with a password, and nobody else does.

What each host has comes back on it, and the password changes.
"""

from __future__ import annotations

import subprocess
import time
from typing import Any

from hosts import APPS, DATABASE, PASSWORDS, database, play, sql

testinfra_hosts = ["ansible://fh-database-app"]


def ask(host: Any, role: str, sql: str, options: str = "sslmode=require&channel_binding=require") -> Any:
    """Ask the database from another host, as the app does, by its driver."""
    url = f"postgresql://guestbook-{role}:{PASSWORDS[role]}@{DATABASE}/guestbook?{options}"
    code = f"import psycopg; print(psycopg.connect({url!r}, connect_timeout=5).execute({sql!r}).fetchone()[0])"
    return host.run("set -- /srv/guestbook/slots/*/venv/bin/python; $1 -c %s", code)


def test_the_app_serves_with_its_rows_on_the_other_host(visitor):
    assert visitor.ask("https://guestbook.test/readyz").status == 200
    assert (
        sql("SELECT count(*) > 0 FROM pg_stat_activity WHERE client_addr IS NOT NULL AND usename = 'guestbook-a'")
        == "t"
    )
    assert sql("SELECT tableowner FROM pg_tables WHERE tablename = 'entry'") == "guestbook"


def test_every_connection_is_encrypted_and_its_password_is_scram(host):
    said = ask(host, "a", "SELECT current_user")
    assert said.stdout == "guestbook\n", said.stderr
    # As PostgreSQL's superuser: the role has become another one, and does not see its own line.
    shown = sql(
        "SELECT string_agg(DISTINCT version, ' ') || ' ' || bool_and(ssl) FROM pg_stat_ssl"
        " JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL"
    )
    assert shown == "TLSv1.3 true", "the app's own"
    refused = ask(host, "a", "SELECT 1", "sslmode=disable")
    assert "no pg_hba.conf entry" in refused.stderr
    assert "no encryption" in refused.stderr
    assert sql("SELECT bool_and(rolpassword LIKE 'SCRAM-SHA-256%') FROM pg_authid WHERE rolpassword IS NOT NULL") == "t"


def test_nobody_else_gets_to_the_port(host):
    rules = database().run("nft list ruleset").stdout
    own = host.run("hostname -I").stdout.split()[0]
    assert any("5432" in line and own in line for line in rules.splitlines())
    # From where the tests run: the network's other end, which is no host of the apps'.
    address = database().run("hostname -I").stdout.split()[0]
    outside = subprocess.run(
        ["timeout", "4", "bash", "-c", f"exec 3<>/dev/tcp/{address}/5432"], capture_output=True, check=False
    )
    assert outside.returncode == 124, "dropped, not answered"


def test_rows_and_uploads_come_back_each_on_its_own_host(host, visitor):
    upload = "/srv/guestbook/data/upload"
    sql("INSERT INTO entry (author, message, created_at) VALUES ('x', 'kept', now())")
    host.run(f"echo kept | install --owner=guestbook --group=guestbook --mode=640 /dev/stdin {upload}")
    play("backup", kind="full")
    time.sleep(2)
    before = sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')")
    time.sleep(2)
    sql("DELETE FROM entry")
    host.run(f"rm {upload}")

    output = play("restore", app="guestbook", what="both", confirm="guestbook", to=before)
    assert sql("SELECT count(*) FROM entry WHERE message = 'kept'") == "1"
    file = host.file(upload)
    assert (file.content_string, file.user, file.mode) == ("kept\n", "guestbook", 0o640)
    assert "The database guestbook was restored" in output
    assert "/srv/guestbook/data was restored" in output
    assert visitor.ask("https://guestbook.test/").status == 200, "the maintenance page is gone"


def test_a_migration_is_undone_and_the_release_before_it_serves_again(host, visitor):
    """The apps' host knows when it was, and the database's has the log."""
    play("backup", kind="full")
    served_before = host.run("readlink /srv/guestbook/current").stdout.strip()
    sql("DELETE FROM entry; INSERT INTO entry (author, message, created_at) VALUES ('a', 'before', now())")
    harmful = 'sh -c \'psql "$DATABASE_URL" --command="DELETE FROM entry"\''
    apps = {"guestbook": {**APPS["guestbook"], "release_command": harmful}}
    output = play("deploy", app="guestbook", flask_apps=apps)
    assert "without the database lock" not in output
    assert "the recovery point before this migration could not be recorded" not in output
    release = host.run("readlink /srv/guestbook/current").stdout.strip()
    assert release != served_before
    assert sql("SELECT count(*) FROM entry") == "0"

    # What the operator does first. The database can be asked for its schema, and so it is not refused.
    play("rollback", app="guestbook")
    assert host.run("readlink /srv/guestbook/current").stdout.strip() == served_before
    play("restore", app="guestbook", confirm="guestbook", release=release.rpartition("/")[2])
    assert sql("SELECT message FROM entry") == "before"
    assert host.run("readlink /srv/guestbook/current").stdout.strip() == served_before
    assert visitor.ask("https://guestbook.test/readyz").status == 200, "the maintenance page is gone"


def test_a_password_changes_without_a_pause(host, visitor):
    both = {"postgres_logins": {"guestbook": PASSWORDS}}
    assert ask(host, "b", "SELECT 1").rc != 0
    play("site", "--tags", "postgres", **both)
    assert ask(host, "a", "SELECT 1").stdout == "1\n"
    assert ask(host, "b", "SELECT 1").stdout == "1\n"
    play("deploy", guestbook_role="b", **both)
    assert visitor.ask("https://guestbook.test/readyz").status == 200
    assert sql("SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'guestbook-b'") == "t"
    last = {"postgres_logins": {"guestbook": {"a": "", "b": PASSWORDS["b"]}}}
    play("site", "--tags", "postgres", guestbook_role="b", **last)
    assert ask(host, "a", "SELECT 1").rc != 0
    assert visitor.ask("https://guestbook.test/readyz").status == 200
