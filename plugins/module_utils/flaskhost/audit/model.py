"""The data of an audit: scans with their findings. Both are passed as plain mappings that can be stored as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

#: The scanner checked it, and it complies.
PASSED = "passed"
#: The scanner checked it, and it does not comply.
FAILED = "failed"
#: It does not comply, and the operator recorded a reason to leave it.
WAIVED = "waived"
#: The host has nothing that the rule applies to.
NOT_APPLICABLE = "not applicable"
#: Information, or something that a person has to check; neither good nor bad.
NOTE = "note"

STATUSES = (FAILED, WAIVED, NOTE, PASSED, NOT_APPLICABLE)
#: Most severe first.
SEVERITIES = ("high", "medium", "low", "info")


@dataclass
class Finding:
    """One result of a scanner.

    Attributes:
        id: its subject, the same in every run: waivers and the comparison with the last run use it.
        title: the subject for people.
        status: one of :data:`STATUSES`.
        severity: one of :data:`SEVERITIES`.
        detail: what was found.
        advice: what would comply.
        reason: the reason of a waived finding.
        out_of_reach: for a waived finding, whether no host of this kind could comply.
    """

    id: str
    title: str
    status: str
    severity: str = "medium"
    detail: str = ""
    advice: str = ""
    reason: str = ""
    out_of_reach: bool = False


@dataclass
class Scan:
    """The results of one scanner for one host.

    Attributes:
        scanner: its name, for waivers: ``lynis``, ``openscap-cis_level1_server``, ``testssl-www.example.com``.
        title: its name for people.
        ran: whether it could run. A scanner that could not run never counts as passed.
        why_not: why it could not run.
        version: the version of the scanner and of its rules.
        score: its own score, if it has one.
        score_text: the score as text for people.
        most_points: the maximum number of points, if its score is a share of points.
        missing_points: missing points by test. The finding whose name begins with the test's name explains them, or
            several such findings together.
        findings: its findings.
        notes: notes about the scan.
        seconds: its run time in seconds.
        left_out: whether it did not run because it was not requested.
    """

    scanner: str
    title: str
    ran: bool = True
    why_not: str = ""
    version: str = ""
    score: float | None = None
    score_text: str = ""
    most_points: int = 0
    missing_points: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: int = 0
    left_out: bool = False

    def count(self, status: str) -> int:
        """Count the findings with a status."""
        return sum(finding.status == status for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Convert the scan to a plain mapping."""
        return asdict(self)


def from_dict(values: dict[str, Any]) -> Scan:
    """Convert a mapping back to a scan. Fields of older or newer versions are ignored."""
    scan = {name: values[name] for name in Scan.__dataclass_fields__ if name in values}
    scan["findings"] = [
        Finding(**{name: found[name] for name in Finding.__dataclass_fields__ if name in found})
        for found in values.get("findings") or []
    ]
    return Scan(**scan)


def not_run(scanner: str, title: str, why_not: str) -> Scan:
    """Return a scan that could not run, with the reason."""
    return Scan(scanner, title, ran=False, why_not=" ".join(why_not.split())[:600] or "No reason given.")


def shorten(text: str, most: int = 400) -> str:
    """Put a text on one line and shorten it if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
