"""Queues: RQ and Celery work with workers in the app's sandbox, and no job is lost."""

from __future__ import annotations

from stores import BOTH, QUEUE, enqueue, main_process, redis, result, until

testinfra_hosts = BOTH
WORKERS = "flask-larder_process@rq.service flask-larder_process@celery.service"


def test_jobs_of_rq_and_celery_are_done(visitor):
    for kind, word, shouted in (("rq", "bread", "BREAD"), ("celery", "MILK", "milk")):
        job = enqueue(visitor, kind, word)
        assert until(30, lambda: result(visitor, kind, job)) == shouted  # noqa: B023


def test_queue_keeps_its_jobs_when_it_is_killed(host, visitor):
    host.check_output(f"systemctl stop {WORKERS}")
    try:
        jobs = {kind: [enqueue(visitor, kind, f"word{n}") for n in range(20)] for kind in ("rq", "celery")}
        # The file is written to the disk once a second.
        until(5, lambda: "aof_pending_bio_fsync:0" in redis(host, "info persistence"))
        before = main_process(host, QUEUE)
        host.run_expect([0], f"kill -KILL {before}")
        until(15, lambda: main_process(host, QUEUE) not in ("0", before) and redis(host, "ping") == "PONG")
        assert visitor.ask("https://larder.test/rq").json == {"waiting": 20}
        assert redis(host, "-n 1 llen celery") == "20"
    finally:
        host.check_output(f"systemctl start {WORKERS}")
    for kind, names in jobs.items():
        for job in names:
            until(60, lambda: result(visitor, kind, job))  # noqa: B023


def test_queue_keeps_its_jobs_when_the_package_is_upgraded(host, visitor):
    host.check_output(f"systemctl stop {WORKERS}")
    try:
        jobs = [enqueue(visitor, "rq", f"word{n}") for n in range(20)]
        before = main_process(host, QUEUE)
        host.check_output(
            "env DEBIAN_FRONTEND=noninteractive apt-get install --reinstall --quiet=2 --yes redis-server redis-tools"
        )
        after = until(15, lambda: redis(host, "ping") == "PONG" and main_process(host, QUEUE))
        assert after not in ("0", before), "the package restarts the instances"
        assert visitor.ask("https://larder.test/rq").json == {"waiting": 20}
        assert host.run("ss -lnt | grep :6379").rc == 1
    finally:
        host.check_output(f"systemctl start {WORKERS}")
    for job in jobs:
        until(60, lambda: result(visitor, "rq", job))  # noqa: B023


def test_full_queue_refuses_and_keeps(host):
    assert redis(host, "-n 5 set job 1") == "OK"
    fill = """python3 -c 'for n in range(20000): print("set", n, "x" * 4096)'"""
    shell = "runuser -u larder -- redis-cli -s /run/flask-larder_queue/queue.sock -n 5"
    try:
        assert "OOM command not allowed" in host.check_output(f"{fill} | {shell} | grep --max-count 1 OOM")
        assert redis(host, "-n 5 get job") == "1"
    finally:
        redis(host, "-n 5 flushdb")
