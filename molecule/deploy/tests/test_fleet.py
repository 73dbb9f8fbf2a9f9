"""Two app hosts deploy together: every phase on both before the next one, and whatever fails, both go back."""

import dataclasses
import json
import os
import subprocess
import time

import pytest
import runs
import testinfra
from playbook import APPS, INVENTORY, leftovers, load_on, with_app

testinfra_hosts = ["ansible://fh-deploy-bookworm"]

COUNTED = "echo $FLASKHOST_RELEASE >> $HOME/released"


@pytest.fixture
def both(host):
    """The two hosts, by their names."""
    found = {"fh-deploy-bookworm": host}
    found["fh-deploy-trixie"] = testinfra.get_host(
        "ansible://fh-deploy-trixie", ansible_inventory=str(INVENTORY), sudo=True
    )
    return found


@pytest.fixture
def visitor_of_the_second(visitor, both):
    """A visitor of the host that flips last."""
    published = both["fh-deploy-trixie"].ansible.get_variables()["published_ports"]
    return dataclasses.replace(visitor, ports={int(port): int(here) for port, here in published.items()})


def start(playbook, *arguments, **variables):
    return runs.start(runs.command(f"playbooks/{playbook}.yml", *arguments, **variables))


def run(playbook, *arguments, **variables):
    """Run a playbook on both hosts; return its status and what it printed."""
    return runs.finish(start(playbook, *arguments, **variables), without=runs.FAILURE)


def deploy(version, *arguments, **variables):
    status, output = run("deploy", *arguments, app="hello", version=version, **variables)
    assert status == 0, output
    return output


def served(both):
    """The release that serves on each host."""
    return [host.file("/srv/hello/current").linked_to.rpartition("/")[2] for host in both.values()]


def keys(both, app="hello"):
    return [host.file(f"/etc/flaskhost/{app}/secret_key").content_string.split() for host in both.values()]


def test_both_hosts_have_the_same_keys_from_the_first_run_on(both):
    for app in APPS:
        first, second = keys(both, app)
        assert first == second
        assert len(first) == 1
    assert keys(both, "hello") != keys(both, "guestbook")


def test_release_command_is_run_once_and_the_release_has_one_name(both):
    for host in both.values():
        host.run("rm -f /srv/hello/data/released")
    deploy("n5", **with_app("hello", release_command=COUNTED))
    first, second = served(both)
    assert first == second
    counted = [host.run("cat /srv/hello/data/released").stdout.split() for host in both.values()]
    assert sorted(counted) == [[], [first]]
    for host in both.values():
        assert leftovers(host) == []


def test_nothing_to_do_is_nothing_done_on_either(both):
    before = served(both)
    output = deploy("n5", **with_app("hello", release_command=COUNTED))
    assert output.count("changed=0") == 3
    assert served(both) == before


def test_release_that_fails_on_one_host_is_taken_back_on_both(both, visitor):
    """It is in order on the first host and answers badly on the second, at the gate: before any of the two flips."""
    deploy("n6")
    before = served(both)
    second = both["fh-deploy-trixie"]
    # The gate of the second host asks for a page that is not there.
    bad = json.loads(json.dumps(APPS["hello"]))
    bad["health"]["timeout"] = 5
    bad["health"]["path"] = "{{ '/' if inventory_hostname == 'fh-deploy-bookworm' else '/not-there' }}"
    with load_on(visitor) as load:
        status, output = run("deploy", app="hello", version="n7", flask_apps={**APPS, "hello": bad})
    assert status != 0
    assert "returned 404, expected 200" in output
    assert "All hosts serve their previous release again" in output
    assert served(both) == before
    assert load.report.lost == 0, load.report.text()
    for host in (*both.values(), second):
        assert leftovers(host) == []


