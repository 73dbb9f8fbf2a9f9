"""The sizing budget: what is given out fits into what is there, on every size of host."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps import sizing

#: What the kernel shows of servers sold with 1 to 64 GB.
MEMORIES = (960, 1970, 3900, 7900, 16000, 32000, 64000)


def apps(count: int, **options: Any) -> dict[str, dict[str, Any]]:
    return {f"app{index}": dict(options) for index in range(count)}


def slot_memory(size: dict[str, int]) -> int:
    """MB that a slot of an app is expected to take: a master with the app in it, and its workers."""
    return sizing.MASTER_MB + size["workers"] * sizing.WORKER_MB


def megabytes(text: str) -> int:
    """A size as postgresql.conf has it."""
    number, unit = re.fullmatch(r"(\d+)(MB|GB)", text).groups()
    return int(number) * {"MB": 1, "GB": 1024}[unit]


def largest_site(memory: int) -> int:
    """How many apps preflight lets onto a host."""
    free = memory - sizing.SYSTEM_MB - int(memory * sizing.POSTGRES_SHARE)
    return free // sizing.SLOT_MINIMUM_MB


def test_the_smallest_server_runs_an_app() -> None:
    budget = sizing.size_host(960, 1, apps(1), database=True)
    assert budget["apps"]["app0"] == {
        "workers": 2,
        "threads": 8,
        "memory_mb": 464,
        "connections": 2 * 8 * 2 + sizing.APP_SPARE_CONNECTIONS,
        "pool": 0,
        "owner_connections": sizing.OWNER_CONNECTIONS,
    }
    assert budget["postgres"]["connections"] == 2 * 8 * 2 + sizing.SPARE_CONNECTIONS
    assert budget["postgres"]["settings"]["shared_buffers"] == "120MB"


@pytest.mark.parametrize("cpus", [1, 2, 8, 32])
@pytest.mark.parametrize("memory", MEMORIES)
def test_processes_and_postgres_fit_into_the_memory(memory: int, cpus: int) -> None:
    """Both slots of every app run, as in a deploy of all of them.

    With a share of 192 to 239 MB (the least that preflight lets pass) an app has one worker, and its two slots are
    expected to take 240: there the promise is that all apps fit while one slot of each runs.
    """
    free = memory - sizing.SYSTEM_MB - int(memory * sizing.POSTGRES_SHARE)
    both_smallest = sizing.SLOTS_AT_ONCE * (sizing.MASTER_MB + sizing.WORKER_MB)
    for count in range(1, largest_site(memory) + 1):
        budget = sizing.size_host(memory, cpus, apps(count), database=True)
        slots = sizing.SLOTS_AT_ONCE if free // count >= both_smallest else 1
        assert slots * sum(map(slot_memory, budget["apps"].values())) <= free, count
        settings = budget["postgres"]["settings"]
        half = int(memory * sizing.POSTGRES_SHARE) // 2
        assert megabytes(settings["shared_buffers"]) <= half
        # Every connection of the slots that serve sorts once at the same time; 4 MB are PostgreSQL's own default.
        working = (budget["postgres"]["connections"] - sizing.SPARE_CONNECTIONS) // 2
        assert settings["work_mem"] == "4MB" or megabytes(settings["work_mem"]) * working <= half + 1


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_limit_of_a_slot_holds_its_workers(memory: int) -> None:
    for count in range(1, largest_site(memory) + 1):
        for size in sizing.size_host(memory, 8, apps(count), database=True)["apps"].values():
            assert slot_memory(size) <= size["memory_mb"]


def test_a_process_counts_as_a_slot() -> None:
    """Of the same memory there is less for each slot, and what all take together still fits."""
    alone, beside = apps(2), apps(2)
    beside["app1"]["processes"] = {"worker": "w", "clock": "c", "off": ""}
    budgets = [sizing.size_host(1970, 4, site, database=True)["apps"]["app0"] for site in (alone, beside)]
    # Two apps are four slots; with two processes there are six parts.
    assert budgets[1]["memory_mb"] == budgets[0]["memory_mb"] * 4 // 6
    assert budgets[1]["workers"] < budgets[0]["workers"]
    free = 1970 - sizing.SYSTEM_MB - int(1970 * sizing.POSTGRES_SHARE)
    assert 6 * slot_memory(budgets[1]) <= free


def test_postgres_accepts_the_connections_of_the_processes() -> None:
    def connections(app_hosts: int, **options: Any) -> int:
        site = {"shop": {"workers": 2, "threads": 4, **options}}
        return sizing.size_host(3900, 4, site, database=True, app_hosts=app_hosts)["postgres"]["connections"]

    processes = {"worker": "w", "clock": "c", "off": ""}
    for hosts in (1, 2):
        more = connections(hosts, processes=processes) - connections(hosts)
        assert more == 2 * sizing.PROCESS_CONNECTIONS * hosts
    assert connections(1, processes=processes, database=False) == sizing.SPARE_CONNECTIONS
    assert connections(1, processes=None) == connections(1)


@pytest.mark.parametrize("app_hosts", [1, 3])
def test_postgres_accepts_every_connection_that_the_workers_can_open(app_hosts: int) -> None:
    site = {"a": {"workers": 3, "threads": 4}, "b": {"worker_class": "sync"}, "c": {"database": False}, "d": {}}
    budget = sizing.size_host(3900, 4, site, database=True, app_hosts=app_hosts)
    opened = sum(budget["apps"][name]["workers"] * budget["apps"][name]["threads"] * 2 * app_hosts for name in "abd")
    assert budget["postgres"]["connections"] == opened + sizing.SPARE_CONNECTIONS
    assert budget["apps"]["b"]["threads"] == 1


@pytest.mark.parametrize("worker_class", ["gevent", "asgi"])
def test_workers_without_threads_open_the_connections_of_a_pool(worker_class: str) -> None:
    budget = sizing.size_host(3900, 4, {"a": {"workers": 3, "worker_class": worker_class}}, database=True)
    assert budget["apps"]["a"]["threads"] == 1
    assert budget["postgres"]["connections"] == 3 * sizing.POOLED_CONNECTIONS * 2 + sizing.SPARE_CONNECTIONS


def test_waitress_is_one_process() -> None:
    budget = sizing.size_host(3900, 4, {"a": {"server": "waitress", "threads": 16}}, database=True)
    assert budget["apps"]["a"]["workers"] == 1
    assert budget["postgres"]["connections"] == 16 * 2 + sizing.SPARE_CONNECTIONS


def test_more_memory_never_gives_less() -> None:
    before: dict[str, Any] = {}
    for memory in range(700, 8000, 7):
        budget = sizing.size_host(memory, 4, apps(2), database=True)
        settings = budget["postgres"]["settings"]
        grows = ("shared_buffers", "effective_cache_size", "maintenance_work_mem", "max_wal_size", "min_wal_size")
        now = {**budget["apps"]["app0"], **{name: megabytes(settings[name]) for name in grows}}
        assert all(now[key] >= value for key, value in before.items()), memory
        before = now


@pytest.mark.parametrize(("cpus", "workers"), [(1, 2), (2, 2), (4, 4), (16, 16)])
def test_cores_bound_the_workers_where_there_is_memory(cpus: int, workers: int) -> None:
    assert sizing.size_host(32000, cpus, apps(1), database=True)["apps"]["app0"]["workers"] == workers


def test_what_the_user_says_wins() -> None:
    chosen = {"workers": 5, "threads": 2, "limits": {"memory": 700}}
    assert sizing.size_host(960, 1, {"shop": chosen}, database=True)["apps"]["shop"] == {
        "workers": 5,
        "threads": 2,
        "memory_mb": 700,
        "connections": 5 * 2 * 2 + sizing.APP_SPARE_CONNECTIONS,
        "pool": 0,
        "owner_connections": sizing.OWNER_CONNECTIONS,
    }


def test_a_host_without_a_database_gives_its_memory_to_the_apps() -> None:
    with_it, without = (sizing.size_host(960, 1, apps(1), database=database) for database in (True, False))
    assert without["apps"]["app0"]["memory_mb"] > with_it["apps"]["app0"]["memory_mb"]


def test_a_host_of_its_own_is_all_postgresqls() -> None:
    mixed, alone = (
        sizing.size_host(7900, 4, apps(2), database=True, app_hosts=2, apps_here=here)["postgres"]["settings"]
        for here in (True, False)
    )
    assert megabytes(alone["shared_buffers"]) == 7900 // 4 > megabytes(mixed["shared_buffers"])
    assert megabytes(alone["effective_cache_size"]) > megabytes(mixed["effective_cache_size"])
    assert alone["max_connections"] == mixed["max_connections"]


def test_connections_are_those_of_the_hosts_that_run_the_apps() -> None:
    """The database's own host says nothing about them."""

    def accepted(**hosts: Any) -> int:
        return sizing.size_host(1970, 1, apps(1), database=True, **hosts)["postgres"]["connections"]

    large = sizing.size_host(31000, 16, apps(1), database=False)["apps"]["app0"]
    opened = large["workers"] * large["threads"] * 2
    assert accepted(app_hosts=1, apps_here=False, elsewhere=[(31000, 16)]) == opened + sizing.SPARE_CONNECTIONS
    both = accepted(app_hosts=2, elsewhere=[(31000, 16)])
    assert both == accepted() + opened
    assert accepted(app_hosts=3, elsewhere=[(31000, 16)]) == both + accepted() - sizing.SPARE_CONNECTIONS


