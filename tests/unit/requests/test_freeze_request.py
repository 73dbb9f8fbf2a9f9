"""What an operator asks of freeze.yml: which apps, why and until when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ansible.module_utils.flaskhost.requests import freeze as freeze_request

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()
HOUR = 3600.0


def ask(**given: Any) -> dict[str, Any]:
    return freeze_request.request({"reason": "audit", "hours": "12", **given}, ["shop", "blog"], NOW)


def test_a_request_is_understood() -> None:
    found = ask()
    assert found.pop("says")
    assert found == {
        "problem": "",
        "app": "*",
        "state": "present",
        "reason": "audit",
        "ends": NOW + 12 * HOUR,
        "by": freeze_request.operator(),
    }
    assert "@" in freeze_request.operator()


@pytest.mark.parametrize(
    ("given", "option", "value"),
    [
        ({"app": "shop"}, "app", "shop"),
        ({"app": "all"}, "app", "*"),
        ({"reason": "  a\n b "}, "reason", "a b"),
        ({"hours": 2}, "ends", NOW + 2 * HOUR),
        ({"hours": "0.5"}, "ends", NOW + HOUR / 2),
        ({"hours": "", "until": "2026-12-01 08:00"}, "ends", datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()),
        ({"hours": "", "until": "2026-12-01T08:00:00Z"}, "ends", datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()),
        ({"hours": "", "until": "2026-12-01T08:00+02:00"}, "ends", datetime(2026, 12, 1, 6, tzinfo=UTC).timestamp()),
        ({"hours": "", "until": "2026-12-01"}, "ends", datetime(2026, 12, 1, tzinfo=UTC).timestamp()),
        ({"freeze": "on"}, "state", "present"),
        ({"freeze": True}, "state", "present"),
        ({"freeze": "off", "reason": "", "hours": ""}, "state", "absent"),
        ({"freeze": False, "reason": "", "hours": ""}, "state", "absent"),
        ({"freeze": "OFF", "app": "shop"}, "app", "shop"),
    ],
    ids=str,
)
def test_what_is_given_arrives(given: dict[str, Any], option: str, value: Any) -> None:
    request = ask(**given)
    assert (request["problem"], request.get(option)) == ("", value)


@pytest.mark.parametrize(
    ("given", "variable", "word"),
    [
        ({"app": "shp"}, "app", "blog, shop"),
        ({"app": "shp", "freeze": "off"}, "app", "blog, shop"),
        ({"freeze": "maybe"}, "freeze", "neither on nor off. Example: -e freeze=off"),
        ({"reason": ""}, "reason", "hours=12"),
        ({"reason": "  "}, "reason", "hours=12"),
        ({"hours": ""}, "hours or until", "none is set"),
        ({"until": "2026-12-01 08:00"}, "hours or until", "both are set"),
        ({"hours": "0"}, "hours", "number of hours"),
        ({"hours": "-1"}, "hours", "number of hours"),
        ({"hours": "nan"}, "hours", "number of hours"),
        ({"hours": "12h"}, "hours", "number of hours"),
        ({"hours": "2161"}, "hours", "90 days"),
        ({"hours": "", "until": "tomorrow"}, "until", "tomorrow"),
        ({"hours": "", "until": "2026-11-21 12:00"}, "until", "end in the past"),
        ({"hours": "", "until": "2020-01-01"}, "until", "end in the past"),
        ({"hours": "", "until": "2027-03-01"}, "until", "90 days"),
        ({"_raw_params": "sale"}, "reason", "-e \"reason='...'\""),
    ],
    ids=str,
)
def test_what_is_not_clear_is_named(given: dict[str, Any], variable: str, word: str) -> None:
    request = ask(**given)
    assert set(request) == {"problem"}
    assert request["problem"].startswith(f"{variable}: ")
    assert word in request["problem"]
    assert request["problem"].endswith("Nothing has been changed.")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "All apps are frozen until 2026-"),
        ({"app": "shop"}, "shop is frozen until 2026-"),
        ({"freeze": "off"}, "All apps are no longer frozen."),
        ({"freeze": "off", "app": "shop"}, "shop is no longer frozen."),
    ],
)
def test_a_freeze_repeats_until_when(given: dict[str, Any], says: str) -> None:
    found = ask(**given)["says"]
    assert found.startswith(says)
    if not given.get("freeze"):
        assert " UTC: audit. To lift the freeze: ansible-playbook playbooks/freeze.yml -e freeze=off" in found
        assert found.endswith(" -e app=shop") is ("app" in given)
