"""What the program is told: /etc/flaskhost/certificates.json, written by the role certbot. No secret is in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.failures import Failure

#: The configuration.
CONFIG = Path("/etc/flaskhost/certificates.json")
#: What certbot calls the certificate of a site: flask-<name>. Lineages of other names are not ours.
PREFIX = "flask-"


class CertificateError(Failure):
    """A failure of flaskhost-certificates."""


@dataclass(frozen=True)
class Hsts:
    """What browsers may be told of HTTPS at the end of the ramp.

    Attributes:
        max_age: seconds; 0 for none.
        subdomains: whether subdomains are meant too.
        preload: whether browsers may carry the name in their list.
    """

    max_age: int = 63072000
    subdomains: bool = False
    preload: bool = False


@dataclass(frozen=True)
class Certificate:
    """One site's certificate, as it is wanted.

    Attributes:
        name: the site's name.
        domains: names, wildcards and IP addresses; the first is canonical.
        mode: acme, selfsigned or files.
        challenge: http or dns.
        certificate: the final path of the certificate and its chain, /etc/flaskhost/tls/<name>/fullchain.pem.
        key: the final path of the private key, in the same folder.
        hsts: what browsers may be told.
        variable: what the operator knows the site's settings by, for messages.
    """

    name: str
    domains: tuple[str, ...]
    mode: str
    challenge: str
    certificate: Path
    key: Path
    hsts: Hsts = field(default_factory=Hsts)
    variable: str = "certbot_certificates[]"

    @property
    def lineage(self) -> str:
        """What certbot calls it."""
        return PREFIX + self.name


@dataclass(frozen=True)
class Config:
    """All that is wanted, and where things are.

    Attributes:
        certificates: the sites' certificates.
        directory: the URL of the authority's ACME directory.
        email: where the authority writes to.
        key_type: p256, p384, rsa2048 or rsa4096.
        profile: the profile to prefer; empty for the authority's default.
        dns_plugin: certbot's DNS plugin, ``rfc2136`` for instance; empty where none is set up.
        dns_propagation: seconds that a DNS record gets to reach the authority's resolvers.
        certbot: certbot's command.
        webroot: the folder that the web server answers challenges from.
        root: the root certificate of a private authority; None for a public one.
        settings: certbot's own folder of settings of ours, with cli.ini and dns.ini.
        letsencrypt: certbot's folder of accounts and lineages.
        state: the folder of what the program remembers, a file for each certificate.
        hooks: the folder of programs that want to know of a new certificate.
    """

    certificates: tuple[Certificate, ...]
    directory: str = "https://acme-v02.api.letsencrypt.org/directory"
    email: str = ""
    key_type: str = "p256"
    profile: str = ""
    dns_plugin: str = ""
    dns_propagation: int = 30
    certbot: Path = Path("/opt/flaskhost/certbot/bin/certbot")
    webroot: Path = Path("/var/www/acme")
    root: Path | None = None
    settings: Path = Path("/etc/flaskhost/certbot")
    letsencrypt: Path = Path("/etc/letsencrypt")
    state: Path = Path("/var/lib/flaskhost/certificates")
    hooks: Path = Path("/etc/flaskhost/certificates.d")


def parse(text: str) -> Config:
    """Read a configuration.

    Args:
        text: a JSON object with the attributes of :class:`Config`; what is left out has its default.

    Raises:
        CertificateError: it is no such object.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        certificates = tuple(_certificate(item) for item in values.pop("certificates"))
        for name in ("certbot", "webroot", "root", "settings", "letsencrypt", "state", "hooks"):
            if name in values:
                values[name] = Path(values[name]) if values[name] else None
        return Config(certificates=certificates, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"The configuration {CONFIG} cannot be read ({type(error).__name__})."
        raise CertificateError(reason, "Run site.yml again, which writes it.") from None


def load(path: Path = CONFIG) -> Config:
    """Read the configuration from its file.

    Raises:
        CertificateError: it is not there, or cannot be read.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"The configuration {path} cannot be read: {error.strerror}."
        raise CertificateError(reason, "Run site.yml, which writes it.") from None


def _certificate(item: dict[str, Any]) -> Certificate:
    values = {"mode": "selfsigned", "challenge": "http", **item, "domains": tuple(item["domains"])}
    for name in ("certificate", "key"):
        values[name] = Path(values[name])
    return Certificate(**{**values, "hsts": Hsts(**values.get("hsts", {}))})
