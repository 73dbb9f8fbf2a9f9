"""The report as one page of HTML: nothing is fetched, no script runs, and whatever a scanner said is only text."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ansible.module_utils.flaskhost.audit.model import FAILED, NOT_APPLICABLE, NOTE, PASSED, WAIVED
from ansible.module_utils.flaskhost.audit.report import MOST_STEPS, STAMP

#: Marks beside the words, so that nothing hangs on a colour.
MARKS = {FAILED: "✗", WAIVED: "~", NOTE: "i", PASSED: "✓", NOT_APPLICABLE: "-"}
#: Shown at once; the others are behind a line that opens.
OPEN = (FAILED, WAIVED)

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #59636e; --line: #d1d9e0; --back: #fff; --panel: #f6f8fa;
  --failed: #b3261e; --waived: #7a5200; --passed: #18683a; --note: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ed; --soft: #a3adb8; --line: #3d444d; --back: #14181d;
  --panel: #1d232a; --failed: #ff8a80; --waived: #f0c05a; --passed: #6fd49a; --note: #82b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.75rem; margin: 0 0 .25rem; } h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 48rem; } .soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-size: .925rem; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
thead th { background: var(--panel); } td.number { font-variant-numeric: tabular-nums; }
code { font: .875em ui-monospace, monospace; overflow-wrap: anywhere; }
.failed { color: var(--failed); } .waived { color: var(--waived); } .passed { color: var(--passed); }
.note { color: var(--note); } .status { font-weight: 600; white-space: nowrap; }
ol.steps > li { margin: 0 0 .75rem; max-width: 56rem; } summary { cursor: pointer; padding: .25rem 0; }
.box { border: 1px solid var(--line); border-left: .3rem solid var(--failed); background: var(--panel);
  padding: .5rem 1rem; margin: 1rem 0; }
a { color: var(--note); } a:focus-visible, summary:focus-visible { outline: 2px solid currentColor; }
@media print { :root { --text: #000; --soft: #444; --line: #999; --back: #fff; --panel: #fff; --failed: #8c1d18;
  --waived: #5c3d00; --passed: #0f4a29; --note: #083e75; } body { max-width: none; padding: 0; font-size: 9pt; }
  tr, li { break-inside: avoid; } h2, h3, caption { break-after: avoid; } thead { display: table-header-group; }
  details:not([open]) { display: none; } }
"""


def render(report: Mapping[str, Any]) -> str:
    """Write the page of a report; see :func:`report.build`."""
    host, when = report["host"], _when(report["when"])
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Whatever a scanner said: the page neither fetches nor runs anything.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>Audit of {escape(host)}, {escape(when)}</title><style>{STYLE}</style></head><body>",
        f"<header><h1>Audit of {escape(host)}</h1>",
        f'<p class="soft">{escape(when)}. {_verdict(report)}</p></header><main>',
        *_wrong_waivers(report),
        *_scores(report),
        *_steps(report),
        *_changes(report),
        "<h2>What each scanner says</h2>",
        *(line for number, scan in enumerate(report["scans"]) for line in _scan(scan, number)),
        *_waivers(report),
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _verdict(report: Mapping[str, Any]) -> str:
    missing = sum(not scan["ran"] for scan in report["scans"])
    steps = len(report["next"])
    text = "Nothing is left to do." if not steps else f"{steps} things are left to do." if steps > 1 else "One is left."
    if missing:
        plural = "scanners have" if missing > 1 else "scanner has"
        text += f" {missing} {plural} not run, so there may be more than is told here."
    return escape(text)


def _wrong_waivers(report: Mapping[str, Any]) -> Iterable[str]:
    lines = list(report["waivers_wrong"])
    lines += [f"{_waiver(item)} ended on {item.get('until')}." for item in report["waivers_expired"]]
    if lines:
        yield '<div class="box"><strong>Waivers that waive nothing</strong><ul>'
        yield from (f"<li>{escape(line)}</li>" for line in lines)
        yield "</ul></div>"


def _scores(report: Mapping[str, Any]) -> Iterable[str]:
    rows = []
    before = report["changes"]["scores"]
    for number, scan in enumerate(report["scans"]):
        name = f'<th scope="row"><a href="#scan-{number}">{escape(scan["title"])}</a></th>'
        if not scan["ran"]:
            rows.append(f'<tr>{name}<td colspan="5"><span class="status note">not run</span>, because: '
                        f"{escape(scan['why_not'])}</td></tr>")  # fmt: skip
            continue
        counts = "".join(
            f'<td class="number {status if scan[status] else "soft"}">{scan[status]}</td>'
            for status in (FAILED, WAIVED, PASSED)
        )
        score = scan["score_text"] or scan["share"]
        rows.append(
            f"<tr>{name}<td>{escape(score)}</td><td>{escape(before.get(scan['scanner'], ''))}</td>{counts}</tr>"
        )
    heads = ["Scanner", "Score", "Last time", "Failed", "Waived", "Passed"]
    yield "<h2>Scores</h2>"
    yield from _table("", heads, rows)


