"""A cache and a queue on a machine with AppArmor: the clients and workers that most apps use."""

from __future__ import annotations

import time

import pytest

INSTANCES = [("cache", "flask-larder_cache.service"), ("queue", "flask-larder_queue.service")]
#: For a worker that starts a process for each job, on an emulated processor, in seconds.
PATIENCE = 180


def get(host, kind, key):
    """Read a key of the app's cache or queue, as the app."""
    return host.check_output(f"runuser -u larder -- redis-cli -s /run/flask-larder_{kind}/{kind}.sock get {key}")


def test_only_the_queue_has_survived_the_reboot(host):
    assert get(host, "queue", "before-the-reboot") == "kept"
    assert get(host, "cache", "before-the-reboot") == ""


def test_flask_caching_flask_limiter_and_flask_session_work(visitor):
    first = visitor.ask("https://larder.test/cached", timeout=60)
    assert first.status == 200, first.body
    assert visitor.ask("https://larder.test/cached", timeout=60).body == first.body
    assert [visitor.ask("https://larder.test/limited", timeout=60).status for _request in range(3)][-1] == 429
    assert [visitor.ask("https://larder.test/visits", timeout=60).json["visits"] for _request in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(("kind", "word", "shouted"), [("rq", "bread", "BREAD"), ("celery", "MILK", "milk")])
def test_workers_do_their_jobs(visitor, kind, word, shouted):
    enqueued = visitor.ask(f"https://larder.test/{kind}/{word}", "POST", body="", timeout=60)
    assert enqueued.status == 200, enqueued.body
    last = time.monotonic() + PATIENCE
    url = f"https://larder.test/{kind}/{enqueued.json['job']}"
    while (found := visitor.ask(url, timeout=60).json["result"]) is None:
        assert time.monotonic() < last, f"{kind}: no result within {PATIENCE} s"
        time.sleep(1)
    assert found == shouted


@pytest.mark.parametrize(("kind", "unit"), INSTANCES)
def test_instance_runs_in_its_sandbox(host, kind, unit):
    said = host.check_output(f"systemd-analyze security {unit} | grep Overall")
    assert float(said.split(":")[1].split()[0]) <= 0.3, said
    # Its own user, which is not the app's.
    pid = host.check_output(f"systemctl show --value --property=MainPID {unit}")
    assert host.check_output(f"ps --no-headers -o user:32 {pid}").strip() == f"larder_{kind}"


def test_processes_of_the_app_are_confined(host):
    """Web workers and background workers alike: two of gunicorn, one of RQ, two of Celery."""
    labels = host.check_output("ps --no-headers -o label:64 -u larder").splitlines()
    assert len(labels) >= 5
    assert {label.strip() for label in labels} == {"flask-larder (enforce)"}


def test_apparmor_has_refused_nothing(host):
    """After all of the above; test_after_the_reboot.py has the control that refusals are recorded."""
    log = host.check_output("cat /var/log/audit/audit.log").splitlines()
    assert [line for line in log if line.startswith("type=AVC ") and 'profile="flask-larder' in line] == []
