"""Rules about certificates, and about how to get them from a CA."""

from __future__ import annotations

import re
from typing import Any

from ...settings.acme import ACME_OPTIONS
from ..report import Fault, show, snippet, type_name
from .domains import PLACEHOLDER, RESERVED_DOMAINS, is_domain

EXAMPLE_EMAIL = "acme_email: ops@shop.localhost  # beside flask_apps: your own address"
EXAMPLE_CERTIFICATE = (
    'certificate: "{{ vault_shop_certificate }}"  # in vault.yml: vault_shop_certificate: |, and below it the\n'
    "lines of the certificate and of its chain"
)
EXAMPLE_TLS_KEY = 'key: "{{ vault_shop_tls_key }}"  # in vault.yml: vault_shop_tls_key: |, and the key\'s lines below'
EXAMPLE_ACCOUNT = 'acme: {external_account: {key_id: kid-1, hmac_key: "{{ vault_acme_hmac_key }}"}}'
EXAMPLE_ROOT = "acme: {root: \"{{ lookup('file', 'root.pem') }}\"}"


def certificate(value: str) -> Fault | None:
    """Check a site's own certificate and its chain. The message shows no part of it."""
    return _pem_certificate(value, EXAMPLE_CERTIFICATE)


def root(value: str) -> Fault | None:
    """Check the root certificate of a private CA."""
    return _pem_certificate(value, EXAMPLE_ROOT)


def _pem_certificate(value: str, example: str) -> Fault | None:
    """Check certificates in PEM (RFC 7468, 5). The message shows no part: it may be a key, given by mistake."""
    text = value.strip()
    block = r"-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
    problem = ""
    if not text:
        return None
    if "PRIVATE KEY" in text:
        problem = "Contains a private key, and the web server sends this file to every client. Remove the key."
    elif problem := _pem_hint(text):
        pass
    # CAs put lines of explanation between the certificates, which RFC 7468, 2, allows.
    elif not text.startswith("-----BEGIN") or len(re.findall(block, text)) != text.count("-----BEGIN"):
        problem = "Not a PEM certificate: include all lines from -----BEGIN CERTIFICATE----- to the one with END."
    return Fault("bad_certificate", problem, example) if problem else None


