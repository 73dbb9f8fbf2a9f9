"""What the scanners say, read: excerpts of real outputs, and outputs that broke off."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost import audit
from ansible.module_utils.flaskhost.audit import exposure, host, outside, ports, testssl
from ansible.module_utils.flaskhost.audit.model import (
    FAILED,
    NOT_APPLICABLE,
    NOTE,
    PASSED,
    Scan,
    from_dict,
    not_run,
    shorten,
)


def statuses(scan: Scan) -> dict[str, str]:
    assert scan.ran, scan.why_not
    return {finding.id: finding.status for finding in scan.findings}


def severities(scan: Scan) -> dict[str, str]:
    return {finding.id: finding.severity for finding in scan.findings}


# --- Lynis -----------------------------------------------------------------------------------------------------------

LYNIS = """# Lynis Report
lynis_version=3.0.8
os=Linux
plugin_enabled_phase1[]=debian|1.0.1|
warning[]=MAIL-8818|Found some information disclosure in SMTP banner|-|-|
suggestion[]=LYNIS|This release is more than 4 months old. Check the website or GitHub.|-|-|
suggestion[]=KRNL-5820|If not required, consider explicit disabling of core dump|-|-|
suggestion[]=FILE-6310|To decrease the impact of a full /home file system, place /home on a separate partition|-|-|
suggestion[]=FILE-6310|To decrease the impact of a full /tmp file system, place /tmp on a separate partition|-|-|
suggestion[]=NETW-3200|Determine if protocol 'dccp' is really needed on this system|-|-|
suggestion[]=SSH-7408|Consider hardening SSH configuration|AllowTcpForwarding (set YES to NO)|-|
details[]=SSH-7408|sshd|desc:sshd option AllowTcpForwarding;field:AllowTcpForwarding;prefval:NO;value:YES;|
details[]=KRNL-6000|sysctl|desc:Hardened BPF JIT compilation;field:net.core.bpf_jit_harden;prefval:2;value:0;|
details[]=KRNL-6000|sysctl|desc:No description;field:kernel.core_uses_pid;prefval:1;value:0;|
details[]=-|nginx|field:protocol;value:tlsv1.2;|
suggestion[]=KRNL-6000|One or more sysctl values differ from the scan profile||Change sysctl value or disable test|
hardening_index=63
tests_executed=KRNL-6000|NETW-3200|FILE-6310|KRNL-5820|SSH-7408|MAIL-8818|AUTH-9204|
finish=true
"""


def test_lynis_is_read() -> None:
    scan = audit.parse_lynis(LYNIS)
    assert (scan.score, scan.score_text, scan.version) == (63.0, "index 63 of 100", "3.0.8")
    assert statuses(scan) == {
        "MAIL-8818": FAILED,
        "LYNIS": NOTE,
        "KRNL-5820": FAILED,
        "FILE-6310/home": FAILED,
        "FILE-6310/tmp": FAILED,
        "NETW-3200/dccp": FAILED,
        "SSH-7408/AllowTcpForwarding": FAILED,
        "KRNL-6000/net.core.bpf_jit_harden": FAILED,
        "KRNL-6000/kernel.core_uses_pid": FAILED,
        "AUTH-9204": PASSED,
    }
    assert severities(scan)["MAIL-8818"] == "high"
    assert severities(scan)["KRNL-5820"] == "low"


def test_lynis_says_which_value_it_wants() -> None:
    found = {finding.id: finding for finding in audit.parse_lynis(LYNIS).findings}
    assert found["KRNL-6000/net.core.bpf_jit_harden"].detail == "It is 0; Lynis prefers 2."
    assert (
        found["KRNL-6000/net.core.bpf_jit_harden"].title
        == "sysctl: net.core.bpf_jit_harden, Hardened BPF JIT compilation"
    )


#: Of five tests, two of which have no word in the report, and one is only in the log: it was skipped.
LYNIS_LOG = """2026-11-23 04:58:50 Performing test ID AUTH-9204 (Check users with an UID of zero)
2026-11-23 04:58:50 Hardening: assigned maximum number of hardening points for this item (2). Currently having 2 points (out of 2)
2026-11-23 04:58:51 Skipped test SSH-7440 (Check OpenSSH option: AllowUsers and AllowGroups)
2026-11-23 04:58:51 Performing test ID USB-3000 (Check for presence of USBGuard)
2026-11-23 04:58:51 Result: USBGuard not found
2026-11-23 04:58:51 Hardening: assigned partial number of hardening points (0 of 8). Currently having 2 points (out of 10)
2026-11-23 04:58:51 Performing test ID KRNL-6000 (Check sysctl key pairs in scan profile)
2026-11-23 04:58:51 Result: sysctl key net.core.bpf_jit_harden has a different value than expected in scan profile
2026-11-23 04:58:51 Hardening: assigned partial number of hardening points (0 of 1). Currently having 2 points (out of 11)
2026-11-23 04:58:51 Hardening: assigned partial number of hardening points (1 of 3). Currently having 3 points (out of 14)
2026-11-23 04:58:52 Performing test ID MACF-6290 (Check for implemented MAC framework)
2026-11-23 04:58:52 Hardening: assigned partial number of hardening points (2 of 3). Currently having 5 points (out of 17)
"""  # noqa: E501 - as Lynis writes it


def test_points_that_lynis_takes_without_a_word_are_findings() -> None:
    scan = audit.parse_lynis(LYNIS.replace("|AUTH-9204|", "|AUTH-9204|USB-3000|"), LYNIS_LOG)
    assert (scan.most_points, scan.missing_points) == (17, {"USB-3000": 8, "KRNL-6000": 3, "MACF-6290": 1})
    found = {finding.id: finding for finding in scan.findings}
    assert found["USB-3000"].status == found["MACF-6290"].status == FAILED
    assert found["USB-3000"].title == "Check for presence of USBGuard"
    assert found["USB-3000"].detail == "8 points are missing; Lynis says no more than: USBGuard not found"
    assert found["MACF-6290"].detail == "1 point is missing; Lynis says no more."
    # Of these it says more.
    assert "KRNL-6000" not in found
    assert found["AUTH-9204"].status == PASSED


@pytest.mark.parametrize("text", ["", "lynis_version=3.0.8\n", LYNIS.replace("finish=true\n", "")])
def test_a_lynis_that_broke_off_passes_nothing(text: str) -> None:
    assert not audit.parse_lynis(text).ran


# --- OpenSCAP --------------------------------------------------------------------------------------------------------

RULE = """<Rule id="xccdf_org.ssgproject.content_rule_{0}" severity="medium" selected="true">
<title xmlns:xhtml="http://www.w3.org/1999/xhtml">The rule {0}</title>
<description xml:lang="en-US">To be <html:code xmlns:html="http://www.w3.org/1999/xhtml">{0}</html:code>,
 set it.</description></Rule>"""
RESULT = """<rule-result idref="xccdf_org.ssgproject.content_rule_{0}" role="full" severity="{1}" weight="1.0">
<result>{2}</result><ident system="x">CCE-1</ident></rule-result>"""


def xccdf(results: dict[str, tuple[str, str]]) -> str:
    """Results as oscap 1.3.7 writes them, without what we do not read."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2" id="b">'
        '<version update="x">0.1.82</version><Profile id="p"><version>1.1.0</version></Profile>'
        '<Group id="g"><Group id="h">' + "".join(RULE.format(name) for name in results) + "</Group></Group>"
        '<TestResult id="r" version="0.1.82">'
        + "".join(RESULT.format(name, severity, result) for name, (severity, result) in results.items())
        + "<score>50</score></TestResult></Benchmark>"
    )


