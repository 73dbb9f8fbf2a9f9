"""Nobody is locked out: changes that would cut SSH take themselves back, and so do those of runs that are killed.

The operator's log-in is a new connection each time, and becomes root.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from fleet import GUARD, OLD_KEY, command_of, eventually, play, watched
from runs import PLAIN, PROJECT

#: Rules without the port that the run came in by, as where a role is used without the fact that tells of it.
CUT = {"__firewall_connection_port": [], "firewall_ssh_ports": [2222]}
DROP_IN = "/etc/ssh/sshd_config.d/00-flaskhost.conf"


@pytest.fixture(autouse=True)
def operator_still_gets_in(webs):
    """Before and after each of the tests."""
    for web in webs:
        assert web.log_in()[0]
    yield
    for web in webs:
        assert web.log_in()[0]
        assert web.unguarded()


def test_rules_that_would_cut_ssh_are_taken_back(webs):
    before = [(web.rules(), web.run("sha256sum /etc/nftables-flaskhost.conf")) for web in webs]
    with watched(*webs) as outages:
        status, output = play("--tags", "firewall", **CUT)
    assert status != 0
    assert output.count("The change of firewall was reverted, because no new SSH connection could be made") >= len(webs)
    assert output.count("The host has reverted the change, and responds as before.") >= len(webs)
    assert "check that the provider's firewall allows this port" in output
    for outage in outages:
        # It was cut, and is open again as soon as docs/access.md promises.
        assert 0 < outage.seconds < 60, outage.seen
    assert [(web.rules(), web.run("sha256sum /etc/nftables-flaskhost.conf")) for web in webs] == before


def test_settings_that_would_refuse_the_operators_key_are_taken_back(webs):
    """An operator whose key is of 1024 bits comes to a host whose own file lets it in; ours wins, and does not."""
    for web in webs:
        block = "/^# --- flaskhost: begin/,/^# --- flaskhost: end/d"
        web.run(f"rm {DROP_IN} && sed -i '{block}' /etc/ssh/sshd_config && systemctl reload ssh.service")
        # A reload is told before sshd has begun anew.
        eventually(lambda web=web: web.log_in("olga", key=OLD_KEY)[0], True)
    before = [web.sshd() for web in webs]
    status, output = play("--tags", "hardening", ansible_user="olga", ansible_ssh_private_key_file=str(OLD_KEY))
    assert status != 0
    words = "The change of sshd was reverted, because no new SSH connection could be made as olga"
    assert output.count(words) >= len(webs)
    assert "Permission denied (publickey)" in output
    assert output.count("The host has reverted the change, and responds as before.") >= len(webs)
    for web, old in zip(webs, before, strict=True):
        assert web.log_in("olga", key=OLD_KEY)[0]
        assert web.sshd() == old
        assert web.host.service("ssh.service").is_running


def test_a_good_run_after_it_leaves_no_service_on_its_old_settings(webs):
    status, output = play("--tags", "hardening")
    assert status == 0, output
    for web in webs:
        assert "passwordauthentication no" in web.sshd()
        # Not only in the file: what runs refuses the old key.
        assert not web.log_in("olga", key=OLD_KEY)[0]


def test_a_run_that_is_killed_in_the_middle_is_taken_back_by_the_host(webs):
    before = [web.rules() for web in webs]
    run = subprocess.Popen(
        command_of("--tags", "firewall", **CUT), cwd=PROJECT, env={**os.environ, **PLAIN}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for web in webs:
            web.run(f"until [ -e {GUARD}/firewall/applied ]; do sleep 0.2; done", timeout=120)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    applied = time.monotonic()
    for web in webs:
        assert not web.shows_ssh()
    for web in webs:
        eventually(web.shows_ssh, True, 60 - (time.monotonic() - applied))
    assert [web.rules() for web in webs] == before
    for web in webs:
        assert web.log_in()[0]
    # The next run clears up what is left, and goes on.
    status, output = play("--tags", "firewall")
    assert status == 0, output
    assert [web.rules() for web in webs] == before


def test_another_file_that_wins_is_told_and_nothing_is_changed(webs):
    own = "/etc/ssh/sshd_config.d/00-before-ours.conf"
    before = [web.sshd() for web in webs]
    for web in webs:
        web.run(f"echo 'PasswordAuthentication yes' > {own}")
    try:
        status, output = play("--tags", "hardening")
        assert status != 0
        assert output.count("passwordauthentication yes, not passwordauthentication no") >= len(webs)
        assert "Another file sets this before ours does" in output
    finally:
        for web in webs:
            web.run(f"rm {own}")
    assert [web.sshd() for web in webs] == before
