"""The report as a single HTML page: without external resources and scripts, and with all scanner output escaped."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ansible.module_utils.flaskhost.audit.model import FAILED, NOT_APPLICABLE, NOTE, PASSED, SEVERITIES, WAIVED
from ansible.module_utils.flaskhost.audit.report import MOST_STEPS, STAMP

#: Symbols next to the words, so that nothing depends on colors.
MARKS = {FAILED: "✗", WAIVED: "~", NOTE: "i", PASSED: "✓", NOT_APPLICABLE: "-"}
#: Expanded by default; the others are collapsed.
OPEN = (FAILED,)
#: The parts of a scanner's bar.
JUDGED = (PASSED, WAIVED, FAILED)

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #59636e; --line: #d1d9e0; --back: #fff; --panel: #f6f8fa;
  --failed: #b3261e; --waived: #7a5200; --passed: #18683a; --note: #0b57a4;
  --bar-failed: #d6483f; --bar-waived: #e0a92e; --bar-passed: #2f9e5b; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ed; --soft: #a3adb8; --line: #3d444d; --back: #14181d;
  --panel: #1d232a; --failed: #ff8a80; --waived: #f0c05a; --passed: #6fd49a; --note: #82b8ff;
  --bar-failed: #e5645b; --bar-waived: #d9a93c; --bar-passed: #3fae6c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.75rem; margin: 0; } h2 { font-size: 1.3rem; margin: 2.75rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 52rem; } .soft { color: var(--soft); }
.verdict { border: 1px solid var(--line); border-left: .35rem solid var(--passed); background: var(--panel);
  padding: .75rem 1rem; margin: 1rem 0 0; border-radius: .25rem; }
.verdict strong { display: block; font-size: 1.15rem; } .verdict.failed, .box { border-left-color: var(--failed); }
.verdict.waived { border-left-color: var(--waived); } .verdict, .verdict.failed, .verdict.waived { color: var(--text); }
.box { border: 1px solid var(--line); border-left: .35rem solid var(--failed); background: var(--panel);
  padding: .5rem 1rem; margin: 1rem 0; border-radius: .25rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .75rem; padding: 0;
  margin: .75rem 0; list-style: none; }
.cards > li { border: 1px solid var(--line); border-radius: .4rem; padding: .7rem .9rem; background: var(--panel);
  display: flex; flex-direction: column; }
.cards a { font-weight: 600; font-size: .925rem; text-decoration: none; } .cards a:hover { text-decoration: underline; }
.cards .score { font-size: 1.3rem; font-weight: 600; line-height: 1.3; margin: .15rem 0; overflow-wrap: anywhere; }
.cards p { margin: 0; font-size: .85rem; } .cards .since { margin-top: auto; padding-top: .35rem; }
.cards .idle { border-style: dashed; background: none; }
.bar { display: flex; height: .5rem; border-radius: .25rem; overflow: hidden; background: var(--line);
  margin: .35rem 0; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bar span { display: block; min-width: 2px; } .bar .passed { background: var(--bar-passed); }
.bar .waived { background: var(--bar-waived); } .bar .failed { background: var(--bar-failed); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-size: .925rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
thead th { background: var(--panel); } td.number { font-variant-numeric: tabular-nums; }
code { font: .875em ui-monospace, monospace; overflow-wrap: anywhere; }
.failed { color: var(--failed); } .waived { color: var(--waived); } .passed { color: var(--passed); }
.note { color: var(--note); } .status { font-weight: 600; white-space: nowrap; }
ol.steps { padding-left: 2.25rem; } ol.steps > li { margin: 0 0 .6rem; padding-left: .25rem; max-width: 62rem; }
.badge { display: inline-block; border: 1px solid currentColor; border-radius: 1rem; padding: 0 .55rem;
  font-size: .75rem; font-weight: 600; margin-left: .35rem; }
.high { color: var(--failed); } .medium { color: var(--waived); } .low, .info { color: var(--soft); }
summary { cursor: pointer; padding: .25rem 0; }
section > details { border-top: 1px solid var(--line); } section > details > summary { padding: .55rem 0; }
summary .soft { font-weight: 400; font-size: .9rem; }
ul.ids { margin: .25rem 0; padding-left: 1.1rem; } footer { margin-top: 3rem; font-size: .85rem; }
a { color: var(--note); } a:focus-visible, summary:focus-visible { outline: 2px solid currentColor; }
@media print { :root { --text: #000; --soft: #444; --line: #999; --back: #fff; --panel: #fff; --failed: #8c1d18;
  --waived: #5c3d00; --passed: #0f4a29; --note: #083e75; } body { max-width: none; padding: 0; font-size: 9pt; }
  h2 { margin-top: 1.5rem; } .cards { grid-template-columns: repeat(3, 1fr); } .cards > li { padding: .4rem .6rem; }
  tr, li, .verdict { break-inside: avoid; } h2, h3 { break-after: avoid; }
  thead { display: table-header-group; } a { text-decoration: none; }
  details.rest:not([open]), ol.steps details { display: none; } }
"""


