"""The sizing budget: processes, memory and database connections, computed once from the host's cores and memory.

Every number that has to fit with another one is made here, so that they cannot drift apart: the workers that fit into
the memory, and the connections that the workers can open, which PostgreSQL has to accept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: MB kept for the kernel, systemd, sshd, journald and nginx.
SYSTEM_MB = 256
#: The share of the memory that a PostgreSQL on the same host is given.
POSTGRES_SHARE = 0.25
#: MB of an app's master process with the app loaded, and of each worker forked from it. With preload five workers
#: take 0.46 of what they take without, since they share the master's pages.
MASTER_MB, WORKER_MB = 80, 40
#: No slot is given less than this: an app with an ORM does not start below it.
SLOT_MINIMUM_MB = 192
#: Both slots run during a deploy.
SLOTS_AT_ONCE = 2
#: Connections that a process beside the slots may open: the pool of SQLAlchemy has 5 by default, and what it may open
#: beyond them (max_overflow) one process with one task at a time does not need.
PROCESS_CONNECTIONS = 5
#: Connections of an app's role beside its processes' own: a deploy holds the app's lock by one and asks for the schema
#: by another, and one is for an operator's shell.
APP_SPARE_CONNECTIONS = 3
#: Connections of a database's owner, for the release command: SQLAlchemy's pool of 5. One runs at a time.
OWNER_CONNECTIONS = 5
#: Connections of PostgreSQL's that the clients of a pool share, at least: PostgreSQL's wiki (Number Of Database
#: Connections) has two for each core, and one.
POOL_MINIMUM = 8
#: Connections that PostgreSQL accepts beyond those of the apps: 3 that it keeps for its superuser, one owner's, a
#: deploy's, and the rest for maintenance, backups, monitoring and an operator's shell.
SPARE_CONNECTIONS = 20


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
        apps: ``flask_apps`` as the user wrote it; ``workers``, ``threads``, ``limits.memory``, ``processes`` and
            ``database`` count. What only a Procfile names cannot: it is on the host, or not even there yet.
        database: whether PostgreSQL runs on this host too.
        app_hosts: how many hosts run the apps, each opening connections to the database.
        apps_here: whether this is one of them; else PostgreSQL has the host to itself.
        elsewhere: memory in MB and cores of those of the others that are known. The rest counts as being like this one.

    Returns:
        ``apps``: for each app ``workers``, ``threads``, ``memory_mb`` (the limit of one slot, or of one process),
        ``connections`` (what its role may open on all hosts together), ``pool`` (how many of PostgreSQL's its clients
        share; 0 where each has its own) and ``owner_connections``; ``postgres``: ``max_connections`` and ``settings``
        (see :func:`postgres_settings`).
    """
    share = POSTGRES_SHARE if apps_here else 1 - SYSTEM_MB / max(memory_mb, 2 * SYSTEM_MB)
    postgres_mb = int(memory_mb * share) if database else 0
    own = _size_apps(memory_mb, cpus, apps, postgres_mb if apps_here else 0)
    unknown = max(1, app_hosts) - len(elsewhere) - int(apps_here)
    # Without a database of their own: there is more memory for workers then, and more that they may open.
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
            "max_connections": connections + SPARE_CONNECTIONS,
            "settings": postgres_settings(memory_mb, cpus, postgres_mb, connections, alone=not apps_here),
        },
    }


def _size_apps(memory_mb: int, cpus: int, apps: dict[str, dict[str, Any]], postgres_mb: int) -> dict[str, Any]:
    """The workers, threads and memory of each app on a host where PostgreSQL has its part of the memory."""
    # A process has the app loaded as a slot has, and runs while both slots do.
    parts = sum(SLOTS_AT_ONCE + count_processes(app) for app in apps.values())
    share_mb = max(0, memory_mb - SYSTEM_MB - postgres_mb) * SLOTS_AT_ONCE // max(1, parts)
    slot_mb = share_mb // SLOTS_AT_ONCE
    by_memory = 1 + max(0, slot_mb - MASTER_MB - WORKER_MB) // WORKER_MB
    # One process per core is what Python's interpreter lock lets work at once; two, so that one can be busy.
    workers = min(by_memory, max(2, cpus))
    return {
        name: {
            "workers": int(app.get("workers") or workers),
            "threads": int(app.get("threads") or 8) if app.get("worker_class", "gthread") == "gthread" else 1,
            # A slot may take the app's whole share for a while, but never another app's.
            "memory_mb": int((app.get("limits") or {}).get("memory") or max(SLOT_MINIMUM_MB, share_mb)),
        }
        for name, app in apps.items()
    }