def _steps(report: Mapping[str, Any]) -> Iterable[str]:
    yield "<h2>What to do next</h2>"
    steps: Sequence[Mapping[str, Any]] = report["next"]
    if not steps:
        yield "<p>Nothing.</p>"
        return
    yield '<p class="soft">The most important first. What is right as it is, is waived with a reason: '
    yield "<code>audit_waivers</code>.</p>"
    yield '<ol class="steps">'
    for step in steps[:MOST_STEPS]:
        where = ", ".join(step["scanners"])
        yield f'<li><strong>{escape(step["title"])}</strong> <span class="soft">({escape(step["severity"])}; '
        yield f"{escape(where)}: <code>{escape(step['id'])}</code>)</span>"
        yield "".join(f"<br>{escape(text)}" for text in (step["detail"], step["advice"]) if text) + "</li>"
    yield "</ol>"
    if len(steps) > MOST_STEPS:
        yield f"<p>And {len(steps) - MOST_STEPS} more, below.</p>"


def _changes(report: Mapping[str, Any]) -> Iterable[str]:
    changes = report["changes"]
    yield "<h2>Since the last run</h2>"
    if not changes["since"]:
        yield "<p>This is the first one.</p>"
        return
    yield f'<p class="soft">Compared with {escape(_when(changes["since"]))}.</p>'
    for name, word, css in (("worse", "Worse", FAILED), ("better", "Better", PASSED)):
        rows = [
            f'<tr><td>{escape(item["scanner"])}</td><td>{escape(item["title"])}<br><code class="soft">'
            f'{escape(item["id"])}</code></td><td class="{css}">{escape(item["how"])}</td></tr>'
            for item in changes[name]
        ]
        if rows:
            yield from _table(f"{word}: {len(rows)}", ["Scanner", "Finding", "It"], rows)
    if not changes["worse"] and not changes["better"]:
        yield "<p>No finding has come or gone.</p>"
    if changes["notes"]:
        yield "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in changes["notes"]) + "</ul>"


def _scan(scan: Mapping[str, Any], number: int) -> Iterable[str]:
    yield f'<section aria-labelledby="scan-{number}"><h3 id="scan-{number}">{escape(scan["title"])}</h3>'
    if not scan["ran"]:
        yield f'<p><span class="status note">not run</span>, because: {escape(scan["why_not"])}</p></section>'
        return
    version = f" Version: {scan['version']}." if scan["version"] else ""
    score = f"{scan['score_text']}. " if scan["score_text"] else ""
    about = f"{score}{scan['share']}.{version}"
    yield f'<p class="soft">{escape(about)} Named <code>{escape(scan["scanner"])}</code> '
    yield "in waivers.</p>"
    yield from (f"<p>{escape(note)}</p>" for note in scan["notes"])
    for status in (FAILED, WAIVED, NOTE, PASSED, NOT_APPLICABLE):
        found = [finding for finding in scan["findings"] if finding["status"] == status]
        if not found:
            continue
        table = _table("" if status not in OPEN else f"{status.capitalize()}: {len(found)}",
                       ["Status", "Finding", "What was found"], [_row(finding) for finding in found])  # fmt: skip
        if status in OPEN:
            yield from table
        else:
            yield f"<details><summary>{status.capitalize()}: {len(found)}</summary>"
            yield from table
            yield "</details>"
    yield "</section>"


def _row(finding: Mapping[str, Any]) -> str:
    status = finding["status"]
    severity = f"<br>{escape(finding['severity'])}" if status == FAILED else ""
    texts = [escape(finding["detail"]), escape(finding["advice"])]
    if finding["reason"]:
        texts = [f"<strong>Waived, because:</strong> {escape(finding['reason'])}", *texts]
    css = "soft" if status == NOT_APPLICABLE else status
    return (
        f'<tr><td class="status {css}"><span aria-hidden="true">{MARKS[status]} </span>{escape(status)}{severity}</td>'
        f'<td>{escape(finding["title"])}<br><code class="soft">{escape(finding["id"])}</code></td>'
        f"<td>{'<br>'.join(text for text in texts if text)}</td></tr>"
    )


def _waivers(report: Mapping[str, Any]) -> Iterable[str]:
    if report["waivers_unused"]:
        yield "<h2>Waivers that nothing needed</h2>"
        yield "<p>They waived nothing this time: each is either no longer needed, or about another host.</p><ul>"
        yield from (f"<li>{escape(_waiver(item))}</li>" for item in report["waivers_unused"])
        yield "</ul>"


def _waiver(item: Mapping[str, str]) -> str:
    return f"{item['scanner']} {item['id']}: {item['reason']}"


def _table(caption: str, heads: Sequence[str], rows: Sequence[str]) -> Iterable[str]:
    yield '<div class="wide"><table>' + (f"<caption>{escape(caption)}</caption>" if caption else "")
    yield "<thead><tr>" + "".join(f'<th scope="col">{escape(head)}</th>' for head in heads) + "</tr></thead><tbody>"
    yield from rows
    yield "</tbody></table></div>"


def _when(stamp: str) -> str:
    try:
        return datetime.datetime.strptime(stamp, STAMP).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return stamp
