"""A --limit that leaves out the hosts that a verb is for is an error, and one that leaves out some of them is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from loading import ROOT
from playing import play

INVENTORY = """
all:
  vars:
    ansible_connection: local
    ansible_become: false
    ansible_python_interpreter: /bin/false
    flask_apps: {}
  children:
    app: {hosts: {app1: {}, app2: {}}}
    web: {hosts: {web1: {}}}
    db: {hosts: {db1: {}}}
"""


def run(folder: Path, playbook: str, limit: str) -> tuple[int, str]:
    """Run a playbook on hosts that can do nothing; return its status and its output on one line."""
    inventory = folder / "hosts.yml"
    inventory.write_text(INVENTORY, encoding="utf-8")
    what = ["-i", inventory, "-e", "app=shop", "--limit", limit, f"playbooks/{playbook}.yml"]
    result = play(*what, cwd=ROOT, ANSIBLE_FORCE_COLOR="0", COLUMNS="1000")
    return result.returncode, " ".join((result.stdout + result.stderr).split())


@pytest.mark.parametrize(
    ("playbook", "limit", "group", "hosts"),
    [
        ("deploy", "db1", "app", "app1, app2"),
        ("rollback", "db1,web1", "app", "app1, app2"),
        ("run", "web1", "app", "app1, app2"),
        ("setup", "web1", "app", "app1, app2"),
        ("rotate_secret", "db1", "app", "app1, app2"),
        ("maintenance", "db1", "web", "web1"),
    ],
)
def test_a_limit_that_leaves_nothing_to_do_is_an_error(
    tmp_path: Path, playbook: str, limit: str, group: str, hosts: str
) -> None:
    """Ansible itself says that no host matched, and ends well."""
    status, output = run(tmp_path, playbook, limit)
    assert status != 0, output
    assert f"--limit leaves out all hosts of the group {group} ({hosts}), but this playbook runs only on them" in output
    assert "PLAY [Run preflight checks" not in output, "it is said first"


def test_a_limit_to_a_part_of_a_fleet_is_told(tmp_path: Path) -> None:
    _status, output = run(tmp_path, "deploy", "app1")
    assert (
        "--limit leaves out app2 of the group app. Nothing changes there until a run without --limit. Until" in output
    )
    assert "Until then, these hosts serve their former release to visitors, also if they are down now" in output
    _status, output = run(tmp_path, "deploy", "all")
    assert "--limit leaves out app" not in output
