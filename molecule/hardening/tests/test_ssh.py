"""sshd, by what it says of all its files together, and by who gets in."""

from __future__ import annotations

import pytest
from fleet import OLD_KEY, OPEN_SESAME

WANTED = (
    "passwordauthentication no",
    "kbdinteractiveauthentication no",
    "authenticationmethods publickey",
    "permitrootlogin no",
    "permitemptypasswords no",
    "x11forwarding no",
    "allowtcpforwarding local",
    "permittunnel no",
    "gatewayports no",
    "permituserenvironment no",
    "maxauthtries 4",
    "logingracetime 60",
    "loglevel VERBOSE",
    "ciphers aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr",
    "macs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com",
)


def test_the_settings_are_effective_whatever_cloud_init_has_written(web):
    assert "PasswordAuthentication yes" in web.run("cat /etc/ssh/sshd_config.d/50-cloud-init.conf")
    assert set(WANTED) <= web.sshd()


def test_key_exchange_withstands_a_quantum_computer(web):
    (exchanges,) = (line.split()[1].split(",") for line in web.sshd() if line.startswith("kexalgorithms "))
    assert exchanges
    assert all(name.startswith(("sntrup761x25519", "mlkem768x25519")) for name in exchanges)
    old = "-o KexAlgorithms=curve25519-sha256,ecdh-sha2-nistp256,diffie-hellman-group14-sha256"
    said = web.fails(f"ssh -o StrictHostKeyChecking=no {old} root@127.0.0.1 true || exit 1")
    assert "no matching key exchange method" in said


def test_the_service_holds_the_port_and_not_a_socket_of_systemd(web):
    assert web.host.service("ssh.service").is_running
    assert web.host.service("ssh.service").is_enabled
    assert not web.host.service("ssh.socket").is_running
    assert not web.host.service("ssh.socket").is_enabled


@pytest.mark.parametrize("user", ["debian", "ada"])
def test_the_operators_get_in_and_become_root(web, user):
    assert web.log_in(user)[0]


def test_root_does_not_although_the_key_is_there(web):
    assert web.run("grep --count ssh- /root/.ssh/authorized_keys").strip() == "1"
    answered, said = web.log_in("root", command="true")
    assert not answered
    assert "Permission denied (publickey)" in said


def test_a_password_is_not_even_asked_for(web, attacker):
    web.run(f"usermod --password '{OPEN_SESAME}' ada")
    try:
        for said in attacker.do("log_in", address=web.address, users=["ada"], way="password,keyboard-interactive"):
            assert "Permission denied (publickey)" in said
    finally:
        web.run("usermod --password '!' ada")


def test_a_key_that_is_too_old_is_refused(web):
    answered, said = web.log_in("olga", key=OLD_KEY)
    assert not answered
    assert "Permission denied (publickey)" in said
