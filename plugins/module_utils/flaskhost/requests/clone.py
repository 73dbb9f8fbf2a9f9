"""Validate the request of playbooks/clone.yml, which copies production data to another environment, never back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

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
    return next(_problems(given, apps, inventory, allowed), "")


def _problems(given: Mapping[str, Any], apps: Any, inventory: str, allowed: Any) -> Iterator[str]:
    values = {name: str(given.get(name) or "").strip() for name in ("app", "source", "scrub", "confirm")}
    target, names = PurePath(inventory), sorted(apps) if isinstance(apps, Mapping) else []
    if target.name in PROTECTED:
        yield f"{target.name} cannot be the target of a clone. Choose another environment: -i inventories/staging"
    if str(allowed).lower() not in ("true", "yes", "1"):
        yield (
            f"clone_target: {target.name} does not allow a clone to overwrite its data. "
            f"To allow it, set clone_target: true in {target.name}/group_vars/all/settings.yml."
        )
    if str(given.get("_raw_params") or "").strip():
        yield "words were lost, because -e ends a value at a space. Quote the value twice: -e \"scrub='my file.sql'\""
    if not values["app"] or values["app"] not in names:
        yield f"app: name one app: -e app=NAME. Available: {', '.join(names) or 'none'}."
    if not values["source"]:
        yield "source: name the inventory to copy from: -e source=inventories/production"
    if PurePath(values["source"]).name == target.name:
        yield f"source: {values['source']} is also the target. Name another inventory: -e source=inventories/production"
    if not values["scrub"]:
        yield "scrub: name the SQL file that removes confidential data: -e scrub=FILE (to keep all data: -e scrub=none)"
    if values["confirm"] != values["app"]:
        name = values["app"]
        yield f"confirm: this replaces the database of {name} in {target.name}. To confirm: -e confirm={name}"


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
