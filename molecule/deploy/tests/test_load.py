"""Deploys and rollbacks while visitors come, over kept and over new connections: 200 of them each second, or 100."""

import re

import pytest
from playbook import NIGHTLY, deploy, hosts, leftovers, load_on, run, serving, slots

testinfra_hosts = hosts("trixie")
STEPS = ("n1", "n2", "rollback", "n3")
#: Requests a second: the full load where this scenario runs alone. A lower rate is tried only if no request was lost
#: and the client itself was late so often that more than this share of the requests was left out: the machine cannot
#: make as many beside a deploy. A run that lost a request is never repeated.
RATES, MAX_LEFT_OUT = (200, 100, 50) if NIGHTLY else (100, 50), 0.02
STYLE_SHEET = re.compile(r'<link rel="stylesheet" href="([^"]+)">')


@pytest.fixture(autouse=True, scope="module")
def on_main(host):
    deploy(host, "main")


def put_on(rate, host, visitor):
    """Deploy and go back while so many come each second; return what served after each step, and the report."""
    served = []
    with load_on(visitor, rate=rate) as load:
        for step in STEPS:
            if step == "rollback":
                status, output = run("rollback", host, app="hello")
                assert status == 0, output
            else:
                deploy(host, step)
            served.append(visitor.ask("https://hello.test/whoami").json["version"])
    return served, load.report


def test_deploys_and_rollbacks_lose_no_request(host, visitor, capsys):
    """The long count is that of benchmarks/deploy."""
    for rate in RATES:
        deploy(host, "main")
        served, report = put_on(rate, host, visitor)
        assert report.lost == 0, report.text()
        if report.left_out <= MAX_LEFT_OUT:
            break
        with capsys.disabled():
            print(f"\nAt {rate} a second the client itself was late, and {report.skipped} requests were left out")
    print(report.text())
    assert report.left_out <= MAX_LEFT_OUT, report.text()
    assert served == ["n1", "n2", "n1", "n3"], report.text()
    # Main, n1 to n3: each has answered visitors, and each switch was seen.
    assert len(report.releases) == 4
    assert len(report.switches) == 4
    # Requests that were under way when the link was renamed have been finished by the release that began them.
    assert report.across.get("slow"), report.across
    assert report.across.get("stream"), report.across
    assert {kind: item["lost"] for kind, item in report.kinds.items()} == {
        "fast": 0,
        "slow": 0,
        "upload": 0,
        "stream": 0,
    }
    assert leftovers(host) == []


def test_slot_that_serves_is_the_one_that_a_reboot_brings_back(host):
    live, idle = slots(host)
    assert host.run(f"systemctl is-enabled flask-hello@{live}.service").stdout.strip() == "enabled"
    assert host.run(f"systemctl is-enabled flask-hello@{idle}.service").stdout.strip() == "disabled"


def test_page_of_before_still_finds_its_files(host, visitor):
    deploy(host, "old-assets-1")
    before = STYLE_SHEET.search(visitor.ask("https://hello.test/").body)[1]
    assert "navy" in visitor.ask(f"https://hello.test{before}").body
    deploy(host, "old-assets-2")
    after = STYLE_SHEET.search(visitor.ask("https://hello.test/").body)[1]
    assert after != before
    assert "teal" in visitor.ask(f"https://hello.test{after}").body
    assert "navy" in visitor.ask(f"https://hello.test{before}").body
    # The new release's own code does not have the old file: that was not what answered.
    assert not host.file(f"/srv/hello/current/src/apps/hello{before}").exists


def test_deploy_with_nothing_to_do_changes_nothing(host, visitor):
    before = serving(host)
    with load_on(visitor) as load:
        output = deploy(host, "old-assets-2")
    assert "changed=0" in output
    assert serving(host) == before
    assert load.report.lost == 0, load.report.text()
    assert load.report.left_out <= MAX_LEFT_OUT, load.report.text()
