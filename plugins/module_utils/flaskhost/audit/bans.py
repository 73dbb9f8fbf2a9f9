"""fail2ban during an audit: it ignores the operator, whose scanners connect to sshd without a login.

An audit makes two such connections (ssh-audit, port scan), and five within ten minutes are a ban. The operator who last
ran site.yml is never banned, but a third audit would ban any other operator.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path

JAIL = "sshd"
CLIENT = "fail2ban-client"
#: File in the audit's folder with the address that has to be removed again.
NOTE = "ignored-address"
#: Longer than any audit, for a killed audit, which does not remove the address itself.
LONGEST = "12h"

Run = Callable[[Sequence[str], int], tuple[int, str, str]]


def ignore(folder: Path, operator: str, run: Run) -> None:
    """Let fail2ban ignore the operator until :func:`restore`, or until a systemd timer does the same.

    Args:
        folder: the audit's folder.
        operator: the address that Ansible connects from; empty if unknown.
        run: runs a command with a time limit in seconds; returns its status, output and error output.
    """
    try:
        address = str(ipaddress.ip_address(operator.partition("%")[0]))
    except ValueError:
        return
    status, out, _errors = run([CLIENT, "get", JAIL, "ignoreip"], 30)
    # No fail2ban, no such jail, or the address is ignored permanently.
    if status or address in re.split(r"[\s|`]+-?\s*", out):
        return
    timer = ["systemd-run", "--quiet", "--collect", f"--unit={_unit(folder)}", f"--on-active={LONGEST}"]
    if run([*timer, *_remove(address)], 30)[0]:
        return
    (folder / NOTE).write_text(address, encoding="utf-8")
    run([CLIENT, "set", JAIL, "addignoreip", address], 30)


def restore(folder: Path, run: Run) -> None:
    """End the exception for the operator in fail2ban."""
    try:
        address = (folder / NOTE).read_text(encoding="utf-8")
    except OSError:
        return
    run(_remove(address), 30)
    run(["systemctl", "stop", f"{_unit(folder)}.timer"], 30)


def _remove(address: str) -> list[str]:
    return [CLIENT, "set", JAIL, "delignoreip", address]


def _unit(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", folder.name)
