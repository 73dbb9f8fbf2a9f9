"""Ansible's settings, the collections that it needs, and what Git ignores."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from loading import ROOT

# --- Collections -----------------------------------------------------------------------------------------------------


def test_requirements_name_the_collections_that_are_used() -> None:
    named = {item["name"] for item in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]}
    texts = [path for folder in ("roles", "playbooks", "group_vars", "molecule", ".config")
             for path in (ROOT / folder).rglob("*.yml")]  # fmt: skip
    used = {
        name for path in texts for name in re.findall(r"\b(?:community|ansible)\.[a-z]+(?=\.[a-z])", path.read_text())
    }
    # Molecule's driver for Docker wants its collection, though the scenarios start their containers themselves.
    assert named == used - {"ansible.builtin", "ansible.legacy"} | {"community.docker"}


# --- ansible.cfg -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("defaults", "inject_facts_as_vars", "False"),
        ("defaults", "gathering", "explicit"),
        ("defaults", "host_key_checking", "True"),
        ("defaults", "inventory", "inventories/demo"),
        ("defaults", "duplicate_dict_key", "error"),
        ("inventory", "any_unparsed_is_failed", "True"),
        ("ssh_connection", "pipelining", "True"),
    ],
)
def test_ansible_is_set_up(section: str, name: str, value: str) -> None:
    assert settings()[section][name] == value


@pytest.mark.parametrize("name", ["roles_path", "filter_plugins", "library", "module_utils", "action_plugins"])
def test_ansible_finds_our_own_things(name: str) -> None:
    assert (ROOT / settings()["defaults"][name]).is_dir()


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "ansible.cfg")
    return parser


def test_git_ignores_a_linked_cache_as_well(tmp_path: Path) -> None:
    """A worktree may share another's cache by a link; merged, the link would take the place of the real folder."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    for name in (".cache", ".venv"):
        (tmp_path / name).symlink_to(tmp_path.parent)
    subprocess.run(["/usr/bin/git", "init", "--quiet", tmp_path], check=True)
    status = ["/usr/bin/git", "-C", str(tmp_path), "status", "--porcelain"]
    done = subprocess.run(status, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["??", ".gitignore"]
