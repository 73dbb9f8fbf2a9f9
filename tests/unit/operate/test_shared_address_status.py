"""The status says which web host has the address that moves between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.operate import shared_address, status
from ansible.module_utils.flaskhost.requests import status as request
from rendering import render

ADDRESS = "10.0.0.10"


class Host:
    """A web host: whether keepalived runs, and whether the host has the address."""

    def __init__(self, *, runs: bool = True, here: bool = False) -> None:
        self.runs, self.here = runs, here

    def __call__(self, command: list[str], **_options: Any) -> tuple[int, str, str]:
        if command[0] == "ip":
            assert command[-1] == f"{ADDRESS}/32"
            return 0, f"2: eth1 inet {ADDRESS}/32 scope global eth1\n" if self.here else "", ""
        return (0 if self.runs else 3), "", ""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "keepalived.conf"
    path.write_text(render("keepalived", "keepalived.conf.j2", {}, keepalived_address=ADDRESS))
    return path


def row(host: Host, settings: Path) -> dict[str, Any]:
    nowhere = settings.parent / "nowhere"
    (found,) = status.read(
        host, [], nowhere, nowhere, 0.0, certificates=nowhere, backups=nowhere, drained=nowhere, keepalived=settings
    )
    return found


def test_the_host_that_has_it_says_so(settings: Path) -> None:
    assert row(Host(here=True), settings)["notes"] == [f"has {ADDRESS}"]
    assert row(Host(), settings)["notes"] == []
    dead = row(Host(runs=False), settings)
    assert dead["host_problems"] == [f"cannot take {ADDRESS}: sudo systemctl restart keepalived"]


def test_a_host_without_such_an_address_has_nothing_to_say(settings: Path) -> None:
    assert "shared_address" not in row(Host(), settings.parent / "none")
    settings.write_text("virtual_ipaddress {\n 10.0.0.10/32 dev eth0\n}\n")
    assert shared_address.read(Host(), settings) == {}, "keepalived of somebody else"


def test_an_address_that_no_host_or_more_than_one_has_is_a_problem(settings: Path) -> None:
    def report(first: bool, second: bool, *more: dict[str, Any]) -> list[str]:
        hosts = {"web1": row(Host(here=first), settings), "web2": row(Host(here=second), settings)}
        rows = [{"host": name, **found} for name, found in hosts.items()]
        found: list[str] = request.report([*rows, *more], 0.0)["problems"]
        return found

    assert report(True, False) == report(False, True) == []
    assert report(True, True) == [f"{ADDRESS}: web1 and web2 have it at once. Can they reach each other (VRRP)?"]
    (none,) = report(False, False)
    assert none.startswith(f"{ADDRESS}: no web host has it. On one of web1, web2: ")
    assert report(False, False, {"host": "web3", "notes": ["unreachable"]}) == [], "it may have the address"