def test_openscap_is_read(tmp_path: Path) -> None:
    results = {
        "a": ("high", "pass"), "b": ("medium", "fail"), "c": ("low", "notapplicable"), "d": ("low", "notselected"),
        "e": ("unknown", "error"), "f": ("low", "notchecked"), "g": ("low", "fixed"),
    }  # fmt: skip
    path = tmp_path / "r.xml"
    path.write_text(xccdf(results))
    scan = audit.parse_openscap(path, "cis_level1_server")
    assert (scan.scanner, scan.title, scan.version) == (
        "openscap-cis_level1_server", "OpenSCAP CIS level 1 server", "content 0.1.82",
    )  # fmt: skip
    assert statuses(scan) == {"a": PASSED, "b": FAILED, "c": NOT_APPLICABLE, "e": FAILED, "f": NOTE, "g": PASSED}
    wrong = scan.findings[1]
    assert (wrong.title, wrong.severity, wrong.advice) == ("The rule b", "medium", "To be b, set it.")
    assert scan.findings[0].advice == ""


@pytest.mark.parametrize("text", [None, "", xccdf({"a": ("low", "pass")})[:400], xccdf({"a": ("low", "notselected")})])
def test_an_openscap_that_broke_off_passes_nothing(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "r.xml"
    if text is not None:
        path.write_text(text)
    assert not audit.parse_openscap(path, "anssi_bp28_minimal").ran


# --- ssh-audit -------------------------------------------------------------------------------------------------------

SSH_AUDIT: dict[str, Any] = {
    "banner": {"raw": "SSH-2.0-OpenSSH_9.2p1", "protocol": "2.0", "software": "OpenSSH_9.2p1", "comments": None},
    "target": "192.0.2.1",
    "compression": ["none"],
    "kex": [
        {"algorithm": "sntrup761x25519-sha512", "notes": {"info": ["available since OpenSSH 8.5"]}},
        {
            "algorithm": "ecdh-sha2-nistp256",
            "notes": {"fail": ["using elliptic curves that are suspected"], "info": []},
        },
    ],
    "key": [{"algorithm": "rsa-sha2-512", "notes": {"warn": ["2048-bit modulus only"]}, "keysize": 2048}],
    "enc": [{"algorithm": "aes256-gcm@openssh.com", "notes": {}}],
    "mac": [{"algorithm": "hmac-sha1", "notes": {"fail": ["broken"], "warn": ["encrypt-and-MAC", "small tag"]}}],
    "cves": [],
    "recommendations": {},
    "additional_notes": ["Be aware that, while this target properly supports the strict key exchange method..."],
}


def test_ssh_audit_is_read() -> None:
    scan = audit.parse_ssh_audit(json.dumps(SSH_AUDIT))
    assert scan.score_text == "2 fail, 3 warn"
    assert statuses(scan)["kex/sntrup761x25519-sha512"] == PASSED
    assert severities(scan) == {
        "kex/sntrup761x25519-sha512": "info", "kex/ecdh-sha2-nistp256": "high", "key/rsa-sha2-512": "medium",
        "enc/aes256-gcm@openssh.com": "info", "mac/hmac-sha1": "high",
    }  # fmt: skip
    # The version of a scan is the scanner's own.
    assert scan.version == ""
    assert scan.notes[0] == "The server is OpenSSH_9.2p1."
    assert len(scan.notes) == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"banner": null}', "[exception] connection refused"])
