"""The apps' names in PostgreSQL: check that each is free, or belongs to the app itself from an earlier run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..apps.names import RESERVED_NAMES
from .accounts import names_to_look_up
from .report import Report, get, show


def databases_to_look_up(apps: Any, settings: Any) -> dict[str, dict[str, Any]]:
    """Return the roles and databases to look up in PostgreSQL.

    Args:
        apps: the user's ``flask_apps``, of any type.
        settings: the site-wide settings by name.

    Returns:
        For each app with a database, the input of :func:`postgres.names.look_up`.
    """
    logins = get(settings, dict, "postgres_logins") or {}
    found = {}
    for name in names_to_look_up(apps):
        # Invalid and reserved names are problems without a query on the host.
        if (
            not re.fullmatch(r"[a-z][a-z0-9-]*", name)
            or name in RESERVED_NAMES
            or get(apps[name], bool, "database") is False
        ):
            continue
        words = [word for word in get(logins, dict, name) or {} if isinstance(word, str)]
        roles = [f"{name}-{word}" for word in words if re.fullmatch(r"[a-z][a-z0-9]{0,15}", word)]
        found[name] = {
            "roles": list(dict.fromkeys([name, f"{name}-owner", *roles])),
            "owner_file": f"/etc/flaskhost/{name}/database_owner.env",
            "home": f"/srv/{name}/data",
        }
    return found


def check_databases(report: Report, variable: str, apps: Mapping[Any, Any], answer: Any) -> None:
    """Check that no app takes over a role or a database that Flaskhost did not create for it.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: the apps by name.
        answer: the result of :func:`postgres.names.look_up` on the host.
    """
    foreign = get(answer, dict, "foreign") or {}
    for name in apps:
        taken = foreign.get(name) if isinstance(name, str) else None
        if not isinstance(taken, Mapping) or not report.clean((variable, name)):
            continue
        things = [_role(role, of) for role, of in sorted((get(taken, dict, "roles") or {}).items())]
        if get(taken, bool, "database"):
            things.append(f"the database {name} (owner: {get(taken, str, 'owner') or 'unknown'})")
        if not things:
            continue
        problem = (
            f"PostgreSQL already has {_listed(things)}, which Flaskhost did not create for this app. The app would "
            "take over the data and the privileges, and the current users would lose theirs."
        )
        cure = f'{name}-app (or hand them over to Flaskhost: docs/postgres.md, "A name that is taken")'
        report.add("database_exists", (variable, name), problem, cure)
    silent = get(answer, str, "silent")
    if silent:
        problem = (
            f"PostgreSQL {silent} has databases but does not respond. Preflight cannot check whether one of them has "
            "the name of an app but does not belong to it."
        )
        unit = f"postgresql@{silent.replace('/', '-')}"
        cure = f"sudo systemctl start {unit} on the host (sudo journalctl -u {unit} shows why it stopped)"
        report.add("database_silent", ("host", "postgresql"), problem, cure)


def _role(name: Any, of: Any) -> str:
    return f"the role {name}" + (f" (of the app {show(of)})" if of else "")


def _listed(things: list[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
