"""benchmarks/serve: its arithmetic, what it reads from /proc, and its plan. The load itself needs a host."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps.options import APP_OPTIONS
from loading import ROOT

BENCHMARKS = ROOT / "benchmarks"


def load(name: str, file: str) -> Any:
    """Import a program of benchmarks/."""
    loader = SourceFileLoader(name, str(BENCHMARKS / file))
    spec = spec_from_loader(name, loader)
    assert spec
    module = module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


figures = load("serve_figures", "serve_figures.py")
host = load("serve_host", "serve_host.py")
serve = load("bench_serve", "serve")


def result(requests: int, seconds: float = 1.0, p50: int = 1000, **cpu: float) -> dict[str, Any]:
    """What serve_host.py reports about one case in one round."""
    return {
        "requests": requests,
        "microseconds": seconds * 1e6,
        "bytes": 0,
        "failed": 0,
        "timed_out": 0,
        "p50": p50,
        "p99": 3 * p50,
        "cpu": cpu,
    }


#: The machine is half as fast in the second round.
ROUNDS = [
    {"fast": result(1000, app=0.2, nginx=0.1), "slow": result(100, app=0.4)},
    {"fast": result(500, app=0.2, nginx=0.1), "slow": result(50, app=0.4)},
    {"fast": result(1000, app=0.2, nginx=0.1), "slow": result(50, app=0.1)},
]


def test_cpu_time_of_a_request_is_that_of_all_units_or_of_some() -> None:
    assert figures.cpu_us(ROUNDS[0]["fast"]) == pytest.approx(300)
    assert figures.cpu_us(ROUNDS[0]["fast"], "nginx") == pytest.approx(100)
    assert figures.cpu_us(ROUNDS[0]["fast"], "app", "nginx") == pytest.approx(300)
    assert figures.cpu_us(ROUNDS[0]["slow"], "nginx") == 0


def test_requests_per_second_are_those_of_the_time_that_the_load_took() -> None:
    assert figures.per_second(result(300, seconds=1.5)) == pytest.approx(200)


def test_ratio_compares_cases_of_the_same_round() -> None:
    assert figures.ratio(ROUNDS, "fast", "slow", figures.per_second) == pytest.approx(10)
    # Of the medians, it would be 20.
    assert figures.middle(ROUNDS, "fast", figures.per_second) == pytest.approx(1000)
    assert figures.middle(ROUNDS, "slow", figures.per_second) == pytest.approx(50)
    assert figures.ratio(ROUNDS, "slow", "fast", figures.cpu_us) == pytest.approx(4000 / 300)


def test_table_has_a_row_for_each_case_and_a_hyphen_for_what_it_does_not_use() -> None:
    heads, fast, slow = (line.split() for line in figures.table("page", ROUNDS))
    assert heads[:3] == ["page", "req/s", "CPU"]
    assert fast == ["fast", "1000", "300", "200", "100", "-", "1.00", "3.00", "-"]
    assert slow == ["slow", "50.0", "4000", "4000", "-", "-", "1.00", "3.00", "-"]


def test_table_counts_the_requests_that_timed_out_in_any_round() -> None:
    rounds = [{"one": result(10, app=1) | {"timed_out": count}} for count in (0, 2, 3)]
    assert figures.table("x", rounds)[1].split()[-1] == "5.00"


def test_json_has_the_medians_of_each_case() -> None:
    assert figures.condense(ROUNDS)["fast"] == {
        "rps": 1000.0,
        "cpu_us": 300.0,
        "app_us": 200.0,
        "nginx_us": 100.0,
        "p50_ms": 1.0,
        "p99_ms": 3.0,
    }


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (1234.5, "1234"), (100, "100"), (12.34, "12.3"), (0.123, "0.12"), (0, "0.00")]
)
def test_numbers_are_shown_with_the_digits_that_count(value: float | None, shown: str) -> None:
    assert figures.show(value) == shown


def test_goal_is_met_at_its_limit_and_missed_beyond_it() -> None:
    most = figures.Goal("x", "x", most=0.5)
    least = figures.Goal("x", "x", least=30)
    assert [most.met(value) for value in (0.4, 0.5, 0.51)] == [True, True, False]
    assert [least.met(value) for value in (29.9, 30, 31)] == [False, True, True]
    assert most.row(0.6).split()[-3:] == ["<=", "0.5", "MISSED"]
    assert least.row(31).split()[-3:] == [">=", "30", "met"]


def test_only_goals_that_were_measured_are_judged() -> None:
    assert [row.split()[-1] for row in figures.judge({"proxy_us": 91, "idle_app_mb": 60})] == ["MISSED", "met"]


def test_processes_of_a_unit_are_its_first_and_all_that_descend_from_it() -> None:
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1}
    assert sorted(host.descend(10, parents)) == [10, 11, 12]
    assert host.descend(20, parents) == [20]


#: Uses CPU time in a child that ends, says so, and waits.
BURN = """
import subprocess, sys
burn = "import time\\nend = time.process_time() + 0.3\\nwhile time.process_time() < end: pass"
subprocess.run([sys.executable, "-c", burn])
print("burnt", flush=True)
sys.stdin.read()
"""


def test_cpu_time_includes_children_that_have_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "burnt\n"
        parent, ticks = host.read_processes()[process.pid]
        process.communicate("")
    assert parent == os.getpid()
    assert ticks / host.TICKS >= 0.3


def test_memory_of_processes_is_their_sum_and_a_process_that_has_ended_counts_nothing() -> None:
    block = bytearray(os.urandom(1024)) * 1024 * 32
    own = host.pss_mb([os.getpid()])
    assert own >= len(block) / 1024**2
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process:
        time.sleep(0.5)
        assert host.pss_mb([os.getpid(), process.pid]) > host.pss_mb([process.pid]) > 1
        process.communicate("\n")
    assert host.pss_mb([process.pid]) == 0


def test_every_case_has_a_name_of_its_own_and_counts_the_units_that_it_uses() -> None:
    lists = [
        [*serve.servers("/page"), *serve.proxies("/page")],
        serve.servers("/query"),
        serve.servers("/wait", 256),
        serve.static(),
        serve.handshakes(),
    ]
    for cases in lists:
        names = [each["name"] for each in cases]
        assert len(set(names)) == len(names)
        for each in cases:
            assert set(each["units"]) <= {"app", "nginx", "database"}
            # Through nginx, there is TLS, and only there.
            assert ("nginx" in each["units"]) == each["url"].startswith("https://")
            assert ("database" in each["units"]) == each["url"].endswith("/query")


def test_cases_of_the_goals_are_measured() -> None:
    assert {"default", "gevent", "gunicorn app:app"} <= {each["name"] for each in serve.servers("/wait", 256)}
    wanted = {"large, gzip", "large, gzip by nginx", "large, by Flask"}
    assert wanted <= {each["name"] for each in serve.static()}


def test_servers_are_those_of_flaskhost() -> None:

    measured = {app.get("worker_class", app.get("server", "gthread")) for app in serve.SERVERS.values()}
    assert measured == {*APP_OPTIONS["worker_class"].choices, *APP_OPTIONS["server"].choices} - {"gunicorn"}


def test_help_names_the_parts() -> None:
    shown = subprocess.run(
        [sys.executable, BENCHMARKS / "serve", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(part in shown for part in serve.PARTS)
    assert "--quick" in shown
