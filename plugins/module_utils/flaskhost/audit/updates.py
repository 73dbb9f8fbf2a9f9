"""Pending updates: parse the output of ``apt-get --simulate dist-upgrade``."""

from __future__ import annotations

import re

from ansible.module_utils.flaskhost.audit.model import FAILED, NOTE, PASSED, Finding, Scan

TITLE = "Pending updates"


def parse(text: str, reboot: str = "") -> Scan:
    """Parse a simulated upgrade.

    Args:
        text: its output: ``Inst openssl [3.0.15-1] (3.0.17-1 Debian-Security:12/oldstable-security [amd64])``.
        reboot: why the host needs a reboot; empty if it does not.
    """
    findings: list[Finding] = []
    security = 0
    for name, old, new, origin in re.findall(r"^Inst (\S+) (?:\[(\S+)\] )?\((\S+) ([^)]*)\)", text, re.MULTILINE):
        urgent = "security" in origin.lower()
        security += urgent
        what = f"{old or 'not installed'} → {new}, from {origin.split(' [')[0]}"
        advice = "apt-get update && apt-get dist-upgrade, or wait for unattended-upgrades."
        severity = "high" if urgent else "low"
        findings.append(Finding(f"package/{name}", f"{name} has an update", FAILED, severity, what, advice))
    kept = re.search(r"^The following packages have been kept back:\n((?: .*\n?)+)", text, re.MULTILINE)
    for name in kept[1].split() if kept else []:
        findings.append(Finding(f"kept/{name}", f"{name} is kept back", NOTE, "info", "apt does not upgrade it."))
    if not any(finding.status == FAILED for finding in findings):
        findings.append(Finding("packages", "Every package is the newest", PASSED, "info"))
    if reboot:
        findings.append(
            Finding("reboot", "The host waits for a reboot", FAILED, "medium", reboot, "Reboot it in a quiet hour.")
        )
    else:
        findings.append(Finding("reboot", "Nothing waits for a reboot", PASSED, "info"))
    waiting = sum(finding.id.startswith("package/") for finding in findings)
    return Scan(
        "updates", TITLE, score=float(security), score_text=f"{security} for security, {waiting} in all",
        findings=findings,
    )  # fmt: skip
