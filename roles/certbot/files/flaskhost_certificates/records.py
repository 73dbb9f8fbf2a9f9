"""What must be true of a name before an authority is asked for its certificate: its records, and port 80.

An authority counts failures (Let's Encrypt: 5 an hour for an account and name), and says little about their cause. So
what can be known beforehand is looked at here. Where this host cannot know, it says nothing and the authority decides:
a problem that is none would keep a certificate back for ever. CAA records are the authority's to read: it names the one
that forbids it.
"""

from __future__ import annotations

import errno
import http.client
import ipaddress
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import dns.exception
import dns.name
import dns.resolver

from flaskhost_certificates.config import CertificateError

#: Sends a request to an address for a domain: "" when the challenge's file came back, else why not ("refused", ...).
Probe = Callable[[str, str], str]
#: Runs a command: its exit status, output and error output.
Run = Callable[[Sequence[str]], tuple[int, str, str]]

#: Where an authority looks for the answer to an HTTP challenge (RFC 8555, section 8.3).
CHALLENGES = ".well-known/acme-challenge"
#: What a probe says where no connection came about.
REFUSED, TIMEOUT, UNREACHABLE = "refused", "timeout", "unreachable"
#: How a probe's answer begins where it was sent on with the challenge's path kept: an authority follows it.
FORWARDED = "forwards to "
#: How the files of probes begin.
PREFIX = "flaskhost-probe-"
#: Seconds after which a probe's file is taken for one that a killed run has left.
STALE = 600
#: Seconds that one question to the resolver may take. dnspython's own default.
LIFETIME = 5.0
#: Addresses that nobody out there reaches: RFC 1918, RFC 6598 (a provider's NAT), RFC 4193. ``is_private`` of
#: ipaddress is wider: it also holds the addresses that documentation uses.
PRIVATE = tuple(
    ipaddress.ip_network(item) for item in "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7".split()
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def own_addresses(run: Run) -> list[str]:
    """Tell the addresses that this host can be reached by.

    Args:
        run: runs ``ip``.

    Returns:
        addresses without those of loopback and link-local; public before private, IPv4 before IPv6.

    Raises:
        CertificateError: they cannot be read.
    """
    cure = "Install the package iproute2, and check the output of 'ip -j address'."
    try:
        status, out, _ = run(["ip", "-j", "address"])
        if status:
            raise CertificateError(f"The addresses of this host cannot be read: 'ip' ended with {status}.", cure)
        found = {
            ipaddress.ip_address(item["local"])
            for interface in json.loads(out)
            for item in interface.get("addr_info", [])
            if item.get("local")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"The addresses of this host cannot be read ({type(error).__name__})."
        raise CertificateError(reason, cure) from None
    usable = [item for item in found if not item.is_loopback and not item.is_link_local]
    return [str(item) for item in sorted(usable, key=lambda item: (_private(item), item.version, int(item)))]


@contextmanager
def probing(webroot: Path, port: int = 80, tls_port: int = 443, timeout: float = 5.0) -> Iterator[Probe]:
    """Put a file where challenges are answered from, and ask for it as an authority would.

    Args:
        webroot: the folder that the web server answers challenges from.
        port: the TCP port; an authority always uses 80 (RFC 8555, section 8.3).
        tls_port: the TCP port where the answer is a redirect to HTTPS.
        timeout: seconds for a connection, and again for its answer.

    Yields:
        the probe. Its answers: "" (the file came back), :data:`REFUSED`, :data:`TIMEOUT`, :data:`UNREACHABLE`,
        "answers 404" or another status, "answers something else", "answers no HTTP", "redirects to <URL>", or
        :data:`FORWARDED` and a URL. One redirect is followed, to HTTPS or HTTP of the same name: authorities do, and
        a name's former host answers its challenges with one too.

    Raises:
        CertificateError: the file cannot be written.
    """
    folder = webroot / CHALLENGES
    token, content = PREFIX + secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    path = folder / token
    try:
        for left in folder.glob(f"{PREFIX}*"):
            if left.stat().st_mtime < time.time() - STALE:
                left.unlink(missing_ok=True)
        path.write_text(content, encoding="ascii")
        # The web server's user reads it, whatever the umask.
        path.chmod(0o644)
    except OSError as error:
        path.unlink(missing_ok=True)
        reason = f"The folder of challenges {folder} cannot be written: {error.strerror}."
        raise CertificateError(reason, "Run site.yml again, which creates it.") from None
    try:
        asked = _Question(f"/{CHALLENGES}/{token}", content, {"http": port, "https": tls_port}, timeout)
        yield asked.probe
    finally:
        path.unlink(missing_ok=True)


def problems(
    domains: Sequence[str], own: Sequence[str], probe: Probe, *, resolver: dns.resolver.Resolver | None = None
) -> list[str]:
    """Tell what keeps an authority from seeing that these names lead here, for the http challenge.

    Args:
        domains: names, wildcards and IP addresses.
        own: the host's addresses, of :func:`own_addresses`.
        probe: of :func:`probing`.
        resolver: what is asked; the system's when left out.

    Returns:
        a sentence for each problem, with its cure; empty when the authority can be asked.

    Raises:
        CertificateError: this host has no resolver.
    """
    host = _Host.of(own, probe)
    resolver = resolver or _system_resolver()
    found: list[str] = []
    for domain in domains:
        address = _address(domain)
        found += _address_problems(address, host) if address else _name_problems(domain, resolver, host)
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Host:
    """This host: its addresses, and how to send a request."""

    addresses: tuple[Address, ...]
    probe: Probe

    @classmethod
    def of(cls, own: Sequence[str], probe: Probe) -> _Host:
        return cls(tuple(ipaddress.ip_address(item) for item in own), probe)

    def family(self, version: int) -> list[Address]:
        """Its addresses of IPv4 or IPv6; private ones only where there are no public ones, as nobody has them sent."""
        mine = [item for item in self.addresses if item.version == version]
        return [item for item in mine if not _private(item)] or mine

    def hidden(self, address: Address) -> bool:
        """Whether a public address may lead here through NAT without this host's knowing, nor reaching it itself."""
        mine = [item for item in self.addresses if item.version == address.version]
        return bool(mine) and all(_private(item) for item in mine) and not _private(address)

    def shown(self) -> str:
        return ", ".join(str(item) for item in [*self.family(4), *self.family(6)]) or "no address"


class _LookupFailed(Exception):
    """The resolver gave no answer, neither yes nor no; the text says why."""


def _look_up(resolver: dns.resolver.Resolver, domain: str, kind: str) -> tuple[list[Address], str]:
    """Look up A or AAAA.

    Returns:
        the addresses, and the name that the domain is an alias of, or "".
    """
    name = dns.name.from_text(domain)
    records: list[Any] = []
    canonical: dns.name.Name | None
    try:
        answer = resolver.resolve(name, kind, raise_on_no_answer=False, lifetime=LIFETIME)
        records, canonical = list(answer.rrset or []), answer.canonical_name
    except dns.resolver.NXDOMAIN as error:
        canonical = _canonical(error)
    except dns.exception.Timeout:
        raise _LookupFailed("the resolver did not respond in time") from None
    except dns.resolver.NoNameservers:
        raise _LookupFailed("the resolver returned a failure (SERVFAIL)") from None
    except (dns.exception.DNSException, OSError) as error:
        raise _LookupFailed(type(error).__name__) from None
    found = [ipaddress.ip_address(record.address) for record in records]
    return sorted(found, key=int), "" if canonical is None or canonical == name else canonical.to_text(True)


def _name_problems(domain: str, resolver: dns.resolver.Resolver, host: _Host) -> list[str]:
    """What keeps a request for a name from arriving here."""
    if domain.startswith("*."):
        # RFC 8555, section 7.1.3, leaves it to the authority; all that there are want the dns challenge.
        return [f"{domain} is a wildcard, which needs the dns challenge. Set tls.challenge to dns, and set acme.dns."]
    try:
        fours, alias = _look_up(resolver, domain, "A")
        sixes, _ = _look_up(resolver, domain, "AAAA")
    except _LookupFailed as error:
        return [
            f"{domain} cannot be resolved: {error}. Run the same command again. If the problem persists, check the "
            "name's DNS servers and this host's /etc/resolv.conf."
        ]
    if not fours and not sixes:
        return [_missing(domain, alias, host)]
    # An address that is not ours but leads here: a balancer, a CDN, another web host that passes challenges on.
    answers = {item: host.probe(str(item), domain) for item in [*fours, *sixes] if item not in host.addresses}
    relayed = any(not why or why.startswith(FORWARDED) for why in answers.values())
    # Where one of them is ours, the names lead to the hosts themselves, and there is no balancer in front of them.
    relayed = relayed and not any(item in host.addresses for item in fours)
    found: list[str] = []
    here: set[int] = set()
    for kind, addresses in (("A", fours), ("AAAA", sixes)):
        for address in addresses:
            if address in host.addresses:
                here.add(address.version)
                found += _own_port(domain, address, host)
            elif address.version == 6 and not host.family(6):
                # Behind a balancer its IPv6 is none of ours, and from here it cannot be tried.
                if not relayed and answers[address]:
                    found.append(_no_ipv6(domain, address))
            elif host.hidden(address) and answers[address] in (REFUSED, TIMEOUT, UNREACHABLE):
                # Many routers do not send a host's own public address back to it. What can be seen is our own port.
                if address.version not in here:
                    here.add(address.version)
                    found += _own_port(domain, host.family(address.version)[0], host)
            else:
                found += _foreign(f"The {kind} record of {domain} is {address}", address, answers[address], host)
    return found


def _address_problems(address: Address, host: _Host) -> list[str]:
    """What keeps a request for an address, as a name of the certificate, from arriving here."""
    domain = str(address)
    if address in host.addresses:
        return _own_port(domain, address, host)
    why = host.probe(domain, domain)
    if host.hidden(address) and why in (REFUSED, TIMEOUT, UNREACHABLE):
        return _own_port(domain, host.family(address.version)[0], host)
    return _foreign(f"The certificate is requested for {domain}", address, why, host)


def _own_port(domain: str, address: Address, host: _Host) -> list[str]:
    why = host.probe(str(address), domain)
    if not why:
        return []
    return [
        f"Port 80 of this host does not respond for {domain}: a request to {_said(address, why)}. Check 'systemctl "
        "status nginx' and the host's firewall."
    ]


def _foreign(subject: str, address: Address, why: str, host: _Host) -> list[str]:
    if not why or why.startswith(FORWARDED):
        return []
    change = " or ".join(str(item) for item in host.family(address.version)) or "an address of this host"
    cure = f"Change it to {change}"
    if why in (REFUSED, TIMEOUT, UNREACHABLE):
        cure += f"; if {address} leads to this host, open port 80 in the provider's firewall"
    else:
        cure += f"; if {address} is a load balancer, forward /{CHALLENGES}/ to this host"
    return [
        f"{subject}, which is not this host ({host.shown()}), and a request there does not reach this host: "
        f"{_said(address, why)}. {cure}."
    ]


def _said(address: Address, why: str) -> str:
    """A probe's answer, as the end of a sentence that has no verb yet."""
    place = f"{f'[{address}]' if address.version == 6 else address}:80"
    words = {REFUSED: "is refused", TIMEOUT: "gets no response", UNREACHABLE: "finds no route"}
    return f"{place} {words.get(why, why)}"


def _missing(domain: str, alias: str, host: _Host) -> str:
    records = [
        f"{domain}. {kind} {item}"
        for kind, version in (("A", 4), ("AAAA", 6))
        for item in host.family(version)[:1]
        # A private address of IPv6 beside an IPv4 one is of no use in DNS.
        if version == 4 or not _private(item) or not host.family(4)
    ]
    subject = f"{domain} is an alias (CNAME) of {alias}, which" if alias else domain
    cure = f"Add: {' and '.join(records)}" if records else "Add an A or AAAA record with this host's address"
    if alias:
        cure = f"Give {alias} an address, or replace the alias. {cure}"
    if records and all(_private(item) for item in host.addresses):
        cure += " (or the public address that leads here: this host itself has private ones only)"
    return f"{subject} has no address record yet. {cure}."


def _no_ipv6(domain: str, address: Address) -> str:
    return (
        f"The AAAA record of {domain} is {address}, but this host has no IPv6. Remove the AAAA record, or set up IPv6 "
        "on this host."
    )


@dataclass(frozen=True)
class _Question:
    """What a probe asks for."""

    path: str
    content: str
    ports: dict[str, int]
    timeout: float

    def probe(self, address: str, domain: str) -> str:
        """Ask an address, and follow one redirect that stays with the name."""
        why, location = self._request("http", address, domain)
        if not location:
            return why
        url = _split(location)
        if url.path != self.path:
            return why
        if url.scheme not in self.ports or (url.hostname or "") != domain.lower() or url.netloc.partition(":")[2]:
            return FORWARDED + location
        why, location = self._request(url.scheme, address, domain)
        return FORWARDED + location if _split(location).path == self.path else why

    def _request(self, scheme: str, address: str, domain: str) -> tuple[str, str]:
        """Send one request: what came of it, and where it was sent on to, or ""."""
        connection = http.client.HTTPConnection(address, self.ports[scheme], timeout=self.timeout)
        try:
            if scheme == "https":
                connection.connect()
                connection.sock = _unverified().wrap_socket(
                    connection.sock, server_hostname=None if _address(domain) else domain
                )
            host = f"[{domain}]" if ":" in domain else domain
            headers = {"Host": host, "User-Agent": "flaskhost", "Connection": "close"}
            connection.request("GET", self.path, headers=headers)
            response = connection.getresponse()
            # A byte more than the file, to see that there is no more.
            body = response.read(len(self.content) + 1)
            location = "".join(filter(str.isprintable, response.getheader("Location", "")))[:300]
        except (http.client.HTTPException, OSError, ValueError) as error:
            return _failure(error), ""
        finally:
            connection.close()
        if 300 <= response.status < 400 and location:
            return f"redirects to {location}", location
        if response.status != HTTPStatus.OK:
            return f"answers {response.status}", ""
        return "" if body == self.content.encode() else "answers something else", ""


def _split(location: str) -> SplitResult:
    try:
        return urlsplit(location)
    except ValueError:
        return urlsplit("")


def _unverified() -> ssl.SSLContext:
    """TLS as an authority speaks it to follow a redirect: the certificate is what is yet to be had."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _failure(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return REFUSED
    if isinstance(error, TimeoutError):
        return TIMEOUT
    if isinstance(error, (http.client.HTTPException, ValueError, ConnectionError, ssl.SSLError)):
        return "answers no HTTP"
    return TIMEOUT if getattr(error, "errno", None) == errno.ETIMEDOUT else UNREACHABLE


def _system_resolver() -> dns.resolver.Resolver:
    try:
        return dns.resolver.Resolver()
    except (dns.exception.DNSException, OSError):
        raise CertificateError("This host has no DNS resolver.", "Name one in /etc/resolv.conf.") from None


def _canonical(error: dns.resolver.NXDOMAIN) -> dns.name.Name | None:
    try:
        return error.canonical_name
    except (dns.exception.DNSException, AttributeError, TypeError):
        return None


def _address(domain: str) -> Address | None:
    try:
        return ipaddress.ip_address(domain)
    except ValueError:
        return None


def _private(address: Address) -> bool:
    return any(address in network for network in PRIVATE if network.version == address.version)
