"""gixy: parse its JSON output about nginx's configuration."""

from __future__ import annotations

import hashlib
import json

from ansible.module_utils.flaskhost.audit.model import FAILED, PASSED, Finding, Scan, not_run, shorten

TITLE = "gixy"
SEVERITIES = {"HIGH": "high", "CRITICAL": "high", "MEDIUM": "medium", "LOW": "low"}


def parse(text: str) -> Scan:
    """Parse the output of ``gixy --format json``. It lists only faults, so an empty list becomes one passed finding."""
    try:
        items = json.loads(text)
        findings = [_finding(item) for item in items]
    except (ValueError, KeyError, TypeError, AttributeError):
        return not_run("gixy", TITLE, f"Its answer cannot be read: {text[:200]}")
    loud = sum(finding.severity in ("high", "medium") for finding in findings)
    if not findings:
        findings = [Finding("none", "No check of gixy has anything to say", PASSED, "info")]
    return Scan("gixy", TITLE, score=float(loud), score_text=f"{loud} medium or higher", findings=findings)


def _finding(item: dict[str, str]) -> Finding:
    plugin, config = item["plugin"], item.get("config") or ""
    # Without the line number, so that lines added above do not make it a new finding.
    mark = hashlib.sha256(f"{config}{item.get('reason')}".encode()).hexdigest()[:8]
    return Finding(
        f"{plugin}/{mark}",
        shorten(item.get("summary") or plugin),
        FAILED,
        SEVERITIES.get(item["severity"], "info"),
        shorten(f"{item.get('reason') or ''} {config}"),
        shorten(f"{item.get('description') or ''} {item.get('reference') or ''}"),
    )
