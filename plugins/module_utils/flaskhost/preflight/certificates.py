"""The certificates: check the apps' TLS options, and the site's settings for the CA."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
from collections.abc import Mapping
from typing import Any

from ..apps.names import is_address, is_wildcard
from ..settings.acme import ACME_OPTIONS, DNS_PLUGINS
from .report import Place, Report, get, path_text, read_item, show, snippet
from .rules.certificates import (
    EXAMPLE_ACCOUNT,
    EXAMPLE_CERTIFICATE,
    EXAMPLE_EMAIL,
    EXAMPLE_TLS_KEY,
    plugin_packages_example,
)
from .rules.domains import EXAMPLE_DOMAIN

#: The release whose nginx 1.22 has no HTTP/3 (added in 1.25).
_OLD_RELEASE = "12"
#: Seconds: https://hstspreload.org, "Submission Requirements".
PRELOAD_MINIMUM = 31536000
_EXAMPLE_DNS = "acme: {dns: {plugin: rfc2136, credentials: {dns_rfc2136_server: 192.0.2.53}}}  # and its key"
_EXAMPLE_DNS_CHALLENGE = "tls: {challenge: dns}"


def check_certificates(
    report: Report, variable: str, apps: dict[Any, Any], settings: Any, facts: Mapping[Any, Any], *, web: bool
) -> None:
    """Check options that depend on each other: the apps' names and modes, the CA, and the host's features.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: its value.
        settings: the settings of the site.
        facts: the host's facts.
        web: whether the host serves visitors.
    """
    email = (get(settings, str, "acme_email") or "").strip()
    # Values that cannot be evaluated, or are invalid, have been reported already.
    email_known, acme_known = report.clean(("acme_email",)), report.clean(("acme",))
    by_acme: list[Any] = []
    for name, app in apps.items():
        place = (variable, name)
        tls = get(app, dict, "tls") or {}
        mode = get(tls, str, "mode") or ("acme" if email else "selfsigned")
        _check_hsts(report, (*place, "tls", "hsts"), get(tls, dict, "hsts") or {})
        if not report.clean((*place, "tls", "mode")):
            continue
        if mode == "acme":
            by_acme.append(app)
        if mode == "acme" and not email and email_known:
            problem = "An authority wants to know where it may write to, and acme_email is not set."
            report.add("acme_without_email", (*place, "tls", "mode"), problem, EXAMPLE_EMAIL)
        _check_names(report, place, app, mode)
        _check_files(report, place, app, mode)
        if (
            acme_known
            and mode == "acme"
            and get(tls, str, "challenge") == "dns"
            and not get(settings, str, "acme", "dns", "plugin")
        ):
            problem = "The challenge by DNS needs to know how records are put into it, and acme.dns names no plugin."
            report.add("dns_without_plugin", (*place, "tls", "challenge"), problem, _EXAMPLE_DNS)
    _check_addresses(report, variable, apps)
    acme = get(settings, dict, "acme") or {}
    _check_authority(report, acme, acme_known and any(_addresses(app) for app in by_acme))
    if web:
        _check_host(report, settings, facts)


def certbot_warnings(acme: Any) -> list[str]:
    """Warn if ``acme.certbot`` still selects the distribution's certbot, which Flaskhost no longer uses.

    Args:
        acme: the user's setting, of any type. What cannot be evaluated is reported elsewhere.
    """
    if not isinstance(acme, Mapping) or "certbot" not in acme or read_item(acme, "certbot") != "package":
        return []
    return [
        "acme.certbot: package no longer has an effect. The distribution's certbot is no longer used, the pinned one "
        "is. Remove the line. If the distribution's certbot also has certificates of your own, they are no longer "
        "renewed, because its timer stays masked: docs/certificates.md, section Debian's certbot, says what to do."
    ]


def _names(app: Any) -> list[tuple[int, str]]:
    """Return the app's domain names, each with its index."""
    return [(index, name) for index, name in enumerate(get(app, list, "domains") or []) if isinstance(name, str)]


def _addresses(app: Any) -> list[tuple[int, str]]:
    return [(index, name) for index, name in _names(app) if is_address(name)]


