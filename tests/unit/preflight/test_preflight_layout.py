"""Preflight of the groups: which hosts can work together, and the addresses that they need for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.preflight import layout_warnings
from ansible.module_utils.flaskhost.settings.layout import describe_hosts, web_hosts
from loading import ROOT
from playing import play
from preflight_cases import GOOD_FACTS, GOOD_SETTINGS, case_name, found, good_apps

#: The kind, where it is told, and the groups, each a word for each of its hosts.
LAYOUT_FAULTS: list[tuple[str, str, dict[str, str]]] = [
    ("no_web_host", "groups.web", {"app": "a1"}),
    ("no_web_host", "groups.web", {"app": "a1 a2", "db": "a1 a2"}),
    ("no_app_host", "groups.app", {"web": "w1"}),
    ("no_app_host", "groups.app", {"web": "w1", "db": "d1"}),
    ("mixed_groups", "groups.web", {"web": "a1 w2", "app": "a1"}),
    ("mixed_groups", "groups.web", {"web": "a1", "app": "a1 a2"}),
    ("several_databases", "groups.db", {"web": "a1", "app": "a1", "db": "d1 d2"}),
    ("several_databases", "groups.db", {"web": "a1", "app": "a1", "db": "a1 d2"}),
]
#: The kinds of the test of the addresses.
ADDRESS_KINDS = ("no_private_address", "shared_address")
#: An app whose files only a web server beside it can send.
PROTECTED_APART = "protected_files_apart"
LAYOUTS: list[dict[str, str]] = [
    {},
    {"web": "a1", "app": "a1", "db": "a1"},
    {"web": "a1", "app": "a1"},
    {"web": "a1", "app": "a1", "db": "d1"},
    {"web": "a1 a2", "app": "a2 a1", "db": "d1"},
    {"web": "a1 a2", "app": "a1 a2", "db": "a1"},
    {"web": "a1 a2", "app": "a1 a2", "db": "a2 a1"},
    {"web": "w1", "app": "a1"},
    {"web": "w1", "app": "a1 a2", "db": "d1"},
    {"web": "w1 w2", "app": "a1 a2 a3", "db": "d1"},
    {"db": "d1"},
]


def described(groups: Mapping[str, str], variables: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
    """The hosts of the groups, each with an address of its own if nothing else is said."""
    names = sorted({name for words in groups.values() for name in words.split()})
    known = {name: {"private_address": f"10.0.0.{number}"} for number, name in enumerate(names, 1)}
    return describe_hosts({group: words.split() for group, words in groups.items()}, {**known, **(variables or {})})


def problems(project: Path, hosts: Any, **settings: Any) -> list[preflight.Problem]:
    # Web servers send these files only if the groups are not apart.
    apps = {name: {**app, "protected_files": {}} for name, app in good_apps().items()}
    return preflight.find_problems(apps, {**GOOD_SETTINGS, **settings}, GOOD_FACTS, project, hosts=hosts)


@pytest.mark.parametrize(("kind", "path", "groups"), LAYOUT_FAULTS, ids=case_name)
def test_groups_that_cannot_work(kind: str, path: str, groups: dict[str, str], project: Path) -> None:
    assert (kind, path) in found(problems(project, described(groups), trusted_proxies=[]))


@pytest.mark.parametrize("groups", LAYOUTS, ids=case_name)
def test_groups_that_work(groups: dict[str, str], project: Path) -> None:
    assert problems(project, described(groups), trusted_proxies=[]) == []


def test_the_hosts_of_a_mixture_are_named(project: Path) -> None:
    (problem,) = problems(project, described({"web": "a1", "app": "a1 a2 a3"}))
    assert "a1 would serve" in problem["problem"]
    assert "to or from a2, a3." in problem["problem"]
    (problem,) = problems(project, described({"app": "a2 a3"}), trusted_proxies=[])
    assert "the apps on a2, a3." in problem["problem"]
    assert yaml.safe_load(problem["example"].partition(", so")[0]) == {"web": {"children": {"app": None}}}


def test_a_load_balancer_of_the_sites_own_needs_no_web_host(project: Path) -> None:
    groups = {"app": ["a1", "a2"], "web": [], "db": ["d1"]}
    proxies = ["203.0.113.0/24"]
    assert problems(project, described({"app": "a1 a2", "db": "d1"}), trusted_proxies=proxies) == []
    assert web_hosts(groups, proxies) == ["a1", "a2"], "their own nginx serves what the load balancer forwards"
    assert web_hosts(groups, []) == []
    assert web_hosts({**groups, "web": ["w1"]}, proxies) == ["w1"]
    assert web_hosts({}, None) == web_hosts({}, proxies) == []


NAME_ONLY: dict[str, dict[str, Any]] = {"a1": {"ansible_host": "a1.example.com"}, "d1": {"ansible_host": "10.0.0.9"}}


def test_hosts_that_connect_to_each_other_need_an_address(project: Path) -> None:
    apart = {"web": "a1", "app": "a1", "db": "d1"}
    assert found(problems(project, described(apart, NAME_ONLY))) == {("no_private_address", "hosts.a1.private_address")}
    loopback = {**NAME_ONLY, "d1": {"ansible_host": "127.0.0.1"}, "a1": {"private_address": "10.0.0.1"}}
    assert found(problems(project, described(apart, loopback))) == {("no_private_address", "hosts.d1.private_address")}
    same = {"a1": {"private_address": "10.0.0.5"}, "d1": {"ansible_host": "10.0.0.5"}}
    (problem,) = problems(project, described(apart, same))
    assert (problem["kind"], problem["path"]) == ("shared_address", "hosts.d1.private_address")
    assert "the same address as a1" in problem["problem"]
    # nginx listens on this address itself.
    forwarding = described({"web": "w1", "app": "a1"}, {"a1": {"ansible_host": "10.0.0.1"}})
    assert found(problems(project, forwarding)) == {("no_private_address", "hosts.a1.private_address")}
    # Alone, or with a database each, they need none.
    for groups in ({"web": "a1", "app": "a1", "db": "a1"}, {"web": "a1", "app": "a1"}):
        assert problems(project, described(groups, NAME_ONLY)) == []


def test_files_that_each_app_host_keeps_for_itself_are_a_warning() -> None:
    apart = described({"web": "w1", "app": "a1 a2"})
    apps = {"shop": {"wsgi": "x"}, "blog": {"persistent": []}, "wiki": {"persistent": ["media"]}, "odd": 3}
    shop, wiki = layout_warnings(apps, apart)
    assert shop.startswith("flask_apps.shop.persistent: each of a1, a2 keeps its own instance and uploads, and a")
    assert wiki.startswith("flask_apps.wiki.persistent: each of a1, a2 keeps its own media, and a")
    assert len(layout_warnings(apps, described({"app": "a1 a2"}))) == 2, "behind a load balancer of the site's own"
    for alone in ({"web": "w1", "app": "a1"}, {"web": "a1 a2", "app": "a2 a1"}, {}):
        assert layout_warnings(apps, described(alone)) == []
    for nothing in (None, [], preflight.Unreadable("x"), {"shop": None}):
        assert layout_warnings(nothing, apart) == []


class Failing(dict[str, Any]):
    """Variables of which one cannot be evaluated."""

    def get(self, name: str, default: Any = None) -> Any:
        if name == "private_address":
            raise RuntimeError("'vault_address' is undefined")
        return super().get(name, default)


def test_an_address_that_cannot_be_evaluated_is_none() -> None:
    (host,) = describe_hosts({"app": ["a1"]}, {"a1": Failing(ansible_host="10.0.0.1")})
    nothing = {"private_address": "", "web_address": ""}
    assert host == {"name": "a1", "groups": ["app"], "address": "10.0.0.1", **nothing}


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[Path]:
    """Hosts that nobody can reach, of which one is in no group that visitors reach."""
    hosts = {
        name: {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_user": "op"} for name in ("app1", "app2", "db1")
    }
    groups = {
        "web": {"hosts": {"app1": None}},
        "app": {"hosts": {"app1": None, "app2": None}},
        "db": {"hosts": {"db1": None}},
    }
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": {"flask_apps": {}}, "hosts": hosts, "children": groups}}))
    yield path


def test_the_real_playbook_refuses_them_on_each_host(inventory: Path) -> None:
    finished = play("-i", inventory, "playbooks/preflight.yml", cwd=ROOT, COLUMNS="1000")
    assert finished.returncode == 2, finished.stdout + finished.stderr
    for host in ("app1", "app2", "db1"):
        message = finished.stdout.partition(f"fatal: [{host}]")[2].partition("Nothing has been changed on")[0]
        words = " ".join(message.split())
        assert "app1 would serve visitors from its own apps" in words
        assert "hosts.app1.private_address" in words
        assert "hosts.db1.private_address" in words


@pytest.mark.parametrize(
    ("groups", "refused"), [({"web": "w1", "app": "a1"}, True), ({"web": "a1", "app": "a1"}, False)], ids=case_name
)
def test_files_that_nginx_sends_are_on_its_own_host(groups: dict[str, str], refused: bool, project: Path) -> None:
    apps = good_apps({"protected_files": {"folder": "uploads"}})
    problems = found(preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, hosts=described(groups)))
    assert ((PROTECTED_APART, "flask_apps.shop.protected_files") in problems) is refused
