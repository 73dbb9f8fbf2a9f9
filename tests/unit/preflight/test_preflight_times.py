"""Preflight: times of timers, by the grammar of systemd.time(7) and by the answer of the host."""

from __future__ import annotations

import pytest
from ansible.module_utils.flaskhost.preflight import calendars
from preflight_cases import CALENDAR, GOOD_SETTINGS, problems_of, timers

TIMER = "flask_apps.shop.timers.t.on_calendar"
BAD_TIMES = ["every full moon", "daily please", "Moonday 03:00", "03:00 Mars/Phobos", "at 3", "$(id)", "Mon..Funday"]
GOOD_TIMES = [
    "daily", "Hourly", "*-*-* 03:00", "Mon..Fri 06:30", "Mon,Wed *-*-* 02:15:30", "Monday..Friday 06:30",
    "*:0/15", "03:00 Europe/Stockholm", "daily UTC", "*-*~1", "Sat *-*-1..7 18:00", "Mon-Fri 10:00",
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_TIMES)
def test_what_is_no_time_is_refused_without_the_host(value: str) -> None:
    assert problems_of(**timers(value)) == {(CALENDAR, TIMER)}


@pytest.mark.parametrize("value", GOOD_TIMES)
def test_what_systemd_can_read_passes(value: str) -> None:
    assert problems_of(**timers(value)) == set()


def test_the_backups_times_are_times() -> None:
    backup = GOOD_SETTINGS["backup"] | {"full": "every full moon", "drill": "Wed *-*-* 04:15"}
    assert problems_of({"backup": backup}) == {(CALENDAR, "backup.full")}
    answers = {"calendars": {"Wed *-*-* 04:15": "it says no"}}
    assert problems_of({"backup": backup}, answers=answers) == {
        (CALENDAR, "backup.full"),
        (CALENDAR, "backup.drill"),
    }


def test_what_the_hosts_systemd_refuses_is_told() -> None:
    answers = {"calendars": {"*-*-* 30:00": "Failed to parse", "daily": ""}}
    assert problems_of(answers=answers, **timers("*-*-* 30:00")) == {(CALENDAR, TIMER)}
    assert problems_of(answers=answers, **timers("daily")) == set()


def test_without_a_tz_database_a_zone_is_left_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendars, "time_zones", frozenset)
    assert calendars.fault("daily Mars/Phobos") == ""
    assert calendars.fault("daily please")
