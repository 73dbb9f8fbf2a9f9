"""PostgreSQL: each app its own database, over the local socket, and nothing else."""

import pytest


def psql(host, user, database, sql):
    return host.run(f'sudo -u {user} psql --no-password --tuples-only --no-align --dbname {database} --command "{sql}"')


def most_connections(host):
    """Two workers of eight threads, in two slots; or the pool that they share."""
    return 8 if host.ansible.get_variables()["guestbook_pool"] else 2 * 8 * 2


def test_app_reaches_its_own_database(host):
    assert psql(host, "guestbook", "guestbook", "select current_user").stdout.strip() == "guestbook"


def test_app_has_migrated_its_schema(host):
    assert psql(host, "guestbook", "guestbook", "select count(*) from alembic_version").stdout.strip() == "1"


def test_another_apps_user_is_refused(host):
    for database in ("guestbook", "postgres", "template1"):
        answer = psql(host, "hello", database, "select 1")
        assert answer.rc == 2
        assert "no pg_hba.conf entry" in answer.stderr


def test_a_stranger_cannot_pretend_to_be_the_app(host):
    answer = host.run("sudo -u hello psql --no-password --username guestbook --dbname guestbook --command 'select 1'")
    assert answer.rc == 2
    assert "Peer authentication failed" in answer.stderr


@pytest.mark.parametrize(
    "sql",
    [
        "create role x",
        "create database x",
        "create table x (y int)",
        "create schema x",
        "drop table entry",
        "truncate entry",
        "alter table entry add column x int",
        "drop database guestbook",
        'set role \\"guestbook-owner\\"',
        "copy entry to program 'id'",
        "copy entry to '/var/lib/postgresql/x'",
        "select pg_read_file('/etc/passwd')",
        "select lo_import('/etc/passwd')",
        "select * from pg_authid",
        "create extension citext",
    ],
)
def test_the_app_has_no_more_than_its_rows(host, sql):
    answer = psql(host, "guestbook", "guestbook", sql)
    assert answer.rc == 1, answer
    assert "permission denied" in answer.stderr or "must be" in answer.stderr


def test_tables_are_the_owners_and_the_app_uses_them(host):
    sql = "select tableowner from pg_tables where schemaname = 'public' group by 1"
    assert psql(host, "guestbook", "guestbook", sql).stdout.strip() == "guestbook-owner"
    sql = "begin; delete from entry; update entry set message = ''; rollback"
    assert psql(host, "guestbook", "guestbook", sql).rc == 0


def test_only_root_reads_how_the_owner_logs_in(host):
    file = host.file("/etc/flaskhost/guestbook/database_owner.env")
    assert (file.user, file.mode) == ("root", 0o600)
    assert psql(host, "guestbook", "guestbook --username guestbook-owner", "select 1").rc == 2
    # Not the user who runs it, but the password says who it is.
    ask = "env PGDATABASE=guestbook sh -c '. /etc/flaskhost/guestbook/database_owner.env; export PGUSER PGPASSWORD; "
    assert host.run(f'sudo {ask} psql --tuples-only -c "create table x (y int); drop table x"\'').rc == 0
    for pid in host.run("pgrep --uid guestbook").stdout.split():
        assert "PGPASSWORD" not in host.file(f"/proc/{pid}/environ").content_string


def test_a_connection_of_the_app_does_not_last_for_ever(host):
    sql = "select string_agg(current_setting(name || '_timeout'), ' ') from unnest(array['statement', 'lock']) name"
    assert psql(host, "guestbook", "guestbook", sql).stdout.strip() == "1min 10s"
    sql = "select rolconnlimit from pg_roles where rolname = 'guestbook'"
    assert int(psql(host, "postgres", "postgres", sql).stdout) >= most_connections(host)


def test_settings_are_taken_in_and_none_waits_for_a_restart(host):
    sql = "select count(*) from pg_settings where pending_restart"
    assert psql(host, "postgres", "postgres", sql).stdout.strip() == "0"
    sql = "select count(*) from pg_file_settings where error is not null"
    assert psql(host, "postgres", "postgres", sql).stdout.strip() == "0"
    assert psql(host, "postgres", "postgres", "show random_page_cost").stdout.strip() == "1.1"
    assert psql(host, "postgres", "postgres", "show data_checksums").stdout.strip() == "on"
    assert psql(host, "postgres", "postgres", "select count(*) > 0 from pg_stat_statements").stdout.strip() == "t"


def test_a_slow_statement_is_in_the_journal_without_its_parameters(host):
    psql(host, "guestbook", "guestbook", "select pg_sleep(0.7) as slow_one")
    # Not by the unit: journald asks the kernel for it, and finds none when the session's process has ended meanwhile.
    said = host.run("journalctl --sync; journalctl --since=-1min --identifier=postgres").stdout
    assert "slow_one" in said


def test_passwords_would_be_scram_and_no_rule_trusts(host):
    assert psql(host, "postgres", "postgres", "show password_encryption").stdout.strip() == "scram-sha-256"
    methods = psql(host, "postgres", "postgres", "select distinct auth_method from pg_hba_file_rules").stdout.split()
    assert set(methods) == {"peer", "scram-sha-256"}
    sql = "select count(*) from pg_hba_file_rules where type <> 'local'"
    assert psql(host, "postgres", "postgres", sql).stdout.strip() == "0"
    assert psql(host, "postgres", "postgres", "show listen_addresses").stdout.strip() == ""


def test_every_connection_that_the_apps_can_open_is_accepted(host):
    assert int(psql(host, "postgres", "postgres", "show max_connections").stdout) >= most_connections(host)


def test_text_is_utf8(host):
    sql = "select pg_encoding_to_char(encoding) from pg_database where datname = 'guestbook'"
    assert psql(host, "postgres", "postgres", sql).stdout.strip() == "UTF8"


def test_a_connection_keeps_the_memory_of_its_sorts(host):
    """Else it is given back after each sort, and asked of the kernel again page by page: one fault for each 4 KB."""
    faults = "select split_part(pg_read_file('/proc/self/stat'), ' ', 10)"
    sort = "select count(*) from (select md5(n::text) from generate_series(1, 60000) as n order by 1 offset 0) as x"
    commands = " ".join(f'--command "{sql}"' for sql in (sort, sort, faults, sort, faults))
    answer = host.run(f"sudo -u postgres psql --tuples-only --no-align {commands}")
    *_, before, _count, after = answer.stdout.split()
    assert int(after) - int(before) < 100