def test_an_ssh_audit_without_an_answer_passes_nothing(text: str) -> None:
    assert not audit.parse_ssh_audit(text).ran


# --- testssl.sh ------------------------------------------------------------------------------------------------------


def item(name: str, severity: str, finding: str) -> dict[str, str]:
    return {"id": name, "ip": "shop.test/192.0.2.1", "port": "443", "severity": severity, "finding": finding}


TESTSSL = [
    item("TLS1_3", "OK", "offered with final"),
    item("TLS1", "LOW", "offered (deprecated)"),
    item("cipherlist_3DES_IDEA", "INFO", "not offered"),
    item("cert_chain_of_trust <hostCert#1>", "OK", "passed."),
    item("cert_chain_of_trust <hostCert#2>", "CRITICAL", "failed (self signed)."),
    item("ROBOT", "WARN", "could not connect"),
    item("final_score", "INFO", "93"),
    item("overall_grade", "CRITICAL", "T"),
    item("grade_cap_reason_1", "INFO", "Grade capped to T"),
]


def test_testssl_is_read() -> None:
    scan = audit.parse_testssl(json.dumps(TESTSSL), "shop.test")
    assert (scan.scanner, scan.score, scan.score_text) == ("testssl-shop.test", 93.0, "grade T")
    assert statuses(scan) == {"TLS1_3": PASSED, "TLS1": FAILED, "cert_chain_of_trust": FAILED, "ROBOT": NOTE}
    assert severities(scan)["cert_chain_of_trust"] == "high"


