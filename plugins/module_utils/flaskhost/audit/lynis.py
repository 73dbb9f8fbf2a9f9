"""Lynis: what its report file (``lynis-report.dat``) says, and its log of the points that it has not given."""

from __future__ import annotations

import re
from collections import Counter

from ansible.module_utils.flaskhost.audit.model import FAILED, NOTE, PASSED, Finding, Scan, not_run, shorten

TITLE = "Lynis"
#: How a line of the report becomes a finding: the status is always failed, the severity is its kind's.
KINDS = {"warning": "high", "suggestion": "low"}
#: In the log, where a test begins, and where it gives points: "(2 of 3)" of them, or all "(3)".
BEGINS = re.compile(r"Performing test ID ([A-Z]+-\d+) \((.*)\)")
GIVES = re.compile(r"Hardening: assigned (?:maximum|partial) number of hardening points .*?\((?:(\d+) of )?(\d+)\)")


def parse(text: str, log: str = "") -> Scan:
    """Read a report.

    A test that was executed, has neither a warning nor a suggestion and has given all its points counts as passed.
    Lynis takes points for some things without a word in its report; they are findings here.

    Args:
        text: the report file: ``key=value`` lines, ``warning[]=TEST|message|details|solution|``.
        log: its log, where the points are.
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
            # Others only tell what is there: the protocols of nginx, say.
            _add(details, _detail(value))
        elif not key.endswith("[]"):
            values[key] = value
    if values.get("finish") != "true" or not re.fullmatch(r"\d+", values.get("hardening_index", "")):
        return not_run("lynis", TITLE, "It did not come to its end: its report has no hardening index.")
    # "One or more sysctl values differ": where Lynis says which, that is told, and waived, one by one.
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
    # Lynis looks for a newer Lynis too, which says nothing about the host.
    if "LYNIS" in findings:
        findings["LYNIS"].status, findings["LYNIS"].severity = NOTE, "info"
    index = int(values["hardening_index"])
    return Scan(
        "lynis", TITLE, version=values.get("lynis_version", ""), score=float(index), score_text=f"index {index} of 100",
        most_points=most, missing_points=dict(missing), findings=list(findings.values()),
    )  # fmt: skip


def _points(log: str) -> tuple[int, Counter[str], dict[str, tuple[str, str]]]:
    """Read the points.

    Returns:
        How many there are, how many each test has not given, and of those tests what they are about and what was said
        last before that.
    """
    test = about = said = ""
    most, missing, reasons = 0, Counter[str](), dict[str, tuple[str, str]]()
    for line in log.splitlines():
        # Behind the day and the time.
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
    # One test may say several things, one for each of sshd's options, of some protocols, of some folders.
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
    """Add a finding; one with the same name gets a number."""
    name, number = finding.id, 2
    while finding.id in found:
        finding.id, number = f"{name}#{number}", number + 1
    found[finding.id] = finding