def render(report: Mapping[str, Any]) -> str:
    """Render the page of a report; see :func:`report.build`."""
    host, when = report["host"], _when(report["when"])
    system = f"{report['system']}. " if report.get("system") else ""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Defense in depth against scanner output: the page loads no resources and runs no scripts.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>Audit of {escape(host)}, {escape(when)}</title><style>{STYLE}</style></head><body>",
        f"<header><h1>Audit of {escape(host)}</h1>",
        f'<p class="soft">{escape(system)}Looked at on {escape(when)}.</p>',
        *_verdict(report),
        "</header><main>",
        *_wrong_waivers(report),
        *_scores(report),
        *_steps(report),
        *_changes(report),
        *_waived(report),
        "<h2>What each scanner says</h2>",
        *(line for number, scan in enumerate(report["scans"]) for line in _scan(scan, number)),
        *_unused(report),
        '</main><footer class="soft"><p>This page tells what is weak: send it as you would send a password. '
        "How to read it, and how to waive a finding: <code>docs/audit.md</code>.</p></footer></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _verdict(report: Mapping[str, Any]) -> Iterable[str]:
    steps = report["next"]
    grave = {severity: sum(step["severity"] == severity for step in steps) for severity in SEVERITIES}
    if not steps:
        css, text = PASSED, "Nothing is left to do."
    else:
        css = FAILED if grave["high"] else WAIVED
        text = "One thing is left to do: " if len(steps) == 1 else f"{len(steps)} things are left to do: "
        text += ", ".join(f"{number} {severity}" for severity, number in grave.items() if number) + "."
    every = [*_all(report, WAIVED)]
    waived, beyond = (
        len({(item["scanner"].partition("-")[0], item["id"]) for item in every if item["out_of_reach"] is is_beyond})
        for is_beyond in (False, True)
    )
    more = [f"{waived} findings stay as they are, each for a written reason." if waived > 1 else ""]
    more += ["One finding stays as it is, for a written reason." if waived == 1 else ""]
    more += [f"{beyond} more are out of this host's reach." if beyond > 1 else ""]
    more += ["One more is out of this host's reach." if beyond == 1 else ""]
    missing = sum(not scan["ran"] for scan in report["scans"])
    if missing:
        plural = "scanners have" if missing > 1 else "scanner has"
        more.append(f"{missing} {plural} not run, so there may be more than is told here.")
    changes = report["changes"]
    if changes["since"]:
        worse, better = len(changes["worse"]), len(changes["better"])
        more.append(f"Since the last run {worse} got worse and {better} better.")
    yield f'<div class="verdict {css}"><strong>{escape(text)}</strong>'
    yield escape(" ".join(sentence for sentence in more if sentence)) + "</div>"


def _wrong_waivers(report: Mapping[str, Any]) -> Iterable[str]:
    lines = list(report["waivers_wrong"])
    lines += [f"{_waiver(item)} ended on {item.get('until')}." for item in report["waivers_expired"]]
    if lines:
        yield '<div class="box"><strong>Waivers that waive nothing</strong><ul>'
        yield from (f"<li>{escape(line)}</li>" for line in lines)
        yield "</ul></div>"


