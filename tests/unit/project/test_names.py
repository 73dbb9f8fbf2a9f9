"""The names of variables: each is an option of a role, and playbooks call and read only what a role offers.

A misspelt variable is accepted by Ansible in silence, so it is looked for here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from loading import ROOT
from role_rules import ROLES, calls, playbooks, role_at, specs

# --- Names -----------------------------------------------------------------------------------------------------------


class AnyTag(yaml.SafeLoader):
    """Reads YAML with tags such as !vault; their values do not matter here."""


AnyTag.add_multi_constructor("!", lambda _loader, suffix, _node: f"!{suffix}")


def keys_of(value: Any) -> Iterator[str]:
    """Every key of every mapping: variables are set in group_vars, inventories and plays, and beside a role's name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


def undeclared(folders: list[Path], declared: dict[str, set[str]]) -> list[str]:
    """Find variables that have a role's prefix and are no option of that role.

    Args:
        folders: where variables are set.
        declared: the options of each role.
    """
    role_variable = re.compile(rf"({'|'.join(declared)})_\w+")
    found = []
    for path in sorted({path for folder in folders for path in folder.rglob("*") if path.is_file()}):
        if not re.search(r"\.ya?ml(\.example)?$", path.name):
            continue
        for document in yaml.load_all(path.read_text(), Loader=AnyTag):
            for key in keys_of(document):
                match = role_variable.fullmatch(key)
                if match and key not in declared[match[1]]:
                    found.append(f"{path.name}: {key}")
    return found


def declared() -> dict[str, set[str]]:
    return {role: set(specs(role)) for role in ROLES}


