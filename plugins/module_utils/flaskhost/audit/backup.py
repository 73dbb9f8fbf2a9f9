"""Backups: parse the output of ``flaskhost-backup status --json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.flaskhost.audit.model import FAILED, NOTE, PASSED, Finding, Scan, not_run, shorten

TITLE = "Last backup and drill"
HOUR = 3600
#: The kinds of backups: the program's name, the title for people, and the severity if one is missing.
KINDS = (
    ("database", "The last good backup of the database", "high"),
    ("files", "The last good backup of the files", "high"),
    ("copy", "The last copy of the database in the second repository", "medium"),
    ("second_files", "The last copy of the files in the second repository", "medium"),
    ("drill", "The last good drill", "medium"),
)


def _judged(name: str, title: str, severity: str, state: Mapping[str, Any], now: float) -> Finding:
    good, last = state["good"], state["last"]
    detail = f"{(now - good['at']) / HOUR:.0f} hours ago." if good else "There has been none."
    if last and not last["ok"]:
        detail += f" The last run failed: {' '.join(last['problems'])}"
    is_good = bool(good) and bool(last.get("ok"))
    return Finding(
        name, title, PASSED if is_good else FAILED, "info" if is_good else severity, shorten(detail),
        "" if is_good else "On the host: sudo flaskhost-backup check",
    )  # fmt: skip


def parse(text: str, now: float) -> Scan:
    """Parse the status of the backups.

    Args:
        text: the program's JSON output.
        now: current time in seconds since 1970.
    """
    try:
        found = json.loads(text)
        if found.get("problem"):
            return not_run("backup", TITLE, str(found["problem"]))
        findings: list[Finding] = []
        if not found["enabled"]:
            # One cause and one step: without backups, nothing can be late.
            why = " ".join(found["problems"])
            findings = [Finding("off", "Backups are off", FAILED, "high", shorten(why))] if why else []
            return Scan("backup", TITLE, score_text="none", findings=findings)
        for kind, title, severity in KINDS:
            queues = found.get("queues") or {}
            if kind in ("database", "copy") and not found["database"]:
                continue
            if kind == "drill" and not found["database"] and not queues:
                continue
            if kind in ("copy", "second_files") and not found["second"]:
                continue
            findings.append(_judged(kind, title, severity, found[f"{kind}_state"], now))
        for app, state in sorted((found.get("queues") or {}).items()):
            title = f"The last good backup of the queue of {app}"
            findings.append(_judged(f"queue/{app}", title, "high", state, now))
        for number, problem in enumerate(found["problems"], 1):
            findings.append(Finding(f"late/{number}", "What is late or has failed", FAILED, "high", shorten(problem)))
        if not found["second"]:
            what = "All backups are on this host: if it is lost, they are lost with it."
            findings.append(Finding("second", "A second repository", NOTE, "info", what, "Set backup.second."))
    except (ValueError, KeyError, TypeError, AttributeError):
        return not_run("backup", TITLE, f"The answer cannot be read: {text[:200]}")
    age = found["database_state" if found["database"] else "files_state"]["good"].get("at")
    hours = None if age is None else (now - age) / HOUR
    return Scan("backup", TITLE, score=hours, score_text="none" if hours is None else f"{hours:.0f} hours old",
                findings=findings)  # fmt: skip
