"""The role base alone does what its README says."""

testinfra_hosts = ["ansible://role_base"]


def test_base(host):
    assert host.package("tree").is_installed
    assert host.run("date +%Z").stdout.strip() == "JST"
    assert host.run("unattended-upgrade --dry-run").rc == 0
    # Off, as the service reads it that would start them.
    assert host.run("apt-config shell on APT::Periodic::Unattended-Upgrade").stdout.strip() == "on='0'"
    assert "SystemMaxUse=200M" in host.run("systemd-analyze cat-config systemd/journald.conf").stdout
