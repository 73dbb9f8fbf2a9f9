"""The report of an audit: what is waived and why, what has changed, what comes first, and the page that says so."""

from __future__ import annotations

import datetime
import json
import os
import re
import stat
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.audit import host, page, report, waivers
from ansible.module_utils.flaskhost.audit.model import (
    FAILED,
    NOT_APPLICABLE,
    NOTE,
    PASSED,
    WAIVED,
    Finding,
    Scan,
    not_run,
)
from loading import ROOT, load_plugin

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC)
REASON = "One partition comes with the image of the provider."


def scan(*findings: tuple[str, str, str], name: str = "lynis", **more: Any) -> Scan:
    found = [Finding(key, f"About {key}", status, severity) for key, status, severity in findings]
    return Scan(name, name, findings=found, **more)


def waiver(**changes: Any) -> dict[str, Any]:
    return {"scanner": "lynis", "id": "FILE-*", "reason": REASON, **changes}


# --- Waivers ---------------------------------------------------------------------------------------------------------


def apply(rules: list[Any], *findings: tuple[str, str, str]) -> tuple[list[str], dict[str, Any]]:
    one = scan(*findings)
    marks = waivers.apply([one], rules, NOW.date())
    return [finding.status for finding in one.findings], marks


def test_a_waiver_waives_what_failed_and_nothing_else() -> None:
    found, marks = apply([waiver()], ("FILE-1", FAILED, "low"), ("FILE-2", PASSED, "info"), ("SSH-1", FAILED, "low"))
    assert found == [WAIVED, PASSED, FAILED]
    assert marks == {"unused": [], "expired": []}


def test_the_reason_is_kept() -> None:
    one = scan(("FILE-1", FAILED, "low"))
    waivers.apply([one], [waiver()], NOW.date())
    assert one.findings[0].reason == REASON


@pytest.mark.parametrize("until", ["2026-11-20", datetime.date(2026, 11, 20)])
def test_a_waiver_ends(until: Any) -> None:
    found, marks = apply([waiver(until=until)], ("FILE-1", FAILED, "low"))
    assert (found, len(marks["expired"])) == ([FAILED], 1)


def test_a_waiver_holds_on_its_last_day() -> None:
    assert apply([waiver(until="2026-11-21")], ("FILE-1", FAILED, "low"))[0] == [WAIVED]


def test_a_waiver_that_is_not_needed_is_told() -> None:
    assert len(apply([waiver()], ("SSH-1", FAILED, "low"))[1]["unused"]) == 1
    # Its scanner has not run: nobody knows.
    assert apply([waiver(scanner="openscap-*")], ("SSH-1", FAILED, "low"))[1]["unused"] == []


def test_a_waiver_may_name_several() -> None:
    found, _marks = apply([waiver(id="FILE-1 SSH-*")], ("FILE-1", FAILED, "low"), ("SSH-2", FAILED, "low"))
    assert found == [WAIVED, WAIVED]


def test_only_the_environments_own_waivers_are_told_as_not_needed() -> None:
    one = scan(("SSH-1", FAILED, "low"), ("FILE-1", FAILED, "low"))
    marks = waivers.apply([one], [waiver(id="other")], NOW.date(), [waiver(id="never"), waiver(id="SSH-*")])
    assert [item["id"] for item in marks["unused"]] == ["other"]
    assert [finding.status for finding in one.findings] == [WAIVED, FAILED]


@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        {},
        waiver(reason=""),
        waiver(reason="not needed"),
        waiver(until="soon"),
        waiver(scanner=None),
        waiver(out_of_reach="yes"),
    ],
)
def test_a_wrong_waiver_waives_nothing(wrong: Any) -> None:
    found, _marks = apply([wrong], ("FILE-1", FAILED, "low"))
    assert found == [FAILED]
    assert len(waivers.problems([wrong])) == 1


def test_the_waivers_that_come_along_are_right() -> None:
    found = yaml.safe_load((ROOT / "roles/audit/vars/main.yml").read_text())
    own = [*found["__audit_waivers"], *(each for some in found["__audit_waivers_of_release"].values() for each in some)]
    assert waivers.problems(own) == []
    # Nobody waives everything.
    assert [each for each in own if each["scanner"] == "*" or each["id"] == "*"] == []


# --- The report ------------------------------------------------------------------------------------------------------


