"""ssh-audit: parse its JSON output about sshd's algorithms."""

from __future__ import annotations

import json

from ansible.module_utils.flaskhost.audit.model import FAILED, PASSED, Finding, Scan, not_run, shorten

TITLE = "ssh-audit"
#: The sections of its JSON output, and the sshd option for each.
PARTS = {"kex": "KexAlgorithms", "key": "HostKeyAlgorithms", "enc": "Ciphers", "mac": "MACs"}


def parse(text: str) -> Scan:
    """Parse the output of ``ssh-audit -j``."""
    try:
        found = json.loads(text)
        parts = {part: found[part] for part in PARTS}
    except (ValueError, KeyError, TypeError):
        return not_run("ssh_audit", TITLE, f"Its answer cannot be read: {text[:200]}")
    findings: list[Finding] = []
    fails = warns = 0
    for part, algorithms in parts.items():
        for item in algorithms:
            notes = item.get("notes") or {}
            fail, warn = ([str(note) for note in notes.get(kind) or []] for kind in ("fail", "warn"))
            fails, warns = fails + len(fail), warns + len(warn)
            size = f" ({item['keysize']} bits)" if item.get("keysize") else ""
            findings.append(
                Finding(
                    f"{part}/{item['algorithm']}",
                    f"{PARTS[part]}: {item['algorithm']}{size}",
                    FAILED if fail or warn else PASSED,
                    "high" if fail else "medium" if warn else "info",
                    shorten("; ".join(fail + warn)),
                    f"Take it out of sshd's {PARTS[part]}." if fail or warn else "",
                )
            )
    server = (found.get("banner") or {}).get("software")
    notes = [f"The server is {server}."] if server else []
    notes += [str(note) for note in found.get("additional_notes") or []]
    return Scan(
        "ssh_audit", TITLE, score=float(fails + warns), score_text=f"{fails} fail, {warns} warn",
        findings=findings, notes=[shorten(note) for note in notes],
    )  # fmt: skip
