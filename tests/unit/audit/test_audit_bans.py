"""An audit does not get its operator banned, and leaves fail2ban as it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.audit import bans

IGNORED = "These IP addresses/networks are ignored:\n|- 127.0.0.0/8\n|- 192.0.2.1\n`- ::1\n"


class Host:
    """A host with fail2ban, and what was done to it."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.ignored, self.timers = status, {"127.0.0.0/8", "192.0.2.1", "::1"}, dict[str, list[str]]()

    def run(self, words: Sequence[str], _seconds: int) -> tuple[int, str, str]:
        if words[0] == "systemd-run":
            (unit,) = [word.removeprefix("--unit=") for word in words if word.startswith("--unit=")]
            self.timers[f"{unit}.timer"] = list(words[words.index("fail2ban-client") :])
        elif words[0] == "systemctl":
            assert words[1] == "stop"
            del self.timers[words[2]]
        elif words[:4] == ["fail2ban-client", "get", "sshd", "ignoreip"]:
            return self.status, IGNORED, ""
        elif words[3] == "addignoreip":
            # Never without the timer: whoever kills the audit here leaves nothing for good.
            assert self.timers
            self.ignored.add(words[4])
        else:
            assert words[3] == "delignoreip"
            self.ignored.remove(words[4])
        return 0, "", ""


@pytest.mark.parametrize("operator", ["203.0.113.9", "2001:db8::9", "fe80::9%eth0"])
def test_the_operator_is_ignored_for_as_long_as_the_audit_takes(operator: str, tmp_path: Path) -> None:
    host, folder = Host(), tmp_path / "flaskhost-audit-x_9"
    folder.mkdir()
    before = set(host.ignored)
    bans.ignore(folder, operator, host.run)
    address = operator.partition("%")[0]
    assert host.ignored - before == {address}
    assert list(host.timers.values()) == [["fail2ban-client", "set", "sshd", "delignoreip", address]]
    bans.restore(folder, host.run)
    assert (host.ignored, host.timers) == (before, {})


@pytest.mark.parametrize("operator", ["192.0.2.1", "::1", "", "web1", "203.0.113.0/24"])
def test_whoever_is_ignored_for_good_stays_so(operator: str, tmp_path: Path) -> None:
    host = Host()
    before = set(host.ignored)
    bans.ignore(tmp_path, operator, host.run)
    bans.restore(tmp_path, host.run)
    assert (host.ignored, host.timers) == (before, {})


def test_a_host_without_fail2ban_is_audited_too(tmp_path: Path) -> None:
    host = Host(status=127)
    bans.ignore(tmp_path, "203.0.113.9", host.run)
    bans.restore(tmp_path, host.run)
    assert not host.timers
