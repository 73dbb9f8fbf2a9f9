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


def test_times_are_those_named(host):
    assert host.check_output("fail2ban-client get sshd findtime") == "321"
    assert host.check_output("fail2ban-client get sshd bantime.maxtime") == "7654"


def test_ban_for_what_was_asked_of_the_web_server_closes_its_ports(host):
    try:
        host.check_output("fail2ban-client set flaskhost-probes banip 198.51.100.8")
        rules = host.check_output("nft list ruleset")
        assert "198.51.100.8" in rules
        assert [line for line in rules.splitlines() if "8443" in line and "probes" in line], rules
        assert not [line for line in rules.splitlines() if "443" in line and "8443" not in line]
    finally:
        host.run("fail2ban-client set flaskhost-probes unbanip 198.51.100.8")
