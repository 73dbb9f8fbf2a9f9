"""Certificates: parse the output of ``flaskhost-certificates check --json``."""

from __future__ import annotations

import json

from ansible.module_utils.flaskhost.audit.model import FAILED, NOTE, PASSED, Finding, Scan, not_run, shorten

TITLE = "Certificates"
DAY = 86400


def parse(text: str, now: float, least_days: int = 14) -> Scan:
    """Parse the status of the certificates.

    Args:
        text: the program's JSON output.
        now: current time in seconds since 1970.
        least_days: a certificate with fewer days left fails.
    """
    try:
        found = json.loads(text)
        if found.get("problem"):
            return not_run("certificates", TITLE, str(found["problem"]))
        items = found["certificates"]
        findings: list[Finding] = []
        left: list[int] = []
        for item in items:
            name, days = item["name"], int((item["not_after"] - now) // DAY)
            problems = list(item["problems"])
            if item["not_after"]:
                left.append(days)
            if item["not_after"] and days < least_days:
                problems.append(f"It ends in {days} days.")
            findings.append(
                Finding(
                    name, f"The certificate of {name}", FAILED if problems else PASSED,
                    "high" if problems else "info",
                    shorten(" ".join(problems)) or f"{days} days left, from {item['source']}.",
                    "On the host: sudo flaskhost-certificates check, then sudo flaskhost-certificates renew."
                    if problems
                    else "",
                )
            )  # fmt: skip
            if item["source"] == "selfsigned":
                what = "The host has signed it itself: no browser trusts it."
                findings.append(Finding(f"{name}/trust", f"Who signed that of {name}", NOTE, "info", what))
    except (ValueError, KeyError, TypeError, AttributeError):
        return not_run("certificates", TITLE, f"The answer cannot be read: {text[:200]}")
    fewest = min(left, default=None)
    score_text = "none" if fewest is None else f"{fewest} days left"
    score = None if fewest is None else float(fewest)
    return Scan("certificates", TITLE, score=score, score_text=score_text, findings=findings)
