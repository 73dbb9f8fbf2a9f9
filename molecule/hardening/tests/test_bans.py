"""Whoever attacks is refused on the network, and let in again; whoever operates the host never is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fleet import eventually

#: The words of a wrong password for nginx's own question: mallory:guess.
MALLORY = [["Authorization", "Basic bWFsbG9yeTpndWVzcw=="]]


def refused(attacker, web, port):
    """Whether every one of two connections is refused at once."""
    return set(attacker.knock(web, port, 2)) == {"refused"}


def is_banned(attacker, web):
    return attacker.address in web.banned()


@contextmanager
def not_counted_by_ssh(attacker, web) -> Iterator[None]:
    """The knocks of these tests, none of which logs in, are a guesser's to the jail of SSH."""
    web.run(f"fail2ban-client set sshd addignoreip {attacker.address}")
    try:
        yield
    finally:
        web.run(f"fail2ban-client set sshd delignoreip {attacker.address}")


def test_failed_log_ins_by_ssh_and_the_end_of_the_ban(web, attacker):
    assert attacker.knock(web, 22) == ["SSH-"]
    attacker.do("log_in", address=web.address, users=["root", "admin", "debian", "test", "oracle"])
    eventually(lambda: is_banned(attacker, web), True)
    assert refused(attacker, web, 22)
    # The web server does not know of it.
    assert attacker.knock(web, 443) == ["open"]
    assert web.log_in()[0]
    # By time: half a minute. Who comes back is banned for longer.
    eventually(lambda: is_banned(attacker, web), False, 45)
    assert attacker.knock(web, 22) != ["refused"]
    web.run(f"fail2ban-client set sshd banip {attacker.address}")
    eventually(lambda: is_banned(attacker, web), True)
    # 172.20.0.4 	2026-11-21 21:00:00 + 60 = 2026-11-21 21:01:00
    assert int(web.run("fail2ban-client get sshd banip --with-time").split(" + ")[1].split()[0]) >= 60


def attack_probes(attacker, web):
    return attacker.ask(web, *({"path": path} for path in ("/wp-login.php", "/.env", "/cgi-bin/luci")))


def attack_missing(attacker, web):
    return attacker.ask(web, *({"path": f"/page-{number}"} for number in range(40)))


def attack_login(attacker, web):
    return attacker.ask(web, *({"path": "/login", "method": "POST", "size": 10} for _number in range(5)))


def attack_password(attacker, web):
    return attacker.ask(web, *({"name": "staging.test", "headers": MALLORY} for _number in range(10)))


def attack_flood(attacker, web):
    """A hundred and a few pass, and then there is a hundred and more for which it is too much."""
    answers = attacker.do("flood", address=web.address)
    assert answers["200"] >= 100
    assert answers["429"] >= 100
    assert answers["Retry-After"] == answers["429"]


@pytest.mark.parametrize(
    ("attack", "jail"),
    [(attack_probes, "probes-doors"), (attack_missing, "missing-doors"), (attack_login, "login-doors")],
)
def test_who_attacks_a_site_is_refused_there(web, attacker, attack, jail):
    with not_counted_by_ssh(attacker, web):
        attack(attacker, web)
        pages = [{"path": "/"}, {"path": "/static/plain.txt"}, {"path": "/upload", "method": "POST", "size": 10}]
        eventually(lambda: [answer[0] for answer in attacker.ask(web, *pages)], [403, 403, 403])
        assert attacker.address in web.run(f"fail2ban-client status {jail}")
        # The other sites of the host do not know of it, nor does SSH.
        assert not is_banned(attacker, web)
        assert attacker.ask(web, {"name": "staging.test"})[0][0] == 401
        assert attacker.knock(web, 22) == ["SSH-"]
        assert web.visitor.ask("https://doors.test/").status == 200
        web.run(f"fail2ban-client unban {attacker.address}")
        assert attacker.address not in web.run(f"fail2ban-client status {jail}")
        assert attacker.ask(web, {"path": "/static/plain.txt"})[0][0] == 200


def test_who_floods_a_site_is_refused_by_the_web_server(web, attacker):
    with not_counted_by_ssh(attacker, web):
        attack_flood(attacker, web)
        eventually(lambda: is_banned(attacker, web), True)
        assert attacker.address in web.run("fail2ban-client status flaskhost-limits")
        assert refused(attacker, web, 443)
        assert refused(attacker, web, 80)
        # SSH does not know of it: who shares an address with a bad visitor can still log in.
        assert attacker.knock(web, 22) == ["SSH-"]
        assert web.visitor.ask("https://doors.test/").status == 200
        web.run(f"fail2ban-client unban {attacker.address}")
        assert attacker.address not in web.run("fail2ban-client status flaskhost-limits")
        assert attacker.ask(web, {"path": "/static/plain.txt"})[0][0] == 200


def test_who_guesses_nginx_s_password_is_refused(web, attacker):
    answers = attack_password(attacker, web)
    assert {answer[0] for answer in answers} == {401}
    eventually(lambda: is_banned(attacker, web), True)
    assert attacker.address in web.run("fail2ban-client status nginx-http-auth")
    assert refused(attacker, web, 443)


def ignored(web, cursor):
    """The jails that have seen the operator, and let the address be."""
    said = web.run(f"journalctl --unit=fail2ban.service --no-pager --after-cursor='{cursor}'")
    return set(re.findall(rf"\[([\w-]+)\] Ignore {re.escape(web.known['operator_address'])} by ip", said))


def test_the_operator_does_all_of_this_and_is_not_banned(web):
    cursor = web.run("journalctl --unit=fail2ban.service --lines=0 --show-cursor").split()[-1]
    for _time in range(6):
        assert not web.log_in(user="nobody-of-this-name")[0]
    for path in ("/wp-login.php", "/.env", "/cgi-bin/luci", "/phpmyadmin/"):
        assert web.visitor.ask(f"https://doors.test{path}").status == 404
    for _time in range(6):
        # 429 where the test is repeated within a minute.
        assert web.visitor.ask("https://doors.test/login", "POST", body="name=ada").status in {403, 429}
    eventually(lambda: {"sshd", "probes-doors", "login-doors"} <= ignored(web, cursor), True)
    assert web.known["operator_address"] not in web.banned()
    assert web.visitor.ask("https://doors.test/").status == 200
    assert web.log_in()[0]


def test_bans_outlive_a_restart(web, attacker):
    web.run(f"fail2ban-client set sshd banip {attacker.address}")
    assert is_banned(attacker, web)
    web.run("systemctl restart fail2ban.service")
    eventually(lambda: is_banned(attacker, web), True)
    assert refused(attacker, web, 22)
