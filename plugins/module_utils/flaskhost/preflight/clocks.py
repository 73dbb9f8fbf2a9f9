"""Check that the clocks of the hosts agree, so that one host accepts what another one has signed.

A session or a token has the time of its signature, and a signature from the future is rejected. Release IDs, logs and
certificates contain the time, too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from .report import Report

#: Seconds. Chrony keeps clocks within milliseconds of each other, so that more than this is a fault.
MOST = 5


def check_clock(report: Report, host: str, clocks: Any) -> None:
    """Check a host's clock against those of the other hosts, and of the control node.

    Args:
        report: collects the problems.
        host: the name of the host.
        clocks: for each host of the run, by name, by how many seconds its clock can be ahead of the control node's: the
            least and the most, because the connection takes time. Hosts without such a pair are not checked.
    """
    pairs = {str(name): pair for name, given in _items(clocks) if (pair := _pair(given))}
    if host not in pairs or len(pairs) < 2:
        return
    # The control node has a vote: of two hosts, it tells which one is wrong.
    least, most = (statistics.median([0.0, *(pair[side] for pair in pairs.values())]) for side in (0, 1))
    ahead, behind = pairs[host][0] - most, least - pairs[host][1]
    if max(ahead, behind) <= MOST:
        return
    apart, side = (ahead, "ahead of") if ahead > 0 else (behind, "behind")
    others = ", ".join(name for name in pairs if name != host)
    problem = (
        f"The host's clock is at least {math.floor(apart)} seconds {side} the clocks of the other hosts ({others}). "
        "They would reject each other's sessions."
    )
    example = f"on {host}: sudo chronyc makestep\nor, without chrony: sudo timedatectl set-ntp true, and wait a minute"
    report.add("clock_apart", ("host", "clock"), problem, example)


def _items(clocks: Any) -> list[tuple[Any, Any]]:
    return list(clocks.items()) if isinstance(clocks, Mapping) else []


def _pair(given: Any) -> tuple[float, float] | None:
    if not isinstance(given, list | tuple) or len(given) != 2:
        return None
    if not all(isinstance(item, int | float) and math.isfinite(item) for item in given):
        return None
    return float(given[0]), float(given[1])