def _scores(report: Mapping[str, Any]) -> Iterable[str]:
    yield "<h2>Scores</h2>"
    yield '<p class="soft">What is waived does not count as passed.</p><ul class="cards">'
    left = []
    for number, scan in enumerate(report["scans"]):
        name = f'<a href="#scan-{number}">{escape(scan["title"])}</a>'
        if scan["ran"]:
            yield f"<li>{name}" + "".join(_card(scan, report["changes"])) + "</li>"
        elif scan.get("left_out"):
            left.append(scan["title"])
        else:
            yield f'<li class="idle">{name}<span class="score note">not run</span>'
            yield f"<p>because: {escape(scan['why_not'])}</p></li>"
    yield "</ul>"
    if left:
        yield f'<p class="soft">Not asked for in this run (<code>audit_scanners</code>): {escape(", ".join(left))}.</p>'


def _card(scan: Mapping[str, Any], changes: Mapping[str, Any]) -> Iterable[str]:
    yield f'<span class="score">{escape(scan["score_text"] or scan["share"].partition(",")[0])}</span>'
    judged = sum(scan[status] for status in JUDGED)
    if judged:
        yield '<span class="bar" aria-hidden="true">'
        yield from (f'<span class="{status}" style="flex:{scan[status]}"></span>' for status in JUDGED if scan[status])
        yield "</span>"
    counts = (f'<span class="{status if scan[status] else "soft"}">{scan[status]} {status}</span>' for status in JUDGED)
    yield f"<p>{' · '.join(counts)}</p>"
    before = changes["scores"].get(scan["scanner"])
    if before is not None:
        moves = [
            f"{sum(item['scanner'] == scan['title'] for item in changes[how])} {how}" for how in ("worse", "better")
        ]
        moved = [move for move in moves if not move.startswith("0 ")]
        was = before.partition(",")[0] if "%" in before else before
        text = f"Last time: {was}" + (f"; {', '.join(moved)}" if moved else "; no change")
        yield f'<p class="since soft">{escape(text)}</p>'


def _steps(report: Mapping[str, Any]) -> Iterable[str]:
    yield "<h2>What to do next</h2>"
    steps: Sequence[Mapping[str, Any]] = report["next"]
    if not steps:
        yield "<p>Nothing: every finding is either passed or waived.</p>"
        return
    yield '<p class="soft">The most important first. What is right as it is, is waived with a reason: '
    yield '<code>audit_waivers</code>.</p><ol class="steps">'
    for step in steps[:MOST_STEPS]:
        where = ", ".join(_short(title, number) for number, title in enumerate(step["scanners"]))
        severity = escape(step["severity"])
        yield f'<li><strong>{escape(step["title"])}</strong><span class="badge {severity}">{severity}</span><br>'
        yield f'<span class="soft">{escape(where)} · <code>{escape(step["id"])}</code></span>'
        if step["detail"]:
            yield f"<br>{escape(step['detail'])}"
        if step["advice"]:
            yield f"<details><summary>What would be right</summary><p>{escape(step['advice'])}</p></details>"
        yield "</li>"
    yield "</ol>"
    if len(steps) > MOST_STEPS:
        yield f"<p>And {len(steps) - MOST_STEPS} more, below.</p>"


def _short(title: str, number: int) -> str:
    """Omit OpenSCAP's name from its second profile on."""
    return title.removeprefix("OpenSCAP ") if number else title


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
            table = _table(["Scanner", "Finding", "It"], rows)
            yield from _folded(f"{word}: {len(rows)}", table, is_open=name == "worse" or len(rows) <= MOST_STEPS)
    if not changes["worse"] and not changes["better"]:
        yield "<p>No finding has come or gone.</p>"
    if changes["notes"]:
        yield "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in changes["notes"]) + "</ul>"


