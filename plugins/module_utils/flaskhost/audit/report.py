"""The report of one host: its scans, the waived findings, the changes since the last report, and the next steps."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.audit import waivers as waiving
from ansible.module_utils.flaskhost.audit.model import (
    FAILED,
    PASSED,
    SEVERITIES,
    WAIVED,
    Finding,
    Scan,
    from_dict,
    not_run,
)

#: Version of the JSON format. Reports of another version are not compared.
FORMAT = 1
STAMP = "%Y%m%dT%H%M%SZ"
#: The order of findings with equal severity: what anyone can reach comes before what only an intruder could use.
ORDER = (
    "ports",
    "updates",
    "certificates",
    "ssh_audit",
    "testssl",
    "gixy",
    "listeners",
    "exposure",
    "instances",
    "lynis",
    "openscap",
)
#: Number of earlier reports in which a scanner's last run is searched.
MOST_REPORTS = 30
#: All scanners, by their names in ``audit_scanners``.
TITLES = {
    "updates": "Pending updates",
    "listeners": "Listening services",
    "exposure": "systemd-analyze security",
    "certificates": "Certificates",
    "backup": "Last backup and drill",
    "instances": "Caches and queues",
    "lynis": "Lynis",
    "openscap": "OpenSCAP",
    "ssh_audit": "ssh-audit",
    "gixy": "gixy",
    "testssl": "testssl.sh",
    "ports": "Open ports, from outside",
}


def build(
    host: str,
    now: datetime.datetime,
    scans: Sequence[Scan],
    waivers: Sequence[Any],
    *,
    own: Sequence[Any] = (),
    previous: Mapping[str, Any] | None = None,
    system: str = "",
) -> dict[str, Any]:
    """Build a report.

    Args:
        host: the host's name in the inventory.
        now: the time of the audit, in UTC.
        scans: the scans; the status of failed findings can become waived here.
        waivers: see :func:`waivers.apply`.
        own: the role's own waivers.
        previous: the last reports of the same host, see :func:`last`.
        system: short description of the operating system.
    """
    marks = waiving.apply(scans, waivers, now.date(), own)
    return {
        "format": FORMAT,
        "host": host,
        "system": system,
        "when": now.strftime(STAMP),
        "scans": [{**scan.as_dict(), **_figures(scan)} for scan in scans],
        "waivers_unused": _plain(marks["unused"]),
        "waivers_expired": _plain(marks["expired"]),
        "waivers_wrong": waiving.problems([*waivers, *own]),
        "next": next_steps(scans),
        "changes": compare(scans, previous),
    }


def left_out(wanted: Sequence[str]) -> list[Scan]:
    """Return the scanners that were not requested: a report without them would look as if they had passed."""
    scans = [not_run(name, title, "Left out by audit_scanners.") for name, title in TITLES.items()
             if name not in wanted]  # fmt: skip
    for scan in scans:
        scan.left_out = True
    return scans


def next_steps(scans: Sequence[Scan]) -> list[dict[str, Any]]:
    """Return the next steps, most important first. A rule in several OpenSCAP profiles is one step."""
    steps: dict[tuple[str, str], dict[str, Any]] = {}
    for scan in scans:
        family = scan.scanner.partition("-")[0]
        for finding in scan.findings:
            if finding.status != FAILED:
                continue
            step = steps.setdefault((family, finding.id), _step(finding))
            step["scanners"].append(scan.title)

    def weight(item: tuple[tuple[str, str], dict[str, Any]]) -> tuple[int, int, int, str]:
        (family, name), step = item
        place = ORDER.index(family) if family in ORDER else len(ORDER)
        return SEVERITIES.index(step["severity"]), place, -len(step["scanners"]), name

    return [step for _key, step in sorted(steps.items(), key=weight)]


def compare(scans: Sequence[Scan], previous: Mapping[str, Any] | None) -> dict[str, Any]:
    """Compare the scans with the last report.

    Only scanners that ran both times are compared: a scanner that did not run has neither fixed nor broken anything.
    """
    if not previous:
        return {"since": "", "worse": [], "better": [], "scores": {}, "notes": []}
    before = {scan.scanner: scan for scan in map(from_dict, previous["scans"])}
    worse, better, notes = [], [], []
    scores: dict[str, str] = {}
    for scan in scans:
        old = before.get(scan.scanner)
        if old is None or not old.ran or not scan.ran:
            if old is not None and old.ran != scan.ran and not (scan.left_out or old.left_out):
                notes.append(f"{scan.title} did not run {'the last time' if scan.ran else 'this time'}.")
            continue
        scores[scan.scanner] = old.score_text or _share(old)
        if old.version != scan.version:
            notes.append(
                f"{scan.title}: version {scan.version}, before {old.version}. Scores of two versions may differ."
            )
        was = {finding.id: finding for finding in old.findings}
        is_now = {finding.id: finding for finding in scan.findings}
        for name, finding in is_now.items():
            past = was.get(name)
            if finding.status == FAILED and (past is None or past.status != FAILED):
                came = (
                    "was waived" if past and past.status == WAIVED else "new" if past is None else "did not fail before"
                )
                worse.append({"scanner": scan.title, "id": name, "title": finding.title, "how": came})
        for name, past in was.items():
            current = is_now.get(name)
            if past.status == FAILED and (current is None or current.status != FAILED):
                how = "now waived" if current and current.status == WAIVED else "no longer fails"
                better.append({"scanner": scan.title, "id": name, "title": past.title, "how": how})
    return {"since": previous["when"], "worse": worse, "better": better, "scores": scores, "notes": notes}


def failures(report: Mapping[str, Any], least: str = "low") -> int:
    """Count the failed findings from a severity on; a rule in several profiles counts once."""
    grave = SEVERITIES[: SEVERITIES.index(least) + 1]
    return sum(step["severity"] in grave for step in report["next"])


def summary(report: Mapping[str, Any]) -> list[str]:
    """Summarize the report in a few lines for the terminal."""
    width = max((len(scan["title"]) for scan in report["scans"]), default=0)
    lines = []
    for scan in report["scans"]:
        if scan["ran"]:
            counts = f"{scan['failed']} failed, {scan['waived']} waived, {scan['passed']} passed"
            text = f"{scan['score_text'] or scan['share']}: {counts}"
        else:
            text = f"not run: {scan['why_not']}"
        lines.append(f"{scan['title']:<{width}}  {text}")
    changes = report["changes"]
    if changes["since"]:
        lines.append(f"Since {changes['since']}: {len(changes['worse'])} worse, {len(changes['better'])} better.")
    lines += [f"{number}. {step['title']} ({step['id']})" for number, step in enumerate(report["next"][:3], 1)]
    return [*lines, *report["waivers_wrong"]]


def last(folder: Path, host: str) -> dict[str, Any] | None:
    """Combine the last reports of a host; damaged ones are skipped.

    A run can omit scanners. Each scanner is compared with its own last run, in whichever report that is.

    Returns:
        The newest report, in which each scan that did not run is replaced by its newest run.
    """
    newest: dict[str, Any] | None = None
    scans: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"{file_name(host)}-????????T??????Z.json"), reverse=True)[:MOST_REPORTS]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] != FORMAT or found["host"] != host:
                continue
            there = {str(scan["scanner"]): scan for scan in found["scans"] if from_dict(scan)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        newest = newest or dict(found)
        for name, scan in there.items():
            if name not in scans or (scan["ran"] and not scans[name]["ran"]):
                scans[name] = scan
    return {**newest, "scans": list(scans.values())} if newest else None


def file_name(host: str) -> str:
    """Convert a host's name to a valid file name."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in host).lstrip(".") or "host"


