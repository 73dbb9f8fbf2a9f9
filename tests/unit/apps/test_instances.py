"""Names and paths of an app's cache and queue."""

from __future__ import annotations

import re

from ansible.module_utils.flaskhost.apps import instances, record

APP = {"domains": ["shop.example.com"], "source": {"path": "shop"}, "wsgi": "shop:app"}


def test_an_app_without_the_options_has_no_instances() -> None:
    found = record.app_record("shop", APP)
    assert found["cache"] == found["queue"] == {}


def test_the_names_and_paths_of_the_instances() -> None:
    found = record.app_record("shop", {**APP, "cache": "memcached", "queue": "redis"})
    assert found["cache"] == {
        "engine": "memcached",
        "kind": "cache",
        "unit": "flask-shop_cache.service",
        "user": "shop_cache",
        "group": "shop",
        "folder": "/run/flask-shop_cache",
        "socket": "/run/flask-shop_cache/cache.sock",
        "state": "/var/lib/flask-shop_cache",
        "config": "/etc/flaskhost/flask-shop_cache.conf",
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
