"""What the tests of this scenario share: the hosts, runs of the playbooks, and visitors at a fixed rate."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import testinfra
import yaml
from runs import FAILURE, PLAIN, command, finish, start

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
APPS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())["flask_apps"]
WEB, WEB2, FIRST, SECOND, DATABASE = (f"fh-cluster-{name}" for name in ("web", "web2", "app1", "app2", "db"))

sys.path.insert(0, str(PROJECT / "tests"))

from load_client import Load

#: Requests per second; one in forty is an upload, which cannot be repeated.
RATE = 100


def connect(name: str) -> Any:
    """A host of the inventory, with root's rights."""
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY), sudo=True)


def address(name: str) -> str:
    """The private address of a host."""
    return str(connect(name).ansible.get_variables()["private_address"])


def run(playbook: str, *arguments: str, **variables: Any) -> tuple[int, str]:
    """Run a playbook; return its status and what it printed, with single spaces between the words."""
    words = command(f"playbooks/{playbook}.yml", *arguments, **variables)
    return finish(start(words, {**PLAIN, "COLUMNS": "1000"}), 900, without=FAILURE)


def play(playbook: str, *arguments: str, **variables: Any) -> str:
    """Run a playbook, which must succeed; return what it printed."""
    status, output = run(playbook, *arguments, **variables)
    assert status == 0, output
    return output


def load_on(visitor: Any) -> Load:
    """Visitors of hello, through the web host."""
    return Load("hello.test", visitor.ports[443], rate=RATE)


def live(name: str) -> str:
    """The release of hello that serves on an app host."""
    return str(connect(name).file("/srv/hello/current").linked_to).rpartition("/")[2]


def served_since(name: str, lines: int) -> int:
    """How many requests an app host has had since its log had so many lines."""
    return int(connect(name).check_output("wc --lines < /var/log/nginx/hello.access.log")) - lines


def version(name: str) -> dict[str, Any]:
    """The variable ``flask_apps`` with another version of hello."""
    apps = json.loads(json.dumps(APPS))
    apps["hello"]["source"]["version"] = name
    return {"flask_apps": apps}
