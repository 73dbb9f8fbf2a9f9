"""Restores that are killed: the same command again finishes them, and no row that came in since is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from backups import Writer, backup, name_of, now, play, rows, served, settled, sql, utc, version_of

testinfra_hosts = ["ansible://fh-backup-bookworm", "ansible://fh-backup-trixie"]
UNIT = "killed-restore"


def data_of(host: Any) -> str:
    """PostgreSQL's data folder."""
    return f"/var/lib/postgresql/{version_of(host)}/main"


def killed(host: Any, arguments: str, when: str, settle: Callable[[], object] = lambda: None) -> None:
    """Begin a restore on the host, and kill it as soon as a condition of the shell holds."""
    command = f"flaskhost-backup restore {arguments}"
    loop = (
        f"for i in $(seq 3000); do if {when}; then systemctl kill -s KILL {UNIT}; exit 0; fi; sleep 0.02; done; exit 9"
    )
    done = host.run(f"systemd-run --quiet --collect --unit={UNIT} --property=KillMode=process {command} && ({loop})")
    assert done.rc == 0, done.stderr
    settle()


def recovered(host: Any) -> None:
    """Wait until PostgreSQL, which systemd goes on starting, takes rows."""
    client = "runuser -u postgres -- psql -qAtc 'SELECT pg_is_in_recovery()'"
    assert (
        host.run(f'cd /; for i in $(seq 300); do [ "$({client} 2>&1)" = f ] && exit; sleep 0.2; done; exit 1').rc == 0
    )


def test_rows_of_after_the_kill_stay(host, visitor):
    """Acknowledged rows went from 825 to 748: a refused restore took back data on which PostgreSQL had run."""
    settled(host)
    sql(host, "DROP TABLE IF EXISTS written")
    backup(host, "full")
    time.sleep(2)
    data, name = data_of(host), name_of(host)
    # PostgreSQL has been asked to start on the restored data.
    began = f"ls -d {data}.before-* && [ -e {data}/postmaster.pid ] && [ -e {data}/global/pg_control ]"
    host.run(f"rm -rf {data}.before-*")
    killed(host, f"--confirm {name}", f"{began} >/dev/null 2>&1", lambda: recovered(host))
    assert "A restore of all databases" in backup(host, "check", good=False)
    assert "sudo flaskhost-backup abandon" in play("status", name, good=False)
    play("deploy", name)
    writer = Writer(host)
    time.sleep(5)
    writer.stop()
    acknowledged = writer.numbers()
    assert len(acknowledged) > 100
    output = backup(host, "restore", f"--confirm {name}", "--to 2020-01-01", good=False)
    assert "There is no backup from before" in output
    assert set(acknowledged) <= set(rows(host))
    assert "rows may have been written" in backup(host, "abandon", good=False)
    assert "stays in its place" in backup(host, "restore", f"--confirm {name}")
    assert set(acknowledged) <= set(rows(host))
    assert "was killed" not in backup(host, "status")
    served(visitor)
    # Another one, to before the writer: what it wrote is in the data that is put aside, and to now it comes back.
    play("restore", name, confirm=name)
    assert set(acknowledged) <= set(rows(host))
    served(visitor)


def test_half_a_restore_is_taken_back_or_done_again(host, visitor):
    settled(host)
    writer = Writer(host)
    time.sleep(3)
    backup(host, "full")
    time.sleep(3)
    writer.stop()
    acknowledged, data, name = writer.numbers(), data_of(host), name_of(host)
    half = f"[ -e {data}/base ] && ! [ -e {data}/global/pg_control ]"
    killed(host, f"--confirm {name}", half)
    assert "in its place again" in backup(host, "abandon")
    assert set(acknowledged) <= set(rows(host))
    served(visitor)
    killed(host, f"--confirm {name}", half)
    assert "A restore of all databases" in play("preflight", name)
    play("restore", name, confirm=name)
    assert set(acknowledged) <= set(rows(host))
    assert "was killed" not in backup(host, "status")
    served(visitor)


def test_a_restore_of_one_database_that_was_killed(host, visitor):
    settled(host)
    sql(host, "CREATE TABLE IF NOT EXISTS kept (a int); DELETE FROM kept; INSERT INTO kept VALUES (1)", "ledger")
    backup(host, "full")
    time.sleep(2)
    before = now(host)
    time.sleep(2)
    sql(host, "INSERT INTO kept VALUES (2)", "ledger")
    there = "cd /; runuser -u postgres -- psql -qAtc 'SELECT datname FROM pg_database' | grep -q ^ledger_restoring$"
    arguments = f"--database ledger --confirm ledger --to {utc(before)}"
    killed(host, arguments, there)
    assert sql(host, "SELECT count(*) FROM kept", "ledger") == "2"
    assert "A restore of the database ledger" in backup(host, "check", good=False)
    assert "is unchanged" in backup(host, "abandon")
    assert sql(host, "SELECT count(*) FROM kept", "ledger") == "2"
    killed(host, arguments, there)
    play("restore", name_of(host), app="ledger", confirm="ledger", to=utc(before))
    assert sql(host, "SELECT count(*) FROM kept", "ledger") == "1"
    assert "was killed" not in backup(host, "status")
    served(visitor)


def test_no_empty_database_hides_one_that_was_put_aside(host):
    name = "ledger_before_20260101t000000z"
    sql(host, f"ALTER DATABASE ledger RENAME TO {name}")
    try:
        output = play("site", name_of(host), "--tags", "postgres", good=False)
        assert name in output
        assert sql(host, "SELECT count(*) FROM pg_database WHERE datname = 'ledger'") == "0"
    finally:
        sql(host, f"ALTER DATABASE {name} RENAME TO ledger")
