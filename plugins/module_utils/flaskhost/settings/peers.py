"""The other hosts of a group: their addresses and networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ..apps.names import is_address


def peer_addresses(hosts: list[str], host: str, variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say under which addresses a host reaches the others of its group.

    Args:
        hosts: the names of the group's hosts.
        host: the host's own name.
        variables: each host's variables, of which ``private_address`` and ``ansible_host`` are read.

    Returns:
        For each other host its ``private_address``, else its ``ansible_host``, else its name; in the order of the
        group, each once. An address of the loopback is left out: there the host would reach itself.
    """
    found: list[str] = []
    for other in hosts:
        known = variables[other] if other != host else {}
        address = str(known.get("private_address") or known.get("ansible_host") or other)
        loopback = address == "localhost" or (is_address(address) and ipaddress.ip_address(address).is_loopback)
        if other != host and not loopback and address not in found:
            found.append(address)
    return found


def peer_networks(hosts: list[str], host: str, variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say from which networks the other hosts of a group come: of each, its own address alone.

    Args:
        hosts: the names of the group's hosts.
        host: the host's own name.
        variables: each host's variables, as :func:`peer_addresses` reads them.

    Returns:
        ``10.0.0.5/32`` and so on. A host that is known by a name alone is left out: which address it comes from is not
        to be told from that, and ``private_address`` says it.
    """
    found = [ipaddress.ip_address(name) for name in peer_addresses(hosts, host, variables) if is_address(name)]
    return [f"{address}/{address.max_prefixlen}" for address in found]
