"""The arithmetic of benchmarks/serve: medians, ratios, the table, and the goals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Result = Mapping[str, Any]
Rounds = Sequence[Mapping[str, Result]]


def per_second(result: Result) -> float:
    """Return the requests per second."""
    return float(result["requests"] / result["microseconds"] * 1e6)


def cpu_us(result: Result, *parts: str) -> float:
    """Return the CPU time of a request in microseconds: of all units, or only of some."""
    return float(sum(seconds for name, seconds in result["cpu"].items() if name in (parts or result["cpu"]))) * (
        1e6 / result["requests"]
    )


def middle(rounds: Rounds, case: str, figure: Callable[[Result], float]) -> float:
    """Return the median of a figure over all rounds."""
    return median(figure(each[case]) for each in rounds)


def ratio(rounds: Rounds, case: str, other: str, figure: Callable[[Result], float]) -> float:
    """Return by which factor a case differs from another: the median of the rounds' own ratios.

    Both cases of a round ran shortly after each other, so a change of the machine's speed affects both.
    """
    return median(figure(each[case]) / figure(each[other]) for each in rounds)


def table(title: str, rounds: Rounds) -> list[str]:
    """Return a table of all cases, as lines."""
    names = list(rounds[0])
    width = max(map(len, [title, *names]))
    heads = ("req/s", "CPU us", "app", "nginx", "database", "p50 ms", "p99 ms", "timed out")
    lines = [f"{title:<{width}}" + "".join(f"{head:>10}" for head in heads)]
    for name in names:
        figures: list[float | None] = [middle(rounds, name, per_second), middle(rounds, name, cpu_us)]
        for part in ("app", "nginx", "database"):
            used = part in rounds[0][name]["cpu"]
            figures.append(median(cpu_us(each[name], part) for each in rounds) if used else None)
        figures += [median(each[name][value] / 1000 for each in rounds) for value in ("p50", "p99")]
        figures.append(sum(each[name]["timed_out"] for each in rounds) or None)
        lines.append(f"{name:<{width}}" + "".join(f"{show(figure):>10}" for figure in figures))
    return lines


def show(figure: float | None) -> str:
    """Return a number with three significant digits or more, or a hyphen."""
    if figure is None:
        return "-"
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def condense(rounds: Rounds) -> dict[str, dict[str, float]]:
    """Return the medians of each case for the JSON line."""
    found = {}
    for name in rounds[0]:
        found[name] = {
            "rps": round(middle(rounds, name, per_second), 1),
            "cpu_us": round(middle(rounds, name, cpu_us), 1),
        }
        for part in rounds[0][name]["cpu"]:
            found[name][f"{part}_us"] = round(median(cpu_us(each[name], part) for each in rounds), 1)
        for value in ("p50", "p99"):
            found[name][f"{value}_ms"] = round(median(each[name][value] for each in rounds) / 1000, 2)
    return found


@dataclass(frozen=True)
class Goal:
    """A figure that was set as a goal.

    Attributes:
        name: its key in the JSON line.
        text: what it means.
        least: the smallest value that meets the goal, if it has one.
        most: the largest value that meets the goal, if it has one.
    """

    name: str
    text: str
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        """Check whether a value meets the goal."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def row(self, value: float) -> str:
        """Return a row of the table of goals."""
        limit = f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"
        return f"{self.text:<66}{value:>10.4g}  {limit:<8}  {'met' if self.met(value) else 'MISSED'}"


GOALS = (
    Goal("static_vs_flask", "compressed static file: CPU, compared with Flask behind nginx", most=0.02),
    Goal("static_vs_on_the_fly", "compressed static file: CPU, compared with nginx's gzip", most=0.5),
    Goal("microcache_page", "page: CPU without the microcache, compared with it", least=30),
    Goal("microcache_query", "page with a query: CPU without the microcache, compared with it", least=30),
    Goal("wait_256_default", "50 ms, 256 connections: requests/s, compared with gunicorn", least=40),
    Goal("wait_256_gevent", "the same with gevent", least=100),
    Goal("proxy_us", "page: CPU of nginx in microseconds", most=90),
    Goal("idle_app_mb", "idle app with two workers: MB", most=60),
    Goal("apps_on_1gb", "apps that start and serve on a host with 1 GB", least=10),
)


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the table of the goals that were measured."""
    return [goal.row(figures[goal.name]) for goal in GOALS if goal.name in figures]
