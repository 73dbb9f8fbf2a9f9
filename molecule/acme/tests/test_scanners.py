"""What those say whom people trust: testssl.sh of the TLS, gixy of nginx's settings."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fleet import play

pytestmark = [pytest.mark.usefixtures("corrected"), pytest.mark.nightly]

GIXY = "gixy-ng==0.2.59"
LOUD = {"MEDIUM", "HIGH", "CRITICAL"}
#: Findings that are not about what we set up.
NOT_OURS = {
    "cert_revocation": "Pebble's certificates name no list of revoked ones; Let's Encrypt's do",
}


@pytest.fixture(scope="module")
def scans(ca, webs, roots, tmp_path_factory):
    """What testssl.sh has found on each host: on one from another host, on the other by the audit, at the same time.

    (The package of Debian 12 gives no grade.)
    """
    for web in webs:
        # At the end of its ramp: the grade wants half a year.
        web.trust_since("shop", 31 * 86400)
        web.program("apply")
    bookworm, trixie = webs
    folder = tmp_path_factory.mktemp("audit")
    authority = folder / "root.pem"
    authority.write_text(roots["main"])
    scan = (
        f"rm -f /run/testssl*; timeout 560 testssl --quiet --color 0 --warnings batch --nodns none --overwrite "
        f"--ip {bookworm.address} --add-ca /etc/pebble/issuer-main.pem --jsonfile /run/testssl.json shop.test "
        "> /run/testssl.log 2>&1 </dev/null; cat /run/testssl.json || tail -n 30 /run/testssl.log >&2"
    )
    with ThreadPoolExecutor() as pool:
        running = pool.submit(ca.run, scan)
        status, output = play(
            playbook="audit",
            limit=trixie.name,
            timeout=900,
            audit_scanners=["testssl"],
            audit_tls_names=["shop.test"],
            audit_tls_authority=str(authority),
            audit_reports=str(folder),
        )
    assert status == 0, output
    report = json.loads(next(folder.glob(f"{trixie.name}-*.json")).read_text())
    (audited,) = [each for each in report["scans"] if each["scanner"] == "testssl-shop.test"]
    assert audited["ran"], audited["why_not"]
    assert running.result().stdout, running.result().stderr
    return json.loads(running.result().stdout), audited


def test_testssl_finds_nothing_and_gives_the_best_grade(scans):
    found = {item["id"]: item["finding"] for item in scans[0]}
    loud = [
        (item["id"], item["severity"], item["finding"])
        for item in scans[0]
        if item["severity"] in LOUD and item["id"].split(" ")[0] not in NOT_OURS
    ]
    assert loud == []
    assert found["overall_grade"] == "A+", [text for name, text in found.items() if name.startswith("grade_cap")]
    # It has really looked: at the versions, and at the chain.
    assert found["TLS1_3"].startswith("offered")
    assert found["TLS1_1"].startswith("not offered")
    assert found["cert_chain_of_trust"].startswith("passed")


def test_audit_by_testssl_trusts_the_authority_that_is_named(scans):
    """The host's own testssl.sh, since many a controller has none, knows the certificates of that authority."""
    found = {item["id"]: item for item in scans[1]["findings"]}
    loud = [
        (name, item["severity"], item["detail"])
        for name, item in found.items()
        if item["status"] == "failed" and item["severity"] != "low" and name not in NOT_OURS
    ]
    assert loud == []
    assert scans[1]["score_text"] == "grade A+"
    assert {found[name]["status"] for name in ("TLS1_3", "cert_chain_of_trust")} == {"passed"}


@pytest.mark.parametrize("number", [0, 1], ids=["bookworm", "trixie"])
def test_gixy_finds_nothing(webs, tmp_path, number):
    dump = tmp_path / "nginx.conf"
    dump.write_text(webs[number].run("nginx -T 2>/dev/null"))
    result = subprocess.run(
        [str(Path(sys.executable).with_name("uvx")), "--from", GIXY, "gixy", "--format", "json", str(dump)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.stdout.lstrip().startswith("["), result.stderr
    loud = [(item["plugin"], item["severity"], item["reason"], item["config"])
            for item in json.loads(result.stdout) if item["severity"] in LOUD]  # fmt: skip
    assert loud == []
