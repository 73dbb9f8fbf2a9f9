"""Check the resources that all apps need together, as computed by :mod:`sizing`: memory and database connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..apps import instances, sizing
from ..apps.options import APP_OPTIONS
from ..apps.schema import Option
from .host import MINIMUM_MEMORY_MB
from .report import Report, get, get_number, read, snippet
from .rules.processes import process_command_fault, process_name_fault

#: Each PostgreSQL connection is a process that takes memory and slows down every snapshot. PostgreSQL's wiki (Number Of
#: Database Connections) recommends a pooler long before this number; 500 idle connections alone take gigabytes.
MAXIMUM_CONNECTIONS = 500


def check_budget(report: Report, variable: str, apps: dict[Any, Any], facts: Mapping[Any, Any]) -> None:
    """Check that the apps fit the host and PostgreSQL.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: its value; invalid options are ignored.
        facts: the host's facts; without its memory, only the connections are checked.
    """
    plain = {name: _sized_options(app) for name, app in apps.items() if isinstance(name, str)}
    memory, cpus = get_number(facts, "memtotal_mb"), get_number(facts, "processor_vcpus")
    # If the host is unknown, assume the smallest one, so that nothing is rejected that a larger host could run.
    budget = sizing.size_host(memory or 1024, cpus or 1, plain, database=True)
    _check_connections(report, variable, plain, budget)
    if plain and memory and memory >= MINIMUM_MEMORY_MB:
        _check_memory(report, variable, plain, budget, memory)


def _check_memory(report: Report, variable: str, apps: dict[str, Any], budget: dict[str, Any], memory: int) -> None:
    free = _free_mb(memory)
    free -= _check_instances(report, variable, apps, free)
    processes = sum(map(sizing.count_processes, apps.values()))
    needed = (len(apps) + processes) * sizing.IDLE_MB
    if free < needed:
        beside = f" and {processes} background processes need {needed} MB" if processes else ""
        each = beside or f" need {sizing.IDLE_MB} MB each"
        problem = (
            f"{len(apps)} apps{each} even if they are idle, but after the system and PostgreSQL, {free} of the "
            f"host's {memory} MB are left."
        )
        fewer = "fewer processes" if processes else f"{max(1, free // sizing.IDLE_MB)} of these apps"
        cure = f"{fewer} on this host, or a host with more memory"
        report.add("too_many_apps", (variable,), problem, cure)
    for name, app in apps.items():
        limit = budget["apps"][name]["memory_mb"]
        if (app["limits"]["memory"] or 0) > free:
            problem = f"A slot of the app can use {limit} MB, but after the system and PostgreSQL, {free} MB are left."
            place = (variable, name, "limits", "memory")
            report.add("memory_limit", place, problem, snippet(place[2:], free // sizing.SLOTS_AT_ONCE))
        needed = sizing.MASTER_MB + (app["workers"] or 0) * sizing.WORKER_MB
        if app["workers"] and needed > limit:
            most = max(1, (limit - sizing.MASTER_MB) // sizing.WORKER_MB)
            problem = f"{app['workers']} workers need about {needed} MB, but a slot of the app can use {limit} MB."
            report.add("too_many_workers", (variable, name, "workers"), problem, snippet(("workers",), most))


def memory_warnings(apps: Any, facts: Any, host: str) -> list[str]:
    """Warn about apps that fit a host only as long as most of them are idle.

    Args:
        apps: the user's ``flask_apps``; invalid options are ignored.
        facts: the host's facts, without the prefix ``ansible_``.
        host: its name.
    """
    memory = get_number(facts, "memtotal_mb")
    # Values that Ansible cannot evaluate are reported elsewhere.
    copy = read(Report(["flask_apps"]), ("flask_apps",), apps)
    if not isinstance(copy, dict) or not copy or not memory:
        return []
    plain = [_sized_options(app) for name, app in copy.items() if isinstance(name, str)]
    processes = sum(map(sizing.count_processes, plain))
    free = _free_mb(memory) - sum(map(instances.total_mb, plain))
    # A process needs as much as one slot, and an app has two.
    needed = len(plain) * sizing.SLOT_MINIMUM_MB + processes * sizing.SLOT_MINIMUM_MB // sizing.SLOTS_AT_ONCE
    if free >= needed:
        return []
    beside = f" and {processes} background processes" if processes else ""
    return [
        f"{host}: after the system and PostgreSQL, {free} MB are left for {len(plain)} apps{beside}. That is enough "
        f"only while most of them are idle; if they are busy, they need {needed} MB. Unless you set workers, each app "
        "has one. Set swap_mb, or use a host with more memory."
    ]


def _free_mb(memory: int) -> int:
    """Return the MB of a host's memory that are left for apps, caches and queues, after the system and PostgreSQL."""
    return memory - sizing.SYSTEM_MB - int(memory * sizing.POSTGRES_SHARE)


