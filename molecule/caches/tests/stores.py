"""What the tests share: the units of the caches and queues, commands of an app, jobs, and runs of a playbook."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
APPS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())["flask_apps"]
#: Molecule asks for colours, which would stand between the words that the tests look for.
PLAIN = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
BOTH = ["ansible://fh-caches-bookworm", "ansible://fh-caches-trixie"]
ATTIC = "attic-with-a-name-of-31-letters"
CACHE, QUEUE, MEMCACHED = "flask-larder_cache.service", "flask-larder_queue.service", f"flask-{ATTIC}_cache.service"
SOCKETS = [
    "/run/flask-larder_cache/cache.sock",
    "/run/flask-larder_queue/queue.sock",
    f"/run/flask-{ATTIC}_cache/cache.sock",
]


def redis(host: Any, command: str, kind: str = "queue") -> str:
    """Run a command in the app's Redis, as the app; return the answer or the error."""
    said = host.run(f"runuser -u larder -- redis-cli -s /run/flask-larder_{kind}/{kind}.sock {command}")
    return f"{said.stdout}{said.stderr}".strip()


def main_process(host: Any, unit: str) -> str:
    return host.check_output("systemctl show --value --property=MainPID %s", unit)


def until(seconds: float, true: Callable[[], Any]) -> Any:
    """Wait until something is true; return its value."""
    last = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < last, f"not within {seconds} s"
        time.sleep(0.2)
    return value


def enqueue(visitor: Any, kind: str, word: str, query: str = "") -> str:
    """Enqueue a job of the app; return its name."""
    answer = visitor.ask(f"https://larder.test/{kind}/{word}{query}", "POST", body="")
    assert answer.status == 200, answer.body
    return answer.json["job"]


def result(visitor: Any, kind: str, job: str) -> Any:
    """The result of a job; None if it has none yet."""
    answer = visitor.ask(f"https://larder.test/{kind}/{job}")
    return answer.json["result"] if answer.status == 200 else None


def site(host: Any, *arguments: str, **changes: Any) -> str:
    """Run site.yml with other options of the app on one host; return what it printed, with single spaces."""
    apps = copy.deepcopy(APPS)
    apps["larder"].update(changes)
    apps["larder"] = {name: value for name, value in apps["larder"].items() if value is not None}
    name = host.ansible.get_variables()["inventory_hostname"]
    done = subprocess.run(
        ["ansible-playbook", "--inventory", str(INVENTORY), "site.yml", "--limit", name, *arguments,
         "--extra-vars", json.dumps({"flask_apps": apps})],
        cwd=PROJECT, env={**os.environ, **PLAIN}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
    )  # fmt: skip
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout
    return said


def play(playbook: str, host: Any, *, good: bool | None = True, **variables: Any) -> str:
    """Run a playbook on one host, which has to succeed or to fail, or may do either; return what it printed."""
    name = host.ansible.get_variables()["inventory_hostname"]
    done = subprocess.run(
        ["ansible-playbook", "--inventory", str(INVENTORY), f"playbooks/{playbook}.yml", "--limit", f"{name},localhost",
         "--extra-vars", json.dumps(variables)],
        cwd=PROJECT, env={**os.environ, **PLAIN}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert good is None or (done.returncode == 0) is good, done.stdout
    return " ".join(done.stdout.split())
