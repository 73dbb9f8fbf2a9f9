"""Preflight: every problem of what a user wrote, and of the host, found before anything is touched.

All problems are found in one pass, and each is told with its place, what is wrong and what would work. Nothing here
raises: whatever the input is, the answer is a list. No value of ``secrets`` is ever part of a text.

* :mod:`report`: reading the input, collecting the problems, and the words that messages are made of;
* :mod:`schema`: what :data:`apps.options.APP_OPTIONS` says of one option;
* :mod:`rules`: what is known to go wrong with it;
* :mod:`apps`, :mod:`variables`, :mod:`code_tree`, :mod:`budget`: options that belong together, the code on the
  controller, and what all apps need of the host;
* :mod:`certificates`: TLS, and the authority that gives the certificates;
* :mod:`backup`: backups, and what they need of the apps;
* :mod:`accounts`: the users and groups that the host has under the names of the apps, :mod:`databases`: the roles and
  databases that PostgreSQL has;
* :mod:`settings`: the settings of the site, :mod:`postgres`: those of PostgreSQL; :mod:`host`: its facts;
  :mod:`access`: the way to it;
* :mod:`role_options`: options of the roles that a site sets by themselves, :mod:`names`: variables that nothing reads;
* :mod:`calendars`, :mod:`postgres_values`: what the host itself says of times and of PostgreSQL's settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .access import find_access_problems
from .accounts import check_accounts, check_builders, names_to_look_up
from .apps import check_apps, check_between_apps
from .backup import check_backup, check_own_repository, hosts_with_repository
from .budget import check_budget
from .calendars import check_calendars, expressions
from .certificates import check_certificates
from .databases import check_databases, databases_to_look_up
from .disk import disk_warnings
from .host import check_facts
from .names import warnings
from .postgres import check_database_elsewhere, check_role_names
from .postgres_values import check_values
from .postgres_values import questions as postgres_questions
from .report import Problem, Report, Unreadable, get, read, read_item
from .role_options import check_role_options
from .settings import SETTINGS, check_settings

__all__ = [
    "Problem",
    "Unreadable",
    "disk_warnings",
    "find_access_problems",
    "find_problems",
    "host_questions",
    "hosts_with_repository",
    "read_item",
    "render",
    "warnings",
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
    same_repository: Iterable[str] = (),
    options: Any = None,
    specs: Mapping[str, Mapping[str, Any]] | None = None,
    answers: Any = None,
) -> list[Problem]:
    """Find every problem of the apps, the settings and the host.

    Args:
        apps: what the user wrote under ``flask_apps``; anything at all.
        settings: the site-wide settings by name, of those in :data:`settings.SETTINGS`. One that is ``None`` or empty
            is not set.
        facts: the host's facts, without the prefix ``ansible_``; of one that is not there nothing is said.
        project_dir: where a relative ``source.path`` begins, on the controller.
        apps_variable: the name of the user's variable, for the messages.
        web: whether the host is one that visitors come to; only of such a one it is said that it cannot do what the
            settings say of TLS.
        database: whether the apps find PostgreSQL on the host itself, or do not run there.
        same_repository: the other hosts whose backups would go to the same second repository.
        options: the roles' options that the site sets by themselves, by name.
        specs: what the roles' argument_specs say of them.
        answers: the host's answers to :func:`host_questions`; empty where it was not asked.

    Returns:
        The problems, each with its ``kind`` (a stable word), ``path``, ``problem`` and ``example``, in the order of the
        mapping, the settings and the host; empty when all is well.
    """
    specs = specs or {}
    report = Report([apps_variable, *SETTINGS, *specs, "host"])
    facts = facts if isinstance(facts, Mapping) else {}
    apps = read(report, (apps_variable,), apps)
    settings = read(report, (), settings)
    options = read(report, (), options)
    check_apps(report, apps_variable, apps, Path(project_dir))
    check_settings(report, settings)
    check_own_repository(report, same_repository)
    if isinstance(apps, dict):
        check_between_apps(report, apps_variable, apps, settings)
        check_certificates(report, apps_variable, apps, settings, facts, web=web)
        check_accounts(report, apps_variable, apps, get(answers, dict, "accounts"))
        check_builders(report, apps_variable, apps, settings)
        check_databases(report, apps_variable, apps, get(answers, dict, "databases"))
        check_role_names(report, apps_variable, apps, settings)
        if not database:
            check_database_elsewhere(report, apps_variable, apps)
        check_budget(report, apps_variable, apps, facts)
        check_backup(report, apps_variable, apps, settings)
    check_role_options(report, options, specs)
    packages = options.get("postgres_extra_packages") if isinstance(options, dict) else None
    check_values(report, settings, packages, get(answers, dict, "postgres"))
    check_calendars(report, apps_variable, apps, settings, get(answers, dict, "calendars") or {})
    check_facts(report, facts)
    return report.problems()


def host_questions(apps: Any, settings: Any, *, runs_apps: bool = True, has_databases: bool = True) -> dict[str, Any]:
    """Find what only the host can say, as the options of the module ``preflight_host``.

    Args:
        apps: what the user wrote under ``flask_apps``; anything at all.
        settings: the site-wide settings by name.
        runs_apps: whether the apps run on the host, which then has a user with the name of each.
        has_databases: whether the apps' databases are on the host.
    """
    report = Report([])
    apps, settings = read(report, (), apps), read(report, (), settings)
    version = settings.get("postgres_version") if isinstance(settings, dict) else None
    return {
        "apps": sorted(map(str, apps)) if runs_apps and isinstance(apps, dict) else None,
        "names": names_to_look_up(apps) if runs_apps else [],
        "databases": databases_to_look_up(apps, settings) if has_databases else {},
        # A control character is a problem without the host's word.
        "calendars": sorted({value for _place, value in expressions("", apps, settings) if value.isprintable()}),
        "postgres_settings": postgres_questions(settings),
        "postgres_version": str(version) if isinstance(version, str | int) and str(version).isdigit() else "",
    }


def render(problems: list[Problem], host: str) -> str:
    """Write the message that the operator sees.

    Args:
        problems: what :func:`find_problems` and :func:`find_access_problems` return; at least one.
        host: the host's name in the inventory.

    Returns:
        Plain text: a count, a block for each problem, and what to do next.
    """
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    blocks = [f"Preflight has found {count} on the way to {host}."]
    for number, problem in enumerate(problems, 1):
        lines = [f"{number}. {problem['path']}", f"What is wrong: {problem['problem']}"]
        first, *rest = problem["example"].splitlines() or [""]
        lines += [f"What works:    {first}", *(f"               {line}" for line in rest)]
        blocks.append("\n   ".join(lines))
    blocks.append(f"Nothing has been changed on {host}. Correct these and run the same command again.")
    return "\n\n".join(blocks)
