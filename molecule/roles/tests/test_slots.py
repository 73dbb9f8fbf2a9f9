"""The role slots alone does what its README says."""

testinfra_hosts = ["ansible://role_slots"]


def test_slots(host):
    # The program itself comes with a release, and systemd looks whether it is there.
    said = host.run("systemd-analyze verify --man=no /etc/systemd/system/flask-shop@.s*").stderr
    assert [line for line in said.splitlines() if "is not executable" not in line] == []
    host.run_expect([0], "systemctl start flask-shop@green.socket")
    socket = host.file("/run/flask-shop/green.sock")
    assert (socket.is_socket, socket.group, socket.mode) == (True, "users", 0o660)
    host.run_expect([0], "systemctl stop flask-shop@green.socket")


def test_journal_of_an_app_takes_as_much_as_it_may(host):
    host.run_expect([0], "systemd-run --quiet --wait --property=LogNamespace=flask-shop echo a line of a test")
    # This waits until the journald of the namespace has started.
    host.run_expect([0], "journalctl --namespace=flask-shop --sync")
    said = host.run("journalctl --namespace='*' --no-pager --identifier=systemd-journald").stdout
    assert "max 37M" in said.replace("37.0M", "37M")
