"""The host's facts: check that the host is supported, and large enough."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from .report import Report, get, get_number, show

#: The distributions that Flaskhost is tested on, and their releases.
DISTRIBUTIONS = {"Debian": ("12", "13")}
ARCHITECTURES = ("x86_64", "aarch64")
#: Debian 12's Python, the oldest version that the project's modules support.
OLDEST_PYTHON = (3, 11)
#: MB. Separates servers with 512 MB (the kernel shows about 470) from those with 1 GB (about 960): with 470 MB, sizing
#: leaves 97 after the system and PostgreSQL, but a slot needs :data:`sizing.SLOT_MINIMUM_MB`.
MINIMUM_MEMORY_MB = 700
#: Bytes. The roles' packages take 380 MB on Debian 12 and their archives 90, an app's virtual environment a few
#: hundred, and a deploy builds the next one next to it; PostgreSQL's WAL can grow to 1 GB (max_wal_size).
MINIMUM_DISK = 2 * 1024**3
#: The folders that take most of the data: packages, databases and logs, and the apps.
DISK_PLACES = ("/", "/srv")


def check_facts(report: Report, facts: Mapping[Any, Any]) -> None:
    """Check the host's facts. Missing facts are not checked.

    Args:
        report: collects the problems.
        facts: the facts, without the prefix ``ansible_``.
    """
    _check_distribution(report, facts)
    architecture, manager = get(facts, str, "architecture"), get(facts, str, "service_mgr")
    if architecture and architecture not in ARCHITECTURES:
        problem = f"The host's architecture is {architecture}. Many Python packages have no builds for it."
        cure = f"a server with {' or '.join(ARCHITECTURES)}"
        report.add("unsupported_architecture", ("host", "architecture"), problem, cure)
    if manager and manager != "systemd":
        problem = f"The host's service manager is {manager}, not systemd. Is it a container without an init system?"
        cure = "a server or a container that runs systemd as its first process"
        report.add("not_systemd", ("host", "service_mgr"), problem, cure)
    version = get_number(facts, "python", "version", "major"), get_number(facts, "python", "version", "minor")
    if None not in version and version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        problem = f"Ansible uses Python {version[0]}.{version[1]} on the host, but the modules need {oldest}."
        report.add("old_python", ("host", "python"), problem, "ansible_python_interpreter: /usr/bin/python3")
    memory = get_number(facts, "memtotal_mb")
    if memory is not None and memory < MINIMUM_MEMORY_MB:
        problem = f"The host has {memory} MB of memory, but an app with its database needs {MINIMUM_MEMORY_MB}."
        report.add("too_little_memory", ("host", "memory"), problem, "a server with 1 GB or more")
    _check_disk(report, get(facts, list, "mounts") or [])


def _check_distribution(report: Report, facts: Mapping[Any, Any]) -> None:
    distribution, release = get(facts, str, "distribution"), facts.get("distribution_major_version")
    supported = ", ".join(f"{name} {' or '.join(releases)}" for name, releases in DISTRIBUTIONS.items())
    if not distribution:
        return
    kind = shown = ""
    if distribution not in DISTRIBUTIONS:
        kind, shown = "unsupported_distribution", distribution
    elif release is not None and show(release).strip('"') not in DISTRIBUTIONS[distribution]:
        kind, shown = "unsupported_release", f"{distribution} {show(release)}"
    if kind:
        problem = f"The host runs {shown}. Flaskhost supports {supported}."
        report.add(kind, ("host", "distribution"), problem, f"a server with {supported}")


def _check_disk(report: Report, mounts: list[Any]) -> None:
    free: dict[PurePosixPath, int] = {}
    for entry in mounts:
        mount, available = get(entry, str, "mount"), get_number(entry, "size_available")
        if mount and available is not None:
            free[PurePosixPath(mount)] = available
    low: dict[PurePosixPath, list[str]] = {}
    for place in DISK_PLACES:
        holding = [mount for mount in free if PurePosixPath(place).is_relative_to(mount)]
        mount = max(holding, key=lambda path: len(path.parts), default=None)
        if mount is not None and free[mount] < MINIMUM_DISK:
            low.setdefault(mount, []).append(place)
    for mount, places in low.items():
        problem = (
            f"{free[mount] / 1024**3:.1f} GB are free on {mount}, which holds {' and '.join(places)}, "
            f"but packages, releases, databases and logs need {MINIMUM_DISK // 1024**3} GB."
        )
        cure = "a larger disk, or more free space: apt-get clean; du -xh --max-depth=2 / | sort -h | tail"
        report.add("too_little_disk", ("host", "disk"), problem, cure)
