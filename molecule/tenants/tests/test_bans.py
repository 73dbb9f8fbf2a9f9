"""An app gets nobody banned from SSH, from the host, or from another site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from strangers import GUESSER, NOBODY, Strangers, eventually, strangers_of
from tenants import attack


@pytest.fixture
def strangers(host: Any) -> Iterator[Strangers]:
    with strangers_of(host) as visitors:
        yield visitors


#: What the hostile app writes in the name of sshd, by both protocols of the journal. The child calls itself as sshd does.
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
    journal = host.run(f"journalctl --since -1m --output json _COMM=sshd --grep {NOBODY}").stdout.splitlines()
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