def postgres_settings(
    memory_mb: int, cpus: int, postgres_mb: int, connections: int, *, alone: bool = False
) -> dict[str, str | int | float]:
    """Work out PostgreSQL's settings; "manual" is its own, by the section of version 15.

    Args:
        memory_mb: the host's memory in MB.
        cpus: the host's virtual cores.
        postgres_mb: what of the memory is PostgreSQL's.
        connections: what the apps may open, both slots of each.
        alone: whether nothing else runs on the host.

    Returns:
        The settings by their names, as postgresql.conf has them.
    """
    # Manual 20.4.1: a quarter of the memory of a host of its own; the kernel caches the same pages, so that more is of
    # less and less use. Beside apps half of PostgreSQL's share, the other half being for sorts and maintenance.
    shared = _between(32, memory_mb // 4 if alone else postgres_mb // 2, 16384)
    # Both slots run only during a deploy, so half of the connections work at a time. Manual 20.4.1: a query may take
    # it several times over, and hashes twice (hash_mem_multiplier): what is left is shared out once, by connection.
    work = _between(4, (postgres_mb - shared) // max(1, connections // SLOTS_AT_ONCE), 128)
    # Measured: an index over 300 MB takes a tenth longer at 256 MB than at 64, and a quarter longer at 750: what is
    # sorted in one go is then far from fitting into the processor's caches. 64 MB hold 11 million dead rows for VACUUM.
    maintenance = _between(64, postgres_mb // 64, 256)
    # Manual 30.5: checkpoints should come by the clock, not by the amount written. It is room on the disk, of which a
    # small server has little.
    wal_gb = next((size for least, size in ((15000, 8), (3500, 4), (1800, 2)) if memory_mb >= least), 1)
    # Of the defaults (2 for a query, 8 for all) nothing is taken away but where there is a single core.
    gather = _between(2, cpus // 2, 4) if cpus > 1 else 0
    return {
        "max_connections": connections + SPARE_CONNECTIONS,
        "shared_buffers": f"{shared}MB",
        # Manual 20.7.2: its own pages and those that the kernel caches for it. It reserves nothing.
        "effective_cache_size": f"{max(shared, memory_mb * 3 // 4 if alone else memory_mb // 2)}MB",
        "work_mem": f"{work}MB",
        "maintenance_work_mem": f"{maintenance}MB",
        # Manual 20.4.1: three workers may take it at the same time.
        "autovacuum_work_mem": f"{_between(16, postgres_mb // 16, 256)}MB",
        # Manual 20.4.1: they are used where the kernel has any set aside, and else not.
        "huge_pages": "try",
        # Manual 20.5.1: a segment's size is as much as is ever of use; by itself it takes 4 MB at 128 MB of buffers.
        "wal_buffers": "16MB" if memory_mb >= 1800 else "-1",
        "max_wal_size": f"{wal_gb}GB",
        # Manual 30.5: so much is kept to be written again, which is quicker than new files.
        "min_wal_size": f"{wal_gb * 512}MB",
        # Manual 30.5: at 5 minutes a page is written in full up to three times as often. After a crash it is that much
        # longer until all is read again.
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": 0.9,
        # Manual 20.7.2 and 20.4.6: the defaults are a spinning disk's, and servers are sold with SSDs.
        "random_page_cost": 1.1,
        "effective_io_concurrency": 200,
        # Manual 20.4.6: a worker is of use where there is a core for it; the apps are beside it, so half of the cores.
        "max_worker_processes": max(8, cpus),
        "max_parallel_workers": max(8, cpus),
        "max_parallel_workers_per_gather": gather,
        "max_parallel_maintenance_workers": gather,
        # Manual 25.1.3 and 20.10: a fifth of a large table is much to be dead, or unknown to the planner.
        "autovacuum_vacuum_scale_factor": 0.1,
        "autovacuum_analyze_scale_factor": 0.05,
        # Manual 20.4.4: the pauses of 2 ms are meant for a disk that has to move its head.
        "autovacuum_vacuum_cost_limit": 1000,
    }


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(most, value))


def count_processes(app: dict[str, Any]) -> int:
    """How many processes run beside the slots; one with an empty command is a Procfile's that is not to run."""
    return sum(bool(command) for command in (app.get("processes") or {}).values())


def count_connections(app: dict[str, Any], size: dict[str, int]) -> int:
    """How many connections to the database an app may open on one host.

    Args:
        app: what the user wrote.
        size: its ``workers`` and ``threads``.
    """
    return size["workers"] * size["threads"] * SLOTS_AT_ONCE + count_processes(app) * PROCESS_CONNECTIONS
