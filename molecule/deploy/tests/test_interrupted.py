"""Deploys that are killed, here or on the host: what served goes on serving, and the next deploy needs no help."""

import itertools
import os
import random
import time

import pytest
from playbook import NIGHTLY, deploy, finish, hosts, leftovers, load_on, run, start
from runs import kill

testinfra_hosts = hosts("trixie")

#: How often here, and how often there; ten times each where it is done on both hosts.
MOMENTS = int(os.environ.get("FLASKHOST_MOMENTS") or (5 if NIGHTLY else 2))
SEED = int(os.environ.get("FLASKHOST_SEED") or random.randrange(1_000_000))
#: Where Ansible unpacks the module while it runs; one that was killed leaves it there.
PAYLOAD = "/tmp/ansible_flask_release_payload_*"
VERSIONS = itertools.cycle(f"n{number}" for number in range(1, 25))

# Waits until the module has begun, waits a while, and kills it the next time that it runs. It is found by its parent,
# since its own command line is that of any Python: the shell in which Ansible becomes root.
KILL_MODULE = f"""
for _ in $(seq 1200); do ls -d {PAYLOAD} > /dev/null 2>&1 && break; sleep 0.05; done
sleep {{seconds}}
for _ in $(seq 100); do
  if ls -d {PAYLOAD} > /dev/null 2>&1; then
    for parent in $(pgrep --full BECOME-SUCCESS); do pkill --signal KILL --parent $parent python3 && echo killed; done
    break
  fi
  sleep 0.05
done
"""


@pytest.fixture(scope="module")
def seconds(host):
    """How long a whole deploy takes on this host, to choose moments from."""
    deploy(host, "main")
    began = time.monotonic()
    deploy(host, next(VERSIONS))
    return time.monotonic() - began


@pytest.fixture
def moments(seconds, request, capsys):
    """Moments of a deploy, in seconds from its beginning: one out of each of as many equal parts."""
    chance = random.Random(f"{SEED} {request.node.nodeid}")
    part = (seconds - 0.3) / MOMENTS
    chosen = [round(0.3 + part * (number + chance.random()), 2) for number in range(MOMENTS)]
    with capsys.disabled():
        print(f"\nFLASKHOST_SEED={SEED}, a deploy takes {seconds:.1f} s, kills after {chosen} s")
    return chosen


def goes_on(host, visitor, version, moment):
    """See that the next deploy succeeds."""
    status, output = run("deploy", host, app="hello", version=version)
    assert status == 0, f"after a kill at {moment} s of the deploy of {version}: {output}"
    assert visitor.ask("https://hello.test/whoami").json["version"] == version
    assert leftovers(host) == []


def test_controller_that_is_killed(host, visitor, moments):
    alive = 0
    with load_on(visitor) as load:
        for moment in moments:
            version = next(VERSIONS)
            process = start("deploy", host, app="hello", version=version)
            time.sleep(moment)
            alive += process.poll() is None
            kill(process)
            goes_on(host, visitor, version, moment)
    # One moment lies in each part of a deploy; the last of them may come a little too late.
    assert alive >= len(moments) - 1, f"only {alive} of {len(moments)} were under way when they were killed"
    assert load.report.lost == 0, load.report.text()


def test_module_that_is_killed_on_the_host(host, visitor, moments, seconds, capsys):
    killed = 0
    with load_on(visitor) as load:
        for moment in moments:
            version = next(VERSIONS)
            host.run_expect([0], f"rm -rf {PAYLOAD}")
            process = start("deploy", host, app="hello", version=version)
            # Before the module's first run the playbook looks at other things: about two fifths of the time.
            killed += "killed" in host.run(KILL_MODULE.format(seconds=round(moment * 0.6, 2))).stdout
            finish(process)
            goes_on(host, visitor, version, moment)
    with capsys.disabled():
        print(f"\n{killed} of {len(moments)} runs of the module were killed; the others had ended before their moment")
    assert killed > 0
    assert load.report.lost == 0, load.report.text()