def build(*scans: Scan, rules: list[Any] | None = None, previous: dict[str, Any] | None = None) -> dict[str, Any]:
    # As it is read back the next time.
    return json.loads(json.dumps(report.build("web1", NOW, scans, rules or [], previous=previous)))


def test_what_is_grave_comes_first() -> None:
    found = build(
        scan(("L-1", FAILED, "low"), ("L-2", FAILED, "high")),
        scan(("tcp/8000", FAILED, "high"), name="ports"),
        scan(("rule", FAILED, "medium"), ("once", FAILED, "medium"), name="openscap-cis"),
        scan(("rule", FAILED, "medium"), name="openscap-anssi"),
    )
    assert [step["id"] for step in found["next"]] == ["tcp/8000", "L-2", "rule", "once", "L-1"]
    assert found["next"][2]["scanners"] == ["openscap-cis", "openscap-anssi"]
    assert (report.failures(found), report.failures(found, "high")) == (5, 2)


def test_what_is_waived_is_counted_openly() -> None:
    found = build(scan(("FILE-1", FAILED, "low"), ("A", PASSED, "info"), ("B", PASSED, "info")), rules=[waiver()])
    assert found["scans"][0]["share"] == "66 %, 2 of 3 (100 % without waived findings)"
    assert found["next"] == []


def test_what_is_out_of_reach_is_told_apart_from_what_somebody_has_decided() -> None:
    findings = [("FILE-1", FAILED, "low"), ("DISK-1", FAILED, "low"), ("A", PASSED, "info"), ("B", PASSED, "info")]
    found = build(scan(*findings), rules=[waiver(), waiver(id="DISK-*", out_of_reach=True)])
    (one,) = found["scans"]
    assert one["share"] == "50 %, 2 of 4 (66 % of the 3 in reach, 100 % without waived findings)"
    assert (one["waived"], one["out_of_reach"]) == (2, 1)
    assert [finding["id"] for finding in one["findings"] if finding["out_of_reach"]] == ["DISK-1"]
    assert "1 finding is out of reach" in page.render(found)


def test_a_rule_is_not_rounded_up() -> None:
    many = [(f"r{number}", PASSED, "info") for number in range(999)]
    assert build(scan(*many, ("x", FAILED, "low")))["scans"][0]["share"].startswith("99 %")


def test_the_index_without_what_is_waived_is_told_beside_the_whole_one() -> None:
    found = [("A", PASSED, "info"), ("FILE-1", FAILED, "low"), ("SSH-1/Port", FAILED, "low")]
    index = {"score": 50.0, "score_text": "index 50 of 100", "most_points": 20}
    points = {**index, "missing_points": {"FILE-1": 4, "SSH-1": 6}}
    one = build(scan(*found, **points), rules=[waiver()])["scans"][0]
    assert (one["score_without_waived"], one["score"]) == (62, 50.0)
    assert one["score_text"] == "index 50 of 100, 62 without waived findings"
    # Of a test with several findings, of which one is not waived, no point is left out.
    several = [*found, ("FILE-1/tmp", FAILED, "low")]
    one = build(scan(*several, **points), rules=[waiver(id="FILE-1")])["scans"][0]
    assert one["score_text"] == "index 50 of 100"
    one = build(scan(*found, **points), rules=[waiver(id="*")])["scans"][0]
    assert one["score_text"] == "index 50 of 100, 100 without waived findings"
    assert build(scan(*found, **points))["scans"][0]["score_text"] == "index 50 of 100"
    # Where nothing is left of it there is no share to tell.
    nothing = scan(("A", FAILED, "low"), **{**index, "missing_points": {"A": 20}})
    one = build(nothing, rules=[waiver(id="A")])["scans"][0]
    assert "score_without_waived" not in one


def test_changes_are_told() -> None:
    before = build(
        scan(("gone", FAILED, "low"), ("FILE-1", FAILED, "low"), ("broke", PASSED, "info"), score_text="index 60"),
        scan(("tcp/1", FAILED, "high"), name="ports"),
    )
    after = build(
        scan(("FILE-1", FAILED, "low"), ("broke", FAILED, "low"), ("new", FAILED, "low"), version="4"),
        not_run("ports", "ports", "no way"),
        rules=[waiver()],
        previous=before,
    )
    changes = after["changes"]
    assert {item["id"]: item["how"] for item in changes["worse"]} == {"broke": "did not fail before", "new": "new"}
    # What a scanner that did not run had found is not mended.
    assert {item["id"]: item["how"] for item in changes["better"]} == {
        "gone": "no longer fails",
        "FILE-1": "now waived",
    }
    assert changes["scores"] == {"lynis": "index 60"}
    assert len(changes["notes"]) == 2


