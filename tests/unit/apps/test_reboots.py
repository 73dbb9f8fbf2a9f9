"""Hosts with the same reboot_time reboot one after the other."""

from __future__ import annotations

import pytest
from ansible.module_utils.flaskhost.settings.reboots import reboot_time


def times(*given: str | None) -> list[str]:
    hosts = {f"h{number}": {} if time is None else {"reboot_time": time} for number, time in enumerate(given)}
    return [reboot_time(list(hosts), name, hosts) for name in hosts]


@pytest.mark.parametrize("time", ["04:30", "", "half past four", None])
def test_a_single_server_has_its_own_time(time: str | None) -> None:
    assert times(time) == [time or ""]


def test_each_host_reboots_after_the_one_before_it() -> None:
    assert times("23:50", "23:50", "23:50") == ["23:50", "00:10", "00:30"]
    assert times("04:00", "", "04:00", None) == ["04:00", "", "04:20", ""], "a host that never reboots takes no time"


def test_times_that_differ_are_left_as_they_are() -> None:
    assert times("04:00", "03:00", "05:00") == ["04:00", "03:00", "05:00"]
    assert times("04:00", "04:00", "04:20") == ["04:00", "04:20", "04:40"], "unless an earlier host has it"


def test_a_whole_day_of_hosts_ends() -> None:
    found = times(*["04:00"] * 73)
    assert len(set(found)) == 72
    assert found[72] == "04:00"
