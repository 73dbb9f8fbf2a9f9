"""OpenSCAP: parse the XCCDF results of one profile."""

from __future__ import annotations

# A scanner that has just run as root on the host writes the file: nobody else can put anything into it.
import xml.etree.ElementTree as ET
from pathlib import Path

from ansible.module_utils.flaskhost.audit.model import (
    FAILED,
    NOT_APPLICABLE,
    NOTE,
    PASSED,
    Finding,
    Scan,
    not_run,
    shorten,
)

#: XCCDF 1.2's results and their status here. A rule that the scanner could not evaluate does not pass.
RESULTS = {
    "pass": PASSED,
    "fixed": PASSED,
    "fail": FAILED,
    "error": FAILED,
    "unknown": FAILED,
    "notapplicable": NOT_APPLICABLE,
    "notchecked": NOTE,
    "informational": NOTE,
}
NOT_TOLD = {
    "error": "The scanner could not work it out (error).",
    "unknown": "The scanner could not work it out (unknown).",
    "notchecked": "No program can check it: a person has to.",
}
PREFIX = "xccdf_org.ssgproject.content_"


def scanner_name(profile: str) -> str:
    """Return the name of a profile's scan, as waivers use it."""
    return f"openscap-{profile}"


def scanner_title(profile: str) -> str:
    """Return the name of a profile's scan for people."""
    known = {"cis": "CIS", "anssi": "ANSSI", "bp28": "BP28", "level1": "level 1", "level2": "level 2"}
    return "OpenSCAP " + " ".join(known.get(word, word) for word in profile.split("_"))


def parse(path: Path, profile: str) -> Scan:
    """Parse the results of a profile.

    Args:
        path: the results; they repeat all rules of the content and have about 10 MB, so they are parsed incrementally.
        profile: the profile's short name, such as ``cis_level1_server``.
    """
    name, title = scanner_name(profile), scanner_title(profile)
    rules: dict[str, tuple[str, str]] = {}
    found: dict[str, tuple[str, str]] = {}
    version = ""
    depth: list[str] = []
    try:
        for event, element in ET.iterparse(path, events=("start", "end")):  # noqa: S314 - see the import
            tag = element.tag.rpartition("}")[2]
            if event == "start":
                depth.append(tag)
                continue
            depth.pop()
            if tag == "Rule":
                rules[_short(element)] = (_text(element, "title"), _text(element, "description"))
                element.clear()
            elif tag == "rule-result":
                severity = element.get("severity", "unknown")
                found[_short(element, "idref")] = (_text(element, "result"), severity)
                element.clear()
            elif tag == "version" and depth == ["Benchmark"]:
                version = (element.text or "").strip()
            elif tag == "Group":
                element.clear()
    except ET.ParseError as error:
        return not_run(name, title, f"Its results cannot be read: {error}.")
    except FileNotFoundError:
        return not_run(name, title, "It wrote no results.")
    findings = [
        _finding(rule, result, severity, rules.get(rule, ("", "")))
        for rule, (result, severity) in found.items()
        if result in RESULTS
    ]
    if not findings:
        return not_run(name, title, "Its results hold no rule: is the profile in the content?")
    return Scan(name, title, version=f"content {version}" if version else "", findings=findings)


def _finding(rule: str, result: str, severity: str, texts: tuple[str, str]) -> Finding:
    title, description = texts
    status = RESULTS[result]
    # Passed rules need no advice; without it, the report has a third of the size.
    advice = shorten(description) if status in (FAILED, NOTE) else ""
    severity = severity if severity in ("high", "medium", "low") else "info"
    return Finding(rule, shorten(title) or rule, status, severity, NOT_TOLD.get(result, ""), advice)


def _short(element: ET.Element, attribute: str = "id") -> str:
    return (element.get(attribute) or "").removeprefix(PREFIX).removeprefix("rule_")


def _text(element: ET.Element, tag: str) -> str:
    for child in element:
        if child.tag.rpartition("}")[2] == tag:
            return " ".join("".join(child.itertext()).split())
    return ""
