"""testssl.sh: parse its JSON output about the TLS of one domain."""

from __future__ import annotations

import json

from ansible.module_utils.flaskhost.audit.model import FAILED, NOTE, PASSED, Finding, Scan, not_run, shorten

#: Its severities. INFO and DEBUG are ignored, because they describe without a rating.
SEVERITIES = {"CRITICAL": "high", "HIGH": "high", "MEDIUM": "medium", "LOW": "low"}

#: testssl.sh gives no advice. A site without a CA's certificate has a self-signed one, and no HSTS. Debian 12's calls
#: cert_extlifeSpan cert_validityPeriod.
_AUTHORITY = (
    "Set acme_email for a certificate that browsers trust (docs/certificates.md). If a private certificate authority "
    "signs yours, name it in audit_tls_authority."
)
ADVICE = {
    **dict.fromkeys(("cert_chain_of_trust", "cert_extlifeSpan", "cert_validityPeriod", "cert_revocation"), _AUTHORITY),
    "HSTS": f"Sites with a self-signed certificate send none. {_AUTHORITY}",
}


def scanner_name(name: str) -> str:
    """Return the name of a domain's scan, as waivers use it."""
    return f"testssl-{name}"


def parse(text: str, name: str) -> Scan:
    """Parse a flat JSON file.

    Args:
        text: the output of ``--jsonfile``.
        name: the domain.
    """
    scanner, title = scanner_name(name), f"testssl.sh {name}"
    try:
        items = json.loads(text)
        findings: dict[str, Finding] = {}
        values: dict[str, str] = {}
        for item in items:
            # The ID of an item about a certificate ends with its number: cert_chain_of_trust <hostCert#1>.
            key, severity, found = item["id"].split(" ")[0], item["severity"], str(item["finding"])
            values[key] = found
            if severity == "FATAL":
                return not_run(scanner, title, f"It stopped: {found}")
            finding = _finding(key, severity, found)
            if finding and (key not in findings or finding.status == FAILED):
                findings[key] = finding
    except (ValueError, KeyError, TypeError, AttributeError):
        return not_run(scanner, title, "Its report cannot be read: it did not come to its end.")
    if not any(finding.status == PASSED for finding in findings.values()):
        return not_run(scanner, title, "It found nothing to look at: does the name serve HTTPS?")
    score = values.get("final_score", "")
    return Scan(
        scanner, title, score=float(score) if score.isdigit() else None,
        score_text=f"grade {values['overall_grade']}" if "overall_grade" in values else "no grade by this version",
        findings=list(findings.values()),
    )  # fmt: skip


def _finding(key: str, severity: str, found: str) -> Finding | None:
    if key in ("overall_grade", "scanTime") or key.startswith("grade_cap"):
        return None
    if severity == "OK":
        return Finding(key, _title(key), PASSED, "info", shorten(found))
    if severity == "WARN":
        return Finding(key, _title(key), NOTE, "info", shorten(f"It could not be tested: {found}"))
    if severity in SEVERITIES:
        return Finding(key, _title(key), FAILED, SEVERITIES[severity], shorten(found), ADVICE.get(key, ""))
    return None


def _title(key: str) -> str:
    """Convert an ID such as cert_chain_of_trust to words."""
    words = key.replace("_", " ").replace("cert ", "certificate: ")
    return words[:1].upper() + words[1:]
