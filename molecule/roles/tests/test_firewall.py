"""The role firewall alone does what its README says."""

testinfra_hosts = ["ansible://role_firewall"]


def test_firewall(host):
    rules = host.run("nft list table inet flaskhost").stdout
    assert "policy drop" in rules
    for rule in (
        "tcp dport 8080 accept",
        "ip saddr 192.0.2.0/24 tcp dport 9100 accept",
        "ip6 saddr 2001:db8::/32 tcp dport 9100 accept",
        "udp dport 5353 accept",
    ):
        assert rule in rules
    # The rest of the rule set has let this very connection in.
    assert host.run("systemctl is-enabled flaskhost-firewall").stdout.strip() == "enabled"
