"""An app gets nobody banned from SSH, from the host, or from another site."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from strangers import BYSTANDER, GUESSER, HOST, NOBODY, Strangers, eventually, strangers_of
from tenants import attack


@pytest.fixture
def strangers(host: Any) -> Iterator[Strangers]:
    with strangers_of(host) as visitors:
        yield visitors


#: What the hostile app writes in the name of sshd, by both protocols of the journal. The child has sshd's name.
FORGE = """
import os, socket, time
for name in ("sshd", "sshd-session"):
    if not os.fork():
        with open("/proc/self/comm", "w") as comm:
            comm.write(name)
        logs = {path: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for path in ("dev-log", "socket")}
        for path, log in logs.items():
            log.connect("/run/systemd/journal/" + path)
        for number in range(10):
            line = "Failed password for root from ADDRESS port 22 ssh2"
            logs["dev-log"].send(f"<37>{name}[{4200 + number}]: {line}".encode())
            fields = {"_COMM": "sshd", "_SYSTEMD_UNIT": "ssh.service", "SYSLOG_IDENTIFIER": name, "MESSAGE": line}
            fields["SYSLOG_PID"] = 4300 + number
            logs["socket"].send("".join(f"{key}={value}\\n" for key, value in fields.items()).encode())
        time.sleep(1)
        os._exit(0)
for _child in range(2):
    os.wait()
print("sent")
"""


def test_an_app_cannot_write_in_the_name_of_sshd(host: Any, visitor: Any, strangers: Strangers) -> None:
    """Ten lines ban nobody. The same number of real failures bans whoever made them, from SSH only."""
    assert attack(visitor, FORGE.replace("ADDRESS", NOBODY)).strip() == "sent"
    command = f"journalctl --namespace=flask-mallory --since -1m --output json _COMM=sshd --grep {NOBODY}"
    journal = host.run(command).stdout.splitlines()
    units = {json.loads(line)["_SYSTEMD_UNIT"].partition("@")[0] for line in journal}
    assert "flask-mallory" in units, "the lines are in the journal, from a process that is called sshd"
    # Names that look like the end of sshd's own line. sshd writes the real address last.
    for user in (f"x from {NOBODY} port 22 ssh2", f"x {NOBODY} port 22 [preauth]", f"x {NOBODY}: y", "oracle", "test"):
        strangers.log_in(GUESSER, user)
    # fail2ban reads in order: now it has seen all of the lines.
    eventually(lambda: strangers.banned(GUESSER))
    assert strangers.is_refused(GUESSER, 22)
    assert not strangers.is_refused(GUESSER, 443)
    assert not strangers.banned(NOBODY)
    assert NOBODY not in host.check_output("fail2ban-client banned")


#: The hostile app reports the client that it responds to.
ACCUSE = """
from flask import after_this_request
@after_this_request
def accuse(response):
    response.headers["X-Flaskhost-Login"] = "failed"
    return response
print("wrong")
"""
#: What the role once asked apps for, with the address of somebody else, as an app writes what a visitor has typed.
OLD_LINE = f"flaskhost: log-in failed from {NOBODY}"


def statuses(strangers: Strangers, address: str, *urls: str) -> list[str]:
    return [strangers.ask(address, url)[0][:3] for url in urls]


def test_an_app_bans_a_client_from_its_own_site_only(host: Any, visitor: Any, strangers: Strangers) -> None:
    lines = f"for _time in range(10): os.write(2, b'for eve\\n{OLD_LINE}\\n')"
    assert attack(visitor, lines) == ""
    assert OLD_LINE in host.run("journalctl --namespace=flask-mallory --since -1m --output cat").stdout
    # Neither a line nor a header of a visitor's is a report.
    forged = shlex.quote('X-Flaskhost-Login: failed","login":"failed"')
    assert strangers.ask(BYSTANDER, "https://mallory.test/", "--header", forged, times=5)[-1].startswith("200 ")
    arguments = ["--data-binary", shlex.quote(ACCUSE), "--include"]
    for response in strangers.ask(GUESSER, "https://mallory.test/run", *arguments, times=5):
        assert "wrong" in response or response.startswith("403 ")
        assert "x-flaskhost-login" not in response.lower(), "no visitor gets to see it"
    everywhere = ("https://mallory.test/", "https://mallory.test/static/x.css", "https://mallory.test/.env")
    eventually(lambda: statuses(strangers, GUESSER, *everywhere), ["403"] * 3)
    assert statuses(strangers, GUESSER, "https://alice.test/") == ["200"]
    assert statuses(strangers, BYSTANDER, "https://mallory.test/", "https://alice.test/") == ["200", "200"]
    assert not strangers.is_refused(GUESSER, 22)
    assert not strangers.banned(GUESSER)
    assert NOBODY not in host.check_output("fail2ban-client banned")
    assert not strangers.banned(NOBODY)
    # It outlasts a restart, and ends by the same command as all bans.
    host.check_output("systemctl restart fail2ban")
    eventually(lambda: statuses(strangers, GUESSER, everywhere[0]), ["403"])
    host.check_output(f"fail2ban-client unban {GUESSER}")
    assert statuses(strangers, GUESSER, everywhere[0]) == ["200"]


@pytest.mark.parametrize(
    ("jail", "paths"),
    [("missing", "page-[1-40]"), ("probes", "{wp-login,xmlrpc,setup}.php")],
    ids=["missing", "probes"],
)
def test_what_an_app_answers_counts_for_its_own_site_only(strangers: Strangers, jail: str, paths: str) -> None:
    """A hostile app refuses every page, to a payment provider or a search engine that its neighbor needs as well."""
    strangers.ask(GUESSER, f"https://mallory.test/{paths}", "--output", "/dev/null")
    eventually(lambda: statuses(strangers, GUESSER, "https://mallory.test/"), ["403"])
    assert GUESSER in strangers.host.check_output(f"fail2ban-client status {jail}-mallory")
    assert statuses(strangers, GUESSER, "https://alice.test/") == ["200"]
    assert not strangers.banned(GUESSER)


def test_a_scanner_of_addresses_is_refused_by_the_firewall(strangers: Strangers) -> None:
    """Names that no site has are the web server's own business, and bans for them close all sites."""
    strangers.run(f"curl --silent --max-time 5 --interface {GUESSER} 'http://{HOST}/{{a,b,c}}.php'")
    eventually(lambda: strangers.is_refused(GUESSER, 443))
    assert not strangers.is_refused(GUESSER, 22)
    assert statuses(strangers, BYSTANDER, "https://alice.test/") == ["200"]
