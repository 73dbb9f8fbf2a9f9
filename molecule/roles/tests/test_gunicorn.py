"""The role gunicorn alone does what its README says."""

testinfra_hosts = ["ansible://role_gunicorn"]


def test_gunicorn(host):
    # The program itself comes with a release, and systemd looks whether it is there.
    said = host.run("systemd-analyze verify --man=no /etc/systemd/system/flask-shop@.s*").stderr
    assert [line for line in said.splitlines() if "is not executable" not in line] == []
    host.run_expect([0], "systemctl start flask-shop@green.socket")
    socket = host.file("/run/flask-shop/green.sock")
    assert (socket.is_socket, socket.group, socket.mode) == (True, "www-data", 0o660)
    host.run_expect([0], "systemctl stop flask-shop@green.socket")
