"""A site that is down while visitors come: one deploy mends it."""

import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from runs import PROJECT, command

#: Requests a second, and the seconds after which they end in any case.
RATE, LONGEST = 20, 120
HELLO = {
    "domains": ["hello.test"],
    "source": {"repo": "file:///opt/hello.git", "version": "main", "subdir": "apps/hello"},
    "wsgi": "app:app",
    "database": False,
    "secrets": {"MAIL_PASSWORD": "never-to-be-seen-4711"},
}


def deploy(version):
    """Bring a version of hello into service; return the status and what was printed."""
    apps = {"hello": {**HELLO, "source": {**HELLO["source"], "version": version}}}
    result = subprocess.run(
        command(PROJECT / "playbooks/deploy.yml", flask_apps=apps),
        cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return result.returncode, result.stdout + result.stderr


def live(host):
    """The slot that serves."""
    return Path(host.file("/srv/hello/live.sock").linked_to).stem


@contextmanager
def visitors(visitor):
    """Visitors of the site who come again and again; yields the count of what they get."""
    seen, done = Counter(), threading.Event()

    def ask():
        try:
            seen[visitor.ask("https://hello.test/whoami").status] += 1
        except OSError as error:
            seen[type(error).__name__] += 1

    def come():
        until = time.monotonic() + LONGEST
        with ThreadPoolExecutor(RATE) as pool:
            while not done.wait(1 / RATE) and time.monotonic() < until:
                pool.submit(ask)

    thread = threading.Thread(target=come)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("version", ["n1", *(pytest.param(tag, marks=pytest.mark.nightly) for tag in ("n2", "n3"))])
def test_deploy_mends_a_site_that_is_down_while_it_has_visitors(host, visitor, version):
    broken = live(host)
    host.run_expect([0], f"systemctl stop flask-hello@{broken}.socket flask-hello@{broken}.service")
    with visitors(visitor) as seen:
        time.sleep(3)
        while_down = dict(seen)
        status, output = deploy(version)
        mended = dict(seen)
    assert while_down.get(502, 0) > RATE, while_down
    assert status == 0, output
    assert mended.get(200, 0) > RATE, mended
    assert visitor.ask("https://hello.test/whoami").json["version"] == version
    # Not back to the slot that does not run.
    assert live(host) != broken
    assert host.run(f"systemctl is-active flask-hello@{live(host)}.service").stdout.strip() == "active"


def test_live_link_that_somebody_has_removed_is_restored_and_nothing_is_restarted(host, visitor):
    slot = live(host)
    started = f"systemctl show --property=InvocationID flask-hello@{slot}.service"
    before, served = host.run(started).stdout, visitor.ask("https://hello.test/whoami").json
    host.run_expect([0], "rm /srv/hello/live.sock")
    # nginx may use a connection that it has kept for a second.
    time.sleep(1.5)
    assert visitor.ask("https://hello.test/whoami").status == 502
    status, output = deploy(served["version"])
    assert status == 0, output
    assert "live.sock was missing" in " ".join(output.split())
    assert visitor.ask("https://hello.test/whoami").json["release"] == served["release"]
    assert (live(host), host.run(started).stdout) == (slot, before)


def test_worker_that_takes_all_memory_costs_only_what_it_had_in_hand(host, visitor):
    """The kernel ends the largest process: a worker, now and then the master. The socket keeps who comes meanwhile."""
    slot = live(host)
    service, kept = f"flask-hello@{slot}.service", f"/run/systemd/system.control/flask-hello@{slot}.service.d"
    try:
        host.run_expect([0], f"systemctl set-property --runtime {service} MemoryMax=150M")
        with visitors(visitor) as seen:
            eaten = [visitor.ask("https://hello.test/attempt?what=memory").status for _ in range(3)]
            time.sleep(3)
    finally:
        host.run(f"rm --recursive --force {kept}; systemctl daemon-reload")
    assert set(eaten) == {502}
    # A worker has eight requests in hand at the most.
    lost = sum(seen.values()) - seen[200]
    assert lost <= len(eaten) * 7, seen
    assert seen[200] > 50, seen
    assert visitor.ask("https://hello.test/whoami").status == 200


def test_master_that_is_killed_keeps_visitors_waiting_and_loses_none(host, visitor):
    """As the kernel does when it is the one that takes all memory; systemd holds the socket meanwhile."""
    service = f"flask-hello@{live(host)}.service"
    with visitors(visitor) as seen:
        time.sleep(2)
        host.run_expect([0], f"kill -KILL $(systemctl show --property=MainPID --value {service})")
        time.sleep(10)
    assert set(seen) == {200}
    assert "NRestarts=0" not in host.run(f"systemctl show --property=NRestarts {service}").stdout
