"""What the tests of this scenario share: the two hosts, runs of the playbooks, and the database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import testinfra
import yaml
from runs import command, start, wait

INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
APPS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())["flask_apps"]
DATABASE = "fh-database-db"
PASSWORDS = {"a": "6f1c0e9b5d3a48d7a2e4b8c1f0d69375", "b": "93b7d2c4e8f01a6b5c7d9e3f2a1b4c6d"}


def connect(name: str) -> Any:
    """A host of the inventory, with root's rights."""
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY), sudo=True)


def database() -> Any:
    """The database's host."""
    return connect(DATABASE)


def play(playbook: str, *arguments: str, **variables: Any) -> str:
    """Run a playbook on both hosts; return what it printed."""
    status, output = wait(start(command(f"playbooks/{playbook}.yml", *arguments, **variables), environment={}), 900)
    assert status == 0, output
    for password in PASSWORDS.values():
        assert password not in output
    return output


def sql(text: str) -> str:
    """Ask it on its own host, as its superuser."""
    done = database().run("cd / && runuser -u postgres -- psql -XqAt guestbook -c %s", text)
    assert done.rc == 0, done.stderr
    return done.stdout.strip()
