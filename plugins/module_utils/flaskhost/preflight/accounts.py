"""The apps' names on the host: check that each is free, or belongs to the app itself from an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..apps import instances
from ..apps.names import RESERVED_NAMES
from ..deploy.build_room import build_account
from .report import Report, get, show

#: The home folder of the users that an app needs beside its own, which does not exist.
NO_HOME = "/nonexistent"


def names_to_look_up(apps: Any) -> list[str]:
    """Return the names to look up on the host.

    Args:
        apps: the user's ``flask_apps``, of any type. Only its keys are used.

    Returns:
        The keys that are valid account names.
    """
    names = list(apps) if isinstance(apps, Mapping) else []
    return [str.__str__(name) for name in names if isinstance(name, str) and name.isascii() and len(name) < 40]


def accounts_beside(apps: Any) -> dict[str, tuple[str, ...]]:
    """Return the other system users that the apps need: to build, and for their caches and queues.

    Args:
        apps: the user's ``flask_apps``, of any type.

    Returns:
        For each user the place in ``flask_apps`` that it comes from, such as ``("shop", "cache")``.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in names_to_look_up(apps):
        found[build_account(name)] = (name,)
        for kind in instances.KINDS:
            if get(apps[name], str, kind):
                found[instances.user(name, kind)] = (name, kind)
    return found


def check_accounts(report: Report, variable: str, apps: Mapping[Any, Any], accounts: Any) -> None:
    """Check that no app takes over an existing user or group of the host.

    A user is the app's own if its home is the app's data folder, which no other user has.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: the apps by name.
        accounts: the result of :func:`host.accounts.accounts` on the host, by name.
    """
    for name in apps:
        known = accounts.get(name) if isinstance(accounts, Mapping) else None
        if not isinstance(known, Mapping) or name in RESERVED_NAMES or not report.clean((variable, name)):
            continue
        home, own = get(known, str, "home"), f"/srv/{name}/data"
        if home is not None and home != own:
            problem = (
                f"The host has a user {name} with the home folder {show(home)}, but the app's would be {own}. The app "
                "would run as that user, with its permissions."
            )
            cure = f"{name}-app (or deluser {name} on the host, if nothing needs that user)"
            report.add("account_exists", (variable, name), problem, cure)
        elif get(known, bool, "group"):
            problem = f"The host has a group {name} that is not this app's. The app would run with its permissions."
            cure = f"{name}-app (or delgroup {name} on the host, if nothing needs that group)"
            report.add("account_exists", (variable, name), problem, cure)
    for account, place in accounts_beside(apps).items():
        known = accounts.get(account) if isinstance(accounts, Mapping) else None
        if not isinstance(known, Mapping) or not report.clean((variable, *place)):
            continue
        home, group = get(known, str, "home"), get(known, bool, "group")
        if group or (home is not None and home != NO_HOME):
            what = f"user {account} with the home folder {show(home)}" if home is not None else f"group {account}"
            problem = (
                f"The host has a {what} that is not of Flaskhost. {_purpose(variable, place)} would run with its "
                "permissions."
            )
            cure = f"{place[0]}-app (or remove {account} on the host with deluser or delgroup, if nothing needs it)"
            report.add("account_exists", (variable, *place), problem, cure)


def check_admins(report: Report, variable: str, apps: Mapping[Any, Any], settings: Any) -> None:
    """Check that no administrator has the name of a user that an app needs. sshd always rejects an app's build account.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: the apps by name.
        settings: the site-wide settings by name.
    """
    accounts = accounts_beside(apps)
    for index, user in enumerate(get(settings, list, "admin_users") or []):
        name, place = get(user, str, "name"), ("admin_users", index, "name")
        if name in accounts and report.clean(place):
            problem = f"{_purpose(variable, accounts[name])} runs as the user {name}."
            report.add("admin_is_apps_user", place, problem, f"{name}-admin (or another name for the app)")


def _purpose(variable: str, place: tuple[str, ...]) -> str:
    """Describe what runs as one of :func:`accounts_beside`, as the beginning of a sentence."""
    return f"The {place[1]} of {variable}.{place[0]}" if place[1:] else f"The build of {variable}.{place[0]}"
