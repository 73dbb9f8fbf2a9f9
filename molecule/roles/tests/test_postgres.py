"""The role postgres alone does what its README says."""

import time

testinfra_hosts = ["ansible://role_postgres"]

PSQL = "sudo -u postgres psql --no-psqlrc --tuples-only --no-align"


def version(host):
    """The distribution's own."""
    return "15" if host.system_info.release.startswith("12") else "17"


def ask(host, sql, database="postgres"):
    return host.run_expect([0], f'cd / && {PSQL} --dbname {database} --command "{sql}"').stdout.strip()


def test_postgres(host):
    ask = "psql --no-password --tuples-only --no-align --dbname shop --command"
    assert host.run(f"sudo -u shop {ask} 'select current_user'").stdout.strip() == "shop"
    host.run_expect([0], "sudo -u postgres psql --command \"alter role shop password 'of the test'\"")
    over_tcp = f"env PGHOST=127.0.0.1 PGUSER=shop {ask} 'select 1'"
    assert host.run(f"PGPASSWORD='of the test' {over_tcp}").stdout.strip() == "1"
    assert "password authentication failed" in host.run(f"PGPASSWORD=wrong {over_tcp}").stderr
    stored = host.run("sudo -u postgres psql --tuples-only --command 'select rolpassword from pg_authid'").stdout
    assert "SCRAM-SHA-256$" in stored


def test_cluster_that_was_there_has_checksums_now_and_its_data(host):
    assert ask(host, "show data_checksums") == "on"
    assert ask(host, "select sum(n) from before") == "500500"


def test_extensions_are_there_that_are_packaged_apart_and_that_are_not_trusted(host):
    found = ask(host, "select string_agg(extname, ' ' order by extname) from pg_extension", "shop").split()
    assert {"pageinspect", "semver"} <= set(found)
    assert ask(host, "select '1.2.10'::semver > '1.2.9'::semver", "shop") == "t"


def test_network_is_shown_the_certificate_named(host):
    said = host.run("openssl s_client -connect 127.0.0.1:5432 -starttls postgres </dev/null").stdout
    assert "subject=CN=own.test" in said.replace(" = ", "=")


def test_change_is_archived_before_its_segment_is_full(host):
    """After four seconds, and not after a minute; from the first second on that the server runs."""
    host.run_expect([0], f"systemctl restart postgresql@{version(host)}-main.service")
    ask(host, "create table if not exists archived (x int)")
    segment = ask(host, "insert into archived values (1); select pg_walfile_name(pg_current_wal_insert_lsn())")
    segment = segment.splitlines()[-1]
    began = time.monotonic()
    while not host.file(f"/var/lib/postgresql/archive/{segment}").exists:
        assert time.monotonic() - began < 30, "it is not archived"
        time.sleep(1)


def test_statement_is_slow_from_the_time_named(host):
    ask(host, "select pg_sleep(0.2) as slower_than_a_tenth")
    ask(host, "select 1 as fast")
    said = host.run("journalctl --sync; journalctl --since=-1min --identifier=postgres").stdout
    assert "slower_than_a_tenth" in said
    assert "as fast" not in said