def tls_key(value: str) -> Fault | None:
    """Check the private key of a certificate. The message shows no part of it."""
    text = value.strip()
    match = re.fullmatch(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----\s(.*\s)-----END \1PRIVATE KEY-----", text, re.DOTALL)
    problem = ""
    if not text:
        return None
    if text.startswith("-----BEGIN CERTIFICATE"):
        problem = "This is a certificate. Use its private key."
    elif problem := _pem_hint(text):
        pass
    elif "ENCRYPTED" in text:
        problem = (
            "The key has a passphrase, which nobody can type when the web server starts. Remove the passphrase "
            "(openssl pkey -in KEY), and keep the key in ansible-vault."
        )
    elif "BEGIN OPENSSH" in text:
        problem = "This is an SSH key. Use the private key of the certificate."
    elif not match:
        problem = "Not a PEM private key: include all lines from -----BEGIN ... PRIVATE KEY----- to the one with END."
    return Fault("bad_tls_key", problem, EXAMPLE_TLS_KEY) if problem else None


def _pem_hint(text: str) -> str:
    """Find the mistakes that certificates and keys in PEM have in common; empty if there are none."""
    if "\n" in text:
        return ""
    if text.startswith(("~", "/", ".")):
        return "This is the name of a file. Write its content, or read the file: {{ lookup('file', NAME) }}."
    if text.startswith("-----BEGIN"):
        return "The lines are joined into one. In YAML, a value of several lines starts with | after the colon."
    return ""


def hmac_key(value: str) -> Fault | None:
    """Check the HMAC key of an external account (base64url, RFC 4648, 5). The message shows no part of it."""
    if re.fullmatch(r"[A-Za-z0-9_-]+={0,2}", value):
        return None
    problem = "Not a base64url key: letters, digits, - and _, as your CA shows it."
    return Fault("bad_hmac_key", problem, EXAMPLE_ACCOUNT)


def directory(value: str) -> Fault | None:
    """Check the URL of an ACME directory, which must be HTTPS (RFC 8555, 6.1)."""
    if PLACEHOLDER.fullmatch(value) or RESERVED_DOMAINS.fullmatch(re.sub(r":\d+$", "", _authority_of(value))):
        problem = "The URL is a placeholder. Use the one from your CA's documentation."
        return Fault("placeholder_directory", problem)
    if not re.fullmatch(ACME_OPTIONS["directory"].pattern, value):
        problem = f"{show(value)} is not the URL of a directory. Use https://, without a user name or password."
        return Fault("malformed", problem)
    return None


def _authority_of(url: str) -> str:
    """Return the authority component of a URL (RFC 3986, 3.2): host and port."""
    return re.split(r"[/?#]", re.sub(r"(?i)^[a-z+]+://", "", url), maxsplit=1)[0].lower()


def plugin(value: str) -> Fault | None:
    """Check the name of a DNS plugin."""
    better = re.sub(r"^(?:certbot[-_])?dns[-_]", "", value.strip().lower()).replace("_", "-")
    if value != better and re.fullmatch(ACME_OPTIONS["dns"].options["plugin"].pattern, better):
        problem = f"{show(value)} is not the name that certbot uses. Write only the name, without certbot-dns-."
        return Fault("malformed", problem, snippet(("acme", "dns", "plugin"), better))
    return None


def plugin_packages(value: str) -> Fault | None:
    """Check the packages of a DNS plugin for which Flaskhost has no list."""
    if re.fullmatch(ACME_OPTIONS["dns"].options["package"].pattern, value):
        return None
    name = found.group() if (found := re.match(r"[A-Za-z0-9][\w.-]*(?:==[\w.+!-]+)?", value)) else "certbot-dns-name"
    problem = (
        f"{show(value)} is not a list of pinned packages with hashes, and root installs only verified packages. "
        "List every package that the plugin needs."
    )
    return Fault("malformed", problem, plugin_packages_example(name))


def plugin_packages_example(name: str) -> str:
    """Show how to write ``acme.dns.package`` for a plugin, or for its package."""
    package = name if name.startswith("certbot") else f"certbot-dns-{name}"
    return (
        "package: |  # below it, indented, the output of this command in the project's folder:\n"
        f"# echo {package} | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header "
        "--no-annotate --constraints roles/certbot/files/requirements.txt -"
    )


def credential_fault(name: Any, value: Any) -> str:
    """Check a line of a DNS plugin's INI file; empty if it is valid. The message never shows the value."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_:.-]*", name):
        return "Not a valid name in a plugin's INI file: letters, digits and _, as in the plugin's documentation."
    if not isinstance(value, (str, bool, int)):
        return f"Must be a string, but is {type_name(value)}."
    if isinstance(value, str) and (not value.strip() or re.search(r"[\x00-\x1f\x7f]", value)):
        return "Empty, or has more than one line. In a plugin's INI file, a value is one line."
    return ""


def email_fault(value: str) -> Fault | None:
    """Check the e-mail address to which the CA writes."""
    local, _at, domain = value.rpartition("@")
    # The part before the @ as RFC 5322, 3.2.3, has it without quotes, and with dots.
    if not re.fullmatch(r"[A-Za-z0-9.!#$&'*+/=?^_`{|}~-]{1,64}", local) or not is_domain(domain.lower()):
        return Fault("bad_email", f"{show(value)} is not an e-mail address. Write only the address.", EXAMPLE_EMAIL)
    # Let's Encrypt rejects such an address too, when the account is created.
    if PLACEHOLDER.fullmatch(value) or RESERVED_DOMAINS.fullmatch(domain.lower()):
        problem = f"{show(value)} is a placeholder. Use an address whose mail you read."
        return Fault("placeholder_email", problem, EXAMPLE_EMAIL)
    return None