def _check_instances(report: Report, variable: str, apps: dict[str, Any], free: int) -> int:
    """Check that the caches and queues leave each app its smallest slots.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: the apps' options.
        free: MB of the host's memory after the system and PostgreSQL.

    Returns:
        The MB that they use; 0 if that is reported, because nothing else is then worth a message.
    """
    used = sum(map(instances.total_mb, apps.values()))
    needed = len(apps) * sizing.SLOT_MINIMUM_MB
    if not used or used + needed <= free:
        return used
    sizes = {
        (name, kind): app[f"{kind}_mb"] or instances.DATA_MB
        for name, app in apps.items()
        for kind in instances.KINDS
        if app[kind]
    }
    name, kind = max(sizes, key=lambda place: sizes[place])
    problem = (
        f"All caches and queues together can use {used} MB, but the system and PostgreSQL leave {max(0, free)} MB, and "
        f"the apps need {needed} MB of it. The largest is the {kind} of {name}, with {sizes[name, kind]} MB of data."
    )
    left = free - needed - used + instances.memory_mb(kind, sizes[name, kind])
    size, option = instances.data_that_fits(kind, left), f"{kind}_mb"
    fits = size >= (APP_OPTIONS[option].minimum or 0)
    cure = snippet((option,), size) if fits else "fewer caches and queues, or a host with more memory"
    report.add("caches_too_large", (variable, name, option), problem, cure)
    return 0


def _check_connections(report: Report, variable: str, apps: dict[str, Any], budget: dict[str, Any]) -> None:
    connections = budget["postgres"]["connections"]
    if connections <= MAXIMUM_CONNECTIONS:
        return
    opened = {
        name: sizing.count_connections(app, budget["apps"][name]) for name, app in apps.items() if app["database"]
    }
    most = sorted(opened, key=lambda name: (-opened[name], name))[:3]
    problem = (
        f"All apps together can open {connections} database connections (workers times threads times "
        f"{sizing.SLOTS_AT_ONCE} slots, plus {sizing.PROCESS_CONNECTIONS} for each process), but the maximum is "
        f"{MAXIMUM_CONNECTIONS}. "
        f"The apps with the most: {', '.join(f'{name} {opened[name]}' for name in most)}."
    )
    report.add("too_many_connections", (variable,), problem, f"{most[0]}: {{workers: 2, threads: 8}}")


def _is_within(value: int, option: Option) -> bool:
    """Check whether a number is in the range of its option."""
    least, most = option.minimum, option.maximum
    return (least is None or least <= value) and (most is None or value <= most)


def _sized_options(app: Any) -> dict[str, Any]:
    """Return the options of an app that sizing uses, without invalid ones."""
    memory = APP_OPTIONS["limits"].options["memory"]
    numbers = ("workers", "threads", *(f"{kind}_mb" for kind in instances.KINDS))
    limits = {"memory": memory, **{name: APP_OPTIONS[name] for name in numbers}}
    given = {name: get_number(app, name) for name in numbers}
    given["memory"] = get_number(app, "limits", "memory")
    fit = {
        name: value if value is not None and _is_within(value, limits[name]) else None for name, value in given.items()
    }
    return {
        "workers": fit["workers"],
        "threads": fit["threads"],
        "server": get(app, str, "server") or "gunicorn",
        "worker_class": get(app, str, "worker_class") or "gthread",
        "limits": {"memory": fit["memory"]},
        "processes": {
            name: command
            for name, command in (get(app, dict, "processes") or {}).items()
            if not process_name_fault(name) and not process_command_fault(command)
        },
        "database": get(app, bool, "database") is not False,
        "database_pool": get(app, bool, "database_pool") is True,
        **{kind: get(app, str, kind) in engines and get(app, str, kind) for kind, engines in instances.ENGINES.items()},
        **{f"{kind}_mb": fit[f"{kind}_mb"] for kind in instances.KINDS},
    }
