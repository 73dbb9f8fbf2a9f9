"""The authority and how it is asked: its directory, certbot's command line, and what certbot's failures mean.

The texts of failures are those of certbot 5.8.0's source (they are the same in 2.1.0 and 4.0.0, but for "Domain:" in
place of "Identifier:"), of Boulder, which Let's Encrypt runs, and of Pebble.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.flaskhost.host import atomic

from flaskhost_certificates.config import Certificate, CertificateError, Config

#: Runs a command: its exit status, output and error output. The program's own also takes ``env``.
Run = Callable[[Sequence[str]], tuple[int, str, str]]

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
#: The first certbot that knows --preferred-profile (its change log: 4.0.0).
PROFILES_SINCE = (4, 0)
#: The first certbot with IP addresses and --webroot together: 5.3.0 had them for --standalone and --manual only.
ADDRESSES_SINCE = (5, 4)
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
        the directory; ``meta`` and its ``caaIdentities``, a list of names, are always there.

    Raises:
        CertificateError: it cannot be had, or is none.
    """
    host = _host(url)
    if host is None:
        raise CertificateError("acme.directory is no URL of HTTPS.", "It is like https://ca.example.com/dir.")
    request = urllib.request.Request(url, headers={"User-Agent": "flaskhost"})  # noqa: S310 - https, above
    later = "The next run asks again."
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=_context(root)) as response:  # noqa: S310
            text = response.read(1_000_000)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 429 or error.code >= 500:
            raise CertificateError(f"The authority {host} is down or busy: it answers {error.code}.", later) from None
        reason = f"The authority {host} answers {error.code} at {url}."
        raise CertificateError(reason, "Look at acme.directory.") from None
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _unreachable(host, cause, root) from None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"newNonce", "newAccount", "newOrder"} <= found.keys():
        reason = f"What {url} answers is no ACME directory."
        raise CertificateError(reason, "Look at acme.directory: the authority's documentation has its URL.")
    meta = found["meta"] if isinstance(found.get("meta"), dict) else {}
    names = meta.get("caaIdentities")
    names = [item for item in names if isinstance(item, str)] if isinstance(names, list) else []
    return {**found, "meta": {**meta, "caaIdentities": names}}


def version(run: Run, certbot: Path) -> tuple[int, ...]:
    """Tell certbot's version.

    Args:
        run: runs it.
        certbot: its command.

    Raises:
        CertificateError: it does not run.
    """
    cure = "Run site.yml again, which installs it."
    try:
        status, out, err = run([str(certbot), "--version"])
    except OSError as error:
        raise CertificateError(f"{certbot} does not run: {error.strerror}.", cure) from None
    # certbot wrote it to its error output when it still ran on Python 2.
    match = re.search(r"^certbot (\d+(?:\.\d+)*)", f"{out}\n{err}", re.MULTILINE)
    if status or match is None:
        raise CertificateError(f"{certbot} does not run: it does not tell its version.", cure)
    return tuple(int(item) for item in match[1].split("."))


