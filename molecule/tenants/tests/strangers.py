"""Visitors with addresses of their own, reserved for documentation (RFC 5737), in a network namespace of the host."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: The host as the strangers reach it.
HOST = "198.18.0.1"
#: Two strangers. Nobody has the third address: only a forged line names it.
GUESSER, BYSTANDER, NOBODY = "203.0.113.50", "203.0.113.51", "203.0.113.66"


@dataclass
class Strangers:
    """Visitors of a host.

    Attributes:
        host: the host.
    """

    host: Any

    def run(self, command: str) -> Any:
        """Run a shell command as a stranger; it chooses its own source address."""
        return self.host.run("ip netns exec strangers timeout 60 sh -c %s", command)

    def log_in(self, address: str, user: str) -> None:
        """Try to log in by SSH without a key. A ban that comes meanwhile leaves the connection without an end."""
        options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5"
        assert self.run(f"timeout 10 ssh {options} -b {address} -l '{user}' {HOST} true || false").rc == 1

    def ask(self, address: str, url: str, *arguments: str, times: int = 1) -> list[str]:
        """Send a request so many times, each over a connection of its own.

        Args:
            address: the source address.
            url: an HTTPS URL of a site of the host.
            arguments: more for curl.
            times: how often.

        Returns:
            Status and body of each response, separated by a space; ``000`` and a space if there was none.
        """
        name = re.fullmatch(r"https://([^/]+)/.*", url)[1]
        options = f"--silent --insecure --max-time 10 --interface {address} --resolve {name}:443:{HOST}"
        command = f"curl {options} {' '.join(arguments)} --write-out '\n%{{http_code}}\n' '{url}'"
        found = []
        for _time in range(times):
            *body, status = self.run(command).stdout.rstrip("\n").split("\n")
            found.append(f"{status} {' '.join(body).strip()}")
        return found

    def is_refused(self, address: str, port: int) -> bool:
        """Whether the firewall refuses a connection; fail2ban's own word is not enough."""
        return self.run(f"curl --silent --max-time 3 --interface {address} telnet://{HOST}:{port} </dev/null").rc == 7

    def banned(self, address: str) -> bool:
        """Whether the kernel refuses an address at any port."""
        return address in self.host.run("nft list table inet f2b-table").stdout


@contextmanager
def strangers_of(host: Any) -> Iterator[Strangers]:
    """Let strangers visit a host, and forget their bans afterwards."""
    host.run("ip netns delete strangers 2>/dev/null; ip link delete strangers0 2>/dev/null")
    steps = (
        "ip netns add strangers",
        "ip link add strangers0 type veth peer name eth0 netns strangers",
        f"ip address add {HOST}/32 dev strangers0",
        "ip link set strangers0 up",
        "ip -n strangers link set lo up",
        "ip -n strangers link set eth0 up",
        *(f"ip -n strangers address add {address}/32 dev eth0" for address in (GUESSER, BYSTANDER)),
        f"ip -n strangers route add {HOST} dev eth0",
        *(f"ip route add {address} dev strangers0" for address in (GUESSER, BYSTANDER)),
    )
    try:
        host.run_expect([0], " && ".join(steps))
        yield Strangers(host)
    finally:
        host.run("fail2ban-client unban --all")
        host.run("ip netns delete strangers; ip link delete strangers0")


def eventually(question: Callable[[], Any], wanted: Any = True, seconds: float = 15) -> None:
    """Wait until a question has the wanted answer."""
    ends = time.monotonic() + seconds
    while (answer := question()) != wanted:
        assert time.monotonic() < ends, f"{answer!r} and not {wanted!r}"
        time.sleep(0.3)