def test_every_variable_of_a_role_is_an_option_of_it() -> None:
    folders = [ROOT / name for name in ("group_vars", "inventories", "molecule", "playbooks", ".config/molecule")]
    assert undeclared(folders, declared()) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("group_vars/all/nginx.yml", "nginx_site: []"),
        ("inventories/demo/group_vars/web.yml", "nginx_site: []"),
        ("inventories/demo/group_vars/all/settings.yml", "password: !vault |\n  $ANSIBLE_VAULT\nnginx_site: []"),
        ("inventories/demo/host_vars/web1.yaml", "nginx_site: []"),
        ("inventories/demo/hosts.yml", "all: {hosts: {web1: {nginx_site: []}}}"),
        ("inventories/demo/hosts.yml", "all: {children: {web: {vars: {nginx_site: []}}}}"),
        ("molecule/default/molecule.yml", "provisioner: {inventory: {group_vars: {all: {nginx_site: []}}}}"),
        ("molecule/default/converge.yml", "- hosts: all\n  vars: {nginx_site: []}"),
        ("molecule/default/converge.yml", "- hosts: all\n  roles: [{role: nginx, nginx_site: []}]"),
    ],
)
def test_a_misspelt_variable_is_found(file: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert undeclared([tmp_path], declared()) == [f"{path.name}: nginx_site"]
    path.write_text(text.replace("nginx_site", "nginx_sites"))
    assert undeclared([tmp_path], declared()) == []


@pytest.mark.parametrize("path", sorted((ROOT / "group_vars" / "all").glob("*.yml")), ids=lambda path: path.stem)
def test_a_file_of_the_wiring_is_about_one_role(path: Path) -> None:
    """All but apps.yml, which makes the records that the others hand out."""
    prefixes = ("flask_app_",) if path.stem == "apps" else (f"{path.stem}_", f"__{path.stem}_")
    assert path.stem in [*ROLES, "apps"]
    assert [name for name in yaml.safe_load(path.read_text()) if not name.startswith(prefixes)] == []


def test_the_wirings_internal_names_are_not_those_of_a_role() -> None:
    """A role's vars are stronger than group_vars: the wiring would not get what it wrote."""
    ours = {name for path in (ROOT / "group_vars/all").glob("*.yml") for name in yaml.safe_load(path.read_text())}
    theirs = {name for path in (ROOT / "roles").glob("*/vars/*.yml") for name in yaml.safe_load(path.read_text())}
    assert ours & theirs == set()


# --- What playbooks have to do with roles ----------------------------------------------------------------------------


def without_spec(paths: list[Path]) -> list[str]:
    """The entry points that are called and have no argument spec: Ansible hands them anything in silence."""
    known = {role: role_at(ROOT / "roles" / role, ROLES).entry_points for role in ROLES}
    return [
        f"{path.name}: {role}, {entry_point}"
        for path in paths
        for role, entry_point, _vars in calls(path)
        if entry_point.removesuffix(".yml") not in known[role] or entry_point.endswith(".yml")
    ]


def test_every_entry_point_that_is_called_has_a_spec() -> None:
    called = playbooks("playbooks", "molecule", ".config/molecule")
    assert without_spec(called) == []
    found = {(role, entry_point) for path in called for role, entry_point, _vars in calls(path)}
    assert {("app", "deploy"), ("postgres", "upgrade"), ("backup", "start")} <= found, "the positive control"


@pytest.mark.parametrize(
    "text",
    [
        "- tasks: [{ansible.builtin.import_role: {name: app, tasks_from: ENTRY}}]",
        "- tasks: [{block: [{ansible.builtin.include_role: {name: app, tasks_from: ENTRY}, vars: {app_force: true}}]}]",
        "roles_under_test: [backup, {name: app, tasks_from: ENTRY}]",
    ],
)
def test_an_entry_point_without_a_spec_is_found(text: str, tmp_path: Path) -> None:
    path = tmp_path / "play.yml"
    path.write_text(text.replace("ENTRY", "fleet"))
    assert set(without_spec([path])) == {"play.yml: app, fleet"}
    # Ansible finds the file of tasks, and no spec of that name.
    path.write_text(text.replace("ENTRY", "deploy.yml"))
    assert set(without_spec([path])) == {"play.yml: app, deploy.yml"}
    path.write_text(text.replace("ENTRY", "deploy"))
    assert without_spec([path]) == []


def strange_reads(paths: list[Path], *, strict: bool) -> list[str]:
    """Find variables of roles that a playbook must not read or set: internal ones and, if strict, unknown ones."""
    roles = "|".join(ROLES)
    options = set().union(*(specs(role) for role in ROLES))
    results = set().union(*(role_at(ROOT / "roles" / role, ROLES).results for role in ROLES))
    found = []
    for path in paths:
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        names = re.findall(rf"(?<!\w)__(?:{roles})_\w+", "\n".join(lines))
        if strict:
            words = re.findall(rf"(?<![\w./-])(?:{roles})_[a-z]\w*", "\n".join(lines))
            names += [word for word in words if word not in options | results]
        found += [f"{path.name}: {name}" for name in names]
    return found


def test_playbooks_read_options_and_documented_results_of_roles() -> None:
    assert strange_reads([ROOT / "site.yml", *playbooks("playbooks")], strict=True) == []
    assert strange_reads(playbooks("molecule", ".config/molecule"), strict=False) == []


@pytest.mark.parametrize("name", ["__hardening_ssh", "__backup_settings", "hardening_ssh_movd", "app_result"])
def test_a_read_of_an_internal_or_unknown_variable_is_found(name: str, tmp_path: Path) -> None:
    path = tmp_path / "play.yml"
    path.write_text(f"- tasks:\n    - ansible.builtin.debug: {{msg: x}}\n      when: {name} | default(false)\n")
    assert strange_reads([path], strict=True) == [f"play.yml: {name}"]
    path.write_text(path.read_text().replace(name, "hardening_ssh_moved"))
    assert strange_reads([path], strict=True) == []


def test_each_role_is_tested_alone() -> None:
    alone = {path.stem.removeprefix("role_") for path in (ROOT / "molecule/roles/group_vars").glob("role_*.yml")}
    # These make sense only beside others: scenarios of their own show them.
    assert set(ROLES) - alone == {"audit", "identity", "keepalived", "preflight"}
