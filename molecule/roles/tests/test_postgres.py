"""The role postgres alone does what its README says."""

testinfra_hosts = ["ansible://role_postgres"]


def test_postgres(host):
    ask = "psql --no-password --tuples-only --no-align --dbname shop --command"
    assert host.run(f"sudo -u shop {ask} 'select current_user'").stdout.strip() == "shop"
    host.run_expect([0], "sudo -u postgres psql --command \"alter role shop password 'of the test'\"")
    over_tcp = f"env PGHOST=127.0.0.1 PGUSER=shop {ask} 'select 1'"
    assert host.run(f"PGPASSWORD='of the test' {over_tcp}").stdout.strip() == "1"
    assert "password authentication failed" in host.run(f"PGPASSWORD=wrong {over_tcp}").stderr
    stored = host.run("sudo -u postgres psql --tuples-only --command 'select rolpassword from pg_authid'").stdout
    assert "SCRAM-SHA-256$" in stored
