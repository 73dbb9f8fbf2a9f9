"""The hosts of the scenario, and who attacks them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fleet import STRAY, WEB, Attacker, Host, eventually


@pytest.fixture(scope="session")
def webs() -> list[Host]:
    """The two hosts, bookworm first."""
    return [Host.of(name) for name in WEB]


@pytest.fixture(params=WEB)
def web(request: pytest.FixtureRequest, webs: list[Host]) -> Host:
    """Each of the two hosts."""
    return webs[WEB.index(request.param)]


@pytest.fixture(scope="session")
def attacker_at_home() -> Attacker:
    """The attacker, before anything was done."""
    return Attacker.at_home()


@pytest.fixture
def attacker(attacker_at_home: Attacker, webs: list[Host]) -> Iterator[Attacker]:
    """The attacker, whom nobody has banned yet."""
    yield attacker_at_home
    for web in webs:
        web.unban()


@pytest.fixture
def stray(webs: list[Host]) -> Iterator[None]:
    """A service on every host that listens on all addresses."""
    unit = "stray-test.service"
    server = f"/usr/bin/python3 -m http.server --directory /nonexistent {STRAY}"
    for web in webs:
        web.run(f"systemd-run --quiet --collect --unit={unit} {server}")
        eventually(lambda web=web: f":{STRAY} " in web.run("ss --no-header --listening --tcp --numeric"), True)
    yield
    for web in webs:
        web.run(f"systemctl stop {unit}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add the last log lines of the hosts to a test that failed."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "teardown" or not report.failed:
        return
    used = getattr(item, "funcargs", {})
    for web in [used["web"]] if "web" in used else used.get("webs", []):
        log = "journalctl --namespace='*' --no-pager --lines=40 --output=short; tail -n 5 /var/log/nginx/error.log"
        report.sections.append((f"the journal of {web.name}", web.host.run(log).stdout))
