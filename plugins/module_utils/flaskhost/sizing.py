"""The sizing budget: processes, memory and database connections, computed once from the host's cores and memory.

Every number that has to fit with another one is made here, so that they cannot drift apart: the workers that fit into
the memory, and the connections that the workers can open, which PostgreSQL has to accept.
"""

from __future__ import annotations

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
#: Connections that PostgreSQL keeps for its superuser, for maintenance, backups and an operator's shell.
SPARE_CONNECTIONS = 13


def size_host(
    memory_mb: int, cpus: int, apps: dict[str, dict[str, Any]], database: bool, app_hosts: int = 1
) -> dict[str, Any]:
    """Compute the budget of one host.

    Args:
        memory_mb: the host's memory in MB.
        cpus: the host's virtual cores.
        apps: ``flask_apps`` as the user wrote it; ``workers``, ``threads``, ``limits.memory``, ``processes`` and
            ``database`` count. What only a Procfile names cannot: it is on the host, or not even there yet.
        database: whether PostgreSQL runs on this host too.
        app_hosts: how many hosts run the apps, each opening connections to the database.

    Returns:
        ``apps``: for each app ``workers``, ``threads`` and ``memory_mb`` (the limit of one slot, or of one process);
        ``postgres``: ``max_connections`` and ``shared_buffers_mb``.
    """
    postgres_mb = int(memory_mb * POSTGRES_SHARE) if database else 0
    # A process has the app loaded as a slot has, and runs while both slots do.
    parts = sum(SLOTS_AT_ONCE + count_processes(app) for app in apps.values())
    share_mb = max(0, memory_mb - SYSTEM_MB - postgres_mb) * SLOTS_AT_ONCE // max(1, parts)
    slot_mb = share_mb // SLOTS_AT_ONCE
    by_memory = 1 + max(0, slot_mb - MASTER_MB - WORKER_MB) // WORKER_MB
    # One process per core is what Python's interpreter lock lets work at once; two, so that one can be busy.
    workers = min(by_memory, max(2, cpus))

    sizes: dict[str, dict[str, int]] = {}
    connections = 0
    for name, app in apps.items():
        size = {
            "workers": int(app.get("workers") or workers),
            "threads": int(app.get("threads") or 8) if app.get("worker_class", "gthread") == "gthread" else 1,
            # A slot may take the app's whole share for a while, but never another app's.
            "memory_mb": int((app.get("limits") or {}).get("memory") or max(SLOT_MINIMUM_MB, share_mb)),
        }
        sizes[name] = size
        if app.get("database", True):
            connections += count_connections(app, size) * max(1, app_hosts)
    return {
        "apps": sizes,
        "postgres": {
            "max_connections": connections + SPARE_CONNECTIONS,
            # PostgreSQL's manual: a quarter of the memory on a host of its own; half of its share on this one.
            "shared_buffers_mb": max(32, min(8192, postgres_mb // 2)),
        },
    }


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
