"""Caches: the clients that most apps use work in a slot, nobody else gets in, and a killed cache costs no request."""

from __future__ import annotations

import threading
import time

import pytest
from stores import ATTIC, BOTH, CACHE, MEMCACHED, QUEUE, SOCKETS, main_process, redis, until

testinfra_hosts = BOTH
TRY = """
import socket
for path in {sockets!r}:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("open", path)
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("domain", ["larder.test", "attic.test"])
def test_flask_caching_and_flask_limiter_work(visitor, domain):
    first = visitor.ask(f"https://{domain}/cached")
    assert first.status == 200, first.body
    assert visitor.ask(f"https://{domain}/cached").body == first.body
    # The limits are in another database, or have another prefix: clearing the cache does not reset them.
    assert [visitor.ask(f"https://{domain}/limited").status for _request in range(3)][-1] == 429
    if domain == "larder.test":
        assert visitor.ask(f"https://{domain}/clear", "POST", body="").json == {"cleared": True}
        assert visitor.ask(f"https://{domain}/cached").body != first.body
        assert visitor.ask(f"https://{domain}/limited").status == 429


def test_flask_session_works(visitor):
    assert [visitor.ask("https://larder.test/visits").json["visits"] for _request in range(3)] == [1, 2, 3]


def test_neighbor_cannot_open_the_sockets(host, visitor):
    code = TRY.format(sockets=SOCKETS)
    said = visitor.ask("https://mallory.test/run", "POST", body=code).body
    assert said.split() == ["PermissionError"] * len(SOCKETS), said
    # The positive control: the sockets are open, and to the app.
    said = host.run("runuser -u larder -- python3 -c %s", code).stdout
    assert said.splitlines() == [f"open {SOCKETS[0]}", f"open {SOCKETS[1]}", "PermissionError"]


def test_apps_slot_sees_the_variables(host):
    text = host.file("/srv/larder/current/env").content_string
    for line in (
        'CACHE_REDIS_URL="unix:///run/flask-larder_cache/cache.sock?db=0"',
        'REDIS_URL="unix:///run/flask-larder_queue/queue.sock?db=0"',
        'COPY_OF_REDIS_URL="unix:///run/flask-larder_queue/queue.sock?db=0"',
        'CELERY_BROKER_URL="redis+socket:///run/flask-larder_queue/queue.sock?virtual_host=1"',
        'RATELIMIT_STORAGE_URI="redis+unix:///run/flask-larder_cache/cache.sock?db=2"',
    ):
        assert f"{line}\n" in text
    text = host.file(f"/srv/{ATTIC}/current/env").content_string
    assert f'MEMCACHED_SERVERS="unix:/run/flask-{ATTIC}_cache/cache.sock"\n' in text
    assert "REDIS" not in text


@pytest.mark.parametrize("kind", ["cache", "queue"])
def test_commands_of_an_administrator_are_refused(host, kind):
    for command in (
        "config set maxmemory 1gb", "flushall", "module load /tmp/x", "debug sleep 0", "shutdown", "save", "bgsave",
        "acl setuser default +@all", "replicaof 192.0.2.1 6379", "client kill type normal", "monitor",
        "script debug yes",
    ):  # fmt: skip
        # By its users' rights, or because the command is switched off.
        said = redis(host, command, kind)
        assert "NOPERM" in said or "command not allowed" in said, f"{command}: {said}"


def test_what_an_app_makes_its_cache_log_is_in_the_apps_own_journal(host):
    redis(host, """eval "redis.log(redis.LOG_WARNING, 'noise-of-larder')" 0""", "cache")
    # Of this unit, because sudo logs the command above.
    read = f"journalctl --unit={CACHE} --output=cat --quiet --grep=noise-of-larder"
    assert until(10, lambda: host.run(f"{read} --namespace=flask-larder").stdout).count("noise-of-larder") == 1
    assert host.run(read).stdout == ""


@pytest.mark.parametrize(("unit", "data_mb", "memory_mb"), [(CACHE, 16, 36), (QUEUE, 24, 80), (MEMCACHED, 8, 26)])
def test_sandbox_and_limits(host, unit, data_mb, memory_mb):
    said = host.check_output(f"systemd-analyze security {unit} | grep Overall")
    assert float(said.split(":")[1].split()[0]) <= 0.3, said
    assert host.check_output("systemctl show --value --property=MemoryMax %s", unit) == str(memory_mb << 20)
    if unit == MEMCACHED:
        assert f"--memory-limit={data_mb}" in host.check_output("systemctl cat %s", unit)
    else:
        kind = unit.rpartition("_")[2].removesuffix(".service")
        assert f"maxmemory:{data_mb << 20}" in redis(host, "info memory", kind)


def test_debians_own_services_do_not_listen(host):
    assert host.run("ss -lntu | grep -e :6379 -e :11211").rc == 1
    assert host.check_output("pgrep -c redis-server") == "2"
    assert host.check_output("pgrep -c memcached") == "1"


@pytest.mark.parametrize(("domain", "unit"), [("larder.test", CACHE), ("attic.test", MEMCACHED)])
def test_killed_cache_costs_no_request(host, visitor, domain, unit):
    before = main_process(host, unit)
    statuses: list[int] = []
    stop = threading.Event()

    def visit() -> None:
        while not stop.is_set():
            statuses.append(visitor.ask(f"https://{domain}/cached").status)
            time.sleep(0.02)

    threads = [threading.Thread(target=visit) for _thread in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(2)
        host.run_expect([0], f"kill -KILL {before}")
        answered = len(statuses)
        until(10, lambda: main_process(host, unit) not in ("0", before))
        meanwhile = len(statuses) - answered
        time.sleep(3)
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)
    assert meanwhile > 5, "control: there was load while the cache was down"
    assert {*statuses} == {200}
    # And the cache is used again; python-memcached tries a server that was down only after 30 s.
    until(60, lambda: len({visitor.ask(f"https://{domain}/cached").body for _request in range(2)}) == 1)
