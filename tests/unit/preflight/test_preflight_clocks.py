"""Preflight compares the clocks of several hosts, although the connection to each takes its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost import preflight
from loading import load_plugin
from preflight_cases import GOOD_FACTS, GOOD_SETTINGS, good_apps

CLOCK = "clock_apart"


def wrong(clocks: Any, project: Path) -> dict[str, str]:
    """The hosts whose clock is wrong, and what is said about it."""
    names = clocks if isinstance(clocks, dict) else ["web1"]
    told = {
        name: preflight.find_problems(good_apps(), GOOD_SETTINGS, GOOD_FACTS, project, host=name, clocks=clocks)
        for name in names
    }
    assert all(problem["kind"] == CLOCK for problems in told.values() for problem in problems)
    return {name: problems[0]["problem"] for name, problems in told.items() if problems}


def test_the_host_that_is_wrong_is_named(project: Path) -> None:
    told = wrong({"web1": [-0.9, 0.1], "app1": [-1.2, 0.2], "app2": [39.5, 41.0], "db1": [-0.8, 0.4]}, project)
    assert list(told) == ["app2"]
    assert "at least 39 seconds ahead of the clocks of the other hosts (web1, app1, db1)" in told["app2"]
    told = wrong({"web1": [-0.9, 0.1], "app1": [-62.0, -61.0]}, project)
    assert list(told) == ["app1"], "of two hosts, the control node tells which one is wrong"
    assert "at least 60 seconds behind" in told["app1"]


def test_a_control_node_whose_clock_is_wrong_does_not_matter(project: Path) -> None:
    assert wrong({"web1": [899.2, 900.1], "app1": [899.0, 900.3]}, project) == {}


def test_a_slow_connection_is_no_wrong_clock(project: Path) -> None:
    # The host read its clock at some time of the 30 seconds that the connection took.
    slow = {"web1": [-30.0, 0.1], "app1": [-0.3, 29.0], "app2": [-0.3, 0.2]}
    assert wrong(slow, project) == {}
    assert wrong({**slow, "app1": [-0.3, 0.1]}, project) == {}
    assert list(wrong({**slow, "app1": [60.0, 90.0]}, project)) == ["app1"]


@pytest.mark.parametrize("clocks", [None, {}, {"web1": [100, 101]}, {"web1": [100, 101], "web2": []}, {"web2": [9, 9]}])
def test_one_clock_is_compared_with_none(clocks: Any, project: Path) -> None:
    assert wrong(clocks, project) == {}


def test_the_hosts_time_is_bounded_by_the_control_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = load_plugin("roles/preflight/action_plugins/preflight_attempt.py")
    times = iter((1000.0, 1003.0))
    monkeypatch.setattr(plugin.time, "time", lambda: next(times))
    action = object.__new__(plugin.ActionModule)

    class Anything:
        become = remote_addr = port = remote_user = None
        args = {"module": "preflight_host"}  # noqa: RUF012

    action._task = action._connection = action._play_context = Anything()
    monkeypatch.setattr(plugin.ActionBase, "run", lambda *_given: {})
    answers = {"clock": 1042.5}
    monkeypatch.setattr(action, "_execute_module", lambda **_given: {"answers": answers}, raising=False)
    assert action.run()["ansible_facts"] == {"flaskhost_clock": [39.5, 42.5]}
    times = iter((1000.0, 1003.0))
    answers.clear()
    assert action.run()["ansible_facts"] == {}
