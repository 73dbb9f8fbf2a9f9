"""Which host does what: the groups ``web``, ``app`` and ``db`` of the inventory, and what follows from them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ..apps.names import is_address

#: The groups that decide what a host does.
GROUPS = ("web", "app", "db")


def web_hosts(groups: Mapping[str, list[str]], trusted_proxies: Any) -> list[str]:
    """Return the hosts whose nginx serves visitors.

    Args:
        groups: the hosts of each group, as Ansible's ``groups``.
        trusted_proxies: the site's setting, of any type.

    Returns:
        The hosts of the group ``web``. If it has none, and visitors come through a load balancer of the site's own
        (``trusted_proxies`` is set), the app hosts: the load balancer needs a web server behind it.
    """
    found = list(groups.get("web") or [])
    return found or (list(groups.get("app") or []) if trusted_proxies else [])


def layout(
    groups: Mapping[str, list[str]], host: str, variables: Mapping[str, Mapping[str, Any]], trusted_proxies: Any = ()
) -> dict[str, Any]:
    """Return how a host takes part in serving visitors.

    Args:
        groups: the hosts of each group, as Ansible's ``groups``.
        host: the host's own name.
        variables: each host's variables; only ``private_address`` is used, and only of hosts that are forwarded to.
        trusted_proxies: the site's setting.

    Returns:
        ``serves``: whether its nginx serves visitors. ``forwards``: whether it forwards them to ``backends``, the
        private addresses of the app hosts. ``private``: whether it serves only the web hosts, whose private addresses
        are ``clients``, on its own ``address``. ``peers``: the names of the hosts on the other side.
    """
    web, app = (list(groups.get(name) or []) for name in ("web", "app"))
    apart = bool(web and app and not set(web) & set(app))
    peers = (app if host in web else web if host in app else []) if apart else []
    addresses = [_text(variables[name], "private_address") for name in peers]
    forwards, private = bool(peers) and host in web, bool(peers) and host in app
    return {
        "serves": host in web_hosts(groups, trusted_proxies),
        "forwards": forwards,
        "backends": addresses if forwards else [],
        "private": private,
        "address": _text(variables[host], "private_address") if private else "",
        "clients": addresses if private else [],
        "peers": peers,
    }


def peer_certificates(peers: list[str], variables: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the certificates of other hosts, as the role identity has returned them in this run; else empty.

    Args:
        peers: the names of the hosts.
        variables: each host's variables.
    """
    return {name: str(variables[name].get("identity_certificate") or "") for name in peers}


def describe_hosts(groups: Mapping[str, list[str]], variables: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what preflight checks about all hosts together.

    Args:
        groups: the hosts of each group, as Ansible's ``groups``.
        variables: each host's variables; only ``private_address``, ``web_address`` and ``ansible_host`` are used.

    Returns:
        For each host in one of the groups ``name``, its ``groups``, its ``private_address`` and ``web_address`` (empty
        if it has none, or none that can be evaluated) and ``address``, the IP address at which the other hosts reach it
        (empty if only a name is known, or a loopback address).
    """
    names = dict.fromkeys(name for group in GROUPS for name in groups.get(group) or [])
    return [
        {
            "name": name,
            "groups": [group for group in GROUPS if name in (groups.get(group) or [])],
            "private_address": private,
            "web_address": _text(known, "web_address"),
            "address": private or next((text for text in (_text(known, "ansible_host"), name) if _is_outer(text)), ""),
        }
        for name in names
        for known in [variables[name]]
        for private in [_text(known, "private_address")]
    ]


def _text(known: Mapping[str, Any], name: str) -> str:
    """Return the value of a variable; empty if it cannot be evaluated, which preflight reports elsewhere."""
    try:
        return str(known.get(name) or "")
    except Exception:  # noqa: BLE001, RUF100 - a template fails in as many ways as there are lookups
        return ""


def _is_outer(text: str) -> bool:
    return is_address(text) and not ipaddress.ip_address(text).is_loopback
