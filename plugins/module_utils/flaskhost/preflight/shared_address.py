"""Check the address that moves between the web hosts, ``web_address``."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ..settings.shared_address import interface_of, own_addresses
from .report import Report, get, show
from .schema import wrong_type

EXAMPLE = "web_address: 10.0.0.10, in group_vars/web.yml: a free IPv4 address of the network that the web hosts share"
EXAMPLE_PRIVATE = (
    "private_address: 10.0.0.11, in the host's lines of hosts.yml: the IPv4 address of one of its interfaces"
)
_PLACE = ("web_address",)


def check_web_address(report: Report, value: Any) -> None:
    """Check the setting by itself.

    Args:
        report: collects the problems.
        value: the user's value.
    """
    if not isinstance(value, str):
        report.add("wrong_type", _PLACE, wrong_type(value, "str"), EXAMPLE)
        return
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        hint = " Write it without a prefix length." if "/" in value else ""
        report.add("bad_address", _PLACE, f"{show(value)} is not an IPv4 address.{hint}", EXAMPLE)
        return
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        report.add("bad_address", _PLACE, f"{show(value)} is not an address that visitors can reach.", EXAMPLE)


def check_shared_address(report: Report, hosts: Any, settings: Any, host: str, facts: Mapping[Any, Any]) -> None:
    """Check the setting against the hosts.

    Args:
        report: collects the problems.
        hosts: the result of :func:`settings.layout.describe_hosts`.
        settings: the site's settings.
        host: the host's own name.
        facts: its facts. ``flaskhost_interfaces`` is only known if the host was reached.
    """
    address = get(settings, str, "web_address")
    web = [item for item in hosts if "web" in item["groups"]]
    if not address or not hosts or not report.clean(_PLACE):
        return
    if len(web) < 2:
        problem = f"{show(address)} has no second host that could take it over: the group web has {len(web)} host."
        report.add("lone_web_address", _PLACE, problem, "web: {hosts: {web1: , web2: }}, or no web_address")
        return
    if other := next((item["name"] for item in web if item["web_address"] != address), ""):
        problem = f"{other} has another web_address, or none. All web hosts share one address."
        report.add("different_web_addresses", _PLACE, problem, EXAMPLE)
    if owner := next((item["name"] for item in hosts if address in (item["private_address"], item["address"])), ""):
        report.add("taken_web_address", _PLACE, f"{show(address)} is the own address of {owner}.", EXAMPLE)
    for item in web:
        _check_private(report, item)
    own = next((item["private_address"] for item in web if item["name"] == host), "")
    interfaces = get(facts, dict, "flaskhost_interfaces")
    if not own or not interfaces or not report.clean(_PLACE):
        return
    networks = ", ".join(f"{name}: {' '.join(map(str, found))}" for name, found in interfaces.items() if name != "lo")
    if not interface_of(interfaces, address):
        problem = f"{show(address)} is in no network of the host, which could not announce it ({networks})."
        report.add("web_address_elsewhere", _PLACE, problem, EXAMPLE)
    if own not in own_addresses(interfaces):
        problem = f"{show(own)} is not an address of the host, which could not speak to the other web hosts from it."
        report.add("private_address_elsewhere", ("hosts", host, "private_address"), problem, EXAMPLE_PRIVATE)


def _check_private(report: Report, host: Mapping[str, Any]) -> None:
    place = ("hosts", host["name"], "private_address")
    if not report.clean(place):
        return
    private = host["private_address"]
    if not private:
        problem = f"The other web hosts have to know whether {host['name']} is up, and need its private address."
        report.add("no_private_address", place, problem, EXAMPLE_PRIVATE)
    elif ":" in private:
        problem = f"{show(private)} is an IPv6 address. The web hosts share an IPv4 address over IPv4."
        report.add("private_address_is_ipv6", place, problem, EXAMPLE_PRIVATE)
