"""Validate the request of playbooks/clone.yml, which copies production data to another environment, never back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from . import given as read
from .given import ON, Refused

#: Environments that are never the target of a clone, by folder name.
PROTECTED = ("production", "prod", "live")
#: Variables that are copied from the other inventory: how to connect to its host, and nothing else.
_CONNECTION = ("ansible_host", "ansible_port", "ansible_user", "ansible_connection", "ansible_python_interpreter",
               "ansible_ssh_private_key_file", "ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_become",
               "ansible_become_method", "ansible_become_password", "ansible_password")  # fmt: skip


def problem(given: Mapping[str, Any], apps: Any, inventory: str, allowed: Any) -> str:
    """Find the first problem with the variables, or the reason why a clone is not allowed.

    Args:
        given: ``app``, ``source``, ``scrub``, ``confirm`` and ``_raw_params``; unset variables are empty.
        apps: ``flask_apps`` of the environment that is overwritten.
        inventory: the folder of that environment.
        allowed: its ``clone_target``.

    Returns:
        One sentence with the fix; empty if there is no problem.
    """
    try:
        _check(given, apps, inventory, allowed)
    except Refused as error:
        return str(error)
    return ""


def _check(given: Mapping[str, Any], apps: Any, inventory: str, allowed: Any) -> None:
    target, origin = PurePath(inventory).name, read.text(given, "source")
    if target in PROTECTED:
        raise Refused(f"{target} cannot be the target of a clone. Choose another environment: -i inventories/staging")
    if str(allowed).lower() not in ON:
        raise Refused(
            f"clone_target: {target} does not allow a clone to overwrite its data. "
            f"To allow it, set clone_target: true in {target}/group_vars/all/settings.yml."
        )
    read.require_all_words(given, "scrub")
    app = read.app(given, apps)
    if not app:
        raise Refused(f"app: name one app: -e app=NAME. Available: {read.listed(apps)}.")
    if not origin:
        raise Refused("source: name the inventory to copy from: -e source=inventories/production")
    if PurePath(origin).name == target:
        raise Refused(f"source: {origin} is also the target. Name another inventory: -e source=inventories/production")
    if not read.text(given, "scrub"):
        raise Refused(
            "scrub: name the SQL file that removes confidential data: -e scrub=FILE (to keep all data: -e scrub=none)"
        )
    if read.text(given, "confirm") != app:
        raise Refused(f"confirm: this replaces the database of {app} in {target}. To confirm: -e confirm={app}")


def source(text: str, group: str = "flaskhost_clone_source") -> dict[str, Any]:
    """Find the host that has the data.

    Args:
        text: output of ``ansible-inventory --list`` for the other environment.
        group: the group to add the host to.

    Returns:
        The arguments of the module add_host.

    Raises:
        ValueError: the inventory has no database host.
    """
    found = json.loads(text)
    hosts = _hosts(found, "db")
    if not hosts:
        raise ValueError("source: this inventory has no host in the group db. Name another inventory.")
    known = found.get("_meta", {}).get("hostvars", {}).get(hosts[0], {})
    variables = {name: known[name] for name in _CONNECTION if name in known}
    return {"name": f"clone_source_{hosts[0]}", "groups": group, "ansible_host": hosts[0], **variables}


def _hosts(inventory: Mapping[str, Any], group: str, seen: frozenset[str] = frozenset()) -> list[str]:
    if group in seen:
        return []
    entry = inventory.get(group) or {}
    found = list(entry.get("hosts") or [])
    for child in entry.get("children") or []:
        found += [host for host in _hosts(inventory, child, seen | {group}) if host not in found]
    return found
