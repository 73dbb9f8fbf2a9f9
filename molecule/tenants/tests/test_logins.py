"""No account of an app logs in over SSH: not that of an app which was removed, and not the one that builds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tenants import hosts, playbook

testinfra_hosts = hosts("trixie")

#: Accounts and their homes. The first two are what a removed app leaves behind.
HOMES = {"gone": "/srv/gone/data", "gone_build": "/nonexistent", "mallory": "/srv/mallory/data", "mallory_build": ""}
KEY = "/root/attack"


@pytest.fixture
def keys(host: Any) -> Iterator[None]:
    """Each account has a key in its home, where an app may write, and sshd reads it."""
    host.run_expect([0], f"rm -f {KEY} {KEY}.pub; ssh-keygen -q -t ed25519 -N '' -f {KEY}")
    for name in ("gone", "gone_build"):
        host.run(f"useradd --system --user-group --no-create-home --home-dir {HOMES[name]} -s /usr/sbin/nologin {name}")
    for name, home in HOMES.items():
        folder = f"{home or '/nonexistent'}/.ssh"
        host.run_expect([0], f"umask 022; mkdir -p {folder}; install -m 644 {KEY}.pub {folder}/authorized_keys")
        host.run(f"chown -R {name}: {folder}" if home.startswith("/srv") else "true")
    yield
    host.run("userdel gone; userdel gone_build; rm -rf /srv/gone /nonexistent /srv/mallory/data/.ssh /root/attack*")


def login(host: Any, user: str) -> str:
    """What ssh says to somebody with the account's key, from the host itself, whom nothing bans."""
    options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes"
    # Testinfra takes ssh's own status, 255, for that of the connection that it came by.
    return str(host.run(f"ssh -v {options} -i {KEY} {user}@127.0.0.1 true || true").stderr)


def test_no_account_of_an_app_logs_in(host: Any, keys: None) -> None:
    status, output = playbook("site", host, "--tags", "hardening")
    assert status == 0, output
    for name in HOMES:
        said = login(host, name)
        assert "Authenticated to" not in said, f"{name}: {said}"
        assert f"{name}@127.0.0.1: Permission denied (publickey)" in said, f"{name}: {said}"
    refused = host.check_output("journalctl --no-pager -u ssh --since=-5min")
    for name in HOMES:
        assert f"User {name} from 127.0.0.1 not allowed because listed in DenyUsers" in refused
    # The key itself is one that sshd takes.
    host.run_expect([0], "install -d -m 700 /root/kept; cp -p /home/debian/.ssh/authorized_keys /root/kept/")
    host.run_expect([0], f"cat {KEY}.pub >> /home/debian/.ssh/authorized_keys")
    try:
        assert "Authenticated to" in login(host, "debian")
    finally:
        host.run_expect([0], "cp -p /root/kept/authorized_keys /home/debian/.ssh/; rm -r /root/kept")


def test_an_administrator_is_never_refused(host: Any) -> None:
    """An account that is like a removed app's, and may become root: the run stops, and sshd stays as it is."""
    before = host.check_output("cat /etc/ssh/sshd_config.d/00-flaskhost.conf")
    host.run_expect([0], "useradd --system --home-dir /srv/oddly/data -s /usr/sbin/nologin --groups sudo oddly")
    try:
        status, output = playbook("site", host, "--tags", "hardening")
        assert status != 0
        assert "sshd would deny oddly, because it is the account of an app" in output, output
        assert "gpasswd -d oddly sudo" in output
        assert host.check_output("cat /etc/ssh/sshd_config.d/00-flaskhost.conf") == before
    finally:
        host.run_expect([0], "userdel oddly")