def _figures(scan: Scan) -> dict[str, Any]:
    within = scan.most_points - _waived_points(scan)
    figures: dict[str, Any] = {}
    if 0 < within < scan.most_points:
        figures["score_without_waived"] = 100 * (scan.most_points - sum(scan.missing_points.values())) // within
        figures["score_text"] = f"{scan.score_text}, {figures['score_without_waived']} without waived findings"
    return figures | {
        "passed": scan.count(PASSED), "failed": scan.count(FAILED), "waived": scan.count(WAIVED),
        "out_of_reach": sum(finding.out_of_reach for finding in scan.findings), "share": _share(scan),
    }  # fmt: skip


def _waived_points(scan: Scan) -> int:
    """Return the missing points of the tests whose findings are all waived."""
    judged = [finding for finding in scan.findings if finding.status in (FAILED, WAIVED)]
    left = {finding.id.partition("/")[0].partition("#")[0] for finding in judged if finding.status == FAILED}
    return sum(points for test, points in scan.missing_points.items() if test not in left)


def _share(scan: Scan) -> str:
    """Format the share of passed rules. Waived rules do not count as passed, so all numbers are shown."""
    passed, failed, waived = (scan.count(status) for status in (PASSED, FAILED, WAIVED))
    if not passed + failed + waived:
        return "no results"
    text = f"{100 * passed // (passed + failed + waived)} %, {passed} of {passed + failed + waived}"
    more = []
    within = passed + failed + waived - sum(finding.out_of_reach for finding in scan.findings)
    if 0 < within < passed + failed + waived:
        more.append(f"{100 * passed // within} % of the {within} in reach")
    if waived and passed + failed:
        more.append(f"{100 * passed // (passed + failed)} % without waived findings")
    return f"{text} ({', '.join(more)})" if more else text


def _step(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id, "title": finding.title, "severity": finding.severity, "detail": finding.detail,
        "advice": finding.advice, "scanners": [],
    }  # fmt: skip


def _plain(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{name: str(value) for name, value in waiver.items()} for waiver in found]
