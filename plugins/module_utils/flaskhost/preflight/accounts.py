"""The apps' names on the host: check that each is free, or belongs to the app itself from an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..apps.names import RESERVED_NAMES
from ..deploy.build_room import build_account
from .report import Report, get, show


def names_to_look_up(apps: Any) -> list[str]:
    """Return the names to look up on the host.

    Args:
        apps: the user's ``flask_apps``, of any type. Only its keys are used.

    Returns:
        The keys that are valid account names.
    """
    names = list(apps) if isinstance(apps, Mapping) else []
    return [str.__str__(name) for name in names if isinstance(name, str) and name.isascii() and len(name) < 40]


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


def check_builders(report: Report, variable: str, apps: Mapping[Any, Any], settings: Any) -> None:
    """Check that no administrator has the name of an app's build account, which sshd always rejects.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: the apps by name.
        settings: the site-wide settings by name.
    """
    accounts = {build_account(name): name for name in names_to_look_up(apps)}
    for index, user in enumerate(get(settings, list, "admin_users") or []):
        name, place = get(user, str, "name"), ("admin_users", index, "name")
        if name in accounts and report.clean(place):
            problem = (
                f"{variable}.{accounts[name]} is built as the user {name}, and sshd rejects all logins as that user."
            )
            report.add("admin_is_builder", place, problem, f"{name}-admin (or another name for the app)")
