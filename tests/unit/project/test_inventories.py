"""The environments: they take in the wiring, can be read, and the playbook sees the same both ways."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from loading import ROOT
from playing import run_ansible
from role_rules import ROLES

ENVIRONMENTS = sorted(path.name for path in (ROOT / "inventories").iterdir() if path.is_dir())
#: The link by which an inventory takes in the wiring. Its name sorts first, so that an environment's own files win.
LINK = Path("group_vars/all/00_shared")


def ansible(program: str, *arguments: str, cwd: Path, **variables: str) -> str:
    """Run one of Ansible's programs with the settings of the folder, and return what it prints."""
    own = {"HOME": str(cwd), "ANSIBLE_CONFIG": str(cwd / "ansible.cfg"), **variables}
    done = run_ansible(program, *arguments, cwd=cwd, **own)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_environments_are_there() -> None:
    assert {"demo", "production", "staging"} <= set(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_takes_in_the_wiring(environment: str) -> None:
    link = ROOT / "inventories" / environment / LINK
    assert link.is_symlink(), "a copy would not follow a change"
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / "group_vars" / "all"
    assert min(path.name for path in link.parent.iterdir()) == link.name


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_can_be_read(environment: str, tmp_path: Path) -> None:
    """From another folder: Ansible takes group_vars of the folder that it runs in, too."""
    (tmp_path / "ansible.cfg").symlink_to(ROOT / "ansible.cfg")
    inventory = str(ROOT / "inventories" / environment)
    listed = json.loads(ansible("ansible-inventory", "-i", inventory, "--list", "--export", cwd=tmp_path))
    variables = listed["all"]["vars"]
    assert "flask_apps" in variables
    wired = {name for path in (ROOT / "group_vars/all").glob("*.yml") for name in yaml.safe_load(path.read_text())}
    assert wired - variables.keys() == set()
    # A group without hosts is left out of the list, but has to be known.
    groups = (ROOT / "inventories" / environment / "hosts.yml").read_text()
    assert all(re.search(rf"^ +{group}:$", groups, re.MULTILINE) for group in ("web", "app", "db"))


PROBE = """
- name: Say what can be seen
  hosts: all
  gather_facts: false
  tasks:
    - name: Pretend to have asked the host
      ansible.builtin.set_fact:
        memtotal_mb: 1970
        processor_vcpus: 2
        cacheable: true

    - name: Show
      ansible.builtin.debug:
        msg:
          apps: "{{ nginx_sites | map(attribute='name') }}"
          wired: "{{ base_timezone }}"
          overridden: "{{ app_index_url }}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project with a play that shows what it sees instead of the real one, and an environment of its own."""
    for name in ("group_vars", "plugins", "roles"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("ansible.cfg", "site.yml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "site.yml").write_text(PROBE)
    inventory = tmp_path / "inventories" / "probe"
    (inventory / LINK).parent.mkdir(parents=True)
    (inventory / LINK).symlink_to("../../../../group_vars/all")
    (inventory / "hosts.yml").write_text("all: {hosts: {probe: {ansible_connection: local}}}\n")
    (inventory / LINK).with_name("own.yml").write_text(
        "timezone: Asia/Tokyo\napp_index_url: https://own.test/\nflask_apps:\n  shop:\n"
        "    domains: [shop.test]\n    source: {path: sample_app}\n    wsgi: guestbook:create_app()\n"
    )
    return tmp_path


def test_both_ways_to_the_playbook_see_the_same(project: Path) -> None:
    """`site.yml` and `playbooks/site.yml`: the wiring, and the environment's own word where it has one."""
    for playbook in ("site.yml", "playbooks/site.yml"):
        arguments = ["-i", "inventories/probe", playbook]
        shown = json.loads(
            ansible("ansible-playbook", *arguments, cwd=project, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
        )
        seen = shown["plays"][-1]["tasks"][-1]["hosts"]["probe"]["msg"]
        assert seen == {"apps": ["shop"], "wired": "Asia/Tokyo", "overridden": "https://own.test/"}, playbook


def test_a_playbook_in_the_root_only_imports() -> None:
    """The root's group_vars would be read for a play there, and be stronger than the environment's."""
    for path in ROOT.glob("*.yml"):
        content = yaml.safe_load(path.read_text())
        plays = content if isinstance(content, list) else []
        assert [play for play in plays if "ansible.builtin.import_playbook" not in play] == [], path.name
    assert not (ROOT / "playbooks" / "group_vars").exists()


def test_a_role_is_called_by_its_tag() -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())
    calls = [call for play in plays for call in play.get("roles", [])]
    assert {call["role"] for call in calls} == set(ROLES) - {"preflight", "audit"}
    assert [call for call in calls if call.get("tags") != call["role"]] == []
    # Whatever else is asked for, preflight has read the facts before.
    first = plays[0]
    assert (first["ansible.builtin.import_playbook"], first["tags"]) == ("preflight.yml", "always")