@pytest.mark.parametrize("batch", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_watch_of_one_host_takes_back_the_other_that_has_flipped(both, visitor_of_the_second, batch):
    deploy("n6")
    before = served(both)
    # Only the second host has visitors whom the release disappoints; the watch of the first one is content.
    with load_on(visitor_of_the_second, only_fast=True, rate=20) as load:
        status, output = run(
            "deploy", app="hello", version="errors-under-traffic", deploy_batch=batch, **with_app("hello", watch=4)
        )
    assert status != 0
    assert "Watch the release" in output
    assert "All hosts serve their previous release again" in output
    assert served(both) == before
    assert load.report.lost_by_second, "the visitors have seen no error: the release has not served"
    # It had served on the first host, too.
    history = json.loads(both["fh-deploy-bookworm"].file("/srv/hello/history.json").content_string)
    assert [entry["verb"] for entry in history[-2:]] == ["deploy", "return"]
    for host in both.values():
        assert leftovers(host) == []


@pytest.mark.nightly
@pytest.mark.parametrize("batch", [0, 1])
def test_host_that_dies_while_another_one_has_flipped(both, visitor, visitor_of_the_second, batch):
    """The other one loses no request, and what they serve is one release again after the same command."""
    first, name = both["fh-deploy-bookworm"], "fh-deploy-trixie"
    version = f"n1{3 + batch}"
    deploy("n6")
    before = first.file("/srv/hello/current").linked_to
    arguments = {"app": "hello", "version": version, "deploy_batch": batch, **with_app("hello", watch=4)}
    with load_on(visitor) as load:
        process = start("deploy", **arguments)
        flipped = f'until test "$(realpath /srv/hello/current)" != {before}; do sleep 0.05; done'
        first.run_expect([0], f"timeout 120 sh -c '{flipped}'")
        subprocess.run(["docker", "kill", name], check=True, capture_output=True)
        output, _none = process.communicate(timeout=300)
        subprocess.run(["docker", "start", name], check=True, capture_output=True)
    assert process.returncode != 0, output
    assert "unreachable=1" in output, output
    assert load.report.lost == 0, load.report.text()
    # The one that died serves by itself, whichever release it had come to.
    end = time.monotonic() + 90
    while not serves(visitor_of_the_second):
        assert time.monotonic() < end, "it does not serve again"
        time.sleep(0.5)
    status, output = run("deploy", **arguments)
    assert status == 0, output
    assert len(set(served(both))) == 1
    for someone in (visitor, visitor_of_the_second):
        assert someone.ask("https://hello.test/whoami").json["version"] == version
    for host in both.values():
        assert leftovers(host) == []


def serves(visitor):
    """Whether hello answers."""
    try:
        return visitor.ask("https://hello.test/").status == 200
    except OSError:
        return False


def test_rollback_goes_back_on_both(both):
    deploy("n8")
    before = served(both)
    deploy("n9")
    status, output = run("rollback", app="hello")
    assert status == 0, output
    assert served(both) == before
    for host in both.values():
        assert leftovers(host) == []


@pytest.mark.nightly
def test_second_deploy_is_refused_between_the_phases_too(both):
    """While one host still builds, the other one waits with its lock held."""
    deploy("n10")
    first = start("deploy", "-e", json.dumps(with_app("hello", watch=20)), app="hello", version="n11")
    try:
        lock = "until grep -q deploy /srv/hello/.lock && ! flock --nonblock /srv/hello/.lock true; do sleep 0.1; done"
        both["fh-deploy-bookworm"].run_expect([0], f"timeout 60 sh -c '{lock}'")
        time.sleep(1)
        status, output = run("deploy", app="hello", version="n12")
        assert status != 0
        assert "another deploy of the app is running" in output
        assert os.environ.get("USER", "root") in output
    finally:
        output, _none = first.communicate(timeout=120)
    assert first.returncode == 0, output
    assert len(set(served(both))) == 1


def test_rotation_gives_both_the_same_new_key_and_keeps_the_old_one_good(both):
    before = keys(both)
    status, output = run("rotate_secret", "-v", app="hello")
    assert status == 0, output
    after = keys(both)
    assert after[0] == after[1]
    assert after[0][0] not in before[0]
    assert after[0][1] == before[0][0]
    for key in (*before[0], *after[0]):
        assert key not in output
    # What runs has them, and not only the disk.
    for host in both.values():
        slot = "$(basename $(readlink /srv/hello/live.sock) .sock)"
        pid = host.run(f"systemctl show --property=MainPID --value flask-hello@{slot}").stdout.strip()
        environ = host.run(f"tr '\\0' '\\n' < /proc/{pid}/environ").stdout
        assert f"SECRET_KEY={after[0][0]}\n" in environ
        assert f'SECRET_KEY_FALLBACKS=["{after[0][1]}"]\n' in environ
        assert leftovers(host) == []
