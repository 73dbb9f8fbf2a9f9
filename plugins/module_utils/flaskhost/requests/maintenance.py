"""Parse the request of playbooks/maintenance.yml: which apps' pages to switch, with which text and exceptions."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..operate.maintenance import MESSAGE, RETRY_AFTER
from .given import OFF, ON

#: Maximum Retry-After in seconds: a year. A longer time is a typing error.
LONGEST_RETRY = 365 * 24 * 3600

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def request(given: Mapping[str, Any], sites: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Parse the variables of a command line, which are strings there, and can be any type in JSON.

    Args:
        given: ``maintenance``, ``app``, ``message``, ``retry_after`` and ``allow``. Missing, ``None`` and empty values
            count as not set. ``_raw_params`` is the rest of ``message``, if only the shell read its quotes.
        sites: ``name`` and ``folder`` of all apps.

    Returns:
        ``problem``, all problems, each with the variable and a valid example, empty if there is none; and the options
        of flask_maintenance: ``state``, ``sites``, ``message``, ``retry_after`` and ``allow``.
    """
    problems: list[str] = []
    on = _switch(given.get("maintenance"), problems)
    chosen = _sites(given.get("app"), sites, problems)
    message = _message(given.get("message"), given.get("_raw_params"), problems)
    retry_after = _retry_after(given.get("retry_after"), problems)
    allow = _allow(given.get("allow"), problems)
    if problems:
        return {"problem": "\n".join([*problems, "Nothing has been changed."])}
    return {
        "problem": "",
        "state": "present" if on else "absent",
        "sites": chosen,
        "message": message,
        "retry_after": retry_after,
        "allow": allow,
    }


def _switch(value: Any, problems: list[str]) -> bool:
    if isinstance(value, str) and not value.strip():
        value = None
    if value is None:
        problems.append("maintenance is missing. Set it to on or off: -e maintenance=on")
        return False
    word = str(value).strip().lower()
    if word not in ON + OFF:
        problems.append(f"maintenance is {_shown(value)}, which is not on or off. Example: -e maintenance=on")
    return word in ON


def _sites(value: Any, sites: Sequence[Mapping[str, str]], problems: list[str]) -> list[dict[str, str]]:
    ordered = sorted((dict(site) for site in sites), key=lambda site: site["name"])
    names = [site["name"] for site in ordered]
    if not names:
        problems.append("flask_apps is empty, so no app has a maintenance page. Add an app to flask_apps first.")
        return []
    if value is None or value == "":
        if len(names) > 1:
            problems.append(
                f"app is missing, and there are several apps: {', '.join(names)}. Name one: -e app={names[0]} "
                "(or all of them: -e app=all)"
            )
        return ordered
    if isinstance(value, str) and value in names:
        return [site for site in ordered if site["name"] == value]
    if value == "all":
        return ordered
    like = difflib.get_close_matches(str(value), names, 1, 0.6)
    problems.append(
        f"app is {_shown(value)}, and no app has that name. Available: {', '.join(names)}. "
        f"Example: -e app={(like or names)[0]}"
    )
    return []


def _message(value: Any, rest: Any, problems: list[str]) -> str:
    if isinstance(value, (list, tuple, dict, set)):
        problems.append('message is not a string. Example: -e message="Back at 9"')
        return MESSAGE
    if rest and not value:
        problems.append('message: words were lost, because -e ends a value at a space. Example: -e message="Back at 9"')
    # A text can contain invalid UTF-8 and control characters; the page must not.
    text = "" if value is None else f"{value} {rest}" if rest else str(value)
    text = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    return _CONTROL.sub("", text).strip() or MESSAGE


def _retry_after(value: Any, problems: list[str]) -> int:
    if value is None or value == "":
        return RETRY_AFTER
    text = str(value).strip()
    if re.fullmatch(r"[0-9]{1,9}", text) and 0 < int(text) <= LONGEST_RETRY:
        return int(text)
    problems.append(
        f"retry_after is {_shown(value)}, which is not a whole number of seconds from 1 to {LONGEST_RETRY}. "
        "Example, for ten minutes: -e retry_after=600"
    )
    return RETRY_AFTER


def _allow(value: Any, problems: list[str]) -> list[str]:
    # -e allow=203.0.113.7,198.51.100.0/24 is convenient to type; a list needs JSON.
    items = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value
    if items in (None, [], [""], ()):
        return []
    if not isinstance(items, (list, tuple)):
        items = [items]
    networks = set()
    for item in items:
        network = _network(item)
        if network is None:
            problems.append(
                f"allow contains {_shown(item)}, which is not an IP address or network. "
                """Example: -e '{"allow": ["203.0.113.7", "2001:db8::/32"]}'"""
            )
        elif network.prefixlen == 0:
            problems.append(
                f"allow contains {_shown(item)}, which is every address: no visitor would get the page. "
                "List the testers' addresses instead, or leave allow out."
            )
        else:
            networks.add(network)
    ordered = sorted(networks, key=lambda network: (network.version, network))
    return [str(network) if network.num_addresses > 1 else str(network[0]) for network in ordered]


def _network(item: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Parse a network; host bits in it are cleared. nginx does not accept a zone ID (%eth0)."""
    if not isinstance(item, str) or "%" in item:
        return None
    try:
        return ipaddress.ip_network(item.strip(), strict=False)
    except ValueError:
        return None


def _shown(value: Any) -> str:
    """Return a value for a message: shortened, and without control characters."""
    text = _CONTROL.sub("?", str(value).replace("\n", " ").encode("utf-8", "replace").decode())
    return f'"{text if len(text) <= 60 else text[:57] + "..."}"'
