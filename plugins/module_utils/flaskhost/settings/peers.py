"""The other hosts of a group: their addresses and networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ..apps.names import is_address


def peer_addresses(hosts: list[str], host: str, variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the addresses under which a host reaches the other hosts of its group.

    Args:
        hosts: the names of the group's hosts.
        host: the host's own name.
        variables: each host's variables; only ``private_address`` and ``ansible_host`` are used.

    Returns:
        For each other host its ``private_address``, else its ``ansible_host``, else its name; in the order of the
        group, without duplicates. Loopback addresses are left out, because the host would reach itself.
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
    """Return the networks that the other hosts of a group connect from: for each host, only its own address.

    Args:
        hosts: the names of the group's hosts.
        host: the host's own name.
        variables: each host's variables, as for :func:`peer_addresses`.

    Returns:
        ``10.0.0.5/32`` and so on. A host that has only a name is left out, because a name does not give the address
        that it connects from. Set ``private_address`` for such a host.
    """
    found = [ipaddress.ip_address(name) for name in peer_addresses(hosts, host, variables) if is_address(name)]
    return [f"{address}/{address.max_prefixlen}" for address in found]
