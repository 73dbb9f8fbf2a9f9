"""The host itself: administrators, time, journal, updates."""

import re
import subprocess

import pytest


@pytest.fixture
def as_ada(host):
    """Runs a command over a log-in of the administrator's own, as her laptop would."""
    variables = host.ansible.get_variables()
    login = [
        "ssh", "-p", str(variables["ansible_port"]), "-i", variables["ansible_ssh_private_key_file"],
        "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "ControlPath=none", "-o", "LogLevel=ERROR", "ada@127.0.0.1",
    ]  # fmt: skip
    return lambda command: subprocess.run([*login, command], capture_output=True, text=True, timeout=30, check=False)


def test_administrator_logs_in_by_key_and_becomes_root(as_ada):
    assert as_ada("whoami").stdout == "ada\n"
    assert as_ada("sudo --non-interactive whoami").stdout == "root\n"


def test_administrator_has_no_password(host):
    assert host.user("ada").password.startswith("!")


def test_time_zone(host):
    assert host.run("date +%Z").stdout.strip() in {"EET", "EEST"}


def test_journal_is_kept_and_bounded(host):
    assert host.run("ls /var/log/journal").stdout.strip()
    settings = host.run("systemd-analyze cat-config systemd/journald.conf").stdout
    assert "SystemMaxUse=500M" in settings
    # Loaded, not only written: the journal says its limit when it starts.
    said = host.run("journalctl --unit systemd-journald --no-pager --lines 50").stdout
    assert re.search(r"max 500(\.0)?M", said)


def test_security_updates_install_themselves(host):
    said = host.run("unattended-upgrade --dry-run --verbose")
    assert said.rc == 0
    assert "Debian-Security" in said.stdout + said.stderr
    assert host.run("systemctl is-enabled apt-daily-upgrade.timer").stdout.strip() == "enabled"
    assert host.run("systemctl is-active apt-daily-upgrade.timer").stdout.strip() == "active"
    assert 'APT::Periodic::Unattended-Upgrade "1";' in host.run("apt-config dump").stdout


def test_nothing_has_failed(host):
    assert host.run("systemctl --failed --no-legend --plain").stdout == ""
