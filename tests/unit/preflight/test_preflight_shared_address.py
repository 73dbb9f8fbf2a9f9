"""Preflight of the address that moves between the web hosts: who can have it, and from where the hosts talk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.host import questions
from preflight_cases import GOOD_FACTS, GOOD_SETTINGS, case_name, found, good_apps
from test_preflight_layout import described

ADDRESS = "10.0.0.10"
GROUPS = {"web": "w1 w2", "app": "a1", "db": "d1"}
#: In the order of their names, the hosts have 10.0.0.1 to 10.0.0.4.
INTERFACES = {"lo": ["127.0.0.1/8"], "eth1": ["10.0.0.3/24"]}
#: The kind, where it is told, and what is different.
SHARED_FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("lone_web_address", "web_address", {"groups": {"web": "w1", "app": "a1"}}),
    ("lone_web_address", "web_address", {"groups": {"web": "a1", "app": "a1", "db": "a1"}}),
    ("different_web_addresses", "web_address", {"hosts": {"w2": {"web_address": "10.0.0.11"}}}),
    ("different_web_addresses", "web_address", {"hosts": {"w2": {"web_address": ""}}}),
    ("taken_web_address", "web_address", {"address": "10.0.0.1"}),
    ("taken_web_address", "web_address", {"hosts": {"d1": {"private_address": ADDRESS}}}),
    ("no_private_address", "hosts.w2.private_address", {"hosts": {"w2": {"private_address": ""}}}),
    ("private_address_is_ipv6", "hosts.w2.private_address", {"hosts": {"w2": {"private_address": "fd00::2"}}}),
    ("web_address_elsewhere", "web_address", {"address": "192.0.2.10"}),
    ("web_address_elsewhere", "web_address", {"interfaces": {"eth1": ["10.0.0.3/32"]}}),
    ("private_address_elsewhere", "hosts.w1.private_address", {"interfaces": {"eth1": ["10.0.0.33/24"]}}),
    ("bad_address", "web_address", {"address": "10.0.0.10/24"}),
    ("bad_address", "web_address", {"address": "fd00::10"}),
    ("bad_address", "web_address", {"address": "127.0.0.1"}),
    ("bad_address", "web_address", {"address": "www.example.com"}),
    ("wrong_type", "web_address", {"address": 10}),
]


def problems(project: Path, **changes: Any) -> list[preflight.Problem]:
    address = changes.get("address", ADDRESS)
    groups = changes.get("groups", GROUPS)
    names = sorted({name for words in groups.values() for name in words.split()})
    given = {name: {"private_address": f"10.0.0.{number}"} for number, name in enumerate(names, 1)}
    for name in groups["web"].split():
        given[name]["web_address"] = address
    for name, values in changes.get("hosts", {}).items():
        given[name] |= values
    facts = {**GOOD_FACTS, "flaskhost_interfaces": changes.get("interfaces", INTERFACES)}
    site = {**GOOD_SETTINGS, "trusted_proxies": [], "web_address": address}
    hosts = described(groups, given)
    # The hosts are apart, so nginx cannot send files of an app.
    apps = {name: {**app, "protected_files": {}} for name, app in good_apps().items()}
    return preflight.find_problems(apps, site, facts, project, hosts=hosts, host="w1")


@pytest.mark.parametrize(("kind", "path", "changes"), SHARED_FAULTS, ids=case_name)
def test_an_address_that_cannot_move(kind: str, path: str, changes: dict[str, Any], project: Path) -> None:
    assert (kind, path) in found(problems(project, **changes))


def test_an_address_that_can_move(project: Path) -> None:
    assert problems(project) == []
    # Complete servers side by side can share one, too.
    assert problems(project, groups={"web": "w1 w2", "app": "w1 w2"}, interfaces={"eth0": ["10.0.0.1/24"]}) == []
    # This host has it now.
    assert problems(project, interfaces={"eth1": ["10.0.0.3/24", f"{ADDRESS}/32"]}) == []
    # A host that could not be asked.
    assert problems(project, interfaces={}) == []


def test_only_a_site_with_such_an_address_asks_for_interfaces() -> None:
    assert preflight.host_questions(good_apps(), GOOD_SETTINGS)["interfaces"] is False
    assert preflight.host_questions(good_apps(), {"web_address": ADDRESS})["interfaces"] is True


@pytest.mark.parametrize(
    ("status", "out", "interfaces"),
    [
        (0, '[{"ifname": "eth1", "addr_info": [{"local": "10.0.0.3", "prefixlen": 24}]}, {"ifname": "eth2"}, {}]',
         {"eth1": ["10.0.0.3/24"]}),
        (0, "[]", {}),
        (0, "{", {}),
        (0, '[{"addr_info": [{}]}]', {}),
        (127, "", {}),
    ],
    ids=case_name,
)  # fmt: skip
def test_what_the_host_says_of_its_interfaces(status: int, out: str, interfaces: dict[str, list[str]]) -> None:
    assert questions.interfaces(lambda _command: (status, out, "")) == interfaces
