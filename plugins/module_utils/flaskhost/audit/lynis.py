"""Lynis: parse its report file (``lynis-report.dat``), and the missing points from its log."""

from __future__ import annotations

import re
from collections import Counter

from ansible.module_utils.flaskhost.audit.model import FAILED, NOTE, PASSED, Finding, Scan, not_run, shorten

TITLE = "Lynis"
#: The severity of a report line by its kind; the status is always failed.
KINDS = {"warning": "high", "suggestion": "low"}
#: Log lines: the start of a test, and the points that it assigned, some "(2 of 3)" or all "(3)".
BEGINS = re.compile(r"Performing test ID ([A-Z]+-\d+) \((.*)\)")
GIVES = re.compile(r"Hardening: assigned (?:maximum|partial) number of hardening points .*?\((?:(\d+) of )?(\d+)\)")


def parse(text: str, log: str = "") -> Scan:
    """Parse a report.

    A test passes if it was executed without a warning or suggestion and assigned all its points. Lynis withholds points
    for some things without a line in its report; these become findings here.

    Args:
        text: the report file: ``key=value`` lines, ``warning[]=TEST|message|details|solution|``.
        log: its log, which contains the points.
    """
    values: dict[str, str] = {}
    findings: dict[str, Finding] = {}
    details: dict[str, Finding] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if not equals or key.startswith("#"):
            continue
        kind = key.removesuffix("[]")
        if key.endswith("[]") and kind in KINDS:
            _add(findings, _finding(kind, value))
        elif kind == "details" and "prefval:" in value:
            # Other details only describe what exists, such as nginx's protocols.
            _add(details, _detail(value))
        elif not key.endswith("[]"):
            values[key] = value
    if values.get("finish") != "true" or not re.fullmatch(r"\d+", values.get("hardening_index", "")):
        return not_run("lynis", TITLE, "It did not come to its end: its report has no hardening index.")
    # "One or more sysctl values differ": if Lynis lists the values, each becomes a finding that can be waived by
    # itself.
    for test in {name.partition("/")[0] for name in details}:
        findings.pop(test, None)
    for name, finding in details.items():
        findings.setdefault(name, finding)
    most, missing, reasons = _points(log)
    loud = {name.partition("/")[0] for name in findings}
    for test in missing.keys() - loud:
        findings[test] = _silent(test, missing[test], *reasons[test])
    loud |= missing.keys()
    executed = [test for test in values.get("tests_executed", "").split("|") if test]
    findings |= {test: Finding(test, f"Test {test}", PASSED, "info") for test in executed if test not in loud}
    # Lynis also checks for a newer version of itself, which says nothing about the host.
    if "LYNIS" in findings:
        findings["LYNIS"].status, findings["LYNIS"].severity = NOTE, "info"
    index = int(values["hardening_index"])
    return Scan(
        "lynis", TITLE, version=values.get("lynis_version", ""), score=float(index), score_text=f"index {index} of 100",
        most_points=most, missing_points=dict(missing), findings=list(findings.values()),
    )  # fmt: skip


def _points(log: str) -> tuple[int, Counter[str], dict[str, tuple[str, str]]]:
    """Parse the points.

    Returns:
        The maximum, the missing points by test, and for each of these tests its subject and its last result before
        them.
    """
    test = about = said = ""
    most, missing, reasons = 0, Counter[str](), dict[str, tuple[str, str]]()
    for line in log.splitlines():
        # Without the date and the time.
        words = " ".join(line.split(" ")[2:]).strip()
        if begins := BEGINS.match(words):
            (test, about), said = begins.groups(), ""
        elif gives := GIVES.match(words):
            possible = int(gives[2])
            most += possible
            if kept := possible - int(gives[1] or possible):
                missing[test] += kept
                reasons.setdefault(test, (about, said))
        elif words.startswith("Result: "):
            said = words.removeprefix("Result: ")
    return most, missing, reasons


def _silent(test: str, points: int, about: str, said: str) -> Finding:
    what = f"{points} {'point is' if points == 1 else 'points are'} missing; Lynis says no more"
    return Finding(test, shorten(about), FAILED, "low", shorten(f"{what} than: {said}" if said else f"{what}."))


def _finding(kind: str, value: str) -> Finding:
    parts = [*value.split("|"), "", "", "", ""]
    test, message, details, solution = (part.strip() for part in parts[:4])
    details, solution = ("" if part == "-" else part for part in (details, solution))
    # One test can report several things, for each of sshd's options, for protocols, for folders.
    mark = re.match(r"([\w.:/@-]+)", details) or re.search(r"(?:full (?=/)|')([\w./-]+)", message)
    advice = re.sub(r"^(text|url):", "", solution)
    name = f"{test}/{mark[1].lstrip('/')}" if mark else test
    return Finding(name, shorten(message), FAILED, KINDS[kind], shorten(details), shorten(advice))


def _detail(value: str) -> Finding:
    test, service, text = [*value.split("|"), "", ""][:3]
    parts = dict(part.split(":", 1) for part in text.split(";") if ":" in part)
    field = parts.get("field") or shorten(text, 60)
    what = f"It is {parts.get('value', 'not told')}; Lynis prefers {parts.get('prefval', 'another value')}."
    about = parts.get("desc") or ""
    title = f"{service}: {field}" + (f", {about}" if about and about != "No description" else "")
    return Finding(f"{test}/{field}", shorten(title), FAILED, "low", shorten(what))


def _add(found: dict[str, Finding], finding: Finding) -> None:
    """Add a finding; if its name is taken, append a number."""
    name, number = finding.id, 2
    while finding.id in found:
        finding.id, number = f"{name}#{number}", number + 1
    found[finding.id] = finding
