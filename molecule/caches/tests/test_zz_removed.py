"""An option that goes away, last: its instance goes too, and a queue's data is kept as a copy."""

from __future__ import annotations

from stores import BOTH, CACHE, QUEUE, main_process, redis, site, until

testinfra_hosts = BOTH


def test_another_size_restarts_only_its_own_instance(host):
    cache, queue = main_process(host, CACHE), main_process(host, QUEUE)
    site(host, cache_mb=20)
    assert main_process(host, QUEUE) == queue
    assert main_process(host, CACHE) not in ("0", cache)
    assert f"maxmemory:{20 << 20}" in redis(host, "info memory", "cache")


def test_removed_queue_leaves_a_copy_and_nothing_else(host, visitor):
    redis(host, "set kept 1")
    until(5, lambda: "aof_pending_bio_fsync:0" in redis(host, "info persistence"))
    said = site(host, queue=None, queue_mb=None, processes=None, env=None)
    assert "The data of a removed queue is kept in /var/lib/flask-larder_queue." in said
    assert host.run("systemctl is-active %s", QUEUE).stdout.strip() == "inactive"
    assert host.run("getent passwd larder_queue").rc == 2
    for path in (f"/etc/systemd/system/{QUEUE}", "/etc/flaskhost/flask-larder_queue.conf", "/run/flask-larder_queue",
                 "/var/lib/flask-larder_queue"):  # fmt: skip
        assert not host.file(path).exists, path
    (copy,) = host.check_output("ls --directory /var/lib/flask-larder_queue.*").split()
    assert host.check_output("stat --format='%%U %%a' %s", copy) == "root 700"
    assert host.run("grep --recursive --quiet kept %s", copy).rc == 0
    assert host.run("find %s -not -user root | grep .", copy).rc == 1
    # The app has its cache, and only that.
    assert main_process(host, CACHE) != "0"
    assert visitor.ask("https://larder.test/cached").status == 200
    assert (
        'REDIS_URL="unix:///run/flask-larder_cache/cache.sock?db=0"\n'
        in host.file("/srv/larder/current/env").content_string
    )