def _check_names(report: Report, place: Place, app: Any, mode: str) -> None:
    """Check the app's domains against its challenge: wildcards need DNS, and addresses do not work with DNS."""
    challenge = get(app, str, "tls", "challenge") or "http"
    for index, name in _names(app):
        here = (*place, "domains", index)
        if is_wildcard(name) and index == 0:
            problem = f"{show(name)} is first, and the others redirect to the first one. Put a name there."
            report.add("wildcard_first", here, problem, snippet(("domains",), [name.removeprefix("*."), name]))
        elif is_wildcard(name) and mode == "acme" and challenge == "http":
            problem = f"{show(name)} is a wildcard, for which an authority wants a record in the DNS (RFC 8555, 7.1.3)."
            report.add("wildcard_without_dns", here, problem, _EXAMPLE_DNS_CHALLENGE)
        elif is_address(name) and mode == "acme" and challenge == "dns":
            problem = f"{show(name)} is an IP address, which no record in the DNS can prove (RFC 8738, 7)."
            report.add("address_with_dns", here, problem, "tls: {challenge: http}")


def _check_addresses(report: Report, variable: str, apps: dict[Any, Any]) -> None:
    """Check that only one app has addresses: a client does not say which address it requests (RFC 6066, 3)."""
    first: Place = ()
    for name, app in apps.items():
        for index, address in _addresses(app)[:1]:
            place = (variable, name, "domains", index)
            if first:
                problem = (
                    f"{show(address)} is an IP address, and another app has one at {path_text(first)}. A browser does "
                    "not say which address it asks for, so that one app alone can have addresses."
                )
                report.add("addresses_of_two_apps", place, problem, EXAMPLE_DOMAIN)
            first = first or place


def _check_hsts(report: Report, place: Place, hsts: Mapping[Any, Any]) -> None:
    age = get(hsts, int, "max_age")
    if get(hsts, bool, "preload") and not (get(hsts, bool, "subdomains") and (age is None or age >= PRELOAD_MINIMUM)):
        problem = (
            "Browsers take a name into their list only with all names below it, and for a year or more "
            f"({PRELOAD_MINIMUM} seconds; hstspreload.org)."
        )
        cure = "tls: {hsts: {max_age: 63072000, subdomains: true, preload: true}}"
        report.add("hsts_preload", (*place, "preload"), problem, cure)


# --- Certificates of one's own ---------------------------------------------------------------------------------------


def _check_files(report: Report, place: Place, app: Any, mode: str) -> None:
    place = (*place, "tls")
    given = {option: (get(app, str, "tls", option) or "").strip() for option in ("certificate", "key")}
    examples = {"certificate": EXAMPLE_CERTIFICATE, "key": EXAMPLE_TLS_KEY}
    for option, text in given.items():
        here = (*place, option)
        if mode == "files" and not text and report.clean(here):
            problem = f"With the mode files the {option} is yours, and it is missing."
            report.add("files_without_pair", here, problem, examples[option])
        elif mode != "files" and text:
            problem = f"It is only for the mode files; the mode is {show(mode)}."
            report.add("pair_without_files", here, problem, f"mode: files  # in tls; or tls without {option}")
    if mode == "files" and all(given.values()) and all(report.clean((*place, option)) for option in given):
        names = [name for _index, name in _names(app)]
        _check_pair(report, place, given["certificate"], given["key"], names)


def _check_pair(report: Report, place: Place, certificate: str, key: str, names: list[str]) -> None:
    """Check that a certificate and its key are readable and a pair, cover the names, and are valid today.

    Messages contain nothing from the key, nor the library's error about it. The host, whose library can differ, checks
    the pair again.
    """
    try:
        # Ansible depends on it. It is imported only if somebody uses their own certificate.
        from cryptography import x509  # noqa: PLC0415
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    except ImportError:
        return
    shown = [(*place, "certificate"), (*place, "key")]
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
        leaf, public = chain[0], chain[0].public_key()
        covered = _covered(x509, leaf)
    except Exception:  # noqa: BLE001, RUF100 - a damaged certificate fails in as many ways as it has fields
        problem = "The certificate cannot be read: it is damaged or cut off."
        report.add("unreadable_certificate", shown[0], problem, EXAMPLE_CERTIFICATE)
        return
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
        own = private.public_key()
    except Exception:  # noqa: BLE001, RUF100 - as above; and its text could reveal something about the key
        problem = "The key cannot be read: it is damaged, or of a kind that is not known."
        report.add("unreadable_tls_key", shown[1], problem, EXAMPLE_TLS_KEY)
        return
    if own != public:
        problem = (
            f"The key is not that of the first certificate ({show(leaf.subject.rfc4514_string())}). The app's own "
            "certificate comes first, and the chain below it."
        )
        report.add("key_of_another", shown[1], problem, EXAMPLE_TLS_KEY)
        return
    if any(above.subject != below.issuer for below, above in itertools.pairwise(chain)):
        problem = "The chain is not in order: each certificate has to be followed by the one that has signed it."
        report.add("chain_out_of_order", shown[0], problem, EXAMPLE_CERTIFICATE)
    if missing := [name for name in names if not _is_covered(name, covered)]:
        problem = (
            f"The certificate is not for {', '.join(missing)}. It is for {', '.join(sorted(covered)) or 'no name'}."
        )
        report.add("certificate_without_name", shown[0], problem, EXAMPLE_CERTIFICATE)
    now = datetime.datetime.now(datetime.UTC)
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not begin <= now < end:
        problem = f"The certificate is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}."
        report.add("certificate_out_of_date", shown[0], f"{problem} Today is {now:%Y-%m-%d}.", EXAMPLE_CERTIFICATE)


