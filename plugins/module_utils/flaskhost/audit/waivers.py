"""Waivers: findings that stay as they are, each with a reason that readers can dispute."""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.flaskhost.audit.model import FAILED, WAIVED, Scan

#: The required keys of a waiver.
REQUIRED = ("scanner", "id", "reason")
#: Minimum number of words of a reason.
LEAST_WORDS = 4


def problems(waivers: Sequence[Any]) -> list[str]:
    """Return the problems of waivers; an invalid waiver has no effect."""
    found = []
    for number, waiver in enumerate(waivers):
        problem = _problem(waiver)
        if problem:
            found.append(f"Waiver {number + 1}: {problem}")
    return found


def apply(
    scans: Sequence[Scan], waivers: Sequence[Any], today: datetime.date, own: Sequence[Any] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Mark waived findings.

    The first matching waiver applies. Only failed findings are waived; a scanner that did not run has none.

    Args:
        scans: the scans; their findings are changed.
        waivers: mappings with ``scanner``, ``id`` (one name, or several separated by spaces), both with wildcards,
            ``reason``, ``until``, the last day (2027-06-30) on which it applies, and ``out_of_reach``, for rules that
            no host of this kind could meet: one that contradicts another rule of its profile, or one about a rented
            server's disks.
        today: the current date.
        own: the role's own waivers. They are for every host, so unused ones are not reported.

    Returns:
        ``unused``, the waivers without a match although their scanner ran, and ``expired``, the waivers past their last
        day that would have matched.
    """
    good = [waiver for waiver in (*waivers, *own) if not _problem(waiver)]
    theirs = sum(not _problem(waiver) for waiver in waivers)
    ran = [scan for scan in scans if scan.ran]
    used: set[int] = set()
    expired: set[int] = set()
    for scan in ran:
        for finding in scan.findings:
            if finding.status != FAILED:
                continue
            for number, waiver in enumerate(good):
                if not _fits(waiver, scan.scanner, finding.id):
                    continue
                if _is_over(waiver, today):
                    expired.add(number)
                    continue
                finding.status, finding.reason = WAIVED, " ".join(str(waiver["reason"]).split())
                finding.out_of_reach = waiver.get("out_of_reach") is True
                used.add(number)
                break
    unused = [
        number
        for number, waiver in enumerate(good[:theirs])
        if number not in used | expired
        and any(fnmatch.fnmatchcase(scan.scanner, str(waiver["scanner"])) for scan in ran)
    ]
    return {
        "unused": [dict(good[number]) for number in unused],
        "expired": [dict(good[number]) for number in sorted(expired)],
    }


def _problem(waiver: Any) -> str:
    if not isinstance(waiver, Mapping):
        return "it is not a mapping with scanner, id and reason."
    missing = [name for name in REQUIRED if not str(waiver.get(name) or "").strip()]
    if missing:
        return f"missing keys: {', '.join(missing)}."
    if len(str(waiver["reason"]).split()) < LEAST_WORDS:
        return f"{waiver['id']}: the reason ({waiver['reason']}) is too short: write at least {LEAST_WORDS} words."
    if not isinstance(waiver.get("out_of_reach", False), bool):
        return f"{waiver['id']}: out_of_reach must be true or false, not {waiver['out_of_reach']}"
    if waiver.get("until"):
        try:
            _day(waiver["until"])
        except ValueError:
            return f"{waiver['id']}: until must be a date such as 2027-06-30, not {waiver['until']}"
    return ""


def _fits(waiver: Mapping[str, Any], scanner: str, name: str) -> bool:
    if not fnmatch.fnmatchcase(scanner, str(waiver["scanner"])):
        return False
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in str(waiver["id"]).split())


def _is_over(waiver: Mapping[str, Any], today: datetime.date) -> bool:
    return bool(waiver.get("until")) and _day(waiver["until"]) < today


def _day(value: Any) -> datetime.date:
    # YAML converts an unquoted date to a date object.
    return value if isinstance(value, datetime.date) else datetime.date.fromisoformat(str(value))
