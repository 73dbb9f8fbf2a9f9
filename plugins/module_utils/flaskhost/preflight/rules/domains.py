"""Rules about domain names and IP addresses, and the words that mark a value as a placeholder."""

from __future__ import annotations

import ipaddress
import re

from ...apps.names import DOMAIN_NAME, is_address
from ..report import Fault, show, snippet

#: Addresses for documentation: RFC 5737, RFC 3849 and RFC 9637.
RESERVED_NETWORKS = tuple(
    map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"))
)
#: Domains for documentation: RFC 2606 and RFC 6761. No server can be reached at them. The domains for tests, .test and
#: .localhost, are allowed, because demos and tests use them.
RESERVED_DOMAINS = re.compile(r"(?:.*\.)?(?:example\.(?:com|net|org)|example|invalid)")
#: Placeholders for a name or URL. The domain of a site about to-do lists must not match.
PLACEHOLDER = re.compile(
    r"(?i).*(?:<[^<>]*>|change[-_ ]?me|replace[-_ ]?me"
    r"|\byour[-_]?(?:domain|site|app|company|server|name|repo|org|user)).*"
)
PASSWORD_IN_URL = re.compile(r"(?is)[a-z][a-z0-9+.-]*://[^/@\s:]*:[^/@\s]+@.*")
EXAMPLE_DOMAIN = "domains: [shop.localhost]  # or your own, once its DNS points to the server"


def domain(value: str) -> Fault | None:
    """Check a domain of an app, which may be an IP address."""
    bare = bare_domain(value)
    if is_address(value):
        return _address(value)
    if PLACEHOLDER.fullmatch(value):
        problem = f"{show(value)} is a placeholder. Use a name that you own and whose DNS points to the server."
        return Fault("placeholder_domain", problem, EXAMPLE_DOMAIN)
    if RESERVED_DOMAINS.fullmatch(bare):
        problem = f"{show(value)} is reserved for documentation: no server can be reached at it. Use your own."
        return Fault("placeholder_domain", problem, EXAMPLE_DOMAIN)
    for found, problem in (
        ("://" in value, "is a URL. Write only the name, without the scheme (https://) and without a path."),
        ("/" in value, "has a path. Write only the name; an app has its whole domain."),
        (re.search(r"[\s,;]", value), "is more than one name, or contains a space. Write one name per entry."),
        (is_address(value.strip("[]")), "has brackets. Write only the address."),
        (re.fullmatch(r".*:\d*", value), "has a port. Write only the name; the ports are 80 and 443."),
        (":" in value, "has a colon, but is not an IPv6 address."),
        ("*" in value.removeprefix("*."), 'has a * in the wrong place: a wildcard starts with "*.".'),
        (value != value.lower(), "has capital letters. Write it in lower case."),
        (value.strip(".") != value, "starts or ends with a dot. Remove the dot."),
        ("_" in value, "has an underscore, which is not allowed in host names. Use a hyphen."),
        (not value.isascii(), "has letters other than a to z. Write the form that DNS uses, which starts with xn--."),
        (value.startswith("*.") and "." not in value[2:], "is a wildcard for a top-level domain. Use your own domain."),
        ("." not in value, "has no dot. Write the full name, or for a trial one that ends in .localhost."),
        (
            not is_domain(value.removeprefix("*.")),
            "is not a domain name. Use letters, digits, hyphens and dots, and no number at the end.",
        ),
    ):
        if found:
            address = value.strip("[]")
            works = next((name for name in (address, bare) if is_address(name) or is_domain(name)), "shop.localhost")
            return Fault("bad_domain", f"{show(value)} {problem}", snippet(("domains",), [works]))
    return None


def bare_domain(value: str) -> str:
    """Guess the domain that a URL, or a name with a port, capitals or underscores, stands for. It need not be valid."""
    text = re.split(r"[/?#\s,;]", re.sub(r"(?i)^\s*[a-z]+://", "", value).strip(), maxsplit=1)[0]
    text = re.sub(r":\d*$", "", text.rpartition("@")[2]).strip(".").removeprefix("*.").replace("_", "-")
    if not text.isascii():
        try:
            text = text.encode("idna").decode()
        except UnicodeError:
            return ""
    text = text.lower()
    return text if "." in text or not text else f"{text}.localhost"


def is_domain(value: str) -> bool:
    """Return whether a text is a valid domain name."""
    return bool(re.fullmatch(DOMAIN_NAME, value))


def _address(value: str) -> Fault | None:
    """Check a domain that is an IP address."""
    address = ipaddress.ip_address(value)
    if any(address in network for network in RESERVED_NETWORKS if network.version == address.version):
        problem = f"{show(value)} is reserved for documentation: no server can be reached at it. Use your own."
        return Fault("placeholder_domain", problem, EXAMPLE_DOMAIN)
    if address.is_unspecified or address.is_multicast or address.is_link_local or "%" in value:
        problem = f"{show(value)} is not an address that visitors can use."
        return Fault("bad_domain", problem, EXAMPLE_DOMAIN)
    if value != str(address):
        problem = f"{show(value)} is not in the canonical form (RFC 5952). Write {address}."
        return Fault("bad_domain", problem, snippet(("domains",), [str(address)]))
    return None
