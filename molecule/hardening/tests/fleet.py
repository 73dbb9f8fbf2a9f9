"""What the tests of this scenario share: the two hosts, who attacks them, and runs of the playbook."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import testinfra
import yaml
from runs import TRACES, command, finish, start

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())
OLD_KEY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "old_key"
WEB = ("fh-hard-bookworm", "fh-hard-trixie")
ATTACKER = "fh-hard-attacker"
#: A right password, hashed: openssl passwd -6.
OPEN_SESAME = SETTINGS["flask_apps"]["staging"]["basic_auth"]["ada"]
#: Where a service listens that nobody has asked for, see the fixture stray.
STRAY = 47111
GUARD = "/var/lib/flaskhost/guard"

# By its path: pytest has a conftest of this folder too, and knows both by the same name.
_spec = importlib.util.spec_from_file_location("visitors", PROJECT / "molecule" / "conftest.py")
_visitors = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_visitors)
Visitor = _visitors.Visitor


@dataclass
class Host:
    """One of the two hosts.

    Attributes:
        name: its name in the inventory.
        host: itself, seen from within, over one SSH connection that stays.
        visitor: somebody outside, at the operator's address.
        known: its variables.
        address: its address in the hosts' network.
        moved_to: the port of SSH, where it is not that of the inventory. The connection that stays may end meanwhile.
    """

    name: str
    host: Any
    visitor: Any
    known: dict[str, Any]
    address: str
    moved_to: int = 0

    @classmethod
    def of(cls, name: str) -> Host:
        """The host of this name."""
        host = testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY), sudo=True)
        known = host.ansible.get_variables()
        ports = {int(port): int(here) for port, here in known.get("published_ports", {}).items()}
        return cls(name, host, Visitor(ports), known, host.check_output("hostname -I").split()[0])

    def run(self, command: str, expect: int | None = 0, timeout: int = 240) -> str:
        """Run a command of the shell within a time limit; return what it has printed."""
        if self.moved_to:
            bounded = f"sudo timeout 25 sh -c {shlex.quote(command)}"
            answered, said = self.log_in(port=self.moved_to, command=bounded)
            assert answered or expect != 0, f"{command}: {said}"
            return said
        result = self.host.run("timeout %s sh -c %s", str(timeout), command)
        assert expect is None or result.rc == expect, f"{command}: {result.rc}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def fails(self, command: str) -> str:
        """Run a command that has to fail; return what it says."""
        result = self.host.run("timeout 60 sh -c %s", command)
        assert result.rc != 0, f"{command}: {result.stdout}"
        return result.stdout + result.stderr

    def log_in(
        self, user: str = "", key: str | Path = "", port: int = 0, command: str = "sudo --non-interactive true"
    ) -> tuple[bool, str]:
        """Log in by a connection of its own, as the operator does; return whether it worked, and what was said."""
        arguments = ["ssh", *"-o ControlPath=none -o BatchMode=yes -o ConnectTimeout=8 -o LogLevel=ERROR".split()]
        arguments += ["-i", str(key or self.known["ansible_ssh_private_key_file"])]
        arguments += ["-p", str(port or self.known["ansible_port"])]
        arguments += shlex.split(self.known["ansible_ssh_common_args"])
        arguments += [f"{user or self.known['ansible_user']}@{self.known['ansible_host']}", command]
        result = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        )
        return result.returncode == 0, (result.stdout + result.stderr).strip()

    def shows_ssh(self) -> bool:
        """Whether sshd greets a new connection. What stands between may take one and say nothing."""
        place = self.known["ansible_host"], self.known["ansible_port"]
        try:
            with socket.create_connection(place, timeout=2) as plug:
                return plug.recv(4) == b"SSH-"
        except OSError:
            return False

    def sshd(self) -> set[str]:
        """The settings that sshd has, with all its files together."""
        return set(self.run("sshd -T -C user=debian,host=localhost,addr=127.0.0.1").splitlines())

    def rules(self) -> str:
        """The firewall's own table, without what it has counted and seen."""
        return self.run("nft --stateless --terse list table inet flaskhost")

    def unguarded(self) -> bool:
        """Whether no change waits for anything."""
        folders = f"ls -d {GUARD}/firewall {GUARD}/sshd 2>/dev/null"
        return not self.run(f"{folders}; systemctl list-units --plain --no-legend 'flaskhost-guard-*'", None)

    def banned(self) -> set[str]:
        """The addresses that the kernel refuses; fail2ban's own word for it is not enough."""
        text = self.run("nft list table inet f2b-table 2>/dev/null", None)
        return set(re.findall(r"\d+\.\d+\.\d+\.\d+", text))

    def unban(self) -> None:
        """Let everybody in again, and forget that they have been banned."""
        self.run("fail2ban-client unban --all")


