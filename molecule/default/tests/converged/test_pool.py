"""PgBouncer, on the host whose inventory asks for it: many connections of the app share a few of PostgreSQL's."""

testinfra_hosts = ["ansible://fh-trixie"]


def pooled(user, sql, role="guestbook"):
    """The command that asks by way of PgBouncer."""
    options = f"--no-password --port 6432 --username {role} --tuples-only --no-align --dbname guestbook"
    return f'sudo -u {user} psql {options} --command "{sql}"'


def test_the_app_goes_by_way_of_it_and_its_migrations_do_not(host):
    for pid in host.run("pgrep --uid guestbook").stdout.split():
        assert "port=6432" in host.file(f"/proc/{pid}/environ").content_string
    owner = host.file("/etc/flaskhost/guestbook/database_owner.env").content_string
    assert "guestbook-owner" in owner
    assert "6432" not in owner


def test_more_clients_than_connections_are_all_served(host):
    """Five for each connection of PostgreSQL's, and each holds one for a third of a second."""
    size = max(8, 2 * int(host.run("nproc").stdout) + 1)
    sql = "select count(*) from pg_stat_activity, pg_sleep(0.3) where usename = 'guestbook'"
    answer = host.run(f"seq {5 * size} | xargs --max-procs={5 * size} -I N {pooled('guestbook', sql)}")
    counts = [int(line) for line in answer.stdout.split()]
    assert (answer.rc, len(counts)) == (0, 5 * size), answer.stderr
    assert 1 < max(counts) <= size


def test_nobody_else_gets_in(host):
    assert host.run(pooled("guestbook", "select 1")).stdout == "1\n"
    for role in ("guestbook", "hello"):
        assert host.run(pooled("hello", "select 1", role)).rc == 2
    assert not host.socket("tcp://6432").is_listening
