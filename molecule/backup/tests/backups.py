"""What the tests of this scenario share: runs of the playbooks on one host, its backups, and who writes meanwhile."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from acknowledged import Writer, rows, sql  # noqa: F401 - the tests take them from here
from runs import TRACES, command, finish, start

INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
_SCENARIO = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())
#: What the scenario sets. What a host has made of it is no measure of whether it does what was set.
APPS, SETTINGS = _SCENARIO["flask_apps"], _SCENARIO["backup"]


def name_of(host: Any) -> str:
    """The host's name in the inventory."""
    return host.ansible.get_variables()["inventory_hostname"]


def version_of(host: Any) -> str:
    """PostgreSQL's major version on the host."""
    return "15" if host.system_info.release.startswith("12") else "17"


def play(playbook: str, name: str, *arguments: str, good: bool = True, **variables: Any) -> str:
    """Run a playbook on one host; return all that it printed, with single spaces between the words."""
    return run(playbook, INVENTORY, "--limit", f"{name},localhost", *arguments, good=good, **variables)


def run(playbook: str, inventory: Path, *arguments: str, good: bool = True, **variables: Any) -> str:
    """Run a playbook on an inventory; return all that it printed, with single spaces between the words."""
    process = start(command(f"playbooks/{playbook}.yml", *arguments, inventory=inventory, **variables))
    return finish(process, 900, good=good, without=TRACES)[1]


def backup(host: Any, *arguments: str, good: bool | None = True) -> str:
    """Run flaskhost-backup, which has to succeed or to fail, or may do either; one of the clock's is waited for."""
    done = host.run(f"flaskhost-backup {' '.join(arguments)}")
    assert good is None or (done.rc == 0) is good, done.stdout + done.stderr
    return done.stdout + done.stderr


def settled(host: Any) -> None:
    """Wait for the first backup, which site.yml has begun, or the one that a restore has."""
    state = "activating"
    for _second in range(180):
        state = host.run("systemctl is-active flaskhost-backup@full.service").stdout.strip()
        if state != "activating":
            break
        time.sleep(1)
    assert state == "inactive", host.run("journalctl --no-pager -n 50 -u flaskhost-backup@full").stdout


def now(host: Any) -> float:
    """The host's clock."""
    return float(host.run("date +%s.%N").stdout)


def utc(seconds: float) -> str:
    """A time as restore.yml reads it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def kill(host: Any, *, remove: bool = False) -> None:
    """Kill PostgreSQL with all its processes, as a power failure does; and take its data away."""
    version = version_of(host)
    unit = f"postgresql@{version}-main.service"
    before = host.run(f"systemctl show --property=MainPID --value {unit}").stdout.strip()
    assert int(before), "PostgreSQL runs"
    host.run_expect([0], f"systemctl kill --signal=KILL {unit}")
    # Its killed processes make the unit fail, and Debian's script has nothing to stop any more.
    host.run(f"systemctl stop {unit}")
    host.run_expect([0], f"test ! -e /proc/{before}")
    if remove:
        host.run_expect([0], f"rm -r /var/lib/postgresql/{version}/main")


def served(visitor: Any) -> None:
    """See that the guestbook answers, with its database."""
    assert visitor.ask("https://guestbook.test/readyz").status == 200
