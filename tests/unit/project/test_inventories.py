"""The environments: they take in the wiring, can be read, and the playbook sees the same both ways."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from loading import ROOT, load_plugin
from playing import run_ansible
from role_rules import ROLES

ENVIRONMENTS = sorted(path.name for path in (ROOT / "inventories").iterdir() if path.is_dir())
wiring = load_plugin("plugins/vars/flaskhost_wiring.py")

WIRING = ROOT / "group_vars" / "all"
#: The link by which each inventory took in the wiring before there was a plugin. Inventories made then have it still.
LINK = Path("group_vars/all/00_shared")
OWN = """
timezone: Asia/Tokyo
app_index_url: https://own.test/
flask_apps:
  shop:
    domains: [shop.test]
    source: {path: sample_app}
    wsgi: guestbook:create_app()
"""


def ansible(program: str, *arguments: str, cwd: Path, **variables: str) -> str:
    """Run one of Ansible's programs with the settings of the folder, and return what it prints."""
    own = {"HOME": str(cwd), "ANSIBLE_CONFIG": str(cwd / "ansible.cfg"), **variables}
    done = run_ansible(program, *arguments, cwd=cwd, **own)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_environments_are_there() -> None:
    assert {"demo", "production", "staging"} <= set(ENVIRONMENTS)


def test_nothing_in_the_project_is_a_link_to_the_wiring() -> None:
    """A link breaks where an inventory is copied or moved."""
    folders = [ROOT / "inventories", ROOT / "molecule"]
    assert [path for folder in folders for path in folder.rglob("*") if path.is_symlink() and path.is_dir()] == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_can_be_read(environment: str, tmp_path: Path) -> None:
    """From another folder: Ansible takes group_vars of the folder that it runs in, too."""
    inventory = str(ROOT / "inventories" / environment)
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    listed = json.loads(ansible("ansible-inventory", "-i", inventory, "--list", "--export", cwd=tmp_path, **settings))
    variables = listed["all"]["vars"]
    assert "flask_apps" in variables
    wired = {name for path in WIRING.glob("*.yml") for name in yaml.safe_load(path.read_text())}
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
    for name in ("plugins", "roles"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("ansible.cfg", "site.yml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "site.yml").write_text(PROBE)
    make_inventory(tmp_path / "inventories" / "probe")
    return tmp_path


def make_inventory(folder: Path) -> Path:
    """Make an inventory with one host and variables of its own."""
    own = folder / "group_vars" / "all" / "own.yml"
    own.parent.mkdir(parents=True)
    own.write_text(OWN)
    (folder / "hosts.yml").write_text("all: {hosts: {probe: {ansible_connection: local}}}\n")
    return folder


def seen(project: Path, playbook: str, *inventories: Path | str) -> dict[str, Any]:
    """What the play of the project shows with inventories."""
    arguments = [word for inventory in inventories for word in ("-i", str(inventory))]
    printed = ansible(
        "ansible-playbook", *arguments, playbook, cwd=project, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json"
    )
    return json.loads(printed)["plays"][-1]["tasks"][-1]["hosts"]["probe"]["msg"]


EXPECTED = {"apps": ["shop"], "wired": "Asia/Tokyo", "overridden": "https://own.test/"}


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/site.yml"])
def test_both_ways_to_the_playbook_see_the_same(playbook: str, project: Path) -> None:
    """`site.yml` and `playbooks/site.yml`: the wiring, and the environment's own word where it has one."""
    assert seen(project, playbook, "inventories/probe") == EXPECTED


def test_an_inventory_may_be_anywhere(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder elsewhere, a file in it, one beside the playbook, and the second of two."""
    elsewhere = make_inventory(tmp_path_factory.mktemp("elsewhere") / "production")
    assert seen(project, "site.yml", elsewhere) == EXPECTED
    assert seen(project, "site.yml", elsewhere / "hosts.yml") == EXPECTED
    more = tmp_path_factory.mktemp("more") / "hosts.yml"
    more.write_text("all: {hosts: {probe: {ansible_connection: local}}}\n")
    assert seen(project, "site.yml", elsewhere, more) == EXPECTED
    assert seen(project, "site.yml", more, elsewhere) == EXPECTED
    shutil.move(elsewhere / "group_vars", project)
    shutil.move(elsewhere / "hosts.yml", project)
    assert seen(project, "site.yml", "hosts.yml") == EXPECTED


def test_the_wiring_belongs_to_the_first_inventory_that_has_a_folder(tmp_path: Path) -> None:
    """Ansible calls the plugin with the folder of each, and what a later one brings wins."""
    (tmp_path / "hosts.yml").touch()
    (tmp_path / "production").mkdir()
    file, folder = str(tmp_path / "hosts.yml"), str(tmp_path / "production")
    assert wiring.first_inventory((file, folder)) == str(tmp_path)
    assert wiring.first_inventory((folder, file)) == folder
    assert wiring.first_inventory(("web1,web2", folder)) == folder
    assert wiring.first_inventory(("web1,",)) == wiring.first_inventory(()) == ""


def test_an_inventory_with_the_former_link_is_as_before(project: Path) -> None:
    link = project / "inventories" / "probe" / LINK
    link.symlink_to(WIRING)
    assert seen(project, "site.yml", "inventories/probe") == EXPECTED


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


def test_a_tasks_process_does_not_import_the_projects_code_again(tmp_path: Path) -> None:
    """Ansible loads the filters in the process of each task, and this took a quarter of a second each time."""
    (tmp_path / "hosts.yml").write_text("all: {hosts: {localhost: {ansible_connection: local}}}\n")
    (tmp_path / "play.yml").write_text(
        """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: "{{ 'SLOTS' | flask_constant | join }} {{ 'x' | imported_by }}"}
"""
    )
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "imported.py").write_text(
        """
import sys
BEFORE = "ansible.module_utils.flaskhost.preflight" in sys.modules
class FilterModule:
    def filters(self):
        return {"imported_by": lambda _value: "before" if BEFORE else "now"}
"""
    )
    # In this order: the project's filters come last.
    folders = f"{tmp_path / 'filters'}:{ROOT / 'plugins/filter'}"
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FILTER_PLUGINS": folders}
    said = ansible("ansible-playbook", "-i", str(tmp_path / "hosts.yml"), "play.yml", cwd=tmp_path, **settings)
    assert "bluegreen before" in said
