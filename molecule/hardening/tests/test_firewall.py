"""The packet filter, from outside: what is open, what is not, what is counted, and whose rules are whose."""

from __future__ import annotations

import json
import re
import time

from fleet import STRAY, changed, eventually, play

#: As a container engine has them: a table of its own, of an address family of its own, with nat.
DOCKER = (
    "table ip docker_test { chain DOCKER { tcp dport 8080 dnat to 192.0.2.2:80; }; "
    "chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local jump DOCKER; }; }"
)


def test_of_all_ports_three_are_open(webs, attacker, stray):
    # Some of the attacker's own ports are scanned as well: a scan that sees nothing would prove nothing.
    attacker.host.run(f"systemd-run --quiet --collect --unit=seen-test python3 -m http.server {STRAY}")
    try:
        eventually(lambda: attacker.do("knock", address=attacker.address, port=STRAY) != ["refused"], True)
        seen = attacker.do("scan", addresses=[attacker.address], first=STRAY - 100, last=STRAY + 100)
        found = attacker.do("scan", addresses=[web.address for web in webs])
    finally:
        attacker.host.run("systemctl stop seen-test.service")
    assert seen[attacker.address] == [STRAY]
    for web in webs:
        assert found[web.address] == [22, 80, 443]
        # It was there to be found: the host itself reaches it. And it was our last rule that has refused the others.
        web.run(f"timeout 5 bash -c 'exec 3<>/dev/tcp/{web.address}/{STRAY}'")
        table = web.run("nft list table inet flaskhost")
        assert int(re.search(r'counter packets (\d+) bytes \d+ comment "refused"', table)[1]) > 60000


def test_new_connections_of_ssh_are_limited_and_old_ones_go_on(web, attacker):
    # Otherwise fail2ban is quicker.
    web.run(f"fail2ban-client set sshd addignoreip {attacker.address}")
    try:
        said = attacker.knock(web, 22, 45)
    finally:
        web.run(f"fail2ban-client set sshd delignoreip {attacker.address}")
    assert 10 <= said.count("silent") <= 25, said
    # sshd itself, from OpenSSH 9.8 on, has enough of whoever does so, and says that it is not allowed.
    assert said.count("SSH-") + said.count("Not ") >= 10, said
    assert "refused" not in said
    assert web.log_in()[0]
    web.run("nft flush set inet flaskhost ssh_new4")
    assert attacker.knock(web, 22)[0] in ("SSH-", "Not ")


def test_pings_are_answered_but_not_a_flood(web, attacker):
    few = attacker.host.run(f"ping -c 3 -i 0.2 -W 1 {web.address}").stdout
    assert " 0% packet loss" in few
    flood = attacker.host.run(f"ping -q -c 300 -i 0.002 -W 1 {web.address}").stdout
    sent, received, milliseconds = map(int, re.search(r"(\d+) packets.* (\d+) received.* time (\d+)ms", flood).groups())
    # Forty at once and twenty a second, however long a busy machine takes to send them.
    assert received <= 50 + 20 * milliseconds / 1000 < sent, flood


def test_a_run_heals_its_own_table_and_leaves_those_of_others_alone(webs):
    for web in webs:
        web.run(f"nft '{DOCKER}'")
        web.run("nft insert rule inet flaskhost input tcp dport 1-65535 accept")
        # fail2ban makes its table at its first ban.
        web.run("fail2ban-client set sshd banip 192.0.2.99")
    before = [web.run("nft list table ip docker_test") for web in webs]
    try:
        status, output = play("--tags", "firewall")
        assert status == 0, output
        assert changed(output)[:2] == [1, 1]
        for web, table in zip(webs, before, strict=True):
            assert "1-65535" not in web.rules()
            assert web.run("nft list table ip docker_test") == table
            assert "table inet f2b-table" in web.run("nft list tables")
            assert web.unguarded()
        status, output = play("--tags", "firewall")
        assert status == 0, output
        assert changed(output)[:2] == [0, 0]
    finally:
        for web in webs:
            web.run("nft delete table ip docker_test")
            web.unban()


#: Sends a datagram and prints what comes back.
SEND = (
    "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5); s.connect(('{address}', {port})); "
    "s.send(b'hello'); print(s.recv(5).decode())"
)


def test_what_goes_out_can_be_listed(webs, attacker):
    udp, other = 47200, 47201

    def reaches(web, port):
        return "yes" in web.run(f"timeout 3 bash -c 'exec 3<>/dev/tcp/{attacker.address}/{port}' && echo yes", None)

    def sends(web, port):
        return web.run(f'python3 -c "{SEND.format(address=attacker.address, port=port)}" 2>&1', None)

    server = "systemd-run --quiet --collect --unit=echo-test python3 /root/attack.py echo %s"
    attacker.host.run_expect([0], server, json.dumps({"ports": [udp, other]}))
    try:
        for web in webs:
            for port in (udp, other):
                eventually(lambda web=web, port=port: sends(web, port), "hello\n")
                assert reaches(web, port)
            assert reaches(web, 22)
        status, output = play(
            "--tags", "firewall", firewall_egress="listed",
            firewall_egress_allow=[{"port": 443}, {"port": udp, "protocol": "udp", "to": [attacker.address]}],
        )  # fmt: skip
        assert status == 0, output
        for web in webs:
            begun = time.monotonic()
            assert not reaches(web, 22)
            # Refused at once, and not left to wait.
            assert time.monotonic() - begun < 2
            # The protocol is part of what is listed, and so is the port.
            assert sends(web, udp) == "hello\n"
            assert not reaches(web, udp)
            assert "Error" in sends(web, other)
            assert web.log_in()[0]
            web.run("getent ahostsv4 localhost")
            assert web.visitor.ask("https://doors.test/").status == 200
    finally:
        attacker.host.run("systemctl stop echo-test.service")
        status, output = play("--tags", "firewall")
    assert status == 0, output
    assert all(reaches(web, 22) for web in webs)
