"""The authority and how it is asked: its directory, certbot's command line, and what certbot's failures mean.

The texts of failures are those of certbot 5.8.0's source, of Boulder, which Let's Encrypt runs, and of Pebble.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.flaskhost.host import atomic

from flaskhost_certificates.config import Certificate, CertificateError, Config

#: What certbot runs once a lineage has a new certificate.
DEPLOYED = "/usr/local/sbin/flaskhost-certificates deployed"
#: The system's trusted roots: Debian's package ca-certificates.
SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
#: certbot's arguments for each key type (certbot --help security).
KEYS = {
    "p256": ("--key-type", "ecdsa", "--elliptic-curve", "secp256r1"),
    "p384": ("--key-type", "ecdsa", "--elliptic-curve", "secp384r1"),
    "rsa2048": ("--key-type", "rsa", "--rsa-key-size", "2048"),
    "rsa4096": ("--key-type", "rsa", "--rsa-key-size", "4096"),
}
#: certbot's DNS plugins without a file of credentials and a time of propagation as arguments: route53 reads the
#: environment and the host's own role in AWS, and waits for the change by itself.
PLUGINS_WITHOUT_ARGUMENTS = frozenset({"route53"})
#: Seconds that the authority's directory may take.
TIMEOUT = 15.0
#: Seconds to leave an authority alone that names no time with its rate limit. Let's Encrypt's shortest limit is that of
#: failed validations, 5 an hour (https://letsencrypt.org/docs/rate-limits/).
PAUSE = 3600.0


@dataclass(frozen=True)
class Failure:
    """What came of asking the authority.

    Attributes:
        reason: what is wrong, as a sentence.
        cure: what to do, as a sentence; may be empty.
        not_before: when to ask again at the earliest, in seconds since the epoch; 0 for any time.
    """

    reason: str
    cure: str
    not_before: float = 0


def directory(url: str, root: Path | None = None) -> dict[str, Any]:
    """Fetch the authority's directory (RFC 8555, section 7.1.1).

    Args:
        url: where it is.
        root: the PEM file of a private authority's root, trusted beside the system's.

    Returns:
        the directory; ``meta`` and its ``caaIdentities``, the authority's names in CAA records (section 9.7.6), are
        always there.

    Raises:
        CertificateError: it cannot be had, or is none.
    """
    host = _host(url)
    if host is None:
        raise CertificateError("acme.directory is not an HTTPS URL.", "Write it like https://ca.example.com/dir.")
    request = urllib.request.Request(url, headers={"User-Agent": "flaskhost"})  # noqa: S310 - https, above
    later = "The next run retries."
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=_context(root)) as response:  # noqa: S310
            text = response.read(1_000_000)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 429 or error.code >= 500:
            raise CertificateError(f"The CA {host} is down or busy: it returned {error.code}.", later) from None
        reason = f"The CA {host} returned {error.code} for {url}."
        raise CertificateError(reason, "Check acme.directory.") from None
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _unreachable(host, cause, root) from None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"newNonce", "newAccount", "newOrder"} <= found.keys():
        reason = f"{url} did not return an ACME directory."
        raise CertificateError(reason, "Check acme.directory: the CA's documentation has its URL.")
    meta = found["meta"] if isinstance(found.get("meta"), dict) else {}
    names = meta.get("caaIdentities")
    names = [item for item in names if isinstance(item, str)] if isinstance(names, list) else []
    return {**found, "meta": {**meta, "caaIdentities": names}}


def certonly(config: Config, certificate: Certificate, *, force: bool = False) -> list[str]:
    """Make the command that asks for a site's certificate.

    The authority's URL, the e-mail address, the consent to its terms and the external account are in cli.ini, as the
    account's key is a secret and a command line is none.

    Args:
        config: all that is wanted.
        certificate: the one to ask for.
        force: to have a new one though the old one has the names and time left: its key type was changed, say.

    Raises:
        CertificateError: it cannot be asked for with these settings.
    """
    where = certificate.variable
    command = [
        *(str(config.certbot), "certonly", "--non-interactive", "--config", str(config.settings / "cli.ini")),
        *("--config-dir", str(config.letsencrypt), "--cert-name", certificate.lineage),
        *_challenge(config, certificate),
        *_key(config.key_type),
        # Names are exact: without it certbot asks back when some are gone, and adds to them when some are new.
        *("--renew-with-new-domains", "--keep-until-expiring", "--deploy-hook", DEPLOYED),
    ]
    if force:
        command.append("--force-renewal")
    if config.profile:
        command += ["--preferred-profile", config.profile]
    for domain in certificate.domains:
        if not _is_address(domain):
            command += ["-d", domain]
        elif certificate.challenge == "dns":
            reason = f"{where}.domains has the address {domain}, which the dns challenge cannot validate."
            raise CertificateError(reason, f"Set {where}.tls.challenge to http, or remove the address.")
        else:
            command += ["--ip-address", domain]
    return command


def renewal(config: Config) -> list[str]:
    """Make the command that renews what is due.

    cli.ini is not named: what is set there counts for every lineage, and one that somebody else has made, with another
    authority, would be renewed with ours, or fail for want of its account (certbot's renewal.py, ``set_by_user``).
    Each lineage's own file in renewal/ knows its authority, account, challenge, credentials and hook.

    Args:
        config: all that is wanted.
    """
    command = [str(config.certbot), "renew", "--non-interactive", "--no-random-sleep-on-renew"]
    return [*command, "--config-dir", str(config.letsencrypt)]


def environment(config: Config) -> dict[str, str]:
    """Tell what certbot's environment needs beside the usual: whom to trust as the authority.

    certbot of a virtual environment trusts certifi's roots, whatever the system's are (requests' documentation, "SSL
    Cert Verification").
    """
    return {"REQUESTS_CA_BUNDLE": str(_bundle(config))} if config.root else {}


def ca_bundle(config: Config) -> Path | None:
    """Join the system's roots and that of a private authority, for :func:`environment`; nothing else may be lost by it.

    Returns:
        the file, or None where there is no private authority. It is written only when it is not already so.

    Raises:
        CertificateError: the root cannot be read, or the file cannot be written.
    """
    if config.root is None:
        return None
    path = _bundle(config)
    content = _root(config.root)
    with contextlib.suppress(OSError):
        content = SYSTEM_ROOTS.read_text(encoding="latin-1").rstrip("\n") + "\n" + content
    try:
        if path.exists() and path.read_text(encoding="latin-1") == content:
            return path
        atomic.write(path, content.encode("latin-1"), mode=0o644)
    except OSError as error:
        reason = f"{path} cannot be written: {error.strerror}."
        raise CertificateError(reason, "Run site.yml again, which creates its folder.") from None
    return path


def explain(output: str, now: float, url: str = "", identity: Callable[[], str] = str) -> Failure:
    """Turn what certbot printed into a sentence and its cure.

    Args:
        output: its output and error output.
        now: seconds since the epoch.
        url: the authority's directory, so that it can be named.
        identity: tells the authority's name in CAA records, "" if unknown; called only if such a record forbids it.
    """
    failure = _explain(output, now, identity)
    named = f"The CA {_host(url)} " if _host(url) else "The CA "
    return replace(failure, reason=re.sub("^The CA ", lambda _match: named, failure.reason))


def _explain(output: str, now: float, identity: Callable[[], str]) -> Failure:
    text = re.sub(r"\x1b\[[0-9;]*m", "", output).replace("\r", "")
    challenges = _challenges(text, identity)
    limit = _rate_limit(text, now)
    if challenges:
        reasons = list(dict.fromkeys(reason for reason, _ in challenges))
        cures = list(dict.fromkeys(cure for _, cure in challenges))
        if limit:
            reasons, cures = [*reasons, limit.reason], [*cures, limit.cure]
        return Failure(" ".join(reasons), " ".join(cures), limit.not_before if limit else 0)
    if limit:
        return limit
    for pattern, reason, cure in RULES:
        match = re.search(pattern, text, re.IGNORECASE)
        if match:
            values = {key: _clean(value or "") for key, value in match.groupdict().items()}
            # Where nothing more was said, no colon is left behind.
            return Failure(re.sub(r":? +\.$", ".", reason.format(**values)), _cure(cure, values, identity))
    return Failure(f"certbot failed: {_last_lines(text)}.", "See /var/log/letsencrypt/letsencrypt.log.")


def _cure(cure: str, values: dict[str, str], identity: Callable[[], str]) -> str:
    """Fill in a cure. ``{record}`` in it stands for the CAA record that the domain ``name`` lacks."""
    if "{record}" not in cure:
        return cure.format(**values)
    name, issuer = values["name"] or "the domain", _clean(identity())
    if not issuer:
        return f"Add the CA to the CAA records of {name}. The CA's documentation has its name in such records."
    # Boulder does not say whether it is for a wildcard, for which issuewild counts (RFC 8659, section 4.3).
    record = f'{name}. CAA 0 issue "{issuer}"'
    return f"Add: {record} (for a wildcard: issuewild). If this record exists, check its parameters."


#: What certbot prints, what it means, and what to do. The first that fits counts.
RULES = (
    (
        r"Another instance of Certbot is already running",
        "Another certbot is running on this host.",
        "Run the same command again when it has ended; 'pgrep -af certbot' shows it.",
    ),
    # The file's contents are never quoted: certbot puts the line that it cannot read into its message.
    (
        r"Error parsing credentials configuration",
        "certbot cannot read the credentials of the DNS plugin.",
        "Check acme.dns.credentials against the plugin's documentation.",
    ),
    (
        r"Missing propert(?:y|ies) in credentials configuration file[^\n]*\n"
        r"(?P<what>(?: \* Property \"[\w-]+\"[^\n]*\n?)+)",
        "acme.dns.credentials is incomplete: {what}.",
        "Add the missing values. The plugin's documentation describes them.",
    ),
    (
        r"unrecognized arguments: --dns-(?P<name>[\w-]+?)-(?:credentials|propagation-seconds)",
        "The DNS plugin {name} of certbot is not installed.",
        "Check acme.dns.plugin and acme.dns.package, then run site.yml again, which installs the plugin.",
    ),
    (
        r"The requested (?P<name>\S+) plugin does not appear to be installed",
        "The plugin {name} of certbot is not installed.",
        "Check acme.dns.plugin and acme.dns.package, then run site.yml again, which installs the plugin.",
    ),
    (
        r"The (?P<name>\S+) plugin is not working",
        "certbot's plugin {name} does not work.",
        "Check acme.dns.package: its version must match certbot's.",
    ),
    (
        r"(?:Encountered error (?:adding|deleting) TXT record: |Received response from server: )(?P<what>[^\n]*)",
        "The DNS server of acme.dns rejected the record of the challenge: {what}.",
        "Check acme.dns.credentials (server, key name, secret, algorithm), and which records the key can change.",
    ),
    (
        r"Unable to determine base domain for (?P<name>\S+) using|Unable to determine zone[^\n]*? for (?P<zone>\S+)",
        "The DNS server of acme.dns does not serve the zone of {name}{zone}.",
        "Set acme.dns to the primary server of the zone, or use the http challenge.",
    ),
    (
        r"Encountered error when making query: (?P<what>[^\n]*)",
        "The DNS server of acme.dns does not respond: {what}.",
        "Check its address and port in acme.dns.credentials, and the firewalls in between.",
    ),
    (
        r"externalAccountRequired|requires external account binding",
        "The CA requires an external account.",
        "Set acme.external_account (key_id and hmac_key) to the values that the CA gave you.",
    ),
    (
        r"external account|(?-i:\bEAB\b)|externalAccountBinding",
        "The CA rejected the external account.",
        "Check acme.external_account: key_id and hmac_key must belong to the same account. Some CAs accept them only "
        "once.",
    ),
    (
        r"(?:ACME server believes (?P<email>\S+) is an invalid|invalidContact|invalidEmail|contact email has)",
        "The CA rejected the email address {email}.",
        "Set acme_email to an address that receives mail. CAs reject example.com and similar domains.",
    ),
    (
        r"invalidProfile|(?:profile|Profile) (?P<name>\S+)? ?(?:not recognized|is not|not permitted|not available)",
        "The CA does not offer the profile {name} to this account.",
        "Check acme.profile. The CA's directory lists the available profiles.",
    ),
    (
        r"(?:rejectedIdentifier|Cannot issue for|Policy forbids issuing|Invalid identifiers requested)(?P<what>[^\n]*)",
        "The CA does not issue certificates for this name: {what}.",
        "Remove it from the app's domains, or use tls.mode selfsigned or files.",
    ),
    (
        r"does not support issuing wildcard certificates",
        "The CA issues no wildcard certificates.",
        "List each subdomain in the app's domains.",
    ),
    (
        r"does not support any combination of challenges|None of the preferred challenges are supported",
        "The CA does not accept this challenge for one of the names.",
        "Set tls.challenge to dns for a wildcard, or to http for an address.",
    ),
    (
        r"CAA record for (?P<name>\S+) prevents issuance",
        "The CAA record of {name} forbids the CA to issue the certificate.",
        "{record}",
    ),
    # Boulder's, of several names at once (ra.go, ``recheckCAA``), and certbot's description of the type.
    (
        r"Rechecking CAA for \"(?P<name>[^\"\s]+)\"|:error:caa\b|\(CAA\) records forbid",
        "CAA records forbid the CA to issue the certificate: {name}.",
        "{record}",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED\]? ?(?:certificate verify failed: )?(?P<what>[^(\n]*)",
        "certbot does not trust the CA's own certificate: {what}.",
        "Set acme.root to the PEM of its root certificate.",
    ),
    (
        r"Failed to resolve|Name or service not known|Temporary failure in name resolution|getaddrinfo failed",
        "This host cannot resolve the CA's name.",
        "Check acme.directory and /etc/resolv.conf.",
    ),
    (
        r"Failed to establish a new connection|Connection refused|ConnectTimeout|Read timed out|Connection aborted"
        r"|Network is unreachable|No route to host|RemoteDisconnected",
        "The CA does not respond.",
        "The next run retries. If the problem persists, check this host's network and the CA's status page.",
    ),
    (
        r"Service busy|serverInternal|experienced an internal error|<Response \[5\d\d\]>|service outage"
        r"|The service is down",
        "The CA is down or busy.",
        "The next run retries.",
    ),
    (
        r"accountDoesNotExist|Account at \S+ does not exist",
        "The CA does not know this host's account any more.",
        "Delete its folder in /etc/letsencrypt/accounts and run the same command again, which creates a new account.",
    ),
    (
        r"badSignatureAlgorithm|badPublicKey|badCSR(?P<what>[^\n]*)",
        "The CA rejected the key{what}.",
        "Choose another acme.key_type.",
    ),
    (
        r"No space left on device",
        "The disk is full.",
        "Free some space in /etc/letsencrypt, /var/lib/letsencrypt and /var/log/letsencrypt.",
    ),
    (
        r"Unable to find deploy-hook command|hook command \S+ exists, but is not executable",
        "The program flaskhost-certificates is not installed.",
        "Run site.yml again, which installs it.",
    ),
    (
        r"Timed out waiting for|All authorizations were not finalized|Certificate issuance poll timed out",
        "The CA took too long.",
        "The next run retries.",
    ),
    # It is missing, or the Python that it was installed with is: after an upgrade of the distribution, say.
    (
        r"/bin/certbot: (?P<what>[^\n]+)|ModuleNotFoundError: (?P<module>[^\n]+)",
        "certbot does not run: {what}{module}.",
        "Run site.yml again, which installs it.",
    ),
)

#: certbot's report of a failed challenge (auth_handler.py, ``_generate_failed_chall_msg``).
REPORT = re.compile(r"^ *Identifier: (\S+)\n +Type: +(\S+)\n +Detail: ([^\n]*)", re.MULTILINE)
#: What a failed challenge means, by its type and words of its detail: the first that fits counts.
CHALLENGES = (
    # The record may be that of a parent domain.
    (
        r"",
        r"CAA record for (?P<place>\S+) prevents issuance",
        "the CAA record of {place} forbids it to issue for {name}",
        "{record}",
    ),
    (
        r"caa",
        r"",
        "the CAA records of {name} forbid it to issue ({detail})",
        "{record}",
    ),
    (
        r"",
        r"\bCAA\b[^;]*(?:prevents|forbid)",
        "the CAA records of {name} forbid it to issue ({detail})",
        "{record}",
    ),
    (
        r"",
        r"TXT record|_acme-challenge\.|DNS challenge",
        "it does not see the challenge's TXT record of {name} ({detail})",
        "Check which DNS server acme.dns writes to, and set a higher acme.dns.propagation.",
    ),
    (
        r"",
        r"NXDOMAIN|no valid A(?:AAA)? records|no such host|No valid IP addresses",
        "it found no address of {name}",
        "Add the A record of {name}. If it exists already, wait until all DNS servers have it.",
    ),
    (
        r"dns|dnssec|unknownHost",
        r"",
        "it cannot resolve {name} ({detail})",
        "Check the DNS servers of {name}, including DNSSEC.",
    ),
    (
        r"",
        r"Timeout during connect|i/o timeout|deadline exceeded|Timeout after connect|context deadline|timed out",
        "it got no response on port 80 of {name} ({detail})",
        "Open port 80 in the provider's firewall, and check that the records of {name} lead to this host.",
    ),
    (
        r"",
        r"Connection refused|connection refused",
        "port 80 of {name} refused the connection ({detail})",
        "Check that the A and AAAA records of {name} lead to this host, and open port 80 in the provider's firewall.",
    ),
    (
        r"connection|tls",
        r"",
        "it could not fetch the challenge's file of {name} ({detail})",
        "Open port 80 in the provider's firewall, and check that the records of {name} lead to this host.",
    ),
    (
        r"unauthorized|incorrectResponse",
        r"",
        "another host or site responded for {name} ({detail})",
        "Check that all A and AAAA records of {name} lead to this host, and check the proxies in front of it.",
    ),
    (
        r"",
        r"",
        "it could not validate {name}: {type} ({detail})",
        "Check the records of {name}, and port 80.",
    ),
)

#: Words of a rate limit: RFC 8555's type, certbot's description of it, Boulder's limits and its pause of an account.
LIMIT = re.compile(
    r"[^\n]*(?:rateLimited|too many requests of a given type|rate limit|temporarily prevented from requesting"
    r"|too many (?:new |currently |failed |certificates|requests))[^\n]*",
    re.IGNORECASE,
)


def _challenges(text: str, identity: Callable[[], str]) -> list[tuple[str, str]]:
    found = []
    for name, kind, detail in REPORT.findall(text):
        for type_pattern, words, reason, cure in CHALLENGES:
            match = re.search(words, detail)
            if match and (not type_pattern or re.fullmatch(type_pattern, kind)):
                said = {"name": name, "type": kind, "detail": _short(detail), **match.groupdict()}
                place = {**said, "name": said.get("place", name)}
                found.append((f"The CA reports: {reason.format(**said)}.", _cure(cure, place, identity)))
                break
    return found


def _rate_limit(text: str, now: float) -> Failure | None:
    match = LIMIT.search(text)
    # Boulder's load shedding is of the same type, but over at once.
    if match is None or "Service busy" in match[0]:
        return None
    line = match[0]
    # The part that names the limit, without what certbot and Boulder put before it.
    parts = [item.strip() for item in re.split(r" :: |\bError: ", line)]
    detail = next((item for item in reversed(parts) if item and not item.startswith("see http")), line)
    what = re.split(r"[,.:]? (?:retry after|please visit|see https?:)", detail, flags=re.IGNORECASE)[0]
    reason = f"The CA's rate limit is reached: {_clean(what)}."
    portal = re.search(r"please visit:? (https://\S+)", line, re.IGNORECASE)
    if portal:
        return Failure(reason, f"Find the cause of the failures, then open {portal[1]} once.", now + PAUSE)
    moment = _retry_after(line)
    until = moment if moment > now else now + PAUSE
    shown = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Failure(reason, f"You do not have to do anything: the program retries after {shown}.", until)


def _retry_after(line: str) -> float:
    """Read Boulder's time, "retry after 2026-11-22 10:00:00 UTC" or "2026-11-22T10:00:00Z"; 0 where there is none."""
    match = re.search(r"retry after (\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:Z| UTC)", line, re.IGNORECASE)
    if match is None:
        return 0
    try:
        return datetime.fromisoformat(f"{match[1]}T{match[2]}+00:00").timestamp()
    except ValueError:
        return 0


def _last_lines(text: str) -> str:
    """The end of certbot's output without what it says each time."""
    idle = (
        r"Saving debug log|Ask for help or search|See the logfile|An unexpected error occurred|[-* ]+$|usage:|Hint:"
        r"|Requesting a certificate|Renewing an existing|Account registered|Some challenges have failed|Processing /"
        r"|\d+ renew failure|All (?:simulated )?renewals failed|  /"
    )
    lines = [line.strip() for line in text.splitlines() if line.strip() and not re.match(idle, line)]
    return _clean(" ".join(lines[-3:])) or "it printed nothing"


def _clean(text: str) -> str:
    """One line, not too long, without what could be a secret: certbot and plugins quote what they cannot read."""
    words = []
    for word in text.split():
        # URLs and paths are long, and none.
        if "://" not in word and not re.match(r"\W*/(?:etc|var|usr|opt|srv|run|tmp)/", word):
            word = re.sub(r"[A-Za-z0-9+/=_-]{32,}", "[...]", word)  # noqa: PLW2901 - the word, shortened
        words.append(word)
    return _short(" ".join(words)).strip(" .:")


def _short(text: str, limit: int = 300) -> str:
    text = "".join(char if char.isprintable() else " " for char in text).strip().rstrip(".")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _challenge(config: Config, certificate: Certificate) -> list[str]:
    if certificate.challenge != "dns":
        return ["--webroot", "-w", str(config.webroot)]
    plugin = config.dns_plugin
    if not plugin:
        reason = f"{certificate.variable}.tls.challenge is dns, but no DNS plugin is set."
        raise CertificateError(reason, "Set acme.dns: plugin and credentials.")
    # Not --dns-<plugin>, which certbot has for its own plugins only.
    command = ["--authenticator", f"dns-{plugin}"]
    if plugin in PLUGINS_WITHOUT_ARGUMENTS:
        return command
    credentials = str(config.settings / "dns.ini")
    seconds = str(config.dns_propagation)
    return [*command, f"--dns-{plugin}-credentials", credentials, f"--dns-{plugin}-propagation-seconds", seconds]


def _key(key_type: str) -> tuple[str, ...]:
    if key_type not in KEYS:
        raise CertificateError(f"acme.key_type is {key_type}.", f"Available: {', '.join(KEYS)}.")
    return KEYS[key_type]


def _context(root: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if root is not None:
        try:
            context.load_verify_locations(cadata=_root(root))
        except (ssl.SSLError, ValueError):
            raise CertificateError(f"acme.root ({root}) contains no PEM certificate.", "Set it anew.") from None
    return context


def _root(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise CertificateError(f"acme.root ({path}) cannot be read: {error.strerror}.", "Run site.yml again.") from None
    except ValueError:
        text = ""
    # The certificates alone: the bundle is for everybody to read, and a key may have come along.
    found = re.findall(r"-----BEGIN CERTIFICATE-----\n.+?-----END CERTIFICATE-----", text, re.DOTALL)
    if not found:
        raise CertificateError(f"acme.root ({path}) contains no PEM certificate.", "Set it anew.")
    return "\n".join(found) + "\n"


def _unreachable(host: str, cause: object, root: Path | None) -> CertificateError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        cure = "Set acme.root to the PEM of its root certificate."
        if root is not None:
            cure = "acme.root is not the root of this certificate, or the host's clock is wrong."
        return CertificateError(f"The CA {host} is not trusted: {cause.verify_message}.", cure)
    if isinstance(cause, ssl.SSLError):
        return CertificateError(f"The CA {host} does not support TLS ({cause.reason}).", "Check acme.directory.")
    if isinstance(cause, socket.gaierror):
        cure = "Check acme.directory, and this host's /etc/resolv.conf."
        return CertificateError(f"The name of the CA {host} cannot be resolved.", cure)
    said = "it did not respond in time" if isinstance(cause, TimeoutError) else ""
    said = said or (getattr(cause, "strerror", "") or type(cause).__name__).lower()
    cure = "The next run retries. If the problem persists, check acme.directory and this host's network."
    return CertificateError(f"The CA {host} cannot be reached: {said}.", cure)


def _host(url: str) -> str | None:
    """The host of a URL of HTTPS, which is all that ACME runs over (RFC 8555, section 6.1); None where it is none."""
    try:
        parts = urlsplit(url)
        # A password in it would end up in messages. A port that is none raises.
        usable = parts.scheme == "https" and parts.hostname and parts.port != 0 and "@" not in parts.netloc
        return parts.netloc if usable else None
    except ValueError:
        return None


def _bundle(config: Config) -> Path:
    return config.settings / "ca-bundle.pem"


def _is_address(domain: str) -> bool:
    try:
        ipaddress.ip_address(domain)
    except ValueError:
        return False
    return True
