"""Runs of playbooks/audit.yml, and what their reports say."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet import Host
from runs import PLAIN, command, start, wait

#: What a host is made of, and what a scanner could leave in it.
PARTS = "find /etc /usr /opt /srv /root /home /var/lib /var/cache /var/spool /var/tmp /tmp /boot -xdev"
#: Files that services write at any time, and the rest of a log-in.
LIVELY = "grep -v -e /postgresql/ -e /fail2ban/ -e /flaskhost/ -e /systemd/ -e '^/tmp/systemd-' -e /.ansible -e /data/"


@dataclass(frozen=True)
class Audit:
    """A run of the playbook for one host.

    Attributes:
        status: the status of the run.
        output: what it has printed, with single spaces between words.
        report: the report, as JSON; empty if none was written.
        page: the same for people.
    """

    status: int
    output: str
    report: dict[str, Any]
    page: Path

    def scan(self, name: str) -> dict[str, Any]:
        """What a scanner says, which has run."""
        found = self.asked(name)
        assert found["ran"], found["why_not"]
        return found

    def asked(self, name: str) -> dict[str, Any]:
        """What a scanner says, or why it has not run."""
        (found,) = [each for each in self.report["scans"] if each["scanner"] == name]
        return dict(found)


def ids(found: dict[str, Any], status: str) -> list[str]:
    """The findings with a status."""
    return [finding["id"] for finding in found["findings"] if finding["status"] == status]


def run_audit(
    web: Host, folder: Path, *, environment: dict[str, str] | None = None, seconds: int = 1500, **variables: Any
) -> Audit:
    """Audit a host.

    Args:
        web: the host.
        folder: where its reports go, into a folder of this run alone.
        environment: variables of the environment for the run.
        seconds: after which it is given up.
        **variables: the options of the role.
    """
    reports = Path(tempfile.mkdtemp(dir=folder))
    given = {"audit_reports": str(reports), **variables}
    words = command("playbooks/audit.yml", "--limit", web.name, **given)
    status, output = wait(start(words, {**PLAIN, **(environment or {})}), seconds)
    written = list(reports.glob(f"{web.name}-*.json"))
    assert len(written) == 1, output
    report = json.loads(written[0].read_text(encoding="utf-8"))
    return Audit(status, " ".join(output.split()), report, written[0].with_suffix(".html"))


def run_audits(webs: Sequence[Host], folder: Path, **options: Any) -> list[Audit]:
    """Audit hosts at the same time; see :func:`run_audit`. Their runs come to an end."""
    with ThreadPoolExecutor(len(webs)) as pool:
        found = list(pool.map(lambda web: run_audit(web, folder, **options), webs))
    assert [done.output for done in found if done.status] == []
    return found


@contextmanager
def as_a_machine(*webs: Host) -> Iterator[None]:
    """Take away the file by which OpenSCAP's rules tell an image that is being built: they ask next to nothing then."""
    for web in webs:
        web.run("[ ! -e /.dockerenv ] || mv /.dockerenv /.dockerenv.away")
    try:
        yield
    finally:
        for web in webs:
            web.run("[ ! -e /.dockerenv.away ] || mv /.dockerenv.away /.dockerenv")


def parts(web: Host) -> set[str]:
    """The host's packages; its files with their permissions; the times of those that make its settings."""
    files = web.run(f"{PARTS} -printf '%p %m %u:%g\\n' | {LIVELY}").splitlines()
    settings = web.run("find /etc /usr/local -xdev -type f -printf '%p %T@ %s\\n'").splitlines()
    return {*web.run("dpkg-query -W").splitlines(), *files, *settings}
