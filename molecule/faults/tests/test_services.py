"""What is killed or stopped on a host while it serves, and comes back by itself or by the next deploy."""

from __future__ import annotations

from acknowledged import sql
from faults import BOTH, journal, main_process, name_of, play, postgres, serves, slot, status, until, watched

testinfra_hosts = BOTH


def test_killed_worker_of_a_slot(host, visitor, request):
    unit = f"{slot(host)}.service"
    with watched(host, visitor, request) as fault:
        host.run_expect([0], f"pkill --signal KILL --parent {main_process(host, unit)}")
    assert fault.seconds < 2, fault.report.text()
    assert "was sent SIGKILL" in journal(host, unit, fault.began)


def test_killed_master_of_a_slot(host, visitor, request):
    unit = f"{slot(host)}.service"
    with watched(host, visitor, request) as fault:
        host.run_expect([0], f"kill -KILL {main_process(host, unit)}")
    assert fault.seconds < 10, fault.report.text()
    assert "Main process exited, code=killed, status=9/KILL" in journal(host, unit, fault.began)


def test_killed_processes_of_an_app(host, visitor, request):
    """All of its user's: the slot's, the worker's."""
    before = main_process(host, "flask-guestbook_process@worker.service")
    with watched(host, visitor, request) as fault:
        host.run_expect([0], "pkill --signal KILL --uid guestbook --full 'gunicorn|heartbeat'")
        until(30, lambda: main_process(host, "flask-guestbook_process@worker.service") not in ("0", before))
    assert fault.seconds < 10, fault.report.text()
    newest = "stat --format=%Y /srv/guestbook/data/heartbeat"
    beat = int(host.check_output(newest))
    until(10, lambda: int(host.check_output(newest)) > beat)


def test_killed_nginx(host, visitor, request):
    with watched(host, visitor, request) as fault:
        host.run_expect([0], f"kill -KILL {main_process(host, 'nginx.service')}")
        until(30, lambda: main_process(host, "nginx.service") != "0")
    assert fault.seconds < 10, fault.report.text()
    assert "Main process exited, code=killed, status=9/KILL" in journal(host, "nginx.service", fault.began)


def test_killed_postgresql(host, visitor, request):
    with watched(host, visitor, request) as fault:
        host.run_expect([0], f"kill -KILL {main_process(host, postgres(host))}")
    assert fault.seconds < 15, fault.report.text()
    assert set(fault.report.reasons) <= {"status 503"}, fault.report.text()
    assert "Failed with result" in journal(host, postgres(host), fault.began)
    # What watches it goes where it goes.
    limits = postgres(host).replace("postgresql@", "flaskhost-postgres-limits@")
    until(10, lambda: host.run("systemctl is-active %s", limits).stdout.strip() == "active")


def test_killed_session_of_postgresql(host, visitor, request):
    """PostgreSQL ends all others, since what they share may be damaged, and recovers."""
    with watched(host, visitor, request) as fault:
        # The brackets keep it from finding the shell that runs it.
        host.run_expect([0], "pkill --signal KILL --full '[p]ostgres: .*guestbook guestbook'")
    assert fault.seconds < 10, fault.report.text()


def test_stopped_postgresql(host, visitor, request):
    with watched(host, visitor, request) as fault:
        host.run_expect([0], "systemctl stop postgresql.service")
        until(10, lambda: not serves(visitor))
        assert "503, not 200" in status(host)
        host.run_expect([0], "systemctl start postgresql.service")
    assert set(fault.report.reasons) <= {"status 503"}, fault.report.text()


def test_settings_with_which_postgresql_does_not_start(host, visitor, request):
    """Each value is one that PostgreSQL takes; only its start shows that there is not so much memory."""
    before = sql(host, "SHOW shared_buffers")
    with watched(host, visitor, request) as fault:
        said = play(
            "site", name_of(host), "--tags", "postgres", good=False, postgres_extra_settings={"shared_buffers": "4TB"}
        )
        assert "could not map anonymous shared memory" in said
        assert (
            "It runs again with the previous files. Correct postgres_extra_settings and run the same command again."
            in said
        )
    assert fault.seconds < 30, fault.report.text()
    assert set(fault.report.reasons) <= {"status 503"}, fault.report.text()
    assert sql(host, "SHOW shared_buffers") == before
    # The positive control, and back.
    play("site", name_of(host), "--tags", "postgres", postgres_extra_settings={"shared_buffers": "48MB"})
    assert sql(host, "SHOW shared_buffers") == "48MB"
    play("site", name_of(host), "--tags", "postgres")
    assert sql(host, "SHOW shared_buffers") == before


def test_stopped_slot_without_its_socket(host, visitor, request):
    live = slot(host)
    with watched(host, visitor, request) as fault:
        host.run_expect([0], f"systemctl stop {live}.socket {live}.service")
        assert not host.file(f"/run/flask-guestbook/{live.partition('@')[2]}.sock").exists
        assert "slot not running" in status(host)
        play("deploy", name_of(host), app="guestbook")
    assert set(fault.report.reasons) <= {"status 502"}, fault.report.text()


def test_removed_socket_of_a_slot(host, visitor, request):
    """Its service runs, and nobody gets there."""
    live = slot(host).partition("@")[2]
    with watched(host, visitor, request) as fault:
        host.run_expect([0], f"rm /run/flask-guestbook/{live}.sock")
        until(10, lambda: not serves(visitor))
        assert "slot not running" in status(host)
        play("deploy", name_of(host), app="guestbook")
    assert set(fault.report.reasons) <= {"status 502"}, fault.report.text()