def certonly(config: Config, certificate: Certificate, version: tuple[int, ...], *, force: bool = False) -> list[str]:
    """Make the command that asks for a site's certificate.

    The authority's URL, the e-mail address, the consent to its terms and the external account are in cli.ini, as the
    account's key is a secret and a command line is none.

    Args:
        config: all that is wanted.
        certificate: the one to ask for.
        version: certbot's.
        force: to have a new one though the old one has the names and time left: its key type was changed, say.

    Raises:
        CertificateError: it cannot be asked for with this certbot, or these settings.
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
    if config.profile and version >= PROFILES_SINCE:
        command += ["--preferred-profile", config.profile]
    for domain in certificate.domains:
        if not _is_address(domain):
            command += ["-d", domain]
        elif certificate.challenge == "dns":
            reason = f"{where}.domains has the address {domain}, which the dns challenge cannot prove."
            raise CertificateError(reason, f"Set {where}.tls.challenge to http, or remove the address.")
        elif version < ADDRESSES_SINCE:
            reason = f"{where}.domains has the address {domain}, which certbot {_dotted(version)} cannot ask for."
            raise CertificateError(reason, "Set acme.certbot to pinned, or remove the address.")
        else:
            command += ["--ip-address", domain]
    return command


def notes(config: Config, version: tuple[int, ...]) -> list[str]:
    """Tell which settings this certbot has no use for, a sentence each."""
    if config.profile and version < PROFILES_SINCE:
        return [
            f"certbot {_dotted(version)} knows no profiles, so acme.profile ({config.profile}) is not asked for. Set "
            "acme.certbot to pinned to have it."
        ]
    return []


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
        raise CertificateError(reason, "Run site.yml again, which makes its folder.") from None
    return path


def explain(output: str, now: float, url: str = "") -> Failure:
    """Turn what certbot printed into a sentence and its cure.

    Args:
        output: its output and error output.
        now: seconds since the epoch.
        url: the authority's directory, so that it can be named.
    """
    failure = _explain(output, now)
    named = f"The authority {_host(url)} " if _host(url) else "The authority "
    return replace(failure, reason=re.sub(r"^The authority ", lambda _match: named, failure.reason))


def _explain(output: str, now: float) -> Failure:
    text = re.sub(r"\x1b\[[0-9;]*m", "", output).replace("\r", "")
    challenges = _challenges(text)
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
            return Failure(re.sub(r":? +\.$", ".", reason.format(**values)), cure.format(**values))
    return Failure(f"certbot failed: {_last_lines(text)}.", "See /var/log/letsencrypt/letsencrypt.log.")


#: What certbot prints, what it means, and what to do. The first that fits counts.
RULES = (
    (
        r"Another instance of Certbot is already running",
        "Another certbot is running on this host.",
        "Run again when it has ended; 'pgrep -af certbot' shows it.",
    ),
    # The file's contents are never quoted: certbot puts the line that it cannot read into its message.
    (
        r"Error parsing credentials configuration",
        "The credentials of the DNS plugin cannot be read by certbot.",
        "Look at acme.dns.credentials: names and values as the plugin's documentation has them.",
    ),
    (
        r"Missing propert(?:y|ies) in credentials configuration file[^\n]*\n"
        r"(?P<what>(?: \* Property \"[\w-]+\"[^\n]*\n?)+)",
        "acme.dns.credentials is incomplete: {what}.",
        "Add what is missing, as the plugin's documentation has it.",
    ),
    (
        r"unrecognized arguments: --dns-(?P<name>[\w-]+?)-(?:credentials|propagation-seconds)",
        "certbot has no DNS plugin {name}.",
        "Look at acme.dns.plugin and acme.dns.package, and run site.yml again, which installs it.",
    ),
    (
        r"The requested (?P<name>\S+) plugin does not appear to be installed",
        "certbot has no plugin {name}.",
        "Look at acme.dns.plugin and acme.dns.package, and run site.yml again, which installs it.",
    ),
    (
        r"The (?P<name>\S+) plugin is not working",
        "certbot's plugin {name} does not work.",
        "Look at acme.dns.package: its version must fit certbot's.",
    ),
    (
        r"(?:Encountered error (?:adding|deleting) TXT record: |Received response from server: )(?P<what>[^\n]*)",
        "The DNS server of acme.dns refuses the record of the challenge: {what}.",
        "Look at acme.dns.credentials (server, key's name, secret, algorithm), and at what the key may change there.",
    ),
    (
        r"Unable to determine base domain for (?P<name>\S+) using|Unable to determine zone[^\n]*? for (?P<zone>\S+)",
        "The DNS server of acme.dns does not serve the zone of {name}{zone}.",
        "Set acme.dns up for the server that is the zone's primary, or use the http challenge.",
    ),
    (
        r"Encountered error when making query: (?P<what>[^\n]*)",
        "The DNS server of acme.dns does not answer: {what}.",
        "Look at its address and port in acme.dns.credentials, and at the firewalls between.",
    ),
    (
        r"externalAccountRequired|requires external account binding",
        "The authority wants an external account.",
        "Set acme.external_account (key_id and hmac_key), which the authority hands out.",
    ),
    (
        r"external account|(?-i:\bEAB\b)|externalAccountBinding",
        "The authority refuses the external account.",
        "Look at acme.external_account: key_id and hmac_key must be of one account, and unused where they count once.",
    ),
    (
        r"(?:ACME server believes (?P<email>\S+) is an invalid|invalidContact|invalidEmail|contact email has)",
        "The authority refuses the e-mail address {email}.",
        "Set acme_email to one that receives mail; example.com and the like are refused.",
    ),
    (
        r"invalidProfile|(?:profile|Profile) (?P<name>\S+)? ?(?:not recognized|is not|not permitted|not available)",
        "The authority does not have the profile {name} for this account.",
        "Look at acme.profile: the authority's directory names those that there are.",
    ),
    (
        r"(?:rejectedIdentifier|Cannot issue for|Policy forbids issuing|Invalid identifiers requested)(?P<what>[^\n]*)",
        "The authority does not issue for a name: {what}.",
        "Remove it from the app's domains, or use tls.mode selfsigned or files.",
    ),
    (
        r"does not support issuing wildcard certificates",
        "The authority issues no wildcard certificates.",
        "Name the subdomains one by one in the app's domains.",
    ),
    (
        r"does not support any combination of challenges|None of the preferred challenges are supported",
        "The authority does not take this challenge for one of the names.",
        "Set tls.challenge to dns for a wildcard, and to http for an address.",
    ),
    (
        r"\bcaa\b[^\n]*(?:forbid|prevents issuance)|CAA record for (?P<name>\S+) prevents issuance",
        "A CAA record keeps the authority from issuing {name}.",
        "Add the authority to the domain's CAA records.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED\]? ?(?:certificate verify failed: )?(?P<what>[^(\n]*)",
        "certbot does not trust the authority's own certificate: {what}.",
        "Set acme.root to the PEM of its root certificate.",
    ),
    (
        r"Failed to resolve|Name or service not known|Temporary failure in name resolution|getaddrinfo failed",
        "This host cannot look up the authority's name.",
        "Look at acme.directory and /etc/resolv.conf.",
    ),
    (
        r"Failed to establish a new connection|Connection refused|ConnectTimeout|Read timed out|Connection aborted"
        r"|Network is unreachable|No route to host|RemoteDisconnected",
        "The authority does not answer.",
        "The next run asks again; look at this host's network, and at the authority's status page, if it stays so.",
    ),
    (
        r"Service busy|serverInternal|experienced an internal error|<Response \[5\d\d\]>|service outage"
        r"|The service is down",
        "The authority is down or busy.",
        "The next run asks again.",
    ),
    (
        r"accountDoesNotExist|Account at \S+ does not exist",
        "The account with the authority is gone.",
        "Remove its folder in /etc/letsencrypt/accounts, and run again: a new one is made.",
    ),
    (
        r"badSignatureAlgorithm|badPublicKey|badCSR(?P<what>[^\n]*)",
        "The authority refuses the key{what}.",
        "Choose another acme.key_type.",
    ),
    (
        r"No space left on device",
        "The disk is full.",
        "Make room in /etc/letsencrypt, /var/lib/letsencrypt and /var/log/letsencrypt.",
    ),
    (
        r"Unable to find deploy-hook command|hook command \S+ exists, but is not executable",
        "The program flaskhost-certificates is not installed.",
        "Run site.yml again, which installs it.",
    ),
    (
        r"Timed out waiting for|All authorizations were not finalized|Certificate issuance poll timed out",
        "The authority took too long.",
        "The next run asks again.",
    ),
)

#: certbot's report of a failed challenge (auth_handler.py, ``_generate_failed_chall_msg``).
REPORT = re.compile(r"^ *(?:Identifier|Domain): (\S+)\n +Type: +(\S+)\n +Detail: ([^\n]*)", re.MULTILINE)
#: What a failed challenge means, by its type and words of its detail: the first that fits counts.
CHALLENGES = (
    (
        r"",
        r"\bCAA\b[^;]*(?:prevents|forbid)",
        "a CAA record forbids it to issue for {name}",
        "Add the authority to the CAA records of {name}.",
    ),
    (
        r"caa",
        r"",
        "the CAA records of {name} keep it from issuing ({detail})",
        "Add the authority to the CAA records of {name}.",
    ),
    (
        r"",
        r"TXT record|_acme-challenge\.|DNS challenge",
        "it does not see the challenge's TXT record of {name} ({detail})",
        "Look at which DNS server acme.dns writes to, and set acme.dns.propagation higher.",
    ),
    (
        r"",
        r"NXDOMAIN|no valid A(?:AAA)? records|no such host|No valid IP addresses",
        "it finds no address of {name}",
        "Add the A record of {name}; where it is there already, wait until DNS servers everywhere have it.",
    ),
    (
        r"dns|dnssec|unknownHost",
        r"",
        "it cannot look up {name} ({detail})",
        "Look at the DNS servers of {name}, its DNSSEC included.",
    ),
    (
        r"",
        r"Timeout during connect|i/o timeout|deadline exceeded|Timeout after connect|context deadline|timed out",
        "it gets no answer on port 80 of {name} ({detail})",
        "Open port 80 in the provider's firewall, and look at whether the records of {name} lead here.",
    ),
    (
        r"",
        r"Connection refused|connection refused",
        "port 80 of {name} refuses it ({detail})",
        "Look at whether the records of {name}, A and AAAA, lead here, and open port 80 in the provider's firewall.",
    ),
    (
        r"connection|tls",
        r"",
        "it cannot fetch the challenge's file of {name} ({detail})",
        "Open port 80 in the provider's firewall, and look at whether the records of {name} lead here.",
    ),
    (
        r"unauthorized|incorrectResponse",
        r"",
        "another host, or another site, answers for {name} ({detail})",
        "Look at whether all records of {name}, A and AAAA, lead here, and at what is in front of this host.",
    ),
    (
        r"",
        r"",
        "it cannot validate {name}: {type} ({detail})",
        "Look at the records of {name}, and at port 80.",
    ),
)

#: Words of a rate limit: RFC 8555's type, certbot's description of it, Boulder's limits and its pause of an account.
LIMIT = re.compile(
    r"[^\n]*(?:rateLimited|too many requests of a given type|rate limit|temporarily prevented from requesting"
    r"|too many (?:new |currently |failed |certificates|requests))[^\n]*",
    re.IGNORECASE,
)


def _challenges(text: str) -> list[tuple[str, str]]:
    found = []
    for name, kind, detail in REPORT.findall(text):
        for type_pattern, words, reason, cure in CHALLENGES:
            if (not type_pattern or re.fullmatch(type_pattern, kind)) and re.search(words, detail):
                said = {"name": name, "type": kind, "detail": _short(detail)}
                found.append((f"The authority says that {reason.format(**said)}.", cure.format(**said)))
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
    reason = f"The authority's rate limit is reached: {_clean(what)}."
    portal = re.search(r"please visit:? (https://\S+)", line, re.IGNORECASE)
    if portal:
        return Failure(reason, f"Find the cause of the failures, then open {portal[1]} once.", now + PAUSE)
    moment = _retry_after(line)
    until = moment if moment > now else now + PAUSE
    shown = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Failure(reason, f"There is nothing to do: the authority is asked again after {shown}.", until)


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
    return _clean(" ".join(lines[-3:])) or "it said nothing"


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
        reason = f"{certificate.variable}.tls.challenge is dns, but there is no DNS plugin."
        raise CertificateError(reason, "Set acme.dns: plugin, and credentials.")
    # Not --dns-<plugin>, which certbot has for its own plugins only.
    command = ["--authenticator", f"dns-{plugin}"]
    if plugin in PLUGINS_WITHOUT_ARGUMENTS:
        return command
    credentials = str(config.settings / "dns.ini")
    seconds = str(config.dns_propagation)
    return [*command, f"--dns-{plugin}-credentials", credentials, f"--dns-{plugin}-propagation-seconds", seconds]


def _key(key_type: str) -> tuple[str, ...]:
    if key_type not in KEYS:
        raise CertificateError(f"acme.key_type is {key_type}.", f"It is one of {', '.join(KEYS)}.")
    return KEYS[key_type]


def _context(root: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if root is not None:
        try:
            context.load_verify_locations(cadata=_root(root))
        except (ssl.SSLError, ValueError):
            raise CertificateError(f"acme.root ({root}) holds no certificate in PEM.", "Set it anew.") from None
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
        raise CertificateError(f"acme.root ({path}) holds no certificate in PEM.", "Set it anew.")
    return "\n".join(found) + "\n"


def _unreachable(host: str, cause: object, root: Path | None) -> CertificateError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        cure = "Set acme.root to the PEM of its root certificate."
        if root is not None:
            cure = "acme.root is not the root of that certificate, or the host's clock is wrong."
        return CertificateError(f"The authority {host} is not trusted: {cause.verify_message}.", cure)
    if isinstance(cause, ssl.SSLError):
        return CertificateError(f"The authority {host} does not speak TLS ({cause.reason}).", "Look at acme.directory.")
    if isinstance(cause, socket.gaierror):
        cure = "Look at acme.directory, and at this host's /etc/resolv.conf."
        return CertificateError(f"The authority {host} cannot be looked up.", cure)
    said = "it does not answer in time" if isinstance(cause, TimeoutError) else ""
    said = said or (getattr(cause, "strerror", "") or type(cause).__name__).lower()
    cure = "The next run asks again; look at acme.directory and this host's network if it stays so."
    return CertificateError(f"The authority {host} cannot be reached: {said}.", cure)


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


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(item) for item in version)
