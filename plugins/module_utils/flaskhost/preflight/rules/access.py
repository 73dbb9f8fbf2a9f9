"""Rules about who has access: administrators, and the networks of firewall, nginx and fail2ban."""

from __future__ import annotations

import ipaddress
import re

from ...apps.names import CLOUD_USERS, RESERVED_NAMES
from ...apps.schema import Option
from ..report import Fault, show
from .ssh_keys import EXAMPLE_ADMIN

EXAMPLE_RULE = "firewall_allow: [{port: 8443, protocol: tcp, from: [203.0.113.0/24]}]"
EXAMPLE_EGRESS = "firewall_egress_allow: [{port: 587, protocol: tcp, to: [203.0.113.0/24]}]"
EXAMPLE_ALLOW = "allow: [203.0.113.0/24]"
EXAMPLE_IGNORE = "fail2ban_ignore: [203.0.113.0/24]"
EXAMPLE_PROXIES = "trusted_proxies: [203.0.113.0/24]"
#: Options of an administrator: those of base_admin_users in roles/base. A unit test compares them.
ADMIN_OPTIONS = {
    "name": Option("str", "User name of the administrator.", "ada", required=True, pattern=r"[a-z_][a-z0-9_-]{0,31}"),
    "keys": Option("list", "Public SSH keys of the administrator.", [], required=True),
}
#: Options of an open port: those of firewall_allow in roles/firewall. A unit test compares them.
FIREWALL_OPTIONS = {
    "port": Option("int", "Port to open.", 8443, required=True, minimum=1, maximum=65535),
    "protocol": Option("str", "Transport protocol.", "tcp", default="tcp", choices=("tcp", "udp")),
    "from": Option("list", "Networks that can connect. If empty, every address is allowed.", [], default=[]),
}


def admin_name(value: str) -> Fault | None:
    """Check the user name of an administrator."""
    if value in RESERVED_NAMES - CLOUD_USERS:
        return Fault("reserved_admin_name", f"{value} is reserved for a user or group of the system.", EXAMPLE_ADMIN)
    if not re.fullmatch(ADMIN_OPTIONS["name"].pattern, value):
        problem = (
            f"{show(value)} is not a valid user name. Use a to z, digits, _ and -, at most 32, with no digit first."
        )
        return Fault("bad_admin_name", problem, EXAMPLE_ADMIN)
    return None


def network(value: str) -> Fault | None:
    """Check a network that may connect to an open port."""
    return _network_fault(value, EXAMPLE_RULE)


def target(value: str) -> Fault | None:
    """Check a network to which the host may connect."""
    return _network_fault(value, EXAMPLE_EGRESS)


def allowed(value: str) -> Fault | None:
    """Check a network whose clients may open a site."""
    return _network_fault(value, EXAMPLE_ALLOW)


def ignored(value: str) -> Fault | None:
    """Check a network that fail2ban never bans."""
    fault = _network_fault(value, EXAMPLE_IGNORE)
    if not fault and ipaddress.ip_network(value, strict=False).prefixlen == 0:
        return Fault("bad_network", f"{show(value)} is every address: no client would ever be banned.", EXAMPLE_IGNORE)
    return fault


def trusted(value: str) -> Fault | None:
    """Check the network of a trusted proxy."""
    fault = _network_fault(value, EXAMPLE_PROXIES)
    if not fault and ipaddress.ip_network(value, strict=False).prefixlen == 0:
        problem = f"{show(value)} is every address: each visitor could pretend to have another one."
        return Fault("bad_network", problem, EXAMPLE_PROXIES)
    return fault


def _network_fault(value: str, example: str) -> Fault | None:
    """Check a network or an address."""
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        network = None
    # Python takes any text after a % for the name of an interface, and nft would read that text as rules.
    if network is None or "%" in value:
        problem = f"{show(value)} is not an IP address or a network in CIDR notation."
        return Fault("bad_network", problem, example)
    if "/" in value and not re.fullmatch(r".*/\d{1,3}", value):
        problem = f"{show(value)} has a netmask instead of a prefix length. Write {network}."
        return Fault("bad_network", problem, example.replace("203.0.113.0/24", f'"{network}"'))
    if "/" in value and not value.startswith(f"{network.network_address}/"):
        problem = f"{show(value)} is an address inside a network. Write the network itself, {network}."
        return Fault("bad_network", problem, example.replace("203.0.113.0/24", f'"{network}"'))
    return None
