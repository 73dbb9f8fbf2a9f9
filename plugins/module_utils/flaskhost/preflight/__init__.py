"""Preflight: find all problems of the inventory and of the host before anything is changed.

All problems are found in one pass. Each is reported with its place, what is wrong and what would work. Nothing here
raises an error: for any input, the result is a list. No text ever contains a value of ``secrets``.

* :mod:`report`: read the input, collect the problems, and format messages;
* :mod:`schema`: checks of one option against :data:`apps.options.APP_OPTIONS`;
* :mod:`rules`: checks for known mistakes in one option, in a module for each subject;
* :mod:`apps`, :mod:`variables`, :mod:`app_files`, :mod:`code_tree`, :mod:`wsgi_module`, :mod:`budget`: options that
  depend on each other, the code on the control node, and what all apps together need of the host;
* :mod:`python_versions`: the Python of the apps;
* :mod:`certificates`: TLS, and the CA that issues the certificates;
* :mod:`backup`: backups, and their references to the apps;
* :mod:`accounts`: the host's users and groups with the names of the apps, :mod:`databases`: PostgreSQL's roles and
  databases with these names, :mod:`debian_packages`: the host's package lists;
* :mod:`settings`: the settings of the site, :mod:`postgres`: those of PostgreSQL; :mod:`host`: its facts;
  :mod:`access`: the connection to it;
* :mod:`layout`: the groups of the hosts, and the addresses at which they reach each other; :mod:`clocks`: their clocks;
  :mod:`shared_address`: the address that moves between web hosts;
* :mod:`role_options`: role options that a site sets directly, :mod:`names`: variables that nothing uses;
* :mod:`calendars`, :mod:`postgres_values`: calendar events and PostgreSQL settings as validated on the host itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .access import find_access_problems
from .accounts import accounts_beside, check_accounts, check_admins, names_to_look_up
from .apps import check_apps, check_between_apps
from .backup import check_backup, check_own_repository, hosts_with_repository
from .budget import check_budget, memory_warnings
from .calendars import check_calendars, expressions
from .certificates import certbot_warnings, check_certificates
from .clocks import check_clock
from .databases import check_databases, databases_to_look_up
from .debian_packages import check_debian_packages, packages_to_look_up
from .disk import disk_warnings
from .host import check_facts
from .layout import check_apps_apart, check_layout, layout_warnings
from .names import warnings
from .postgres import check_database_elsewhere, check_role_names
from .postgres_values import check_values
from .postgres_values import questions as postgres_questions
from .python_versions import check_python
from .release_command import release_warnings
from .report import Problem, Report, Unreadable, get, read, read_item
from .role_options import FORMER, check_role_options
from .settings import SETTINGS, check_settings
from .shared_address import check_shared_address
from .variables import placeholder_warnings
from .wsgi_module import wsgi_warnings

__all__ = [
    "FORMER",
    "Problem",
    "Unreadable",
    "certbot_warnings",
    "disk_warnings",
    "find_access_problems",
    "find_problems",
    "host_questions",
    "hosts_with_repository",
    "layout_warnings",
    "memory_warnings",
    "placeholder_warnings",
    "read_item",
    "release_warnings",
    "render",
    "warnings",
    "wsgi_warnings",
]


def find_problems(
    apps: Any,
    settings: Any,
    facts: Any,
    project_dir: Path,
    apps_variable: str = "flask_apps",
    *,
    web: bool = True,
    database: bool = True,
    runs_apps: bool = True,
    same_repository: Iterable[str] = (),
    hosts: Iterable[Mapping[str, Any]] = (),
    options: Any = None,
    specs: Mapping[str, Mapping[str, Any]] | None = None,
    answers: Any = None,
    host: str = "",
    clocks: Any = None,
) -> list[Problem]:
    """Find all problems of the apps, the settings and the host.

    Args:
        apps: the user's ``flask_apps``, of any type.
        settings: the site-wide settings by name, as in :data:`settings.SETTINGS`. ``None`` and empty values count as
            not set.
        facts: the host's facts, without the prefix ``ansible_``; missing facts are not checked.
        project_dir: the base folder for a relative ``source.path``, on the control node.
        apps_variable: the name of the user's variable, for the messages.
        web: whether the host serves visitors. Only such a host is checked for its support of the TLS settings.
        database: whether the apps find PostgreSQL on the host itself, or do not run there.
        runs_apps: whether the apps run on the host.
        same_repository: the other hosts whose backups would go to the same second repository.
        hosts: all hosts, as returned by :func:`settings.layout.describe_hosts`.
        options: the role options that the site sets directly, by name.
        specs: the roles' argument_specs for these options.
        answers: the host's answers to :func:`host_questions`; empty if the host was not queried.
        host: the host's name.
        clocks: how far the clocks of all hosts are ahead; see :func:`clocks.check_clock`.

    Returns:
        The problems, each with its ``kind`` (a stable identifier), ``path``, ``problem`` and ``example``, in the order
        of the mapping, the settings and the host; empty if there are none.
    """
    specs = specs or {}
    report = Report([apps_variable, *SETTINGS, *specs, "groups", "hosts", "host"])
    facts = facts if isinstance(facts, Mapping) else {}
    apps = read(report, (apps_variable,), apps)
    settings = read(report, (), settings)
    options = read(report, (), options)
    check_apps(report, apps_variable, apps, Path(project_dir), facts)
    check_settings(report, settings)
    check_own_repository(report, same_repository)
    check_layout(report, list(hosts), settings)
    check_shared_address(report, list(hosts), settings, host, facts)
    if isinstance(apps, dict):
        check_between_apps(report, apps_variable, apps, settings)
        check_apps_apart(report, apps_variable, apps, list(hosts))
        check_certificates(report, apps_variable, apps, settings, facts, web=web)
        check_accounts(report, apps_variable, apps, get(answers, dict, "accounts"))
        check_admins(report, apps_variable, apps, settings)
        check_databases(report, apps_variable, apps, get(answers, dict, "databases"))
        check_role_names(report, apps_variable, apps, settings)
        if not database:
            check_database_elsewhere(report, apps_variable, apps)
        if runs_apps:
            check_python(report, apps_variable, apps, facts, Path(project_dir))
        check_debian_packages(report, apps_variable, apps, get(answers, list, "unknown_packages"))
        check_budget(report, apps_variable, apps, facts)
        check_backup(report, apps_variable, apps, settings)
    check_role_options(report, options, specs)
    packages = options.get("postgres_extra_packages") if isinstance(options, dict) else None
    check_values(report, settings, packages, get(answers, dict, "postgres"))
    check_calendars(report, apps_variable, apps, settings, get(answers, dict, "calendars") or {})
    check_facts(report, facts)
    check_clock(report, host, clocks)
    return report.problems()


def host_questions(apps: Any, settings: Any, *, runs_apps: bool = True, has_databases: bool = True) -> dict[str, Any]:
    """Return the queries that only the host can answer, as the options of the module ``preflight_host``.

    Args:
        apps: the user's ``flask_apps``, of any type.
        settings: the site-wide settings by name.
        runs_apps: whether the apps run on the host, which then has a user with the name of each.
        has_databases: whether the apps' databases are on the host.
    """
    report = Report([])
    apps, settings = read(report, (), apps), read(report, (), settings)
    version = settings.get("postgres_version") if isinstance(settings, dict) else None
    return {
        "apps": sorted(map(str, apps)) if runs_apps and isinstance(apps, dict) else None,
        "names": [*names_to_look_up(apps), *accounts_beside(apps)] if runs_apps else [],
        "packages": packages_to_look_up(apps) if runs_apps else [],
        "databases": databases_to_look_up(apps, settings) if has_databases else {},
        # A control character is a problem without a query on the host.
        "calendars": sorted({value for _place, value in expressions("", apps, settings) if value.isprintable()}),
        "interfaces": bool(isinstance(settings, dict) and settings.get("web_address")),
        "postgres_settings": postgres_questions(settings),
        "postgres_version": str(version) if isinstance(version, str | int) and str(version).isdigit() else "",
    }


def render(problems: list[Problem], host: str) -> str:
    """Format the message for the operator.

    Args:
        problems: the results of :func:`find_problems` and :func:`find_access_problems`; at least one.
        host: the host's name in the inventory.

    Returns:
        Plain text: the number of problems, a block for each, and the next step.
    """
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    blocks = [f"Preflight found {count} for {host}."]
    for number, problem in enumerate(problems, 1):
        lines = [f"{number}. {problem['path']}", f"What is wrong: {problem['problem']}"]
        first, *rest = problem["example"].splitlines() or [""]
        lines += [f"What works:    {first}", *(f"               {line}" for line in rest)]
        blocks.append("\n   ".join(lines))
    blocks.append(f"Nothing has been changed on {host}. Correct these and run the same command again.")
    return "\n\n".join(blocks)