@pytest.mark.parametrize(("cpus", "gather"), [(1, 0), (2, 2), (4, 2), (8, 4), (64, 4)])
def test_queries_in_parallel_leave_cores_to_the_apps(cpus: int, gather: int) -> None:
    settings = sizing.size_host(7900, cpus, apps(1), database=True)["postgres"]["settings"]
    assert settings["max_parallel_workers_per_gather"] == gather
    assert settings["max_parallel_workers"] <= settings["max_worker_processes"]


@pytest.mark.parametrize(("threads", "accepted"), [(1, 100), (19, 100), (20, 100), (21, 200), (45, 200), (46, 300)])
def test_postgres_needs_no_restart_for_some_more_connections(threads: int, accepted: int) -> None:
    """It accepts what the app can open (2 workers, 2 slots) and 20 spare ones, in whole hundreds."""
    site = {"shop": {"workers": 2, "threads": threads}}
    budget = sizing.size_host(3900, 4, site, database=True)["postgres"]
    assert budget["connections"] == 4 * threads + 20
    assert budget["settings"]["max_connections"] == accepted


def test_a_pool_takes_few_connections_whatever_the_workers_are() -> None:
    site = {"shop": {"workers": 30, "threads": 8, "database_pool": True}}
    for hosts in (1, 4):
        budget = sizing.size_host(15000, 8, site, database=True, app_hosts=hosts)
        assert budget["apps"]["shop"]["pool"] == 17
        assert budget["apps"]["shop"]["connections"] == 17 + sizing.APP_SPARE_CONNECTIONS
        assert budget["postgres"]["connections"] == 17 + sizing.SPARE_CONNECTIONS


def test_no_app_no_error() -> None:
    assert sizing.size_host(960, 1, {}, database=True)["apps"] == {}
