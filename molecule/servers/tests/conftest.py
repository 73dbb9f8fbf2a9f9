"""What the tests of the application servers share: the apps, and runs of the playbooks with changed options."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import PLAIN, command

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
APPS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())["flask_apps"]
#: The apps that stay with their server, and what their main process runs.
PROGRAMS = {
    "with-uwsgi": "uwsgi",
    "with-waitress": "python /srv/with-waitress/slots/{slot}/server.conf.py",
    "with-gevent": "gunicorn --config",
    "with-asgi": "gunicorn --config",
}

sys.path.insert(0, str(PROJECT / "tests"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes ``app`` with each app that stays with its server."""
    if "app" in metafunc.fixturenames:
        metafunc.parametrize("app", PROGRAMS)


@pytest.fixture
def slot(host: Any) -> Callable[[str], str]:
    """The function that returns the slot that serves an app."""
    return lambda app: Path(host.file(f"/srv/{app}/live.sock").linked_to).stem


@pytest.fixture
def main_process(host: Any, slot: Callable[[str], str]) -> Callable[[str], str]:
    """The function that returns the command line of the main process of an app's live slot."""

    def read(app: str) -> str:
        unit = f"flask-{app}@{slot(app)}.service"
        return host.check_output(f"tr '\\0' ' ' < /proc/$(systemctl show --value --property=MainPID {unit})/cmdline")

    return read


@pytest.fixture
def play(host: Any) -> Callable[..., str]:
    """The function that runs a playbook on the host, with other options of one app, and returns what it printed."""
    name = host.ansible.get_variables()["inventory_hostname"]

    def run(playbook: str, app: str, *arguments: str, **options: Any) -> str:
        apps = copy.deepcopy(APPS)
        apps[app].update(options)
        variables = {"flask_apps": apps, "app_hosts": [name]} | ({} if playbook == "site" else {"app": app})
        done = subprocess.run(
            command(f"playbooks/{playbook}.yml", "--limit", name, *arguments, **variables),
            cwd=PROJECT,
            env={**os.environ, **PLAIN},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """The function that waits until another one returns something true, for at most half a minute."""

    def wait(check: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while not (found := check()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    return wait
