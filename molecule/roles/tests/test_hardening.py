"""The role hardening alone does what its README says."""

testinfra_hosts = ["ansible://role_hardening"]


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