def _waived(report: Mapping[str, Any]) -> Iterable[str]:
    """List all waived findings by reason, for readers to dispute; separately, those that nobody could change."""
    reasons = _reasons(item for item in _all(report, WAIVED) if not item.get("out_of_reach"))
    if reasons:
        yield "<h2>What is waived, and why</h2>"
        yield '<p class="soft">Each of these is not as its scanner wants it, and stays so. Dispute a reason: '
        yield "<code>audit_own_waivers: false</code> shows the host without those that Flaskhost brings along.</p>"
        yield from _by_reason(reasons)
    beyond = _reasons(item for item in _all(report, WAIVED) if item.get("out_of_reach"))
    if beyond:
        number = sum(len(found) for found in beyond.values())
        yield "<h2>What this host cannot have</h2>"
        yield '<p class="soft">Out of reach. No setting on this host would change these, so they are nothing to do.</p>'
        yield from _folded(f"Out of reach: {number}", _by_reason(beyond), is_open=False)


def _reasons(items: Iterable[Mapping[str, Any]]) -> dict[str, dict[tuple[str, str], str]]:
    reasons: dict[str, dict[tuple[str, str], str]] = {}
    for item in items:
        reasons.setdefault(item["reason"], {})[item["scanner"].partition("-")[0], item["id"]] = item["title"]
    return reasons


def _by_reason(reasons: Mapping[str, Mapping[tuple[str, str], str]]) -> Iterable[str]:
    rows = [
        f"<tr><td>{escape(reason)}</td><td>"
        + "<br>".join(f"<code>{escape(name)}</code>" for _family, name in found)
        + "</td></tr>"
        for reason, found in reasons.items()
    ]
    yield from _table(["Reason", "Findings"], rows)


def _scan(scan: Mapping[str, Any], number: int) -> Iterable[str]:
    yield f'<section aria-labelledby="scan-{number}"><h3 id="scan-{number}">{escape(scan["title"])}</h3>'
    if not scan["ran"]:
        yield f'<p><span class="status note">not run</span>, because: {escape(scan["why_not"])}</p></section>'
        return
    version = f" Version: {scan['version']}." if scan["version"] else ""
    took = f" It took {scan['seconds']} s." if scan.get("seconds") else ""
    score = f"{scan['score_text']}. " if scan["score_text"] else ""
    about = f"{score}{scan['share']}.{version}{took}"
    yield f'<p class="soft">{escape(about)} Named <code>{escape(scan["scanner"])}</code> '
    yield "in waivers.</p>"
    yield from (f"<p>{escape(note)}</p>" for note in scan["notes"])
    for status in (FAILED, WAIVED, NOTE, PASSED, NOT_APPLICABLE):
        found = [finding for finding in scan["findings"] if finding["status"] == status]
        if not found:
            continue
        found.sort(key=lambda finding: SEVERITIES.index(finding["severity"]))
        table = _table(["Status", "Finding", "What was found"], [_row(finding) for finding in found])
        yield from _folded(f"{status.capitalize()}: {len(found)}", table, is_open=status in OPEN)
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


def _unused(report: Mapping[str, Any]) -> Iterable[str]:
    if report["waivers_unused"]:
        yield "<h2>Waivers that nothing needed</h2>"
        yield "<p>They waived nothing this time: each is either no longer needed, or about another host.</p>"
        lines = [f"<li>{escape(_waiver(item))}</li>" for item in report["waivers_unused"]]
        yield from _folded(f"Waivers: {len(lines)}", ["<ul>", *lines, "</ul>"], is_open=False)


def _all(report: Mapping[str, Any], status: str) -> Iterable[dict[str, Any]]:
    for scan in report["scans"]:
        for finding in scan["findings"]:
            if finding["status"] == status:
                yield {**finding, "scanner": scan["scanner"]}


def _waiver(item: Mapping[str, str]) -> str:
    return f"{item['scanner']} {item['id']}: {item['reason']}"


def _folded(summary: str, inner: Iterable[str], *, is_open: bool) -> Iterable[str]:
    """Render a collapsible block; collapsed blocks are not printed."""
    yield f'<details class="rest"{" open" if is_open else ""}><summary>{escape(summary)}</summary>'
    yield from inner
    yield "</details>"


def _table(heads: Sequence[str], rows: Sequence[str]) -> Iterable[str]:
    yield (
        '<div class="wide"><table><thead><tr>'
        + "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
        + "</tr></thead><tbody>"
    )
    yield from rows
    yield "</tbody></table></div>"


def _when(stamp: str) -> str:
    try:
        return datetime.datetime.strptime(stamp, STAMP).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return stamp
