"""What an operator may say to maintenance.yml, on a command line and as JSON."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.operate import maintenance
from ansible.module_utils.flaskhost.requests.maintenance import request
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.splitter import parse_kv
from ansible.template import Templar, trust_as_template
from loading import ROOT

SHOP, BLOG = ({"name": name, "folder": f"/srv/{name}/maintenance"} for name in ("shop", "my-blog"))


def refused(values: dict[str, Any], *sites: dict[str, str]) -> str:
    """What is said of values that are refused."""
    found = request(values, sites or (SHOP,))
    assert found.keys() == {"problem"}
    problem, _newline, end = found["problem"].rpartition("\n")
    assert end == "Nothing has been changed."
    return str(problem)


@pytest.mark.parametrize(
    ("given", "on"),
    [
        *[(word, True) for word in ("on", "ON", " on ", "true", "yes", "1", True, 1)],
        *[(word, False) for word in ("off", "Off", "false", "no", "0", False, 0)],
    ],
)
def test_on_and_off_as_text_and_as_json(given: Any, on: bool) -> None:
    assert (request({"maintenance": given}, [SHOP])["state"] == "present") is on


@pytest.mark.parametrize("given", ["onn", "maybe", 2, ["on"], {"on": True}, 1.5])
def test_what_is_neither_on_nor_off_is_refused(given: Any) -> None:
    message = refused({"maintenance": given})
    assert message.startswith("maintenance is ")
    assert "-e maintenance=on" in message


@pytest.mark.parametrize("given", [{}, {"maintenance": None}, {"maintenance": ""}, {"maintenance": "  "}])
def test_a_missing_switch_is_named(given: dict[str, Any]) -> None:
    assert refused(given).startswith("maintenance is missing")


def test_the_only_app_need_not_be_named() -> None:
    for given in ({}, {"app": ""}, {"app": None}, {"app": "shop"}, {"app": "all"}):
        assert request({"maintenance": "on", **given}, [SHOP])["sites"] == [SHOP]


def test_one_of_several_apps_has_to_be_named() -> None:
    message = refused({"maintenance": "on"}, SHOP, BLOG)
    assert "my-blog, shop" in message
    assert "-e app=my-blog" in message
    assert "-e app=all" in message
    assert request({"maintenance": "on", "app": "shop"}, [SHOP, BLOG])["sites"] == [SHOP]
    assert request({"maintenance": "on", "app": "all"}, [SHOP, BLOG])["sites"] == [BLOG, SHOP]


@pytest.mark.parametrize("given", ["shpo", "Shop", ["shop"], 5, "x" * 500, "shop\x1b[2J"])
def test_an_unknown_app_is_refused(given: Any) -> None:
    message = refused({"maintenance": "off", "app": given}, SHOP, BLOG)
    assert message.startswith("app is ")
    assert "my-blog, shop" in message
    assert "\x1b" not in message
    assert len(message) < 300
    if given == "shpo":
        assert "-e app=shop" in message


def test_without_apps_there_is_nothing_to_switch() -> None:
    assert "flask_apps is empty" in request({"maintenance": "on"}, [])["problem"]


@pytest.mark.parametrize(("given", "seconds"), [("60", 60), (60, 60), (" 3600 ", 3600), (None, 600), ("", 600), (1, 1)])
def test_seconds_as_text_and_as_a_number(given: Any, seconds: int) -> None:
    assert request({"maintenance": "on", "retry_after": given}, [SHOP])["retry_after"] == seconds


@pytest.mark.parametrize("given", [0, "0", -5, "-5", "soon", 1.5, "1.5", True, [60], "60; }", "9" * 9, "9" * 400, "٣"])
def test_seconds_that_are_none_are_refused(given: Any) -> None:
    message = refused({"maintenance": "on", "retry_after": given})
    assert message.startswith("retry_after is ")
    assert "-e retry_after=600" in message


@pytest.mark.parametrize(
    ("given", "networks"),
    [
        (["203.0.113.7"], ("203.0.113.7",)),
        ("203.0.113.7", ("203.0.113.7",)),
        ("203.0.113.7, 2001:db8::/32", ("203.0.113.7", "2001:db8::/32")),
        # The order does not matter, and neither do bits of the host, or another way to write an address.
        (["2001:DB8:0::1/32", "203.0.113.99/24", "203.0.113.0/24"], ("203.0.113.0/24", "2001:db8::/32")),
        (["203.0.113.7/32", "::1/128"], ("203.0.113.7", "::1")),
        (
            "::2 ::1 10.0.0.9 9.0.0.1 10.0.0.10 9.0.0.0/8",
            ("9.0.0.0/8", "9.0.0.1", "10.0.0.9", "10.0.0.10", "::1", "::2"),
        ),
        (None, ()),
        ([], ()),
        ("", ()),
        (" ", ()),
    ],
)
def test_addresses_and_networks(given: Any, networks: tuple[str, ...]) -> None:
    assert request({"maintenance": "on", "allow": given}, [SHOP])["allow"] == list(networks)


@pytest.mark.parametrize(
    "item",
    ["localhost", "203.0.113", "203.0.113.256", "203.0.113.7/33", 5, None, "", "fe80::1%eth0", "1.2.3.4 0; }", {}],
)
def test_an_address_that_is_none_is_refused(item: Any) -> None:
    message = refused({"maintenance": "on", "allow": ["203.0.113.7", item]})
    assert message.startswith("allow contains ")
    assert "203.0.113.7" in message, "an example"


@pytest.mark.parametrize("item", ["0.0.0.0/0", "::/0"])
def test_everybody_is_no_tester(item: str) -> None:
    assert "every address" in refused({"maintenance": "on", "allow": [item]})


def test_all_that_is_wrong_is_told_at_once() -> None:
    message = refused({"maintenance": "x", "app": "x", "retry_after": "x", "allow": "x", "message": ["x"]}, SHOP, BLOG)
    begins = [line.split()[0] for line in message.splitlines()]
    assert begins == ["maintenance", "app", "message", "retry_after", "allow"]


@pytest.mark.parametrize("given", [None, "", " \n ", "\x00\x1b"])
def test_no_message_is_the_usual_one(given: Any) -> None:
    assert request({"maintenance": "on", "message": given}, [SHOP])["message"] == maintenance.MESSAGE


def test_a_message_is_text() -> None:
    for given, text in ((9, "9"), ("a\r\nb", "a\nb"), ("a\x1b[2Jb", "a[2Jb"), ("zurück \udcff", "zurück ?")):
        assert request({"maintenance": "on", "message": given}, [SHOP])["message"] == text


# --- The command line ------------------------------------------------------------------------------------------------


def typed(*extra_vars: str) -> dict[str, Any]:
    """What the playbook understands, for what follows each ``-e`` once the shell has read it."""
    play = DataLoader().load_from_file(str(ROOT / "playbooks/maintenance.yml"), trusted_as_template=True)[-1]
    asked, filtered, _rest = play["vars"]["__maintenance"].partition("| flask_maintenance_request")
    assert filtered
    values: dict[str, Any] = {}
    for text in extra_vars:
        values |= yaml.safe_load(text) if text.startswith("{") else parse_kv(text)
    given = Templar(loader=DataLoader(), variables=values).template(trust_as_template(asked + "}}"))
    return request(given, [SHOP])


def test_what_is_typed_arrives() -> None:
    assert typed("maintenance=on")["state"] == "present"
    allow = '{"allow": ["203.0.113.7", "2001:db8::/32"]}'
    assert typed("app=shop", "maintenance=on", "message=Back at 9", "retry_after=900", allow) == {
        "problem": "",
        "state": "present",
        "sites": [SHOP],
        "message": "Back at 9",
        "retry_after": 900,
        "allow": ["203.0.113.7", "2001:db8::/32"],
    }


@pytest.mark.parametrize("text", ["message=Back at 9", "message='Back at 9'", '{"message": "Back at 9"}'])
def test_a_message_of_several_words_arrives_whole(text: str) -> None:
    """The shell takes the quotes of -e message="Back at 9" away, and Ansible then takes the first word."""
    assert typed("maintenance=on", text)["message"] == "Back at 9"


def test_words_that_belong_to_no_message_are_refused() -> None:
    assert refused({"maintenance": "on", "_raw_params": "at 9"}).startswith("message: words were lost")


def test_what_is_no_text_stays_what_it_is() -> None:
    assert typed('{"maintenance": false, "retry_after": 5}')["state"] == "absent"
    assert typed('{"maintenance": true, "retry_after": 5}')["retry_after"] == 5
    assert "message is not a string" in typed('{"maintenance": true, "message": ["x"]}')["problem"]
