"""The address that moves between the web hosts (``web_address``), and a host's part in it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ..apps.names import is_address

#: The priority of the first web host; each following one has one less.
FIRST_PRIORITY = 200


def shared_address(
    groups: Mapping[str, list[str]],
    host: str,
    variables: Mapping[str, Mapping[str, Any]],
    address: Any,
    interfaces: Any,
) -> dict[str, Any]:
    """Return a host's part in the address that moves between the web hosts.

    Args:
        groups: the hosts of each group, as Ansible's ``groups``.
        host: the host's own name.
        variables: each host's variables; only ``private_address`` is used, and only if there is such an address.
        address: the site's setting ``web_address``.
        interfaces: the fact ``flaskhost_interfaces``: the networks of each interface.

    Returns:
        ``address``, ``interface``, the interface that gets it, ``own`` and ``peers``, the private addresses of the host
        and of the other web hosts, and ``priority``. Empty if the host has no part in it.
    """
    web = list(groups.get("web") or [])
    if not address or host not in web:
        return {"address": "", "interface": "", "own": "", "peers": [], "priority": FIRST_PRIORITY}
    private = {name: str(variables[name].get("private_address") or "") for name in web}
    return {
        "address": str(address),
        "interface": interface_of(interfaces, str(address)),
        "own": private[host],
        "peers": [private[name] for name in web if name != host],
        "priority": max(1, FIRST_PRIORITY - web.index(host)),
    }


def interface_of(interfaces: Any, address: str) -> str:
    """Return the interface in whose network an address is; empty if there is none.

    Args:
        interfaces: for each interface, its own addresses with the length of their prefix, such as ``10.0.0.11/24``.
        address: an IPv4 address.
    """
    if not is_address(address):
        return ""
    found: list[tuple[int, str]] = []
    for name, entries in interfaces.items() if isinstance(interfaces, Mapping) else ():
        for entry in entries if isinstance(entries, list) else ():
            try:
                network = ipaddress.ip_interface(str(entry)).network
            except ValueError:
                continue
            # Not the address itself, which a host has with a network of its own.
            if network.num_addresses > 1 and ipaddress.ip_address(address) in network:
                found.append((network.prefixlen, str(name)))
    return max(found, default=(0, ""))[1]


def own_addresses(interfaces: Any) -> list[str]:
    """Return the addresses of all interfaces, without the length of their prefix."""
    lists = interfaces.values() if isinstance(interfaces, Mapping) else ()
    return [str(entry).partition("/")[0] for entries in lists if isinstance(entries, list) for entry in entries]
