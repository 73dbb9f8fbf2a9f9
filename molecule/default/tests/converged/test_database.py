"""PostgreSQL: each app its own database, over the local socket, and nothing else."""


def psql(host, user, database, sql):
    return host.run(f'sudo -u {user} psql --no-password --tuples-only --no-align --dbname {database} --command "{sql}"')


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


def test_owner_has_no_more_than_its_database(host):
    for sql in (
        "create role x",
        "create database x",
        "copy entry to program 'id'",
        "select pg_read_file('/etc/passwd')",
    ):
        assert psql(host, "guestbook", "guestbook", sql).rc == 1


def test_passwords_would_be_scram_and_no_rule_trusts(host):
    assert psql(host, "postgres", "postgres", "show password_encryption").stdout.strip() == "scram-sha-256"
    methods = psql(host, "postgres", "postgres", "select distinct auth_method from pg_hba_file_rules").stdout.split()
    assert methods == ["peer"]


def test_every_connection_that_the_apps_can_open_is_accepted(host):
    # Two workers of eight threads, in two slots.
    assert int(psql(host, "postgres", "postgres", "show max_connections").stdout) >= 2 * 8 * 2


def test_text_is_utf8(host):
    sql = "select pg_encoding_to_char(encoding) from pg_database where datname = 'guestbook'"
    assert psql(host, "postgres", "postgres", sql).stdout.strip() == "UTF8"
