"""The hosts of the scenario, and the steps that the tests of several files begin from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from fleet import APPS, WEB, Web, connect, issued, orders, play, start_authorities, update_records


@dataclass
class Healed:
    """What became of the first run's certificates when the authority was there.

    Attributes:
        timer: what the service of one host has said; hello.test's record was wrong, so that it had to fail.
        timer_ok: whether it succeeded all the same.
        status: how the playbook ended on the other host.
        output: what it has printed, at the highest verbosity and with --diff.
        orders: how often the authority had been asked before.
        is_first: whether this was the first time; not where `molecule verify` is run again.
    """

    timer: str
    timer_ok: bool
    status: int
    output: str
    orders: int
    is_first: bool


@pytest.fixture(scope="session")
def ca() -> Any:
    """The host of the DNS server and the authorities."""
    return connect("fh-acme-ca")


@pytest.fixture(scope="session")
def webs() -> list[Web]:
    """The two web hosts, bookworm first."""
    return [Web.of(name) for name in WEB]


@pytest.fixture(scope="session")
def bookworm(webs: list[Web]) -> Web:
    """The web host with Debian 12."""
    return webs[0]


@pytest.fixture(scope="session")
def trixie(webs: list[Web]) -> Web:
    """The web host with Debian 13."""
    return webs[1]


@pytest.fixture(scope="session")
def roots(ca: Any, webs: list[Web]) -> dict[str, str]:
    """The roots of the authorities, which run from here on."""
    return start_authorities(ca, webs)


@pytest.fixture(scope="session")
def healed(ca: Any, webs: list[Web], roots: dict[str, str]) -> Healed:
    """The authority is there at last: one host heals by its timer, the other by the playbook."""
    assert roots
    is_first = issued(ca) == 0
    before = orders(ca)
    timer_ok, timer = webs[0].start("flaskhost-certificates-renew")
    status, output = play("-vvv", limit=webs[1].name)
    return Healed(timer, timer_ok, status, output, before, is_first)


@pytest.fixture(scope="session")
def corrected(ca: Any, webs: list[Web], healed: Healed) -> None:
    """The records of hello.test are right, and all apps have a certificate of the authority."""
    assert healed
    addresses = [f"add hello.test. 1 A {web.address}" for web in webs]
    update_records(ca, "delete hello.test. A", *addresses)
    for web in webs:
        answer = web.program("apply")
        assert [item["source"] for item in answer["certificates"]] == ["acme"] * len(APPS), answer


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add the last log lines of every host to a test that failed."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "teardown" or not report.failed:
        return
    for name in (*WEB, "fh-acme-ca"):
        log = "journalctl --namespace='*' --no-pager --lines=40 --output=short; tail -n 5 /var/log/nginx/error.log"
        report.sections.append((f"the journal of {name}", connect(name).run(log).stdout))
