"""What PostgreSQL has once for all databases, and one app could fill: the table of locks, and the queue of NOTIFY."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from strangers import eventually
from tenants import hosts

testinfra_hosts = hosts("trixie")

#: The unit that an attack runs in, as the app's user and with the password of its database's owner.
UNIT = "flaskhost-test-locks"
#: Seconds within which the others can connect again.
SOON = 5.0
#: More than the table has room for; a session keeps advisory locks after the error.
FILL = "SELECT count(pg_advisory_lock(number)) FROM generate_series(1, 200000) AS number;"
#: The same with what every migration does: more than one database may have, less than the table has room for. At the
#: error of a full table, the transaction would be gone before the service looks. The tags are for systemd, which makes
#: one of two dollars.
TABLES = """
SET client_min_messages = error;
BEGIN;
DO $do$ DECLARE
  bound bigint := 1.15 * current_setting('max_locks_per_transaction')::bigint
    * (SELECT 1 + sum(current_setting(name)::bigint) FROM unnest(ARRAY['max_connections', 'autovacuum_max_workers',
      'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions']) AS name);
BEGIN
  FOR number IN 1..20000 LOOP
    EXECUTE format('CREATE TABLE many_%s (id integer PRIMARY KEY)', number);
    EXIT WHEN number % 100 = 0
      AND (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND NOT fastpath) > bound;
  END LOOP;
END $do$;
"""
#: 320 MB of notifications, of which the queue takes 8 GB.
NOTIFY = "SELECT count(pg_notify('x', repeat('x', 7900) || number)) FROM generate_series(1, 4000) AS number;\n" * 10
#: Whether the service has its connection, and looks.
LOOKS = (
    'cd / && runuser -u postgres -- psql --no-psqlrc -qAt -c "SELECT count(*) FROM pg_stat_activity'
    " WHERE application_name = 'flaskhost-limits' AND query = 'EXECUTE look;'\""
)

Attack = Callable[[str], str]


def limits(host: Any) -> str:
    """The unit that ends such sessions."""
    version = host.check_output("ls /etc/postgresql")
    return f"flaskhost-postgres-limits@{version}-main.service"


@pytest.fixture
def attack(host: Any) -> Iterator[Attack]:
    """Runs a shell command as the hostile app, with the password of its database's owner; returns when it began."""
    # It does not remember what another test has done.
    assert host.run(f"systemctl restart {limits(host)}").rc == 0
    eventually(lambda: said_by(host, LOOKS), "1")
    environment = "PGHOST=/var/run/postgresql PGDATABASE=mallory PGOPTIONS='-c default_transaction_read_only=off'"
    psql = "psql --no-psqlrc -qAt"

    def start(command: str) -> str:
        since = host.check_output("date +%s.%N")
        run = f"systemd-run --quiet --collect --unit={UNIT} -p User=mallory"
        login = "-p EnvironmentFile=/etc/flaskhost/mallory/database_owner.env"
        done = host.run(f"{run} {login} env {environment} sh -c %s", command.replace("PSQL", psql))
        assert done.rc == 0, done.stderr
        return since

    yield start
    host.run(f"systemctl stop {UNIT}.service")
    eventually(lambda: fresh(host), seconds=30)


def log(host: Any, unit: str, since: str) -> str:
    return host.run(f"journalctl --quiet --no-pager --output=cat --since=@{since} --unit={unit}").stdout


def fresh(host: Any) -> bool:
    """Whether a new connection of the innocent app's works."""
    client = "setpriv --reuid=alice --regid=alice --clear-groups psql --no-psqlrc -qAt -d alice -c 'SELECT 1'"
    return host.run(f"cd / && timeout 5 {client}").rc == 0


def said_by(host: Any, command: str) -> str:
    """What a command prints now."""
    return str(host.run(command).stdout.strip())


def sessions(host: Any) -> str:
    """The sessions of the hostile app."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'mallory'"
    return host.run("cd / && runuser -u postgres -- psql --no-psqlrc -qAt -c %s", sql).stdout.strip()


def test_the_service_runs_beside_the_cluster_and_starts_and_stops_with_it(host: Any) -> None:
    cluster = limits(host).replace("flaskhost-postgres-limits@", "postgresql@")
    assert host.run(f"systemctl is-enabled {limits(host)}").stdout.strip() == "enabled"
    assert host.run(f"systemctl restart {cluster}").rc == 0
    eventually(lambda: said_by(host, f"systemctl is-active {limits(host)}"), "active")
    eventually(lambda: said_by(host, LOOKS), "1")
    try:
        assert host.run(f"systemctl stop {cluster}").rc == 0
        assert host.run(f"systemctl is-active {limits(host)}").stdout.strip() == "inactive"
    finally:
        assert host.run(f"systemctl start {cluster}").rc == 0
    eventually(lambda: said_by(host, LOOKS), "1")


@pytest.mark.parametrize("what", ["advisory locks", "tables in one transaction"])
def test_an_app_that_takes_all_locks_is_ended_and_others_connect_again(host: Any, attack: Attack, what: str) -> None:
    sql = FILL if what == "advisory locks" else TABLES
    # The client keeps the session, and the transaction, whatever PostgreSQL says.
    since = attack(f"(cat <<'X'\n{sql}\nX\nsleep 120; echo 'SELECT 1;') | PSQL")
    if what == "advisory locks":
        # The positive control: the table was full.
        eventually(lambda: "out of shared memory" in log(host, UNIT, since), seconds=10)
    eventually(lambda: "Ended 1 session(s)" in log(host, limits(host), since), seconds=40)
    eventually(lambda: fresh(host), seconds=SOON)
    eventually(lambda: sessions(host), "0", seconds=SOON)
    said = log(host, limits(host), since)
    assert "of the role mallory-owner in the database mallory" in said, said
    assert "raise max_locks_per_transaction in postgres_extra_settings" in said, said
    assert "every session" not in said, said


def test_an_app_that_does_it_again_and_again_is_kept_away(host: Any, attack: Attack) -> None:
    since = attack(f"while :; do PSQL -c '{FILL}' -c 'SELECT pg_sleep(60)'; done")
    eventually(lambda: "every session of mallory is ended for 60 seconds" in log(host, limits(host), since), seconds=20)
    answers = []
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        answers.append(fresh(host))
        time.sleep(0.1)
    assert host.run(f"systemctl is-active {UNIT}.service").stdout.strip() == "active", "it goes on attacking"
    refused = answers.count(False) / len(answers)
    assert refused < 0.05, f"{refused:.0%} of {len(answers)} connections were refused"
    lines = [line for line in log(host, limits(host), since).splitlines() if line.startswith("Ended")]
    assert 1 < len(lines) <= 8, lines


def test_a_listener_that_never_ends_its_transaction_does_not_fill_the_queue(host: Any, attack: Attack) -> None:
    sql = "cd / && runuser -u postgres -- psql --no-psqlrc -qAt -c 'SELECT pg_notification_queue_usage() > 1.0 / 32'"
    listen = "SET idle_in_transaction_session_timeout = 0; LISTEN x; BEGIN; SELECT now();"
    since = attack(f"(echo '{listen}'; sleep 1; (echo \"{NOTIFY}\" | PSQL); sleep 300) | PSQL")
    eventually(lambda: said_by(host, sql), "t", seconds=60)
    eventually(lambda: said_by(host, sql), "f", seconds=90)
    said = log(host, limits(host), since)
    assert "Ended a session of the role mallory-owner in the database mallory: its transaction was 6" in said, said
    assert "of the queue of NOTIFY" in said, said
