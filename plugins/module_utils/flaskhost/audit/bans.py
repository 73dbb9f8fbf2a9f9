"""fail2ban during an audit: it ignores the operator, whose scanners open connections to sshd without a login.

An audit makes about three of them, and five within ten minutes are a ban. The operator who last ran site.yml is never
banned, any other one would be by a second audit.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path

JAIL = "sshd"
CLIENT = "fail2ban-client"
#: In the audit's folder: the address that has to be removed again.
NOTE = "ignored-address"
#: Longer than any audit: a killed one does not remove the address itself.
LONGEST = "12h"

Run = Callable[[Sequence[str], int], tuple[int, str, str]]


def ignore(folder: Path, operator: str, run: Run) -> None:
    """Have fail2ban ignore the operator until :func:`restore`, or until a timer of systemd's does the same.

    Args:
        folder: the audit's folder.
        operator: the address that Ansible comes from; empty if nobody knows.
        run: runs a command within so many seconds: its status, output and errors.
    """
    try:
        address = str(ipaddress.ip_address(operator.partition("%")[0]))
    except ValueError:
        return
    status, out, _errors = run([CLIENT, "get", JAIL, "ignoreip"], 30)
    # No fail2ban, no such jail, or ignored for good.
    if status or address in re.split(r"[\s|`]+-?\s*", out):
        return
    timer = ["systemd-run", "--quiet", "--collect", f"--unit={_unit(folder)}", f"--on-active={LONGEST}"]
    if run([*timer, *_remove(address)], 30)[0]:
        return
    (folder / NOTE).write_text(address, encoding="utf-8")
    run([CLIENT, "set", JAIL, "addignoreip", address], 30)


def restore(folder: Path, run: Run) -> None:
    """Have fail2ban judge the operator as before."""
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
