"""Listening sockets on the host, from ``ss``: a firewall can hide an unneeded service, but it should not listen."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from ansible.module_utils.flaskhost.audit.model import FAILED, NOTE, PASSED, Finding, Scan

TITLE = "Listening services"
#: DHCP's own ports (RFC 2131, RFC 8415): a client has to listen on them to get its address.
DHCP = {68, 546}


def parse(text: str, expected: Collection[int]) -> Scan:
    """Check which sockets would be reachable from outside without a firewall.

    Args:
        text: the output of ``ss --no-header --tcp --udp --listening --numeric --processes``.
        expected: the ports that should be reachable.
    """
    findings: dict[str, Finding] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 5 or words[0] not in ("tcp", "udp"):
            continue
        address, _colon, port = words[4].rpartition(":")
        if not port.isdigit() or _is_local(address):
            continue
        program = re.search(r'"([^"]+)"', line)
        who = program[1] if program else "the kernel"
        key = f"{words[0]}/{port}/{who}"
        title, where = f"{who} listens on {words[0]} {port}", f"on {address or '*'}"
        if words[0] == "udp" and int(port) in DHCP:
            findings[key] = Finding(key, title, NOTE, "info", f"{where}: the host's address comes by DHCP.")
        elif int(port) in expected:
            findings[key] = Finding(key, title, PASSED, "info", where)
        else:
            advice = "Stop and disable the service, bind it to 127.0.0.1, or name the port in audit_open_ports."
            findings[key] = Finding(key, title, FAILED, "medium", where, advice)
    odd = sum(finding.status == FAILED for finding in findings.values())
    return Scan(
        "listeners", TITLE, score=float(odd), score_text=f"{odd} unexpected",
        findings=list(findings.values()) or [Finding("none", "Nothing listens for others", PASSED, "info")],
    )  # fmt: skip


def firewall(problems: Collection[str]) -> list[Finding]:
    """Return findings for the problems with the firewall."""
    advice = "Run site.yml with --tags firewall; docs/access.md says more."
    return [Finding("firewall", problem, FAILED, "high", "", advice) for problem in problems]


def _is_local(address: str) -> bool:
    bare = address.strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False