def test_a_scanner_that_is_left_out_is_named() -> None:
    left = report.left_out(["lynis", "ports"])
    assert {one.scanner for one in left} == set(report.TITLES) - {"lynis", "ports"}
    assert not any(one.ran for one in left)


def test_the_choices_of_the_role_are_the_scanners() -> None:
    specs = yaml.safe_load((ROOT / "roles/audit/meta/argument_specs.yml").read_text())
    option = specs["argument_specs"]["main"]["options"]["audit_scanners"]
    inside = yaml.safe_load((ROOT / "roles/audit/vars/main.yml").read_text())
    assert sorted(option["choices"]) == sorted(report.TITLES)
    assert sorted(inside["__audit_inside_scanners"] + inside["__audit_outside_scanners"]) == sorted(report.TITLES)


def test_the_last_report_is_found(tmp_path: Path) -> None:
    for stamp, host_name in (
        ("20261119T000000Z", "web1"),
        ("20261120T000000Z", "web1"),
        ("20261121T000000Z", "web1-b"),
    ):
        found = {**build(scan(("A", FAILED, "low"))), "host": host_name, "when": stamp}
        (tmp_path / f"{host_name}-{stamp}.json").write_text(json.dumps(found))
    (tmp_path / "web1-20261121T000000Z.json").write_text("{broken")
    last = report.last(tmp_path, "web1")
    assert last and last["when"] == "20261120T000000Z"
    assert report.last(tmp_path, "web2") is None


def test_a_scanner_is_compared_with_the_last_time_that_it_ran(tmp_path: Path) -> None:
    runs = (
        ("20261119T000000Z", [scan(("A", FAILED, "low"), score_text="old")]),
        ("20261120T000000Z", [scan(("A", FAILED, "low"), score_text="newer")]),
        ("20261121T000000Z", [not_run("lynis", "Lynis", "left out"), scan(name="ports")]),
    )
    for stamp, scans in runs:
        (tmp_path / f"web1-{stamp}.json").write_text(json.dumps({**build(*scans), "when": stamp}))
    last = report.last(tmp_path, "web1")
    assert last and last["when"] == "20261121T000000Z"
    changes = build(scan(("A", PASSED, "info")), previous=last)["changes"]
    assert changes["scores"] == {"lynis": "newer"}
    assert [item["id"] for item in changes["better"]] == ["A"]


def test_who_leaves_a_scanner_out_is_not_told_that_it_is_missing() -> None:
    before = build(scan(("A", FAILED, "low"), name="lynis"))
    assert build(*report.left_out(["ports"]), previous=before)["changes"]["notes"] == []


@pytest.mark.parametrize(("name", "file"), [("web1.example.com", "web1.example.com"), ("../x/y", "_x_y"), ("", "host")])
def test_a_hosts_name_is_made_a_files(name: str, file: str) -> None:
    assert report.file_name(name) == file


def test_the_summary_is_short() -> None:
    lines = report.summary(build(scan(("A", FAILED, "low")), not_run("ports", "Ports", "no way"), rules=["x"]))
    assert lines[0].endswith("0 %, 0 of 1: 1 failed, 0 waived, 0 passed")
    assert "not run: no way" in lines[1]
    assert lines[-1].startswith("Waiver 1:")