def _covered(x509: Any, certificate: Any) -> set[str]:
    """Return the names and addresses in a certificate, without those of its subject (RFC 9525, 2)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    names = {name.lower() for name in extension.get_values_for_type(x509.DNSName)}
    return names | {str(address) for address in extension.get_values_for_type(x509.IPAddress)}


def _is_covered(name: str, covered: set[str]) -> bool:
    """Check whether a certificate covers a name. A wildcard in it stands for one label (RFC 9525, 6.3)."""
    if name in covered or is_address(name):
        return name in covered
    return f"*.{name.partition('.')[2]}" in covered


# --- The certificate authority ---------------------------------------------------------------------------------------


def _check_authority(report: Report, acme: Mapping[Any, Any], addresses: bool) -> None:
    """Check the options of ``acme`` that depend on each other.

    Args:
        report: collects the problems.
        acme: the options.
        addresses: whether a certificate for an IP address will be requested.
    """
    account = get(acme, dict, "external_account") or {}
    pair = {option: get(account, str, option) for option in ("key_id", "hmac_key")}
    for option, value in pair.items():
        if not value and any(pair.values()) and report.clean(("acme", "external_account", option)):
            problem = "An account with the authority is an identifier and a key, and this one is missing."
            report.add("half_account", ("acme", "external_account", option), problem, EXAMPLE_ACCOUNT)
    dns = get(acme, dict, "dns") or {}
    if any(dns.get(option) for option in ("credentials", "package")) and not dns.get("plugin"):
        problem = "The other options of dns are those of a plugin, and none is named."
        report.add("dns_without_name", ("acme", "dns", "plugin"), problem, _EXAMPLE_DNS)
    plugin = get(dns, str, "plugin")
    unknown = plugin and plugin not in DNS_PLUGINS and report.clean(("acme", "dns", "plugin"))
    if unknown and not dns.get("package"):
        problem = (
            f"{show(plugin)} is not one of the plugins that Flaskhost has hashes of: {', '.join(DNS_PLUGINS)}. "
            "For another one, name its packages with their hashes."
        )
        report.add("dns_without_hashes", ("acme", "dns", "package"), problem, plugin_packages_example(plugin))
    directory = get(acme, str, "directory") or ACME_OPTIONS["directory"].default
    if addresses and ".letsencrypt.org/" in directory and get(acme, str, "profile") != "shortlived":
        # https://letsencrypt.org/docs/profiles/: only the profile shortlived supports IP addresses.
        problem = "An app has an IP address, for which Let's Encrypt wants the profile shortlived."
        report.add("address_without_profile", ("acme", "profile"), problem, "acme: {profile: shortlived}")


def _check_host(report: Report, settings: Any, facts: Mapping[Any, Any]) -> None:
    """Check for features that the packages of the host's release do not have."""
    release = show(facts.get("distribution_major_version")).strip('"')
    if get(facts, str, "distribution") != "Debian" or release != _OLD_RELEASE:
        return
    if get(settings, bool, "http3"):
        problem = "The host runs Debian 12, whose nginx (1.22) has no HTTP/3."
        report.add("http3_too_old", ("http3",), problem, "http3: false  # or a host with Debian 13")


def same_name(name: str, bare: str) -> str:
    """Return a key that two apps must not share. A wildcard and the name below which it stands are different keys.

    Args:
        name: the user's name.
        bare: the same name without invalid parts, from :func:`rules.bare_domain`.
    """
    if is_address(name):
        return str(ipaddress.ip_address(name))
    return f"*.{bare}" if bare and is_wildcard(name.strip()) else bare
