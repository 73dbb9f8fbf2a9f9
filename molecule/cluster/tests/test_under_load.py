"""100 requests per second through the web host: deploys, rollbacks, an app host that is drained, and one that dies."""

from __future__ import annotations

import subprocess
import time

import pytest
from cluster import FIRST, SECOND, WEB, connect, live, load_on, play, run, served_since, version

testinfra_hosts = [f"ansible://{WEB}"]
LOG = "wc --lines < /var/log/nginx/hello.access.log"


def say(capsys, what, report):
    with capsys.disabled():
        print(f"\n{what}: {report.text()}")


@pytest.mark.parametrize("batch", [0, 1])
def test_deploys_and_rollbacks_lose_no_request(visitor, capsys, batch):
    with load_on(visitor) as load:
        for number in range(1, 4):
            play("deploy", app="hello", version=f"n{number + 3 * batch}", deploy_batch=batch)
        play("rollback", app="hello", deploy_batch=batch)
        play("rollback", app="hello", deploy_batch=batch)
    say(capsys, f"three deploys and two rollbacks, deploy_batch {batch}", load.report)
    assert load.report.lost == 0, load.report.text()
    assert len(load.report.releases) >= 4
    assert live(FIRST) == live(SECOND)


def test_a_drained_host_loses_no_request_and_is_deployed_meanwhile(visitor, capsys):
    with load_on(visitor) as load:
        output = play("drain", host=SECOND)
        assert f"{SECOND} gets no more visitors" in output
        time.sleep(1)
        lines = served_since(SECOND, 0)
        time.sleep(3)
        assert served_since(SECOND, lines) == 0
        play("deploy", app="hello", version="n8")
        assert live(FIRST) == live(SECOND)
        assert served_since(SECOND, lines) == 0
        status, refused = run("drain", host=FIRST)
        assert status != 0
        assert f"{FIRST} is the last app host that serves visitors" in refused
        # It stays out: after a run of site.yml and after a restart of nginx.
        play("site", "--tags", "nginx,identity")
        connect(SECOND).check_output("systemctl restart nginx")
        assert served_since(SECOND, lines) == 0
        _status, table = run("status")
        assert "DRAINED for 0 h by" in table
        play("drain", host=SECOND, drain="off")
        time.sleep(8)
        assert served_since(SECOND, lines) > 50
    say(capsys, "drained, deployed and back", load.report)
    assert load.report.lost == 0, load.report.text()
    assert "DRAINED" not in run("status")[1]


def test_an_app_host_that_is_killed_costs_only_what_cannot_be_repeated(visitor, capsys):
    with load_on(visitor) as load:
        time.sleep(3)
        subprocess.run(["docker", "kill", SECOND], check=True, stdout=subprocess.DEVNULL)
        time.sleep(10)
        subprocess.run(["docker", "start", SECOND], check=True, stdout=subprocess.DEVNULL)
        time.sleep(20)
    say(capsys, "an app host is killed, and starts again 10 s later", load.report)
    assert load.report.kinds["fast"]["lost"] == 0, load.report.text()
    # Requests that had reached an app there, and cannot be sent again.
    assert load.report.lost <= 3, load.report.text()
    lines = served_since(SECOND, 0)
    end = time.monotonic() + 60
    while served_since(SECOND, lines) == 0:
        assert time.monotonic() < end, "it serves again by itself"
        visitor.ask("https://hello.test/whoami")


def test_a_second_run_keeps_the_keys_and_changes_nothing():
    before = connect(WEB).check_output("sha256sum /etc/flaskhost/identity/*")
    output = play("site", "--tags", "identity,nginx", **version("n8"))
    assert output.count("changed=0") >= 4, output
    assert connect(WEB).check_output("sha256sum /etc/flaskhost/identity/*") == before