@dataclass
class Attacker:
    """Somebody on a host of the same network.

    Attributes:
        host: that host.
        address: its address.
    """

    host: Any
    address: str

    @classmethod
    def at_home(cls) -> Attacker:
        """The attacker, with its program."""
        host = testinfra.get_host(f"ansible://{ATTACKER}", ansible_inventory=str(INVENTORY), sudo=True)
        program = base64.b64encode((Path(__file__).parent / "attack.py").read_bytes()).decode()
        host.run_expect([0], f"printf %s {program} | base64 -d > /root/attack.py")
        return cls(host, host.check_output("hostname -I").split()[0])

    def do(self, what: str, **arguments: Any) -> Any:
        """Run a function of attack.py there."""
        result = self.host.run("timeout 300 python3 /root/attack.py %s %s", what, json.dumps(arguments))
        assert result.rc == 0, result.stderr
        return json.loads(result.stdout)

    def ask(self, web: Host, *requests: dict[str, Any], parallel: int = 1) -> list[list[Any]]:
        """Send requests to a host; see ``ask`` there."""
        return self.do("ask", address=web.address, requests=list(requests), parallel=parallel)

    def knock(self, web: Host, port: int, count: int = 1) -> list[str]:
        """Open connections to a port; see ``knock`` there."""
        return self.do("knock", address=web.address, port=port, count=count)


@dataclass
class Outage:
    """When a host's SSH took no new connection.

    Attributes:
        web: the host.
        seen: the time of each look, and whether SSH answered.
    """

    web: Host
    seen: list[tuple[float, bool]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first look at which it did not answer to the first at which it did again; inf when it never did."""
        lost = [moment for moment, answered in self.seen if not answered]
        if not lost:
            return 0.0
        back = [moment for moment, answered in self.seen if answered and moment > lost[-1]]
        return back[0] - lost[0] if back else float("inf")


@contextmanager
def watched(*webs: Host) -> Iterator[list[Outage]]:
    """See when SSH takes no new connection. Seldom, since the firewall counts new connections."""
    outages, ended = [Outage(web) for web in webs], threading.Event()

    def look(outage: Outage) -> None:
        while True:
            last = ended.is_set()
            outage.seen.append((time.monotonic(), outage.web.shows_ssh()))
            if last:
                return
            ended.wait(4)

    threads = [threading.Thread(target=look, args=(outage,)) for outage in outages]
    for thread in threads:
        thread.start()
    try:
        yield outages
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def command_of(*arguments: str, **variables: Any) -> list[str]:
    """The command that runs the playbook."""
    limit = [] if "--limit" in arguments else ["--limit", ",".join((*WEB, "localhost"))]
    return command("site.yml", *arguments, *limit, **variables)


def play(*arguments: str, **variables: Any) -> tuple[int, str]:
    """Run the playbook; return its status and what it has printed, with single spaces between words."""
    return finish(start(command_of(*arguments, **variables)), 400, without=TRACES)


def changed(output: str) -> list[int]:
    """How much each host's line at the end of a run says has changed."""
    return [int(number) for number in re.findall(r"changed=(\d+)", output.rpartition("PLAY RECAP")[2])]


def eventually(question: Callable[[], Any], wanted: Any, seconds: float = 10) -> None:
    """What is asked becomes so in a while."""
    ends = time.monotonic() + seconds
    while (answer := question()) != wanted:
        assert time.monotonic() < ends, f"{answer!r} and not {wanted!r}"
        time.sleep(0.3)