def test_what_a_certificate_of_its_own_costs_is_told_with_its_cure() -> None:
    """testssl.sh gives no advice, and three findings of the demo had none."""
    names = ("cert_chain_of_trust", "cert_extlifeSpan", "cert_validityPeriod", "cert_revocation", "HSTS")
    scan = audit.parse_testssl(json.dumps([TESTSSL[0], *(item(name, "HIGH", "no") for name in names)]), "shop.test")
    advice = {finding.id: finding.advice for finding in scan.findings}
    assert all("acme_email" in advice[name] for name in names)
    assert advice["TLS1_3"] == ""


def test_an_older_testssl_gives_no_grade() -> None:
    scan = testssl.parse(json.dumps(TESTSSL[:2]), "shop.test")
    assert (scan.score, scan.score_text) == (None, "no grade by this version")


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "{}", json.dumps(TESTSSL)[:200], json.dumps([item("scanProblem", "FATAL", "refused")])]
)
def test_a_testssl_that_broke_off_passes_nothing(text: str) -> None:
    assert not audit.parse_testssl(text, "shop.test").ran


# --- gixy ------------------------------------------------------------------------------------------------------------

GIXY = [
    {
        "config": "\nserver {\n\tlocation /x {\n\t\treturn 301 http://$host$uri;\n\t}\n}",
        "description": "Using variables that can contain \"\\n\" or \"\\r\" may lead to http injection.",
        "file": "/t.conf", "line": 2, "path": "/t.conf", "plugin": "http_splitting",
        "reason": 'At least variable "$uri" can contain "\\n"', "reference": "https://gixy.example/http-splitting/",
        "severity": "HIGH", "summary": "Possible HTTP-Splitting vulnerability.",
    },
    {"plugin": "worker_rlimit_nofile", "severity": "LOW", "summary": "x", "config": "", "reason": "", "line": 1},
]  # fmt: skip


def test_gixy_is_read() -> None:
    scan = audit.parse_gixy(json.dumps(GIXY))
    assert (scan.score, scan.score_text) == (1.0, "1 medium or higher")
    assert [finding.id.partition("/")[0] for finding in scan.findings] == ["http_splitting", "worker_rlimit_nofile"]


def test_a_finding_of_gixy_keeps_its_name_when_its_line_moves() -> None:
    moved = [{**GIXY[0], "line": 90}]
    assert audit.parse_gixy(json.dumps(moved)).findings[0].id == audit.parse_gixy(json.dumps(GIXY)).findings[0].id


def test_a_clean_gixy_is_a_passed_finding() -> None:
    assert statuses(audit.parse_gixy("[]\n")) == {"none": PASSED}


@pytest.mark.parametrize("text", ["", "no", "[1]", '[{"plugin": "x"}]'])
def test_a_gixy_that_broke_off_passes_nothing(text: str) -> None:
    assert not audit.parse_gixy(text).ran