# --- The page --------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Finds tags that are not closed, and what would be fetched or run."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.headings: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(tag)
        fetched = [value for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")]
        if (
            tag in ("script", "link", "img", "iframe")
            or fetched
            or any(name.startswith("on") for name, _value in attrs)
        ):
            self.wrong.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.text += data


def read(found: dict[str, Any]) -> Reader:
    reader = Reader()
    reader.feed(page.render(found))
    assert (reader.open, reader.wrong) == ([], [])
    return reader


def test_the_page_tells_all() -> None:
    before = build(scan(("gone", FAILED, "low")))
    rules = [waiver(), waiver(id="unneeded"), waiver(id="late", until="2020-01-01"), "wrong"]
    one = scan(("FILE-1", FAILED, "low"), ("bad", FAILED, "high"), ("good", PASSED, "info"), ("late", FAILED, "low"))
    reader = read(build(one, not_run("ports", "Ports", "no way there"), rules=rules, previous=before))
    for text in (
        "web1",
        "2026-11-21 12:00 UTC",
        REASON,
        "no way there",
        "no longer fails",
        "unneeded",
        "2020-01-01",
        "Waiver 4",
    ):
        assert text in reader.text, text
    assert reader.headings[:2] == ["h1", "h2"]
    assert "1 scanner did not run" in reader.text


def test_what_is_waived_is_told_by_its_reason() -> None:
    rules = [waiver(scanner="*", id="FILE-*")]
    one, other = (scan(("FILE-1", FAILED, "low"), name=name) for name in ("openscap-a", "openscap-b"))
    text = read(build(one, other, rules=rules)).text
    table = text.partition("Waived findings by reason")[2].partition("Results by scanner")[0]
    assert (table.count(REASON), table.count("FILE-1")) == (1, 1)
    assert "1 finding is waived" in text


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    attributes = read(build(scan(("A", FAILED, "low")))).attributes
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in attributes


def test_a_page_of_nothing_is_a_page() -> None:
    assert "No findings to fix." in read(build(scan(("A", PASSED, "info")))).text


HOSTILE = [
    "<script>alert(1)</script>&amp;",
    "<img src=x onerror=alert(1)>",
    '" onmouseover=alert(1) x="',
    "</p></style><style>*{display:none}</style>",
    '<a href="javascript:alert(1)">a link</a>',
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
]


@pytest.mark.parametrize("evil", HOSTILE)
def test_everything_from_a_host_is_text(evil: str) -> None:
    """It fails without autoescape, in one place of the page too."""

    def hostile_scan(key: str, *statuses: str) -> Scan:
        found = [Finding(f"{evil} {name}", evil, name, "high", evil, evil, evil) for name in statuses]
        found += [Finding(f"{name}-{key}", evil, FAILED, "low", evil, evil) for name in ("FILE", "DISK", "late", key)]
        return Scan(f"{evil} {key}", evil, version=evil + key, score_text=evil, notes=[evil], findings=found)

    left_out = not_run("left", evil, evil)
    left_out.left_out = True
    every: dict[str, Any] = {"scanner": "*", "reason": f"{evil} is why it stays"}
    rules = [
        {**every, "id": "FILE-*"}, {**every, "id": "DISK-*", "out_of_reach": True}, {**every, "id": "unused"},
        {**every, "id": "late-*", "until": "2020-01-01"}, {**every, "id": evil, "until": evil},
    ]  # fmt: skip
    before = build(hostile_scan("old"), not_run("gone", evil, evil))
    before["scans"][0]["scanner"] = f"{evil} new"
    scans = [hostile_scan("new", FAILED, WAIVED, NOTE, PASSED, NOT_APPLICABLE), not_run("gone", evil, evil), left_out]
    found = json.loads(json.dumps(report.build(evil, NOW, scans, rules, previous=before, system=evil)))
    # The host chooses these words, too. They are in attributes.
    for step in found["next"]:
        step["severity"] = evil
    for part in ("waivers_unused", "waivers_expired", "waivers_wrong"):
        assert found[part], part
    assert found["changes"]["worse"] and found["changes"]["better"] and found["changes"]["notes"]
    reader = read(found)
    assert reader.text.count(evil) > 60
    assert {value for name, value in reader.attributes if name == "class" and evil in value} == {f"badge {evil}"}
    assert reader.tags == read_tags(found, evil)


def read_tags(found: dict[str, Any], evil: str) -> list[str]:
    """The tags of the same page with a harmless word in the place of the hostile one."""
    text = json.dumps(found).replace(json.dumps(evil)[1:-1], "harmless")
    return read(json.loads(text)).tags


def test_every_colour_has_a_word() -> None:
    text = page.render(
        build(scan(("A", FAILED, "high"), ("FILE-1", FAILED, "low"), ("B", PASSED, "info")), rules=[waiver()])
    )
    for status in (FAILED, WAIVED, PASSED):
        assert f"</span>{status}" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


# --- The files -------------------------------------------------------------------------------------------------------


def test_the_files_are_written_for_their_owner(tmp_path: Path) -> None:
    plugin = load_plugin("plugins/action/flask_audit.py")
    scans = [scan(("A", FAILED, "low")).as_dict()]
    given = {**plugin.DEFAULTS, "scans": scans, "host": "web1", "reports": str(tmp_path / "reports")}
    first = plugin.write(given, NOW)
    second = plugin.write({**given, "scans": []}, NOW + datetime.timedelta(hours=1))
    assert (first["left"], second["left"]) == (1, 0)
    files = sorted((tmp_path / "reports").iterdir())
    assert [path.name for path in files] == [
        "web1-20261121T120000Z.html", "web1-20261121T120000Z.json",
        "web1-20261121T130000Z.html", "web1-20261121T130000Z.json",
    ]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert json.loads(files[3].read_text())["changes"]["since"] == "20261121T120000Z"


def test_a_folder_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    plugin = load_plugin("plugins/action/flask_audit.py")
    answer = plugin.write({**plugin.DEFAULTS, "host": "web1", "reports": str(tmp_path / "file" / "x")}, NOW)
    assert answer["failed"]
    assert "audit_reports" in answer["msg"]


# --- The host's half -------------------------------------------------------------------------------------------------


def test_the_scanners_folder_comes_and_goes(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    folder = host.make_folder(tmp_path)
    assert stat.S_IMODE((folder / "work").stat().st_mode) == 0o700
    host.remove_folder(other, tmp_path)
    host.remove_folder(folder, tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_a_folder_of_a_killed_run_goes(tmp_path: Path) -> None:
    old, young = host.make_folder(tmp_path), host.make_folder(tmp_path)
    os.utime(old, (0, 0))
    host.make_folder(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)


def test_a_scanner_that_is_missing_says_why(tmp_path: Path) -> None:
    there = host.Host(host.make_folder(tmp_path))
    (there.folder / "missing-openscap").write_text("The package openscap-scanner could not be fetched: no network")
    (there.folder / "missing-lists").write_text("apt-get update failed: no network")
    scans = there.openscap(["cis_level1_server", "anssi_bp28_minimal"], Path("/nonexistent"))
    assert [one.ran for one in scans] == [False, False]
    assert "no network" in scans[0].why_not
    assert "no network" in there.updates().why_not


TESTSSL = """#!/bin/sh
for word; do
  test "$before" = --add-ca && cp "$word" {seen}
  test "$before" = --jsonfile && echo '[{{"id": "TLS1_3", "severity": "OK", "finding": "offered"}}]' > "$word"
  before=$word
done
"""


@pytest.mark.parametrize("authority", ["", "-----BEGIN CERTIFICATE-----\n"], ids=["public", "private"])
def test_the_hosts_own_testssl_knows_the_authority_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: str
) -> None:
    there = host.Host(host.make_folder(tmp_path))
    program, seen = tmp_path / "testssl", tmp_path / "seen.pem"
    program.write_text(TESTSSL.format(seen=seen))
    program.chmod(0o755)
    monkeypatch.setattr(there, "program", lambda _name: str(program))
    (found,) = there.testssl(["shop.test"], authority)
    assert found.ran, found.why_not
    assert (seen.read_text() if seen.exists() else "") == authority


LYNIS = """#!/bin/sh
test -e {pid} && exit 75
echo $$ > {pid}
for word; do test "$before" = --report-file && report=$word; test "$before" = --logfile && log=$word; before=$word; done
printf 'lynis_version=3.0.8\\nhardening_index=63\\ntests_executed=KRNL-6000|\\nfinish=true\\n' > $report
touch $log
echo "$APT_CONFIG" > {pid}.apt
"""


@pytest.fixture
def lynis_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> host.Host:
    """A host with a Lynis of its own, which like the real one begins only if its mark is not there, and leaves it."""
    there = host.Host(host.make_folder(tmp_path))
    program = tmp_path / "lynis"
    program.write_text(LYNIS.format(pid=tmp_path / "lynis.pid"))
    program.chmod(0o755)
    monkeypatch.setattr(host, "LYNIS_PID", tmp_path / "lynis.pid")
    monkeypatch.setattr(there, "program", lambda _name: str(program))
    there.work.mkdir(exist_ok=True)
    return there


@pytest.mark.parametrize("left", ["", "4194305\n", "nonsense\n"], ids=["none", "of a killed one", "nonsense"])
def test_lynis_is_run_whatever_a_killed_one_left_and_leaves_nothing(lynis_host: host.Host, left: str) -> None:
    if left:
        host.LYNIS_PID.write_text(left)
    found = lynis_host.lynis()
    assert (found.ran, found.score) == (True, 63.0), found.why_not
    # Or the host's own Lynis would not begin the next time.
    assert not host.LYNIS_PID.exists()


def test_apt_that_lynis_runs_writes_into_the_audits_own_folder(lynis_host: host.Host) -> None:
    assert lynis_host.lynis().ran
    assert host.LYNIS_PID.with_suffix(".pid.apt").read_text() == f"{lynis_host.folder}/apt.conf\n"


def test_a_lynis_that_is_at_work_is_left_in_peace(lynis_host: host.Host) -> None:
    host.LYNIS_PID.write_text(f"{os.getpid()}\n")
    found = lynis_host.lynis()
    assert (found.ran, found.why_not) == (False, "Another Lynis is at work on this host.")
    assert host.LYNIS_PID.read_text() == f"{os.getpid()}\n"


def test_what_is_ours_is_known_by_its_units(tmp_path: Path) -> None:
    assert not host.is_ours(tmp_path)
    (tmp_path / "flaskhost-firewall.service").touch()
    assert host.is_ours(tmp_path)


def test_a_scanner_that_takes_too_long_may_tidy_up(tmp_path: Path) -> None:
    there = host.Host(host.make_folder(tmp_path))
    left = tmp_path / "left"
    script = f"touch {left}; trap 'rm {left}; exit' TERM; sleep 20 & wait"
    assert there.run(["sh", "-c", script], 1)[0] == 124
    assert not left.exists()


def test_a_program_that_hangs_is_stopped(tmp_path: Path) -> None:
    there = host.Host(host.make_folder(tmp_path))
    started = time.monotonic()
    # A child of a script, too, which would keep the script's output open.
    assert there.run(["sh", "-c", "sleep 20 & sleep 20"], 1)[0] == 124
    assert time.monotonic() - started < 10
    assert there.run(["no-such-program-here"], 5)[0] == 127


def test_a_program_that_is_idle_is_stopped_and_one_that_works_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "STEP", 0.1)
    there = host.Host(host.make_folder(tmp_path))
    works = "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass\nprint('done')"
    assert there.run(["python3", "-c", works], 60, idle=1.5) == (0, "done\n", "")
    status, _out, errors = there.run(["sleep", "20"], 60, idle=0.5)
    assert (status, "without any work" in errors) == (125, True)


@pytest.mark.parametrize(("hangs", "ran"), [(1, True), (2, False)])
def test_a_profile_whose_scan_hangs_is_scanned_again(hangs: int, ran: bool, tmp_path: Path) -> None:
    there = host.Host(host.make_folder(tmp_path))
    tries: list[float] = []

    def run(words: list[str], _seconds: float, *, idle: float, **_more: Any) -> tuple[int, str, str]:
        tries.append(idle)
        if len(tries) <= hangs:
            return host.HUNG, "", "oscap was stopped after 120 seconds without any work."
        results = Path(words[words.index("--results") + 1])
        results.write_text('<Benchmark><rule-result idref="r"><result>pass</result></rule-result></Benchmark>')
        return 0, "", ""

    content = tmp_path / "content.xml"
    content.touch()
    there.program, there.libraries, there.run = lambda _name: "oscap", lambda: "", run
    (found,) = there.openscap(["cis_level1_server"], content)
    assert (found.ran, tries) == (ran, [host.OSCAP_IDLE] * 2)
    assert ran or "without any work" in found.why_not


def test_what_a_shared_kernel_keeps_from_a_host_is_nothing_to_do() -> None:
    """Told apart: neither a step nor one of those that somebody has decided."""
    lacking = yaml.safe_load((ROOT / "roles/audit/vars/main.yml").read_text())["__audit_lacking"]
    found = [("sysctl_kernel_kptr_restrict", FAILED, "medium"), ("package_telnet_removed", FAILED, "high")]
    one = scan(*found, ("A", PASSED, "info"), name="openscap-cis_level1_server")
    told = report.build("demo", NOW, [one], [], own=[rule for rules in lacking.values() for rule in rules])
    assert [step["id"] for step in told["next"]] == ["package_telnet_removed"]
    text = read(told).text
    assert "Out of reach" in text
    assert "Waived findings by reason" not in text
    assert told["waivers_wrong"] == []
