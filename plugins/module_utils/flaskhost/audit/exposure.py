"""``systemd-analyze security``: the exposure of each service if it were compromised, from 0 (low) to 10."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.flaskhost.audit.model import FAILED, NOT_APPLICABLE, NOTE, PASSED, Finding, Scan, not_run

TITLE = "systemd-analyze security"


def read(text: str) -> dict[str, float]:
    """Parse the exposure of each unit, from JSON or, for a systemd without JSON output, from the table."""
    found: dict[str, float] = {}
    if text.lstrip().startswith("["):
        for row in json.loads(text):
            found[str(row["unit"])] = float(row["exposure"])
        return found
    for line in text.splitlines():
        row = re.match(r"\s*(\S+\.service)\s+(\d+(?:\.\d+)?)\s", line)
        if row:
            found[row[1]] = float(row[2])
    return found


def parse(text: str, limits: Sequence[dict[str, Any]]) -> Scan:
    """Compare the exposure of each unit with its limit.

    Args:
        text: the output of ``systemd-analyze security --json=short``.
        limits: mappings with ``unit``, a name with wildcards, and ``most``. The first match applies. Units without a
            match are listed as notes.
    """
    try:
        units = read(text)
    except (ValueError, KeyError, TypeError):
        units = {}
    if not units:
        return not_run("exposure", TITLE, f"Its answer cannot be read: {text[:200]}")
    findings: list[Finding] = []
    judged: list[float] = []
    used: set[str] = set()
    for unit, value in sorted(units.items(), key=lambda item: (-item[1], item[0])):
        limit = next((each for each in limits if fnmatch.fnmatchcase(unit, str(each["unit"]))), None)
        if limit is None:
            findings.append(Finding(unit, unit, NOTE, "info", f"Exposure {value}; it has no limit."))
            continue
        used.add(str(limit["unit"]))
        judged.append(value)
        most = float(limit["most"])
        findings.append(
            Finding(
                unit, f"How exposed {unit} is",
                PASSED if value <= most else FAILED, "info" if value <= most else "medium",
                f"Exposure {value}; at most {most}.",
                "" if value <= most else f"See what it lacks: systemd-analyze security {unit}",
            )
        )  # fmt: skip
    for limit in limits:
        if str(limit["unit"]) not in used:
            absent = "No such service runs here."
            findings.append(Finding(str(limit["unit"]), str(limit["unit"]), NOT_APPLICABLE, "info", absent))
    worst = max(judged, default=None)
    text = "no service with a limit" if worst is None else f"{worst} at worst"
    return Scan("exposure", TITLE, score=worst, score_text=text, findings=findings)
