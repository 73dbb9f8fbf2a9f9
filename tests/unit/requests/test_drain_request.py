"""Which app host an operator can take out of the rotation, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.flaskhost.requests.drain import refusal, request

HOSTS = ["app1", "app2"]


def test_a_host_is_drained_and_comes_back() -> None:
    found = request({"host": "app2", "drain": "", "force": ""}, HOSTS, True)
    assert (found["problem"], found["host"], found["state"], found["force"]) == ("", "app2", "present", False)
    assert "@" in found["by"]
    back = request({"host": "app2", "drain": False, "force": "true"}, HOSTS, True)
    assert (back["state"], back["force"]) == ("absent", True), "YAML reads off as false"
    assert request({"host": "app2", "drain": "off"}, HOSTS, True)["state"] == "absent"


@pytest.mark.parametrize(
    ("given", "private", "part"),
    [
        (
            {},
            True,
            "host: name one app host: ansible-playbook playbooks/drain.yml -e host=NAME. Available: app1, app2.",
        ),
        ({"host": "web1"}, True, "host: 'web1' is not in the group app"),
        ({"host": "app1", "drain": "maybe"}, True, "drain: 'maybe' is neither on nor off"),
        ({"host": "app1", "_raw_params": "app2"}, True, "host: words were lost"),
        ({"host": "app1"}, False, "each host serves its own apps, and there is nothing to drain"),
    ],
)
def test_a_request_that_makes_no_sense(given: dict[str, Any], private: bool, part: str) -> None:
    assert part in request(given, HOSTS, private)["problem"]


def state(drained: bool = False, release: str = "r1") -> dict[str, Any]:
    return {"drained": drained, "releases": {"shop": release}}


DOWN = {"unreachable": True, "msg": "timed out"}
DRAIN = {"host": "app2", "state": "present", "force": False}
BACK = {**DRAIN, "state": "absent"}


@pytest.mark.parametrize(
    ("wanted", "results", "part"),
    [
        (DRAIN, {"app1": state(), "app2": state()}, ""),
        (DRAIN, {"app1": state(drained=True), "app2": state()}, "app2 is the last app host that serves visitors"),
        (DRAIN, {"app1": DOWN, "app2": state()}, "app2 is the last app host that serves visitors"),
        ({**DRAIN, "force": True}, {"app1": DOWN, "app2": state()}, ""),
        (DRAIN, {"app1": DOWN, "app2": state(drained=True)}, ""),
        (DRAIN, {"app1": state(), "app2": DOWN}, "app2 cannot be reached."),
        (BACK, {"app1": state(), "app2": state(drained=True)}, ""),
        (BACK, {"app1": state(release="r2"), "app2": state(drained=True)}, "app2 has r1 of shop, and the other app"),
        (BACK, {"app1": state(release="r2"), "app2": state(True, "")}, "app2 has no release of shop"),
        (BACK, {"app1": DOWN, "app2": state(drained=True)}, ""),
        (BACK, {"app1": state(drained=True, release="r2"), "app2": state(drained=True)}, ""),
        (BACK, {"app1": state(release="r2"), "app2": state()}, ""),
        ({**BACK, "force": True}, {"app1": state(release="r2"), "app2": state(drained=True)}, ""),
    ],
)
def test_what_would_harm_visitors_is_refused(wanted: dict[str, Any], results: dict[str, Any], part: str) -> None:
    said = refusal(wanted, results)
    assert said.startswith(part)
    assert bool(said) is bool(part)
