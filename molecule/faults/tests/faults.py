"""What the tests of this scenario share: visitors and a writer during a fault, runs of the playbooks, and figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import runs
import yaml
from acknowledged import Writer, rows, sql
from runs import TRACES, command, finish

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
APPS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())["flask_apps"]

sys.path.insert(0, str(PROJECT / "tests"))

from load_client import Load, Report

BOTH = ["ansible://fh-faults-bookworm", "ansible://fh-faults-trixie"]
#: Requests a second, each of which asks the database.
RATE = 20
#: What each fault has cost: a JSON object a line.
FIGURES = INVENTORY.parent / "faults.jsonl"


def name_of(host: Any) -> str:
    """The host's name in the inventory."""
    return host.ansible.get_variables()["inventory_hostname"]


def start(
    playbook: str, name: str, *arguments: str, inventory: Path = INVENTORY, **variables: Any
) -> subprocess.Popen[str]:
    """Begin a run of a playbook on one host."""
    # A clone adds its source to the inventory, which a limit would leave out.
    limit = [] if playbook == "clone" else ["--limit", f"{name},localhost"]
    given = {"app_hosts": [name], **variables}
    return runs.start(command(f"playbooks/{playbook}.yml", *limit, *arguments, inventory=inventory, **given))


def play(
    playbook: str, name: str, *arguments: str, good: bool = True, inventory: Path = INVENTORY, **variables: Any
) -> str:
    """Run a playbook on one host; return all that it printed, with single spaces between the words."""
    process = start(playbook, name, *arguments, inventory=inventory, **variables)
    return finish(process, 900, good=good, without=TRACES)[1]


def status(host: Any) -> str:
    """What status.yml says of a host that is not as it should be; its exit status is another test's."""
    return finish(start("status", name_of(host)))[1]


def journal(host: Any, unit: str, since: float) -> str:
    """What has been said about a unit, in all journals."""
    command = "journalctl --namespace='*' --no-pager --output=cat --since=@%s --unit=%s"
    return host.run(command, str(since), unit).stdout


def slot(host: Any) -> str:
    """The unit of the slot that serves, without what it ends in."""
    return f"flask-guestbook@{Path(host.file('/srv/guestbook/live.sock').linked_to).stem}"


def postgres(host: Any) -> str:
    """PostgreSQL's unit."""
    return f"postgresql@{'15' if host.system_info.release.startswith('12') else '17'}-main.service"


def main_process(host: Any, unit: str) -> str:
    """The number of a unit's main process."""
    return host.check_output("systemctl show --property=MainPID --value %s", unit)


def until(seconds: float, holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


def serves(visitor: Any) -> bool:
    """Whether the guestbook answers, with its database."""
    try:
        return visitor.ask("https://guestbook.test/readyz").status == 200
    except OSError:
        return False


class Fault:
    """What a fault has cost.

    Attributes:
        began: when it began, by the host's clock.
        report: what became of the visitors' requests.
        acknowledged: the rows that the writer was told are safe.
    """

    def __init__(self, host: Any) -> None:
        self.began = float(host.check_output("date +%s.%N"))
        self.report = Report()
        self.acknowledged: list[int] = []

    @property
    def seconds(self) -> float:
        """From the first request that was lost to the last, by when they began."""
        report = self.report
        return round(report.last_lost - report.first_lost + 1 / RATE, 1) if report.lost else 0.0


@contextmanager
def watched(host: Any, visitor: Any, request: pytest.FixtureRequest, *, heals: float = 30) -> Iterator[Fault]:
    """Have visitors and a writer during a fault, and count at the end.

    Args:
        host: the host.
        visitor: a visitor of it.
        request: the test's own.
        heals: seconds after the block within which the site has to serve; nothing more is done about it then.
    """
    fault = Fault(host)
    writer = Writer(host, again=True)
    try:
        with Load("guestbook.test", visitor.ports[443], rate=RATE, path="/readyz", only_fast=True, resend=True) as load:
            until(10, lambda: len(writer.numbers()) > 50)
            yield fault
            until(heals, lambda: serves(visitor))
            before = len(writer.numbers())
            until(heals, lambda: len(writer.numbers()) > before + 50)
            time.sleep(1)
    finally:
        writer.stop()
    fault.report, fault.acknowledged = load.report, writer.numbers()
    there = set(rows(host))
    assert set(fault.acknowledged) <= there, "rows are lost that PostgreSQL has said are safe"
    sql(host, "DROP TABLE written")
    figures = {
        "test": request.node.originalname, "host": name_of(host), "requests": fault.report.requests,
        "lost": fault.report.lost, "reasons": fault.report.reasons, "seconds": fault.seconds,
        "worst_ms": fault.report.worst_ms, "rows": len(fault.acknowledged), "rows_lost": 0,
    }  # fmt: skip
    with FIGURES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(figures) + "\n")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{json.dumps(figures)}")
