"""The sizing budget: processes, memory and database connections, computed once from the host's cores and memory.

All numbers that depend on each other are computed here, so that they cannot drift apart: the workers that fit into the
memory, and the connections that the workers can open and PostgreSQL has to accept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import instances
from .options import ONE_PROCESS

#: MB reserved for the kernel, systemd, sshd, journald and nginx.
SYSTEM_MB = 256
#: Share of the memory for a PostgreSQL server on the same host.
POSTGRES_SHARE = 0.25
#: MB for an app's master process with the app loaded, and for each worker forked from it. Measured: with preload, five
#: workers take 0.46 of the memory that they take without it, because they share the master's pages.
MASTER_MB, WORKER_MB = 80, 40
#: Minimum MB for a slot: an app with an ORM does not start with less.
SLOT_MINIMUM_MB = 192
#: MB of an idle slot or process: preflight refuses more of them than fit. Measured (benchmarks/serve): 55 to 60 MB for
#: an app with SQLAlchemy and psycopg. Less here, because an idle PostgreSQL and the system leave more than their share:
#: ten such apps serve on a host with 1 GB.
IDLE_MB = 45
#: Both slots run during a deploy.
SLOTS_AT_ONCE = 2
#: Connections that each worker can open that handles its requests without threads (gevent, ASGI): the default of
#: SQLAlchemy's pool, 5 and an overflow of 10. Only a pool limits them, because requests are not limited by threads.
POOLED_CONNECTIONS = 15
#: Connections that each process outside the slots can open: the default pool size of SQLAlchemy (5). A process that
#: runs one task at a time does not need the overflow (``max_overflow``).
PROCESS_CONNECTIONS = 5
#: Further connections of an app's role: during a deploy, one holds the app's lock and one reads the schema; the third
#: is for an operator's shell.
APP_SPARE_CONNECTIONS = 3
#: Connections of a database's owner, for the release command: SQLAlchemy's pool size of 5. One command runs at a time.
OWNER_CONNECTIONS = 5
#: Minimum number of PostgreSQL connections that the clients of a pool share. PostgreSQL's wiki (Number Of Database
#: Connections) recommends two for each core, plus one.
POOL_MINIMUM = 8
#: Connections that PostgreSQL accepts in addition to those of the apps: 3 reserved for superusers, one owner's, a
#: deploy's, and the rest for maintenance, backups, monitoring and an operator's shell.
SPARE_CONNECTIONS = 20
#: ``max_connections`` is a multiple of this. PostgreSQL restarts for another value, and visitors wait for about a
#: second: a step leaves room for more workers or a small app. 100 is PostgreSQL's own default.
CONNECTIONS_STEP = 100


def size_host(
    memory_mb: int,
    cpus: int,
    apps: dict[str, dict[str, Any]],
    database: bool,
    app_hosts: int = 1,
    *,
    apps_here: bool = True,
    elsewhere: Sequence[tuple[int, int]] = (),
) -> dict[str, Any]:
    """Compute the budget of one host.

    Args:
        memory_mb: the host's memory in MB.
        cpus: the host's virtual cores.
        apps: the user's ``flask_apps``. Only ``server``, ``worker_class``, ``workers``, ``threads``,
            ``limits.memory``, ``processes``, ``database``, ``cache`` and ``queue`` with their sizes are used. Processes
            that only a Procfile names are not counted: the Procfile is on the host, or not even there yet.
        database: whether PostgreSQL runs on this host too.
        app_hosts: number of hosts that run the apps. Each of them opens connections to the database.
        apps_here: whether this host runs the apps. If not, PostgreSQL has the host to itself.
        elsewhere: memory in MB and cores of each other app host that is known. Unknown hosts count as this size.

    Returns:
        ``apps``: for each app ``workers``, ``threads``, ``memory_mb`` (the limit of one slot, or of one process),
        ``connections`` (connection limit of its role, for all hosts together), ``pool`` (number of PostgreSQL
        connections that its clients share; 0 without a pool) and ``owner_connections``; ``postgres``:
        ``connections`` (number that it has to accept) and ``settings`` (see :func:`postgres_settings`).
    """
    share = POSTGRES_SHARE if apps_here else 1 - SYSTEM_MB / max(memory_mb, 2 * SYSTEM_MB)
    postgres_mb = int(memory_mb * share) if database else 0
    own = _size_apps(memory_mb, cpus, apps, postgres_mb if apps_here else 0)
    unknown = max(1, app_hosts) - len(elsewhere) - int(apps_here)
    # The other hosts run no PostgreSQL, so they have more memory for workers, which can open more connections.
    others = [own] * unknown + [_size_apps(*host, apps, 0) for host in elsewhere]
    sizes: dict[str, dict[str, int]] = {}
    connections = 0
    for name, app in apps.items():
        opened = sum(count_connections(app, size[name]) for size in ([own] if apps_here else []) + others)
        pool = max(POOL_MINIMUM, 2 * cpus + 1) if app.get("database_pool") else 0
        opened = pool or opened
        sizes[name] = {
            **own[name],
            "pool": pool,
            "connections": opened + APP_SPARE_CONNECTIONS,
            "owner_connections": OWNER_CONNECTIONS,
        }
        if app.get("database", True):
            connections += opened
    return {
        "apps": sizes,
        "postgres": {
            "connections": connections + SPARE_CONNECTIONS,
            "settings": postgres_settings(memory_mb, cpus, postgres_mb, connections, alone=not apps_here),
        },
    }


def _size_apps(memory_mb: int, cpus: int, apps: dict[str, dict[str, Any]], postgres_mb: int) -> dict[str, Any]:
    """Compute the workers, threads and memory of each app on a host, after PostgreSQL, caches and queues."""
    # A process loads the app as a slot does, and runs while both slots do.
    parts = sum(SLOTS_AT_ONCE + count_processes(app) for app in apps.values())
    instances_mb = sum(map(instances.total_mb, apps.values()))
    share_mb = max(0, memory_mb - SYSTEM_MB - postgres_mb - instances_mb) * SLOTS_AT_ONCE // max(1, parts)
    slot_mb = share_mb // SLOTS_AT_ONCE
    by_memory = 1 + max(0, slot_mb - MASTER_MB - WORKER_MB) // WORKER_MB
    # One process per core is all that the GIL lets run at once; at least two, so that one can be busy.
    workers = min(by_memory, max(2, cpus))
    return {
        name: {
            "workers": 1 if app.get("server") in ONE_PROCESS else int(app.get("workers") or workers),
            "threads": int(app.get("threads") or 8) if app.get("worker_class", "gthread") == "gthread" else 1,
            # A slot can use the app's whole share for a while, but never another app's share.
            "memory_mb": int((app.get("limits") or {}).get("memory") or max(SLOT_MINIMUM_MB, share_mb)),
        }
        for name, app in apps.items()
    }


def postgres_settings(
    memory_mb: int, cpus: int, postgres_mb: int, connections: int, *, alone: bool = False
) -> dict[str, str | int | float]:
    """Compute PostgreSQL's settings. "Manual" in the comments: PostgreSQL's manual, by the sections of version 15.

    Args:
        memory_mb: the host's memory in MB.
        cpus: the host's virtual cores.
        postgres_mb: PostgreSQL's share of the memory in MB.
        connections: connections that the apps can open, with both slots of each app.
        alone: whether PostgreSQL has the host to itself.

    Returns:
        The settings by their names in postgresql.conf.
    """
    # Manual 20.4.1: a quarter of the memory of a dedicated host. The kernel caches the same pages, so that more memory
    # helps less and less. Next to apps, half of PostgreSQL's share; the other half is for sorts and maintenance.
    shared = _between(32, memory_mb // 4 if alone else postgres_mb // 2, 16384)
    # Both slots run only during a deploy, so half of the connections are active at a time. Manual 20.4.1: a query can
    # use it several times over, and hashes twice (hash_mem_multiplier), so the rest is divided by connection only once.
    work = _between(4, (postgres_mb - shared) // max(1, connections // SLOTS_AT_ONCE), 128)
    # Measured: building a 300 MB index takes 10 % longer with 256 MB than with 64, and 25 % longer with 750 MB, because
    # the sort no longer fits into the processor's caches. For VACUUM, 64 MB hold 11 million dead rows.
    maintenance = _between(64, postgres_mb // 64, 256)
    # Manual 30.5: checkpoints should be triggered by time, not by WAL volume. The WAL takes disk space, which is scarce
    # on a small server.
    wal_gb = next((size for least, size in ((15000, 8), (3500, 4), (1800, 2)) if memory_mb >= least), 1)
    # Keep at least the default of 2 workers for a query (8 in total), except on a single core.
    gather = _between(2, cpus // 2, 4) if cpus > 1 else 0
    return {
        "max_connections": math.ceil((connections + SPARE_CONNECTIONS) / CONNECTIONS_STEP) * CONNECTIONS_STEP,
        "shared_buffers": f"{shared}MB",
        # Manual 20.7.2: PostgreSQL's own buffers plus the kernel's page cache. It reserves nothing.
        "effective_cache_size": f"{max(shared, memory_mb * 3 // 4 if alone else memory_mb // 2)}MB",
        "work_mem": f"{work}MB",
        "maintenance_work_mem": f"{maintenance}MB",
        # Manual 20.4.1: three autovacuum workers can use this at the same time.
        "autovacuum_work_mem": f"{_between(16, postgres_mb // 16, 256)}MB",
        # Manual 20.4.1: used if the kernel has reserved huge pages, and skipped if not.
        "huge_pages": "try",
        # Manual 20.5.1: more than one WAL segment is of no use. The default is 4 MB with 128 MB of shared buffers.
        "wal_buffers": "16MB" if memory_mb >= 1800 else "-1",
        "max_wal_size": f"{wal_gb}GB",
        # Manual 30.5: this much WAL is recycled, which is faster than creating files.
        "min_wal_size": f"{wal_gb * 512}MB",
        # Manual 30.5: with 5 minutes, full pages are written up to three times as often. Crash recovery takes
        # correspondingly longer.
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": 0.9,
        # Manual 20.7.2 and 20.4.6: the defaults are for spinning disks, and servers have SSDs.
        "random_page_cost": 1.1,
        "effective_io_concurrency": 200,
        # Manual 20.4.6: a worker needs a free core. The apps run on the same host, so half of the cores.
        "max_worker_processes": max(8, cpus),
        "max_parallel_workers": max(8, cpus),
        "max_parallel_workers_per_gather": gather,
        "max_parallel_maintenance_workers": gather,
        # Manual 25.1.3 and 20.10: 20 % of a large table is too much to be dead, or unknown to the planner.
        "autovacuum_vacuum_scale_factor": 0.1,
        "autovacuum_analyze_scale_factor": 0.05,
        # Manual 20.4.4: the pauses of 2 ms are meant for disks with seek times.
        "autovacuum_vacuum_cost_limit": 1000,
    }


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(most, value))


def count_processes(app: dict[str, Any]) -> int:
    """Count the processes that run next to the slots. An empty command disables a process of the Procfile."""
    return sum(bool(command) for command in (app.get("processes") or {}).values())


def count_connections(app: dict[str, Any], size: dict[str, int]) -> int:
    """Return the number of database connections that an app can open on one host.

    Args:
        app: the user's options of the app.
        size: its ``workers`` and ``threads``.
    """
    pooled = app.get("worker_class") in ("gevent", "asgi")
    by_worker = POOLED_CONNECTIONS if pooled else size["threads"]
    return size["workers"] * by_worker * SLOTS_AT_ONCE + count_processes(app) * PROCESS_CONNECTIONS
