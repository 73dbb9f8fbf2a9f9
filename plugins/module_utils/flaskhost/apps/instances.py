"""An app's instances: its cache and its queue, each a server of its own behind a Unix socket.

The functions are pure. Modules that run on the hosts import this file, so it does not import the schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from .names import SLOTS

#: The instances that an app can have. The options of an app have the same names.
KINDS = ("cache", "queue")

#: The servers that each of them can have. Each is a role.
ENGINES = {"cache": ("redis", "memcached"), "queue": ("redis",)}

#: All of these servers.
ALL_ENGINES = frozenset(engine for engines in ENGINES.values() for engine in engines)

#: MB for the data, if the app's options do not say otherwise.
DATA_MB = 64

#: systemd accepts no longer user name.
LONGEST_USER = 31

#: Databases of Redis, so that clearing one of them leaves the others: Flask-Caching clears the whole database 0.
_CELERY, _LIMITS = 1, 2

#: Variables that an app can set itself beside a queue, such as for results in its database.
OPTIONAL_VARIABLES = frozenset({"CELERY_RESULT_BACKEND"})


def instance(app: str, kind: str, engine: str, data_mb: int = DATA_MB) -> dict[str, Any]:
    """Return the names, paths and limits of one instance of an app.

    Args:
        app: the app's name.
        kind: one of :data:`KINDS`.
        engine: the server that runs, one of :data:`ENGINES`.
        data_mb: MB for the data.

    Returns:
        ``engine``, ``kind``, ``name`` (for people), ``unit`` (with its suffix), ``user`` (of its own), ``group`` (the
        app's, which can open the socket), ``folder`` and ``socket``, ``state`` (the folder of its data; empty for a
        cache, which keeps none), ``config`` (its settings), ``journal`` (the namespace of its journal, which is the
        app's), ``before`` (the units that start after it at boot), ``data_mb`` and ``memory_mb``, the limit of the
        whole process.
    """
    name = f"flask-{app}_{kind}"
    return {
        "engine": engine,
        "kind": kind,
        "name": f"{kind} of {app}",
        "unit": f"{name}.service",
        "user": user(app, kind),
        "group": app,
        "folder": f"/run/{name}",
        "socket": f"/run/{name}/{kind}.sock",
        "state": f"/var/lib/{name}" if kind == "queue" else "",
        # No app can have a folder of this name there.
        "config": f"/etc/flaskhost/{name}.conf",
        "journal": f"flask-{app}",
        "before": [f"flask-{app}@{slot}.service" for slot in SLOTS],
        "data_mb": data_mb,
        "memory_mb": memory_mb(kind, data_mb),
    }


def of_app(app: str, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the instances of an app by their kinds; an empty mapping for one that the app does not have.

    Args:
        app: the app's name.
        options: its options.
    """
    return {
        kind: instance(app, kind, options[kind], options.get(f"{kind}_mb") or DATA_MB) if options.get(kind) else {}
        for kind in KINDS
    }


def memory_mb(kind: str, data_mb: int) -> int:
    """Return the MB that an instance can use.

    Measured: a cache needs a quarter for the fragmentation of its memory, and the buffers of its clients. While a queue
    writes its file anew, a second process has a copy of each page that changes meanwhile.
    """
    return 2 * data_mb + 32 if kind == "queue" else data_mb * 5 // 4 + 16


def data_that_fits(kind: str, megabytes: int) -> int:
    """Return the MB for the data of an instance that can use so much memory; the inverse of :func:`memory_mb`."""
    return (megabytes - 32) // 2 if kind == "queue" else (megabytes - 16) * 4 // 5


def total_mb(options: Mapping[str, Any]) -> int:
    """Return the MB that all instances of an app can use.

    Args:
        options: the app's options, already without invalid ones.
    """
    return sum(memory_mb(kind, options.get(f"{kind}_mb") or DATA_MB) for kind in KINDS if options.get(kind))


def variables(instances: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the variables that hold the addresses of an app's instances, in the forms that the clients need.

    ``REDIS_URL`` is the queue's if there is one: an app that knows only this variable can keep jobs or sessions in it,
    and a cache would drop them.

    Args:
        instances: the result of :func:`of_app`.
    """
    cache, queue = instances["cache"], instances["queue"]
    found: dict[str, str] = {}
    if cache and cache["engine"] == "memcached":
        # Without "unix:", Flask-Caching finds nothing, and says nothing.
        found["MEMCACHED_SERVERS"] = f"unix:{cache['socket']}"
        found["RATELIMIT_STORAGE_URI"] = f"memcached://{cache['socket']}"
    elif cache:
        found["CACHE_REDIS_URL"] = found["REDIS_URL"] = f"unix://{cache['socket']}?db=0"
        found["RATELIMIT_STORAGE_URI"] = f"redis+unix://{cache['socket']}?db={_LIMITS}"
    if queue:
        found["REDIS_URL"] = found["RQ_REDIS_URL"] = f"unix://{queue['socket']}?db=0"
        found["CELERY_BROKER_URL"] = f"redis+socket://{queue['socket']}?virtual_host={_CELERY}"
        found["CELERY_RESULT_BACKEND"] = found["CELERY_BROKER_URL"]
        found.setdefault("RATELIMIT_STORAGE_URI", f"redis+unix://{queue['socket']}?db={_LIMITS}")
    return found


def user(app: str, kind: str) -> str:
    """Return the system user of an instance. No app can have this name, because app names have no underscore.

    If the app's name is too long, the user's name has only its beginning and a checksum of it, and two underscores.
    """
    name = f"{app}_{kind}"
    if len(name) <= LONGEST_USER:
        return name
    checksum = hashlib.sha256(app.encode()).hexdigest()[:8]
    return f"{app[: LONGEST_USER - len(kind) - len(checksum) - 2]}_{checksum}_{kind}"
