"""The part of the audit on the control node: scanners that look at the host from outside."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.audit import gixy, ssh_audit, testssl
from ansible.module_utils.flaskhost.audit.host import read_testssl, testssl_words
from ansible.module_utils.flaskhost.audit.model import Scan, not_run

#: The names of testssl.sh's program: Debian's, and upstream's.
TESTSSL = ("testssl", "testssl.sh")


def run(command: Sequence[str], seconds: int) -> tuple[int, str, str]:
    """Run a program on the control node; return its status, output and error output."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "TERM": "dumb"}
    # Ansible actions run with the environment of Ansible's own libraries; scanners use another Python.
    environment.pop("PYTHONPATH", None)
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"{command[0]} was stopped after {seconds} seconds."
    except OSError as error:
        return 127, "", f"{command[0]}: {error.strerror}."
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def tool(name: str, requirement: str) -> list[str]:
    """Return the command for a Python program: through uvx, which keeps it in its own cache.

    Args:
        name: the program.
        requirement: its pinned package; empty for a program in PATH.
    """
    if not requirement:
        return [shutil.which(name) or name]
    beside = Path(sys.executable).with_name("uvx")
    uvx = str(beside) if beside.exists() else shutil.which("uvx") or "uvx"
    return [uvx, "--quiet", "--from", requirement, name]


def version(requirement: str) -> str:
    """Return the version of a package that uvx runs; empty for a program in the control node's PATH."""
    if not requirement:
        return ""
    package = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    status, out, _errors = run([*tool("python", requirement), "-c", code], 60)
    return "" if status else out.strip()


@dataclass(frozen=True)
class Place:
    """The address under which the control node scans a host.

    Attributes:
        address: the address to scan; empty if there is none.
        ssh_port: sshd's port at that address.
        note: a note for readers of the report.
        why_not: why there is none.
    """

    address: str
    ssh_port: int
    note: str = ""
    why_not: str = ""


def place(address: str, ssh_port: int, own: Mapping[str, Any]) -> Place:
    """Find the host itself, instead of a port of the control node that forwards to it.

    A container or a virtual machine is often reached on a published port of the loopback address, where all other open
    ports are the control node's own. Its own address is used if sshd presents one of the host's keys there.

    Args:
        address: the address that Ansible connects to.
        ssh_port: the port that Ansible connects to.
        own: what the host reports: ``address``, ``ssh_ports`` and ``ssh_keys``.
    """
    if not _is_loopback(address):
        return Place(address, ssh_port)
    itself = str(own.get("address") or "")
    ports = [int(port) for port in own.get("ssh_ports") or [22]]
    reached = f"Ansible reaches the host at {address}, which is this computer's own address."
    for port in ports if itself and not _is_loopback(itself) else []:
        if _host_keys(itself, port) & set(own.get("ssh_keys") or []):
            return Place(itself, port, note=f"{reached} The scan went to the host's own: {itself}.")
    tried = (
        f"At the host's own address, {itself}, no sshd with its keys answers." if itself else "It told no other one."
    )
    cure = "Run the audit on a computer that reaches it, or set audit_address."
    return Place("", 0, why_not=f"{reached} {tried} {cure}")


def _is_loopback(address: str) -> bool:
    number = _number(address)
    return bool(number) and ipaddress.ip_address(number.partition("%")[0]).is_loopback


def _host_keys(address: str, port: int) -> set[str]:
    """Return the key that sshd presents, without its type. Only one connection: many without a login get banned."""
    _status, out, _errors = run(["ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", str(port), address], 30)
    return {line.split()[2] for line in out.splitlines() if not line.startswith("#") and len(line.split()) > 2}


def scan_ssh(address: str, port: int, requirement: str) -> Scan:
    """Check sshd's algorithms, without the flood of connections that tests for a denial of service.

    Args:
        address: the host.
        port: sshd's port.
        requirement: the pinned package of ssh-audit.
    """
    words = [*tool("ssh-audit", requirement), "-j", "--skip-rate-test", "-p", str(port), address]
    status, out, errors = run(words, 180)
    # 2 and 3: it ran, and found a warning or a failure. 1: no connection.
    if status not in (0, 2, 3) or not out.lstrip().startswith(("{", "[")):
        return not_run("ssh_audit", ssh_audit.TITLE, errors or out or f"ssh-audit ended with {status}.")
    scan = ssh_audit.parse(out)
    scan.version = version(requirement)
    return scan


def scan_nginx(settings: str, requirement: str) -> Scan:
    """Check nginx's configuration in the form of ``nginx -T``.

    Args:
        settings: the configuration.
        requirement: the pinned package of gixy.
    """
    with tempfile.TemporaryDirectory(prefix="flaskhost-audit-") as folder:
        path = Path(folder) / "nginx.conf"
        path.write_text(settings, encoding="utf-8")
        status, out, errors = run([*tool("gixy", requirement), "--format", "json", str(path)], 300)
    if not out.lstrip().startswith("["):
        return not_run("gixy", gixy.TITLE, errors or f"gixy ended with {status}.")
    scan = gixy.parse(out)
    scan.version = version(requirement)
    return scan


def find_testssl(program: str = "") -> str:
    """Find testssl.sh on the control node; empty if it is not installed."""
    names = [program] if program else TESTSSL
    return next((found for found in map(shutil.which, names) if found), "")


def scan_tls(program: str, name: str, address: str, port: int, authority: str) -> Scan:
    """Check the TLS of a domain from the control node.

    Args:
        program: testssl.sh.
        name: the domain.
        address: the host.
        port: the HTTPS port.
        authority: a file with the certificate of a private CA.
    """
    place = _number(address)
    if not place:
        return not_run(testssl.scanner_name(name), f"testssl.sh {name}", f"{address} has no address.")
    with tempfile.TemporaryDirectory(prefix="flaskhost-audit-") as folder:
        report = Path(folder) / "testssl.json"
        _status, out, errors = run(testssl_words(program, name, place, report, port=port, authority=authority), 900)
        return read_testssl(report, name, errors or out[-500:])


def _number(address: str) -> str:
    """Resolve an address to an IP address, which testssl.sh needs."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(address))
    with contextlib.suppress(OSError):
        return str(socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4][0])
    return ""