# --- systemd ---------------------------------------------------------------------------------------------------------

UNITS = [
    {"unit": "nginx.service", "exposure": "2.5", "predicate": "OK", "happy": "🙂"},
    {"unit": "flask-shop@blue.service", "exposure": "1.7", "predicate": "OK", "happy": "🙂"},
    {"unit": "ssh.service", "exposure": "9.6", "predicate": "UNSAFE", "happy": "😨"},
]
TABLE = """UNIT                      EXPOSURE PREDICATE HAPPY
flask-shop@blue.service        1.7 OK        🙂
nginx.service                  2.5 OK        🙂
ssh.service                    9.6 UNSAFE    😨
"""
LIMITS = [{"unit": "flask-*.service", "most": 1.5}, {"unit": "nginx.service", "most": 3.0}, {"unit": "p*", "most": 3}]


@pytest.mark.parametrize("text", [json.dumps(UNITS), TABLE])
def test_exposure_is_held_against_its_limit(text: str) -> None:
    scan = audit.parse_exposure(text, LIMITS)
    assert statuses(scan) == {
        "ssh.service": NOTE, "nginx.service": PASSED, "flask-shop@blue.service": FAILED, "p*": NOT_APPLICABLE,
    }  # fmt: skip
    assert scan.score == 2.5


def test_exposure_of_nothing_is_no_pass() -> None:
    assert not exposure.parse("Failed to connect to bus", LIMITS).ran


# --- updates ---------------------------------------------------------------------------------------------------------

UPGRADE = """Reading package lists...
The following packages have been kept back:
  linux-image-amd64 linux-headers-amd64
The following packages will be upgraded:
  bash libssl3
Inst bash [5.2.15-2+b8] (5.2.15-2+b13 Debian:12.15/oldstable [amd64])
Inst libssl3 [3.0.15-1~deb12u1] (3.0.17-1~deb12u3 Debian-Security:12/oldstable-security [amd64]) []
Inst new (1.0 Debian:12.15/oldstable [all])
Conf bash (5.2.15-2+b13 Debian:12.15/oldstable [amd64])
"""


def test_pending_updates_are_read() -> None:
    scan = audit.parse_updates(UPGRADE)
    assert scan.score_text == "1 for security, 3 in all"
    assert severities(scan) == {
        "package/bash": "low", "package/libssl3": "high", "package/new": "low",
        "kept/linux-image-amd64": "info", "kept/linux-headers-amd64": "info", "reboot": "info",
    }  # fmt: skip


def test_a_host_without_updates_passes() -> None:
    assert statuses(audit.parse_updates("0 upgraded, 0 newly installed\n")) == {"packages": PASSED, "reboot": PASSED}


def test_a_reboot_that_is_due_is_told() -> None:
    assert statuses(audit.parse_updates("", "Updated: linux-image-amd64."))["reboot"] == FAILED


# --- certificates ----------------------------------------------------------------------------------------------------


def certificates(**changes: Any) -> str:
    one = {"name": "shop", "source": "acme", "changed": False, "serial": "1", "not_after": 60 * 86400, "notes": []}
    return json.dumps({"changed": False, "certificates": [{**one, "problems": [], **changes}]})


def test_certificates_are_read() -> None:
    scan = audit.parse_certificates(certificates(), now=0)
    assert (statuses(scan), scan.score) == ({"shop": PASSED}, 60)
    assert statuses(audit.parse_certificates(certificates(), now=50 * 86400)) == {"shop": FAILED}
    assert statuses(audit.parse_certificates(certificates(problems=["It is not the one served."]), 0)) == {
        "shop": FAILED
    }
    assert statuses(audit.parse_certificates(certificates(source="selfsigned"), 0)) == {
        "shop": PASSED,
        "shop/trust": NOTE,
    }


