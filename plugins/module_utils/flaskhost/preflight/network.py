"""Check the settings for the package index, for the host's private address, and for a few playbooks."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from typing import Any

from .report import Report, show
from .rules.domains import PLACEHOLDER, RESERVED_DOMAINS
from .schema import wrong_type

EXAMPLE_INDEX = "package_index: https://packages.internal.test/simple/"
EXAMPLE_ADDRESS = "private_address: 10.0.0.5"
_CHARACTERS = re.compile(r"[!%&()*+,./0-9:;=?A-Z\[\]_a-z~-]+")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")


def check_package_index(report: Report, value: Any, name: str = "package_index") -> None:
    """Check the URL of a package index, from which root and the builds install packages.

    Args:
        report: collects the problems.
        value: the user's value.
        name: the variable's name.
    """
    if not isinstance(value, str):
        report.add("wrong_type", (name,), wrong_type(value, "str"), EXAMPLE_INDEX)
    elif problem := index_fault(value):
        report.add("bad_index", (name,), problem, EXAMPLE_INDEX)


def index_fault(value: str) -> str:
    """Find what is wrong with the URL of a package index.

    Args:
        value: the URL.

    Returns:
        What is wrong, without a password that the URL can contain; empty if nothing is.
    """
    try:
        url = urllib.parse.urlsplit(value)
        host, port = url.hostname or "", url.port
    except ValueError:
        return f"{show(value)} is not a URL."
    if "@" in url.netloc:
        return "The URL contains a user name or password, which ends up in process lists and logs. Remove it."
    server = url.netloc.rpartition(":")[0] if port is not None else url.netloc
    # A valid URL contains nothing that pip could parse as an option, or that is special in a shell, unit or INI file.
    for wrong, problem in (
        (url.scheme not in ("http", "https"), "is not the URL of a package index, which begins with https://."),
        (
            not _CHARACTERS.fullmatch(value),
            "contains a space, a quote, a line break or another character that is not allowed in a URL.",
        ),
        (not _HOST.fullmatch(server), f"does not name a server after {url.scheme}://."),
        (
            url.scheme == "http" and not _is_loopback(host),
            "is not encrypted: anyone on the network path can replace packages that root installs. Use https.",
        ),
        (
            PLACEHOLDER.fullmatch(value) or RESERVED_DOMAINS.fullmatch(host),
            "is a placeholder. Use the URL of your index, or leave the setting out.",
        ),
    ):
        if wrong:
            return f"{show(value)} {problem}"
    return ""


def mirror_fault(value: str) -> str:
    """Find what is wrong with the URL of a mirror of Python versions, or of the list of its files.

    Args:
        value: the URL.

    Returns:
        What is wrong, without a password that the URL can contain; empty if nothing is.
    """
    if value.startswith("file:"):
        if re.fullmatch(r"file:///(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/+~-]+", value):
            return ""
        return f"{show(value)} is not the URL of a path on the host, such as file:///srv/mirror."
    return index_fault(value).replace("is not the URL of a package index, which begins", "does not begin")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_private_address(report: Report, value: Any) -> None:
    """Check the address under which other hosts reach this one: firewalls and PostgreSQL use it unchanged.

    Args:
        report: collects the problems.
        value: the user's value.
    """
    place = ("private_address",)
    if not isinstance(value, str):
        report.add("wrong_type", place, wrong_type(value, "str"), EXAMPLE_ADDRESS)
        return
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        hint = " Write a single address, without a prefix length." if "/" in value else ""
        report.add("bad_address", place, f"{show(value)} is not an IP address.{hint}", EXAMPLE_ADDRESS)
        return
    if address.is_unspecified or address.is_multicast or address.is_loopback or "%" in value:
        problem = f"{show(value)} is not an address at which other hosts can reach this one."
        report.add("bad_address", place, problem, EXAMPLE_ADDRESS)


def check_deploy_batch(report: Report, value: Any) -> None:
    """Check the number of hosts that switch at a time. ``-e`` passes it as a string."""
    number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,6}", value) else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        problem = f"{show(value)} is not a number of hosts: 1 or more, or 0 for all at once."
        report.add("bad_size", ("deploy_batch",), problem, "deploy_batch: 1")


def check_clone_target(report: Report, value: Any) -> None:
    """Check whether the environment can be overwritten. ``-e`` passes the value as a string."""
    text = value.lower() if isinstance(value, str) else ""
    if not isinstance(value, bool) and text not in ("true", "false", "yes", "no"):
        report.add("wrong_type", ("clone_target",), wrong_type(value, "bool"), "clone_target: true")
