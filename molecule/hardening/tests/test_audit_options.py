"""Options of playbooks/audit.yml: what fails a run, what is waived and for how long, whose rules and tools judge."""

from __future__ import annotations

import base64
import datetime
import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from audits import Audit, as_a_machine, ids, run_audit, run_audits
from fleet import STRAY, WEB, Attacker, Host

#: The finding that the fixture stray makes, the only one of its scanner.
ODD = f"tcp/{STRAY}/python3"
REASON = "A test listens there, and it stops when it is done."
#: A small profile, and OpenSCAP alone.
MINIMAL = {"audit_scanners": ["openscap"], "audit_scap_profiles": ["anssi_bp28_minimal"]}
PROFILE = "openscap-anssi_bp28_minimal"
GIXY, SSH_AUDIT = "0.2.50", "3.3.0"


def day(later: int) -> str:
    """The day that is so many days from now."""
    return str((datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=later)).date())


# --- What fails a run, and what is waived ----------------------------------------------------------------------------


def test_strict_run_without_a_finding_passes(webs, tmp_path):
    """The positive control: the same scanner, and nothing that it could find."""
    for done in run_audits(webs, tmp_path, audit_scanners=["listeners"], audit_strict=True):
        found = done.scan("listeners")
        assert (found["failed"], found["waived"]) == (0, 0)
        assert found["passed"] > 0


def test_run_that_is_not_strict_passes_with_a_finding(webs, stray, tmp_path):
    for done in run_audits(webs, tmp_path, audit_scanners=["listeners"]):
        assert ids(done.scan("listeners"), "failed") == [ODD]


def test_strict_run_fails_for_one_finding_after_its_report_is_written(web, stray, tmp_path):
    done = run_audit(web, tmp_path, audit_scanners=["listeners"], audit_strict=True)
    assert done.status != 0
    assert "1 findings are neither passed nor waived" in done.output
    assert ids(done.scan("listeners"), "failed") == [ODD]
    assert ODD in done.page.read_text(encoding="utf-8")


def test_waived_finding_is_told_with_its_reason_and_fails_no_strict_run(webs, stray, tmp_path):
    waivers = [{"scanner": "listeners", "id": f"tcp/{STRAY}/*", "reason": REASON, "until": day(1)}]
    for done in run_audits(webs, tmp_path, audit_scanners=["listeners"], audit_strict=True, audit_waivers=waivers):
        (finding,) = [each for each in done.scan("listeners")["findings"] if each["id"] == ODD]
        assert (finding["status"], finding["reason"]) == ("waived", REASON)
        assert done.report["next"] == []
        assert REASON in done.page.read_text(encoding="utf-8")


def test_finding_comes_back_when_its_waiver_has_expired(web, stray, tmp_path):
    waivers = [{"scanner": "listeners", "id": ODD, "reason": REASON, "until": day(-1)}]
    done = run_audit(web, tmp_path, audit_scanners=["listeners"], audit_strict=True, audit_waivers=waivers)
    assert done.status != 0
    assert ids(done.scan("listeners"), "failed") == [ODD]
    (expired,) = done.report["waivers_expired"]
    assert (expired["id"], expired["until"]) == (ODD, day(-1))


@pytest.fixture(scope="module")
def minimal(webs: list[Host], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Audit]:
    """What the rules of the default say of each host."""
    with as_a_machine(*webs):
        return dict(zip(WEB, run_audits(webs, tmp_path_factory.mktemp("minimal"), **MINIMAL), strict=True))


def test_findings_return_without_the_roles_own_waivers(webs, minimal, tmp_path):
    with as_a_machine(*webs):
        found = run_audits(webs, tmp_path, **MINIMAL, audit_own_waivers=False)
    for web, done in zip(webs, found, strict=True):
        ours, without = minimal[web.name].scan(PROFILE), done.scan(PROFILE)
        returned = set(ids(without, "failed")) - set(ids(ours, "failed"))
        assert returned
        assert returned == set(ids(ours, "waived")) - set(ids(without, "waived"))
        # What the shared kernel keeps from the host is nobody's decision, and stays set aside.
        kept = [each for each in without["findings"] if each["status"] == "waived"]
        assert [each["id"] for each in kept if "shares its" not in each["reason"]] == []
        assert returned <= {step["id"] for step in done.report["next"]}


# --- Other limits, and other releases of the controller's tools ------------------------------------------------------

QUICK = ["certificates", "gixy", "ssh_audit"]


@pytest.fixture(scope="module")
def usual(webs: list[Host], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Audit]:
    """What the quick scanners say of each host by the defaults."""
    return dict(zip(WEB, run_audits(webs, tmp_path_factory.mktemp("usual"), audit_scanners=QUICK), strict=True))


@pytest.fixture(scope="module")
def otherwise(
    webs: list[Host], usual: dict[str, Audit], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Audit, int]]:
    """What they say with other options, and the days that a certificate has to have left."""
    days = round(max(done.scan("certificates")["score"] for done in usual.values())) + 2
    found = run_audits(
        webs, tmp_path_factory.mktemp("otherwise"), audit_scanners=QUICK, audit_certificate_days=days,
        audit_gixy=f"gixy-ng=={GIXY}", audit_ssh_audit=f"ssh-audit=={SSH_AUDIT}",
    )  # fmt: skip
    return {name: (done, days) for name, done in zip(WEB, found, strict=True)}


@pytest.mark.parametrize("name", WEB)
def test_certificate_with_fewer_days_left_is_a_finding(usual, otherwise, name):
    before, (after, days) = usual[name].scan("certificates"), otherwise[name]
    assert before["failed"] == 0
    assert before["passed"] > 0
    found = after.scan("certificates")
    assert ids(found, "failed") == ids(before, "passed")
    for finding in (each for each in found["findings"] if each["status"] == "failed"):
        left = int(finding["detail"].rpartition("It ends in ")[2].split()[0])
        assert 14 < left < days


