"""Deploys, rollbacks and switches to another server, while visitors come: none of them loses a request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from load_client import Load, Report

testinfra_hosts = ["ansible://all"]
#: Requests a second, and such that take four seconds.
RATE, LONG_RATE = 60, 2
#: Share of the requests that the client may leave out because it was late itself.
MAX_LEFT_OUT = 0.05


@contextlib.contextmanager
def load_on(visitor: Any, app: str) -> Iterator[list[Report]]:
    """Put a load on an app. In the end, the list has the reports of the usual requests and of the long ones."""
    reports: list[Report] = []
    port = visitor.ports[443]
    with (
        Load(f"{app}.test", port, rate=RATE) as usual,
        Load(f"{app}.test", port, rate=LONG_RATE, path="/slow?seconds=4", only_fast=True) as long,
    ):
        yield reports
    reports += [usual.report, long.report]


def check(reports: list[Report], releases: int) -> None:
    """Check that nothing was lost, and that the visitors saw this number of releases."""
    usual, long = reports
    for report in reports:
        assert report.lost == 0, report.text()
        assert report.left_out <= MAX_LEFT_OUT, report.text()
    assert len(usual.releases) == releases, usual.text()
    # What was under way when the other slot took over was finished by the release that began it.
    assert usual.across.get("slow") and usual.across.get("stream"), usual.across
    assert long.across.get("fast"), long.across


def test_deploys_and_rollbacks_lose_no_request(visitor, play, app):
    served = []
    with load_on(visitor, app) as reports:
        for version in ("n1", "n2"):
            play("deploy", app, env={"VERSION": version})
            served.append(visitor.ask(f"https://{app}.test/whoami").json["version"])
        play("rollback", app, env={"VERSION": "n2"})
        served.append(visitor.ask(f"https://{app}.test/whoami").json["version"])
    assert served == ["n1", "n2", "n1"]
    check(reports, 3)


def test_switches_to_another_server_lose_no_request(visitor, play, main_process):
    """gunicorn, uWSGI, Waitress, back to uWSGI by a rollback, and gunicorn again."""
    ran = []
    with load_on(visitor, "mover") as reports:
        for server in ("uwsgi", "waitress", "rollback", "gunicorn"):
            if server == "rollback":
                play("rollback", "mover", server="waitress")
            else:
                play("site", "mover", "--tags", "slots,gunicorn,uwsgi,waitress,app", server=server)
            ran.append(main_process("mover"))
            assert visitor.ask("https://mover.test/whoami").status == 200
    uwsgi, waitress, back, gunicorn = ran
    assert "uwsgi" in uwsgi and "server.conf.py" in waitress and "uwsgi" in back and "gunicorn" in gunicorn
    # The last release is that of the beginning once more, or a new one with the same content.
    check(reports, len(reports[0].releases))
    assert len(reports[0].releases) >= 3
