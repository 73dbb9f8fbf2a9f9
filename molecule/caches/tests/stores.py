"""What the tests share: the units of the caches and queues, commands of an app, jobs, and runs of a playbook."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from runs import command, finish, start

APPS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())["flask_apps"]
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
    return finish(start(command("site.yml", "--limit", name, *arguments, flask_apps=apps)), 900, good=True)[1]


def play(playbook: str, host: Any, *, good: bool | None = True, **variables: Any) -> str:
    """Run a playbook on one host, which has to succeed or to fail, or may do either; return what it printed."""
    name = host.ansible.get_variables()["inventory_hostname"]
    process = start(command(f"playbooks/{playbook}.yml", "--limit", f"{name},localhost", **variables))
    return finish(process, 900, good=good)[1]