@pytest.mark.parametrize("text", ["", "{}", '{"problem": "No such file.", "certificates": []}'])
def test_a_program_that_refused_passes_nothing(text: str) -> None:
    assert not audit.parse_certificates(text, 0).ran


# --- what listens ----------------------------------------------------------------------------------------------------

SS = """udp UNCONN 0 0 127.0.0.1:323 0.0.0.0:* users:(("chronyd",pid=1,fd=5))
udp UNCONN 0 0 192.0.2.1%eth0:68 0.0.0.0:* users:(("systemd-network",pid=1,fd=5))
tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=7,fd=3))
tcp LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=7,fd=4))
tcp LISTEN 0 200 127.0.0.1:5432 0.0.0.0:* users:(("postgres",pid=9,fd=6))
tcp LISTEN 0 200 [::1]:5432 [::]:* users:(("postgres",pid=9,fd=7))
tcp LISTEN 0 4096 *:9100 *:* users:(("node_exporter",pid=11,fd=3))
udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=1,fd=5))
"""


def test_what_listens_is_read() -> None:
    assert statuses(audit.parse_listeners(SS, [22])) == {
        "udp/68/systemd-network": NOTE, "tcp/22/sshd": PASSED, "tcp/9100/node_exporter": FAILED,
    }  # fmt: skip
    assert statuses(audit.parse_listeners("", [22])) == {"none": PASSED}


# --- ports -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_open_port_is_found(listening: int) -> None:
    near = [port for port in range(listening - 20, listening + 21) if 0 < port < 65536]
    scan = audit.scan_ports("127.0.0.1", [listening], rate=500, patience=1, ports=near)
    assert statuses(scan)[f"tcp/{listening}"] == PASSED