@pytest.mark.parametrize("name", WEB)
@pytest.mark.parametrize(("tool", "version"), [("gixy", GIXY), ("ssh_audit", SSH_AUDIT)])
def test_other_release_of_a_tool_is_the_one_that_looks(usual, otherwise, name, tool, version):
    assert usual[name].scan(tool)["version"] not in ("", version)
    found = otherwise[name][0].scan(tool)
    assert found["version"] == version
    assert found["passed"] > 0


# --- Rules of another origin, and testssl.sh -------------------------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """A package of Debian's, as the attacker's host gets it from its mirror.

    Attributes:
        version: its version, without Debian's own part.
        folder: where the wanted files of it are.
    """

    version: str
    folder: Path


@pytest.fixture(scope="module")
def package(attacker_at_home: Attacker, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Package]:
    """Get a package's files below a path onto this machine."""

    def get(name: str, below: str) -> Package:
        place = attacker_at_home.host.check_output("mktemp -d")
        steps = f"cd {place} && apt-get -qq update && apt-get -qq download {name}"
        attacker_at_home.host.run_expect([0], steps)
        version = attacker_at_home.host.check_output(f"dpkg-deb --field {place}/{name}_*.deb Version")
        unpack = f"dpkg-deb --extract {place}/{name}_*.deb {place}/root && tar -C {place}/root -cz {below} | base64"
        packed = attacker_at_home.host.check_output(unpack)
        attacker_at_home.host.run_expect([0], f"rm -r {place}")
        folder = tmp_path_factory.mktemp(name)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(base64.b64decode(packed)))) as archive:
            archive.extractall(folder, filter="data")
        return Package(version.partition("-")[0].partition("+")[0], folder)

    return get


@pytest.fixture(scope="module")
def rules(package: Callable[[str, str], Package]) -> Package:
    """The rules for Debian 12 that Debian 13 has."""
    return package("ssg-debian", "usr/share/xml/scap/ssg/content/ssg-debian12-ds.xml")


def test_rules_of_another_release_judge(webs, minimal, rules, tmp_path):
    with as_a_machine(webs[0]):
        done = run_audit(webs[0], tmp_path, **MINIMAL, audit_scap_suite="trixie")
    assert done.status == 0, done.output
    found = done.scan(PROFILE)
    assert found["passed"] > 10
    assert found["version"] == f"content {rules.version}"
    assert found["version"] != minimal[webs[0].name].scan(PROFILE)["version"]


def test_rules_of_the_controller_judge_where_none_may_be_fetched(webs, rules, tmp_path):
    (content,) = rules.folder.rglob("*-ds.xml")
    with as_a_machine(webs[0]):
        done = run_audit(webs[0], tmp_path, **MINIMAL, audit_scap_suite="", audit_scap_content=str(content))
        without = run_audit(webs[0], tmp_path, **MINIMAL, audit_scap_suite="")
    assert done.status == 0, done.output
    assert done.scan(PROFILE)["version"] == f"content {rules.version}"
    assert done.scan(PROFILE)["passed"] > 10
    assert without.status == 0, without.output
    assert not without.asked(PROFILE)["ran"]
    assert without.asked(PROFILE)["why_not"] == "There are no rules (ssg-debian12-ds.xml): set audit_scap_content."


#: What testssl.sh has to say of a site that has signed its own certificate. Nothing else is left to say.
SELF_SIGNED = {
    "cert_chain_of_trust", "cert_trust", "cert_extlifeSpan", "cert_validityPeriod", "cert_revocation",
    "cert_crlDistributionPoints", "cert_ocspURL", "cert_notAfter", "HSTS", "DNS_CAArecord",
    "OCSP_stapling", "certificate_transparency",
}  # fmt: skip


@pytest.fixture(scope="module")
def graded(webs: list[Host], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Audit]:
    """What testssl.sh says of each host: the host's own release of it, unless this machine has one."""
    found = run_audits(webs, tmp_path_factory.mktemp("graded"), audit_scanners=["testssl"], audit_tls_most=1)
    return dict(zip(WEB, found, strict=True))


@pytest.mark.parametrize("name", WEB)
def test_testssl_judges_the_hosts_own_tls(graded, name):
    found = graded[name].scan("testssl-doors.test")
    # T: the host has signed the certificate itself. That of Debian 12 gives no grade.
    assert found["score_text"] in (("grade T",) if "trixie" in name else ("grade T", "no grade by this version"))
    assert set(ids(found, "failed")) <= SELF_SIGNED
    assert "cert_chain_of_trust" in ids(found, "failed")
    assert {"SSLv2", "SSLv3", "TLS1_3", "heartbleed", "ROBOT"} <= set(ids(found, "passed"))


@pytest.mark.parametrize("name", WEB)
def test_only_so_many_names_are_looked_at_and_the_others_are_told(graded, name):
    for other in ("staging.test", "office.test"):
        found = graded[name].asked(f"testssl-{other}")
        assert not found["ran"]
        assert found["why_not"].startswith("Only 1 names are checked (audit_tls_most)")


def test_testssl_that_is_not_there_is_named(web, tmp_path):
    done = run_audit(web, tmp_path, audit_scanners=["testssl"], audit_testssl="/nonexistent/testssl")
    assert done.status == 0, done.output
    assert not done.asked("testssl")["ran"]
    assert "/nonexistent/testssl" in done.asked("testssl")["why_not"]
