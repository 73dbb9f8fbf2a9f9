"""A run of site.yml with nothing to do starts few modules on the host: each start takes about half a second."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from loading import ROOT

#: The most module runs for a single host with two apps.
MOST = 30
#: Tasks that a single converged host without caches and with none of the rarer options skips, by the role.
SKIPPED = {
    "base": ["Finish an interrupted", "Create the administrators", "Install the administrators", "Set the time zone"],
    "firewall": ["Look up the users"],
    "hardening": [
        *("Remove", "Create the folder", "Write the state", "Create the group", "Set the maximum age", "Restrict the"),
        *("Check whether GRUB", "Update GRUB", "Close the old port", "Read the port"),
    ],
    "postgres": [
        *("Stop if the data belongs", "Enable checksums", "Create the cluster", "Generate Debian's"),
        *("Write PgBouncer", "Start PgBouncer"),
    ],
    "certbot": [
        "Read the installed version",
        "Create the folder",
        "Write the list",
        "Install certbot",
        "Install the DNS",
    ],
    "nginx": ["Write the password files", "Find the caches", "Remove the caches", "Serve the web hosts"],
    "python": ["Create the folder", "Write the checksums", "Install uv", "Install the apps' versions"],
    "uwsgi": ["Write each app's"],
    "waitress": ["Write each app's"],
    "redis": ["Write each instance's", "Create each instance's", "Stop and remove"],
    "memcached": ["Write each instance's", "Create each instance's", "Stop and remove"],
    "app": ["Read the secret keys", "Share the secret keys"],
}
#: The conditions of roles that a single host skips.
SEVERAL_HOSTS = {
    "flask_app_layout.peers | length > 0",
    "keepalived_address | length > 0 or 'keepalived' in ansible_facts['packages'] | default({})",
}
#: Keywords of a task, so that the one that is left is its module.
KEYWORDS = {
    *("name", "when", "loop", "loop_control", "register", "vars", "become", "tags", "until", "retries", "delay"),
    *("changed_when", "failed_when", "check_mode", "no_log", "environment", "run_once", "block", "rescue"),
}


def controller_only() -> set[str]:
    """What benchmarks/provision does not count."""
    tree = ast.parse((ROOT / "benchmarks" / "provision").read_text())
    (found,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CONTROLLER_ONLY"
    )
    return set(ast.literal_eval(found))


def module_tasks(tasks: list[dict[str, Any]], folder: Path, local: set[str], can_skip: bool) -> Iterator[str]:
    """Yield the tasks that a converged host runs, as role and name."""
    for task in tasks:
        if task.get("when") == "ansible_check_mode":
            continue
        optional = can_skip or "when" in task or "loop" in task
        if "block" in task:
            yield from module_tasks(task["block"], folder, local, optional)
            continue
        (action,) = task.keys() - KEYWORDS
        short, given = action.rpartition(".")[2], task[action]
        if short in ("import_tasks", "include_tasks"):
            # A playbook is beside the folder tasks, and a role's files are in it.
            there, name = folder, given.removeprefix("tasks/")
        elif short in ("import_role", "include_role"):
            there, name = ROOT / "roles" / given["name"] / "tasks", f"{given['tasks_from']}.yml"
        else:
            role, said = folder.parent.name, task["name"].rpartition(" | ")[2]
            # apt runs only if a package is missing.
            off = short == "apt" or any(said.startswith(name) for name in SKIPPED.get(role, []))
            assert optional or not off, f"{role}: {said} cannot be skipped"
            if short not in local and not off:
                yield f"{role}: {said}"
            continue
        # What is done only with several hosts, or for the second time.
        if name in ("fleet.yml", "sshd_move.yml") or "hardening_ssh_moved" in str(task.get("when")):
            continue
        if task.get("when") and (name in ("withdraw.yml",) or "__app_users_created" in str(task["when"])):
            continue
        if name == "sshd_change.yml" and "when" in task:
            continue
        yield from module_tasks(yaml.safe_load((there / name).read_text()), there, local, optional)


def test_a_run_with_nothing_to_do_starts_few_modules() -> None:
    local = controller_only()
    plays = yaml.safe_load((ROOT / "playbooks/preflight.yml").read_text())
    plays += [play for play in yaml.safe_load((ROOT / "playbooks/site.yml").read_text()) if "hosts" in play]
    found: list[str] = []
    for play in plays:
        for part in ("pre_tasks", "tasks"):
            found += module_tasks(play.get(part, []), ROOT / "playbooks" / "tasks", local, False)
        for role in play.get("roles", []):
            if role.get("when") in SEVERAL_HOSTS:
                continue
            there = ROOT / "roles" / role["role"] / "tasks"
            found += module_tasks(yaml.safe_load((there / "main.yml").read_text()), there, local, False)
        found += module_tasks(play.get("post_tasks", []), ROOT / "playbooks" / "tasks", local, False)
    # Its loop runs once for each app. The apps' users have a task of their own only before caches.
    releases = [name for name in found if name == "app: Deploy, roll back or restart each app"]
    users = [name for name in found if name.startswith("app: Create each app's user")]
    assert (len(releases), len(users)) == (1, 1), found
    assert len(found) + 1 <= MOST, "\n".join(found)
