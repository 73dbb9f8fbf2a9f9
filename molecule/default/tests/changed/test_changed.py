"""The second input has taken effect everywhere, and what was not touched has stayed."""

import socket

import pytest


def test_new_name_redirects_and_the_old_one_is_refused(visitor):
    answer = visitor.ask("https://new.guestbook.test/")
    assert (answer.status, answer.headers["location"]) == (301, "https://guestbook.test/")
    with visitor.connect(80) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: old.guestbook.test\r\n\r\n")
        assert connection.recv(100) == b""


def test_certificate_has_the_new_names(visitor):
    der = visitor.handshake("guestbook.test").getpeercert(binary_form=True)
    assert b"new.guestbook.test" in der
    assert b"old.guestbook.test" not in der


def test_new_version_serves_from_the_other_slot(visitor, host):
    assert "Hello from v2" in visitor.ask("https://hello.test/").body
    assert "second version" in visitor.ask("https://hello.test/static/hello.txt").body
    assert host.file("/srv/hello/live.sock").linked_to.endswith("/green.sock")
    assert not host.file("/run/flask-hello/blue.sock").exists


def test_the_same_lock_has_the_same_environment(host):
    assert len(host.run("ls /srv/hello/venvs").stdout.split()) == 1
    assert len(host.run("ls /srv/hello/releases").stdout.split()) == 2


def test_secret_that_was_taken_out_is_gone(host):
    pid = host.process.filter(user="hello")[0].pid
    assert "ODD=" not in host.run(f"cat /proc/{pid}/environ").stdout


def test_secret_key_has_stayed(host):
    pid = host.process.filter(user="hello")[0].pid
    key = host.file("/etc/flaskhost/hello/secret_key").content_string.strip()
    assert f"SECRET_KEY={key}" in host.run(f"cat /proc/{pid}/environ").stdout


def test_new_number_of_workers_runs(host):
    assert len(host.process.filter(user="guestbook")) == 1 + 3


def test_entries_have_outlived_the_release(visitor):
    assert "Written by a test" in visitor.ask("https://guestbook.test/").body


def test_new_body_limit_holds(visitor):
    assert visitor.ask("https://guestbook.test/", "POST", body="a" * (1024 * 1024 + 1)).status != 413
    assert visitor.ask("https://guestbook.test/", "POST", body="a" * (2 * 1024 * 1024 + 1)).status == 413


def test_new_port_is_let_in(host):
    address = host.run("hostname --all-ip-addresses").stdout.split()[0]
    with pytest.raises(ConnectionRefusedError), socket.create_connection((address, 9100), timeout=3):
        pass  # refused by the host, for nobody listens: the firewall would have kept silent


def test_new_time_zone(host):
    assert host.run("date +%Z").stdout.strip() in {"WET", "WEST"}


def test_database_accepts_the_new_number_of_connections(host):
    shown = host.run("sudo -u postgres psql --tuples-only --no-align --command 'show max_connections'").stdout
    assert int(shown) >= (8 if host.ansible.get_variables()["guestbook_pool"] else 3 * 8 * 2)
