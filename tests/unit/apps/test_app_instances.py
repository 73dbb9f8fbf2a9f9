"""Names and paths of an app's cache and queue."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps import instances, record, sizing

APP = {"domains": ["shop.example.com"], "source": {"path": "shop"}, "wsgi": "shop:app"}


def test_an_app_without_the_options_has_no_instances() -> None:
    found = record.app_record("shop", APP)
    assert found["cache"] == found["queue"] == {}


def test_the_names_and_paths_of_the_instances() -> None:
    found = record.app_record("shop", {**APP, "cache": "memcached", "queue": "redis"})
    assert found["instance_states"] == ["/var/lib/flask-shop_queue"], "limits.disk counts it"
    assert found["cache"] == {
        "engine": "memcached",
        "kind": "cache",
        "name": "cache of shop",
        "unit": "flask-shop_cache.service",
        "user": "shop_cache",
        "group": "shop",
        "folder": "/run/flask-shop_cache",
        "socket": "/run/flask-shop_cache/cache.sock",
        "state": "",
        "config": "/etc/flaskhost/flask-shop_cache.conf",
        "journal": "flask-shop",
        "before": ["flask-shop@blue.service", "flask-shop@green.service"],
        "data_mb": 64,
        "memory_mb": 96,
    }
    assert found["queue"]["engine"] == "redis"
    assert found["queue"]["socket"] == "/run/flask-shop_queue/queue.sock"
    assert found["queue"]["state"] == "/var/lib/flask-shop_queue"


def test_the_users_of_long_names_are_short_enough_and_differ() -> None:
    apps = [f"{'a' * length}" for length in range(1, 32)] + [f"{'a' * 30}b", f"{'a' * 16}-{'a' * 14}"]
    users = [instances.user(app, kind) for app in apps for kind in instances.KINDS]
    assert len({*users}) == len(users)
    for user in users:
        assert len(user) <= 31
        assert re.fullmatch(r"[a-z][a-z0-9_-]*", user)
        # No app can have such a name, because none has an underscore.
        assert "_" in user


def test_a_users_name_stays_the_same() -> None:
    """Another one would own none of the instance's data."""
    assert instances.user("a" * 25, "cache") == f"{'a' * 25}_cache"
    assert instances.user("a" * 26, "cache") == f"{'a' * 16}_9976d549_cache"
    assert instances.user("a" * 31, "queue") == f"{'a' * 16}_61c60b48_queue"


def environment(**options: Any) -> dict[str, str]:
    """The variables that an app has only with these options."""
    without, found = (record.app_record("shop", {**APP, **more})["environment"] for more in ({}, options))
    return {name: value for name, value in found.items() if name not in without}


CACHE, QUEUE = "/run/flask-shop_cache/cache.sock", "/run/flask-shop_queue/queue.sock"
JOBS = {
    "REDIS_URL": f"unix://{QUEUE}?db=0",
    "RQ_REDIS_URL": f"unix://{QUEUE}?db=0",
    "CELERY_BROKER_URL": f"redis+socket://{QUEUE}?virtual_host=1",
    "CELERY_RESULT_BACKEND": f"redis+socket://{QUEUE}?virtual_host=1",
}


def test_a_redis_cache_has_variables_for_its_clients() -> None:
    assert environment(cache="redis") == {
        "REDIS_URL": f"unix://{CACHE}?db=0",
        "CACHE_REDIS_URL": f"unix://{CACHE}?db=0",
        "RATELIMIT_STORAGE_URI": f"redis+unix://{CACHE}?db=2",
    }


def test_a_memcached_cache_has_variables_for_its_clients() -> None:
    assert environment(cache="memcached") == {
        "MEMCACHED_SERVERS": f"unix:{CACHE}",
        "RATELIMIT_STORAGE_URI": f"memcached://{CACHE}",
    }


def test_a_queue_has_variables_for_its_clients() -> None:
    assert environment(queue="redis") == {**JOBS, "RATELIMIT_STORAGE_URI": f"redis+unix://{QUEUE}?db=2"}


@pytest.mark.parametrize("engine", ["redis", "memcached"])
def test_jobs_go_to_the_queue_and_limits_to_the_cache(engine: str) -> None:
    """An app that knows only REDIS_URL may keep jobs in it, and a cache drops what it has no room for."""
    both = environment(cache=engine, queue="redis")
    assert both.items() >= JOBS.items()
    assert both["RATELIMIT_STORAGE_URI"] == environment(cache=engine)["RATELIMIT_STORAGE_URI"]


def test_an_app_keeps_a_result_backend_of_its_own() -> None:
    given = {"CELERY_RESULT_BACKEND": "db+sqlite:///x"}
    assert environment(queue="redis", env=given)["CELERY_RESULT_BACKEND"] == "db+sqlite:///x"


def test_the_roles_get_the_instances_and_the_slots_their_folders() -> None:
    found = record.app_record("shop", {**APP, "cache": "redis", "cache_mb": 100, "queue": "redis"})
    assert [instance["unit"] for instance in found["instances"]] == [
        "flask-shop_cache.service",
        "flask-shop_queue.service",
    ]
    assert [instance["memory_mb"] for instance in found["instances"]] == [141, 160]
    assert found["instance_folders"] == ["/run/flask-shop_cache", "/run/flask-shop_queue"]
    assert record.app_record("shop", APP)["instances"] == []


def test_instances_are_part_of_the_budget() -> None:
    plain = sizing.size_host(1970, 2, {"shop": {}, "blog": {}}, database=True)
    stored = sizing.size_host(1970, 2, {"shop": {"cache": "redis", "queue": "redis"}, "blog": {}}, database=True)
    # Both apps have less by half of what the instances can use: 96 and 160 MB.
    assert plain["apps"]["blog"]["memory_mb"] - stored["apps"]["blog"]["memory_mb"] == (96 + 160) / 2


@pytest.mark.parametrize("kind", instances.KINDS)
@pytest.mark.parametrize("megabytes", [60, 61, 62, 63, 64, 1000])
def test_the_largest_data_that_fits(kind: str, megabytes: int) -> None:
    size = instances.data_that_fits(kind, megabytes)
    assert instances.memory_mb(kind, size) <= megabytes
    # A cache's share is rounded twice.
    assert instances.memory_mb(kind, size + (1 if kind == "queue" else 2)) > megabytes
