"""A request that never ends: what each server does about it, and that the site goes on."""

import time

testinfra_hosts = ["ansible://all"]


def test_uwsgi_replaces_a_worker_that_takes_too_long(host, visitor, eventually):
    began = time.monotonic()
    assert visitor.ask("https://with-uwsgi.test/slow?seconds=20").status == 502
    assert 5 < time.monotonic() - began < 13
    assert eventually(lambda: visitor.ask("https://with-uwsgi.test/whoami").status == 200)
    said = host.check_output("journalctl --namespace=flask-with-uwsgi --no-pager --since=-2min")
    assert "HARAKIRI" in said


def test_systemd_restarts_waitress_if_no_thread_runs(host, visitor, slot, eventually):
    unit = f"flask-with-waitress@{slot('with-waitress')}.service"
    before = host.check_output(f"systemctl show --value --property=MainPID {unit}")
    began = time.monotonic()
    assert visitor.ask("https://with-waitress.test/hold?seconds=20").status in (502, 504)
    assert eventually(lambda: visitor.ask("https://with-waitress.test/whoami").status == 200)
    assert time.monotonic() - began < 19, "it did not just wait"
    assert host.check_output(f"systemctl show --value --property=MainPID {unit}") != before
    assert host.check_output(f"systemctl show --value --property=NRestarts {unit}") != "0"
