"""What an audit consists of: scans, each with its findings. Both travel as plain mappings, which JSON can hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

#: The scanner looked, and it is as it should be.
PASSED = "passed"
#: The scanner looked, and it is not.
FAILED = "failed"
#: It is not, and somebody has written down why it stays so.
WAIVED = "waived"
#: There is nothing here that the rule is about.
NOT_APPLICABLE = "not applicable"
#: Worth knowing, or for a person to look at; neither good nor bad.
NOTE = "note"

STATUSES = (FAILED, WAIVED, NOTE, PASSED, NOT_APPLICABLE)
#: The gravest first.
SEVERITIES = ("high", "medium", "low", "info")


@dataclass
class Finding:
    """One thing that a scanner says.

    Attributes:
        id: what it is about, the same in every run: waivers and the comparison with the last run go by it.
        title: the same for people.
        status: one of :data:`STATUSES`.
        severity: one of :data:`SEVERITIES`.
        detail: what was found.
        advice: what would be right.
        reason: why a waived one is.
        out_of_reach: of a waived one, whether no host of this kind could be as the rule wants it.
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
    """What one scanner says of one host.

    Attributes:
        scanner: its name, for waivers: ``lynis``, ``openscap-cis_level1_server``, ``testssl-www.example.com``.
        title: its name for people.
        ran: whether it could look at all. One that could not is never counted as passed.
        why_not: why it could not.
        version: of the scanner, and of its rules.
        score: its own figure, where it has one.
        score_text: that figure as people read it.
        most_points: where its figure is the share of the points that it gives, how many there are.
        missing_points: by test, those of them that it did not give; what the finding says that begins with the test's
            name, or several findings together.
        findings: what it found.
        notes: what is worth knowing about the scan.
        seconds: how long it took.
        left_out: it did not run because nobody asked for it.
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
        """The scan as a plain mapping."""
        return asdict(self)


def from_dict(values: dict[str, Any]) -> Scan:
    """Read a scan back; what an older or a newer version has besides is left out."""
    scan = {name: values[name] for name in Scan.__dataclass_fields__ if name in values}
    scan["findings"] = [
        Finding(**{name: found[name] for name in Finding.__dataclass_fields__ if name in found})
        for found in values.get("findings") or []
    ]
    return Scan(**scan)


def not_run(scanner: str, title: str, why_not: str) -> Scan:
    """Say that a scanner could not look, and why."""
    return Scan(scanner, title, ran=False, why_not=" ".join(why_not.split())[:600] or "It gave no reason.")


def shorten(text: str, most: int = 400) -> str:
    """Put a text on one line, and cut it where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
