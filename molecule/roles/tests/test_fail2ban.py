"""The role fail2ban alone does what its README says."""

testinfra_hosts = ["ansible://role_fail2ban"]


def test_fail2ban(host):
    assert host.check_output("fail2ban-client get sshd maxretry") == "3"
    try:
        host.check_output("fail2ban-client set sshd banip 198.51.100.7")
        assert "198.51.100.7" in host.check_output("nft list ruleset")
    finally:
        host.run("fail2ban-client set sshd unbanip 198.51.100.7")
    assert "198.51.100.7" not in host.check_output("nft list ruleset")
    assert "192.0.2.0/24" in host.check_output("fail2ban-client get sshd ignoreip")
