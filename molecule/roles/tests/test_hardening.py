"""The role hardening alone does what its README says."""

import os
import subprocess
import time

import pytest

testinfra_hosts = ["ansible://role_hardening"]

#: "open sesame", hashed: openssl passwd -6
OPEN_SESAME = "$6$flaskhost$fEvG57DDSKMw79Tq0NZut4W.xuHbUMGKkdacHD.8/BqMrOY5Rl4Q0nV33vOdnAX0/TO6OA0ou0NJSJIHAVrWy/"


def test_hardening(host):
    # It was not told who came in: that may have been root, who keeps the log-in by key.
    answer = host.run("sshd -T -C user=debian,host=localhost,addr=127.0.0.1").stdout.splitlines()
    for line in ("passwordauthentication no", "authenticationmethods publickey", "permitrootlogin without-password"):
        assert line in answer
    assert host.file("/etc/issue.net").content_string == "This host is a test.\n"
    assert host.file("/proc/sys/net/ipv4/tcp_keepalive_time").content_string == "1234\n"
    assert host.file("/etc/cron.allow").content_string == "root\ndebian\n"
    # This very connection was made after the change, and sudo works.
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def log_in(port, command, *options, agent=False):
    """Run a command over a log-in of the operator's own, from the controller."""
    key = f"{os.environ['MOLECULE_PROJECT_DIRECTORY']}/.cache/testbed/id_ed25519"
    ssh = [
        "ssh", "-p", str(port), "-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "ControlPath=none", *options, "debian@127.0.0.1", command,
    ]  # fmt: skip
    around = ["ssh-agent", "sh", "-c", 'ssh-add -q "$0" && exec "$@"', key] if agent else []
    return subprocess.run([*around, *ssh], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def port(host):
    return host.ansible.get_variables()["ansible_port"]


def test_agent_of_a_login_stays_where_it_is(port):
    show = "echo agent=$SSH_AUTH_SOCK"
    assert log_in(port, show, "-A", agent=True).stdout == "agent=\n"
    # fh-role-base has the distribution's own settings of SSH.
    assert "agent=/" in log_in(22031, show, "-A", agent=True).stdout


def scan(host, kind):
    """The key of a kind that the host shows; its name without what is around the kind."""
    return host.run(f"ssh-keyscan -t {kind} 127.0.0.1").stdout.replace("ssh-", "").replace("ecdsa-sha2", "ecdsa")


def test_old_client_comes_in_and_sees_both_host_keys(host, port):
    assert log_in(port, "true", "-o", "KexAlgorithms=curve25519-sha256").returncode == 0
    for kind, shown in {"rsa": True, "ed25519": True, "ecdsa": False}.items():
        assert (f"127.0.0.1 {kind}" in scan(host, kind)) is shown


def test_shell_has_its_umask_and_ends_when_idle(port):
    assert log_in(port, "bash -lc umask").stdout.strip() == "0022"
    began = time.monotonic()
    said = log_in(port, "sleep 15 | timeout 15 script --quiet --command 'bash -l' /dev/null; true")
    assert "auto-logout" in said.stdout, said
    assert began + 3 <= time.monotonic()


@pytest.fixture
def tester(host):
    """A user with a password, and the operator in the group that may become it."""
    host.run_expect([0], f"useradd --create-home --shell /bin/bash --password '{OPEN_SESAME}' tester")
    host.run_expect([0], "chage --mindays 0 tester")
    yield "tester"
    host.run("faillock --user tester --reset; userdel --remove tester; gpasswd --delete debian operators")


def become(host, password):
    """Whether the operator becomes the user with a password."""
    return host.run(f"printf '%s\\n' '{password}' | sudo -u debian su tester -c true").rc == 0


def change(host, old, new):
    """What becomes of it when the user takes another password."""
    return host.run(f"printf '%s\\n' '{old}' '{new}' '{new}' | sudo -u tester passwd")


def test_only_the_group_named_becomes_another_user(host, tester):
    assert not become(host, "open sesame")
    host.run_expect([0], "gpasswd --add debian operators")
    assert become(host, "open sesame")


def test_account_closes_after_as_many_wrong_passwords_as_named(host, tester):
    host.run_expect([0], "gpasswd --add debian operators")
    for _try in range(4):
        assert not become(host, "wrong")
    assert become(host, "open sesame"), "four of five"
    for _try in range(5):
        assert not become(host, "wrong")
    assert not become(host, "open sesame"), "closed"


def test_password_has_to_be_as_long_as_named(host, tester):
    refused = change(host, "open sesame", "Vq7#mZ2!xR9_pLw4sD")
    assert refused.rc != 0
    assert "21" in refused.stdout + refused.stderr
    accepted = change(host, "open sesame", "Vq7#mZ2!xR9_pLw4sD-kT6b")
    assert accepted.rc == 0, accepted
