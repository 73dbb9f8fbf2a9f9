"""Deploys, rollbacks and switches to another server, while visitors come: none of them loses a request."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from load_client import Load, Report

testinfra_hosts = ["ansible://all"]
#: Requests a second, and seconds between requests that take four seconds.
RATE, LONG_EVERY = 60, 0.5
#: Share of the requests that the client may leave out because it was late itself.
MAX_LEFT_OUT = 0.05


@dataclass
class Loads:
    """What became of the requests: of the usual ones, and of those that take four seconds."""

    usual: Report = field(default_factory=Report)
    long: list[Future[Any]] = field(default_factory=list)


@contextlib.contextmanager
def load_on(visitor: Any, app: str) -> Iterator[Loads]:
    """Put a load on an app, until the end of the block."""
    loads, over = Loads(), threading.Event()

    def ask_long() -> None:
        while not over.wait(LONG_EVERY):
            loads.long.append(pool.submit(visitor.ask, f"https://{app}.test/slow?seconds=4"))

    with ThreadPoolExecutor(16) as pool:
        asking = threading.Thread(target=ask_long)
        asking.start()
        try:
            with Load(f"{app}.test", visitor.ports[443], rate=RATE) as load:
                yield loads
        finally:
            over.set()
            asking.join()
    loads.usual = load.report


def check(loads: Loads) -> None:
    """Check that nothing was lost, and that requests were under way at each switch."""
    usual = loads.usual
    assert usual.lost == 0, usual.text()
    assert usual.left_out <= MAX_LEFT_OUT, usual.text()
    # What was under way when the other slot took over was finished by the release that began it.
    assert usual.across.get("slow") and usual.across.get("stream"), usual.across
    answers = [each.result() for each in loads.long]
    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["x-release"] for answer in answers} >= set(usual.releases)


def test_deploys_and_rollbacks_lose_no_request(visitor, play, app):
    versions, served = [f"{name}-{time.time_ns()}" for name in ("n1", "n2")], []
    with load_on(visitor, app) as loads:
        for version in versions:
            play("deploy", app, env={"VERSION": version})
            served.append(visitor.ask(f"https://{app}.test/whoami").json["version"])
        play("rollback", app, env={"VERSION": versions[1]})
        served.append(visitor.ask(f"https://{app}.test/whoami").json["version"])
    assert served == [*versions, versions[0]]
    assert len(loads.usual.releases) == 3
    check(loads)


def test_switches_to_another_server_lose_no_request(visitor, play, main_process):
    """gunicorn, uWSGI, Waitress, back to uWSGI by a rollback, and gunicorn again."""
    ran = []
    with load_on(visitor, "mover") as loads:
        for server in ("uwsgi", "waitress", "rollback", "gunicorn"):
            if server == "rollback":
                play("rollback", "mover", server="waitress")
            else:
                play("site", "mover", "--tags", "slots,gunicorn,uwsgi,waitress,app", server=server)
            ran.append(main_process("mover"))
            assert visitor.ask("https://mover.test/whoami").status == 200
    uwsgi, waitress, back, gunicorn = ran
    assert "uwsgi" in uwsgi and "server.conf.py" in waitress and "uwsgi" in back and "gunicorn" in gunicorn
    assert len(loads.usual.releases) >= 3
    check(loads)
