"""What the attacks share: Python code run by the hostile app, and playbooks run on one host."""

from __future__ import annotations

import copy
import os
import textwrap
from pathlib import Path
from typing import Any

import yaml
from runs import FAILURE, NIGHTLY, command, finish, start

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
APPS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())["flask_apps"]


def hosts(release: str) -> list[str]:
    """The hosts of a module's tests: the one with this release of Debian, or both if everything is wanted."""
    return [f"ansible://fh-tenants-{name}" for name in (("bookworm", "trixie") if NIGHTLY else (release,))]


def attack(visitor: Any, code: str) -> str:
    """Run Python code inside the hostile app's slot: as its user, in its sandbox.

    Args:
        visitor: the fixture of molecule/conftest.py.
        code: the code, indented or not.

    Returns:
        What it printed; the traceback at the end if it raised.
    """
    return visitor.ask("https://mallory.test/run", "POST", body=textwrap.dedent(code)).body


def with_app(name: str, **changes: Any) -> dict[str, Any]:
    """The variable ``flask_apps`` with other options of one app."""
    apps = copy.deepcopy(APPS)
    apps[name].update(changes)
    return {"flask_apps": apps}


def playbook(name: str, host: Any, *arguments: str, timeout: float = 600, **variables: Any) -> tuple[int, str]:
    """Run a playbook on one host; return its status and what it printed, with single spaces between the words."""
    host_name = host.ansible.get_variables()["inventory_hostname"]
    given = {"app_hosts": [host_name], **variables}
    process = start(command(f"playbooks/{name}.yml", "--limit", host_name, *arguments, **given))
    return finish(process, timeout, without=FAILURE)


def root_python(host: Any, code: str) -> Any:
    """Run Python code as root on the host; for what an attack should have left no trace of."""
    return host.run("python3 -c %s", textwrap.dedent(code))