def test_a_port_that_has_answered_is_not_tried_again(listening: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection to sshd without a login counts for fail2ban: two audits must not ban the operator."""
    tried: list[str] = []
    connect = asyncio.open_connection

    async def record(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tried.append(f"{address}:{port}")
        return await connect(address, port)

    monkeypatch.setattr(asyncio, "open_connection", record)
    wanted = {"rate": 500, "patience": 1, "ports": [listening]}
    assert statuses(ports.scan("127.0.0.1", [listening], **wanted, known={listening}))[f"tcp/{listening}"] == PASSED
    assert tried == []
    ports.scan("127.0.0.1", [listening], **wanted)
    assert tried == [f"127.0.0.1:{listening}"]


def test_the_rate_is_kept() -> None:
    async def timed() -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await ports.open_ports("127.0.0.1", range(1, 41), rate=200, patience=1)
        return loop.time() - start

    assert asyncio.run(timed()) >= 39 / 200


def test_ports_are_held_against_those_that_should_be_open() -> None:
    scan = ports.judge({22, 443, 8000}, [22, 80, 443])
    assert statuses(scan) == {"tcp/22": PASSED, "tcp/80": FAILED, "tcp/443": PASSED, "tcp/8000": FAILED}
    assert (severities(scan)["tcp/8000"], severities(scan)["tcp/80"]) == ("high", "medium")


def test_a_host_of_which_nothing_is_seen_passes_nothing() -> None:
    assert not ports.judge(set(), [22]).ran


# --- the form --------------------------------------------------------------------------------------------------------


def test_a_scan_survives_its_journey() -> None:
    scan = audit.parse_lynis(LYNIS, LYNIS_LOG)
    assert from_dict(json.loads(json.dumps(scan.as_dict()))) == scan
    assert from_dict({**scan.as_dict(), "later": 1}) == scan


def test_texts_are_cut() -> None:
    assert shorten("a  b\nc") == "a b c"
    assert len(shorten("x" * 999)) == 400
    assert not_run("x", "X", "").why_not


# --- programs of the control node ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "seconds", "result"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 3"], 60, (3, "out\n", "err\n")),
        (["printf", r"\377"], 60, (0, "\N{REPLACEMENT CHARACTER}", "")),
        (["/nowhere/testssl"], 60, (127, "", "/nowhere/testssl: No such file or directory.")),
        (["sleep", "60"], 1, (124, "", "sleep was stopped after 1 seconds.")),
    ],
)
def test_a_program_that_fails_is_a_result(command: list[str], seconds: int, result: tuple[int, str, str]) -> None:
    assert outside.run(command, seconds) == result


def test_a_scanner_has_nothing_of_ansibles_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/opt/ansible")
    monkeypatch.setenv("HOME", "/home/ada")
    _status, out, _err = outside.run(["sh", "-c", "echo $PYTHONPATH,$HOME,$NO_COLOR,$LC_ALL,$TERM; cat"], 60)
    assert out == ",/home/ada,1,C.UTF-8,dumb\n"


# --- where the host is -----------------------------------------------------------------------------------------------

OWN = {"address": "192.0.2.7", "ssh_ports": [22], "ssh_keys": ["AAAAkey"]}


def test_a_host_behind_a_published_port_is_scanned_at_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ports of 127.0.0.1 are the controller's: the demo's report said that 88 things were wrong with them."""
    asked = []

    def keys(words: list[str], _seconds: int) -> tuple[int, str, str]:
        asked.append(words)
        return 0, "# 192.0.2.7:22 SSH-2.0-OpenSSH\n192.0.2.7 ssh-ed25519 AAAAkey\n", ""

    monkeypatch.setattr(outside, "run", keys)
    place = outside.place("127.0.0.1", 2222, OWN)
    assert (place.address, place.ssh_port) == ("192.0.2.7", 22)
    assert "192.0.2.7" in place.note
    assert asked[0][-3:] == ["-p", "22", "192.0.2.7"]


@pytest.mark.parametrize("answer", ["", "192.0.2.7 ssh-ed25519 AAAAanother\n"])
def test_another_host_with_that_address_is_not_scanned(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(outside, "run", lambda *_words: (0, answer, ""))
    place = outside.place("localhost", 2222, OWN)
    assert place.address == ""
    assert "audit_address" in place.why_not


def test_a_host_with_an_address_is_scanned_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "run", lambda *_words: pytest.fail("there is nothing to ask"))
    assert outside.place("203.0.113.9", 22, OWN) == outside.Place("203.0.113.9", 22)


def test_a_host_that_has_no_other_address_is_not_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "run", lambda *_words: pytest.fail("there is nothing to ask"))
    for own in ({}, {**OWN, "address": "127.0.0.1"}):
        assert outside.place("127.0.0.1", 2222, own).address == ""


def test_what_a_shared_kernel_keeps_from_a_host(tmp_path: Path) -> None:
    can = {"own_kernel": False, "time": False}
    assert host.lacks({"own_kernel": True, "time": False}) == []
    assert host.lacks(can, tmp_path / "no") == ["kernel", "network", "clock"]
    (tmp_path / "rp_filter").write_text("1")
    assert host.lacks({**can, "time": True}, tmp_path / "rp_filter") == ["kernel"]


# --- the controller's tools ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requirement", ["gixy-ng==0.2.59", "gixy-ng[extra] >= 0.2", "gixy-ng"])
def test_version_of_a_tool_is_that_of_its_package(monkeypatch: pytest.MonkeyPatch, requirement: str) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(outside, "run", lambda words, _seconds: (asked.append(words), (0, "0.2.59\n", ""))[1])
    assert outside.version(requirement) == "0.2.59"
    (words,) = asked
    assert words[-5:-1] == ["--from", requirement, "python", "-c"]
    assert words[-1].endswith("version('gixy-ng'))")


def test_version_of_a_tool_that_tells_none_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "run", lambda *_words: (1, "", "no such package"))
    assert outside.version("gixy-ng==0.0.1") == ""
    monkeypatch.setattr(outside, "run", lambda *_words: pytest.fail("there is nothing to ask"))
    assert outside.version("") == ""
