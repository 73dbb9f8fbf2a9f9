"""What those say whom people trust: testssl.sh of the TLS, gixy of nginx's settings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("corrected")

GIXY = "gixy-ng==0.2.59"
LOUD = {"MEDIUM", "HIGH", "CRITICAL"}
#: Findings that are not about what we set up.
NOT_OURS = {
    "cert_revocation": "Pebble's certificates name no list of revoked ones; Let's Encrypt's do",
}


@pytest.fixture(scope="module")
def findings(ca, webs):
    """What testssl.sh has found on each host; both are looked at at the same time."""
    for web in webs:
        # At the end of its ramp: the grade wants half a year.
        web.trust_since("shop", 31 * 86400)
        web.program("apply")
    scans = [
        f"timeout 560 testssl --quiet --color 0 --warnings batch --nodns none --overwrite --ip {web.address} "
        f"--add-ca /etc/pebble/issuer-main.pem --jsonfile /run/testssl-{web.release}.json shop.test "
        f"> /run/testssl-{web.release}.log 2>&1 </dev/null &"
        for web in webs
    ]
    ca.run(f"rm -f /run/testssl-*; {' '.join(scans)} wait")
    found = {}
    for web in webs:
        text = ca.run(f"cat /run/testssl-{web.release}.json").stdout
        assert text, ca.run(f"tail -n 30 /run/testssl-{web.release}.log").stdout
        found[web.release] = json.loads(text)
    return found


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_testssl_finds_nothing(findings, release):
    loud = [
        (item["id"], item["severity"], item["finding"])
        for item in findings[release]
        if item["severity"] in LOUD and item["id"].split(" ")[0] not in NOT_OURS
    ]
    assert loud == []


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_testssl_gives_the_best_grade(findings, release):
    grade = {item["id"]: item["finding"] for item in findings[release]}
    assert grade["overall_grade"] == "A+", [text for name, text in grade.items() if name.startswith("grade_cap")]
    # It has really looked: at the versions, and at the chain.
    assert grade["TLS1_3"].startswith("offered")
    assert grade["TLS1_1"].startswith("not offered")
    assert grade["cert_chain_of_trust"].startswith("passed")


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
