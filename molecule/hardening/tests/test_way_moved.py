"""SSH moves to another port, from a service and from a socket of systemd, and not to a port that cannot be reached."""

from __future__ import annotations

import pytest
from fleet import changed, eventually, play

DROP_IN = "/etc/ssh/sshd_config.d/00-flaskhost.conf"
#: What an operator writes into the inventory afterwards. (Nothing is at another port on the controller itself.)
MOVED = {"ssh_port": "{{ other_ssh_port }}", "ansible_port": "{{ other_ssh_port | default(22) }}"}
#: A port that nothing outside leads to.
UNREACHABLE = 22099


def is_at(web, port):
    """SSH is at this port and no other, for sshd, for the firewall and for the operator."""
    web.moved_to = port if port != 22 else 0
    assert {line for line in web.sshd() if line.startswith("port ")} == {f"port {port}"}
    opened = [line.strip() for line in web.rules().splitlines() if "ssh_new4" not in line and f"dport {port} " in line]
    assert f"tcp dport {port} accept" in opened
    assert web.run("systemctl is-enabled ssh.service ssh.socket", None).split() == ["enabled", "disabled"]
    assert web.run("systemctl is-active ssh.service ssh.socket", None).split() == ["active", "inactive"]
    assert web.unguarded()


@pytest.fixture(scope="module")
def moved(webs):
    """Both hosts have moved; what the run said. In the end they are back."""
    # As some providers have it. The session that does it goes on.
    webs[0].run("systemctl disable --now ssh.service; systemctl enable --now ssh.socket")
    eventually(webs[0].shows_ssh, True)
    try:
        yield play("--tags", "firewall,hardening", ssh_port="{{ other_ssh_port }}")
    finally:
        # By hand: from outside, the port 22 has another number, and a run could not prove it.
        for web in webs:
            web.run(f"sed -i 's/^Port .*/Port 22/' {DROP_IN}; nft insert rule inet flaskhost input tcp dport 22 accept")
            web.run("systemctl reload ssh.service")
            web.moved_to = 0
            eventually(web.shows_ssh, True)
        status, output = play("--tags", "firewall,hardening")
        assert status == 0, output
        for web in webs:
            is_at(web, 22)
            assert str(UNREACHABLE) not in web.rules()


def test_one_run_moves_it_and_says_what_to_write(webs, moved):
    status, output = moved
    assert status == 0, output
    for web in webs:
        other = web.known["other_ssh_port"]
        assert f"SSH moves from port 22 to {other}" in output
        assert f'write "ansible_port: {other}" into the inventory' in output
        is_at(web, other)
        # It is gone from where it was.
        assert not web.shows_ssh()
        assert "dport 22 " not in web.rules()


def test_once_the_inventory_says_so_there_is_nothing_to_do(moved):
    status, output = play("--tags", "firewall,hardening", **MOVED)
    assert (status, changed(output)[:2]) == (0, [0, 0]), output


def test_a_port_that_cannot_be_reached_is_not_moved_to(webs, moved):
    status, output = play("--tags", "firewall,hardening", **{**MOVED, "ssh_port": UNREACHABLE})
    assert status != 0
    assert output.count(f"no new SSH connection could be made as debian to 127.0.0.1, port {UNREACHABLE}") >= len(webs)
    assert output.count("The host has reverted the change, and responds as before.") >= len(webs)
    # What the firewall has opened beforehand the next run closes, which the end of this file sees to.
    for web in webs:
        assert web.log_in(port=web.known["other_ssh_port"])[0]
        assert web.unguarded()
