"""The site's settings ``acme`` and ``acme_email``: their options, and the input of the role certbot."""

from __future__ import annotations

from typing import Any

from ..apps.schema import HASH, PINNED, Option, as_text, with_defaults

#: The DNS plugins of certbot's developers: the lists in roles/certbot/files/dns, which a unit test compares.
DNS_PLUGINS = (
    "cloudflare digitalocean dnsimple dnsmadeeasy gehirn google linode luadns nsone ovh rfc2136 route53 sakuracloud"
).split()

#: Every option of the site's setting ``acme``, by its name.
ACME_OPTIONS: dict[str, Option] = {
    "directory": Option(
        "str",
        "URL of the certificate authority's ACME directory.",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
        default="https://acme-v02.api.letsencrypt.org/directory",
        pattern=r"https://[^\s/@?#\"'\\]+(?:/[^\s\"'\\]*)?",
    ),
    "root": Option(
        "str",
        "Root certificate of a private certificate authority, in PEM format. The host trusts it for the directory's "
        "own HTTPS and as the issuer of the apps' certificates.",
        "{{ lookup('file', 'root.pem') }}",
        default="",
    ),
    "external_account": Option(
        "options",
        "External account at the certificate authority, if it requires one (external account binding, RFC 8555, "
        "7.3.4).",
        {"key_id": "kid-1", "hmac_key": "{{ vault_acme_hmac_key }}"},
        default={},
        options={
            "key_id": Option(
                "str",
                "Key identifier that the certificate authority gave you.",
                "kid-1",
                default="",
                pattern=r"[\x21-\x7e]+",
            ),
            "hmac_key": Option(
                "str",
                "HMAC key that belongs to the key identifier, in base64url. Store it in ansible-vault.",
                "{{ vault_acme_hmac_key }}",
                default="",
            ),
        },
    ),
    "key_type": Option(
        "str",
        "Type of the certificates' private keys: ECDSA on a NIST curve, or RSA.",
        "p256",
        default="p256",
        choices=("p256", "p384", "rsa2048", "rsa4096"),
    ),
    "profile": Option(
        "str",
        "Preferred certificate profile, one that the certificate authority's directory lists. If empty, the default "
        "of the certificate authority.",
        "shortlived",
        default="",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    ),
    "strict": Option(
        "bool",
        "Whether a run fails if the certificate authority issued no certificate. If false, the run reports what is "
        "missing, and the next one tries again.",
        False,
        default=False,
    ),
    "certbot": Option(
        "str",
        "No longer has an effect. Flaskhost always installs the release of certbot that it pins.",
        "pinned",
        default="pinned",
        choices=("pinned", "package"),
    ),
    "dns": Option(
        "options",
        "DNS plugin of certbot, for apps with the challenge `dns`.",
        {"plugin": "rfc2136", "credentials": {"dns_rfc2136_server": "203.0.113.53"}},
        default={},
        options={
            "plugin": Option(
                "str",
                "Name of the certbot DNS plugin, without `certbot-dns-`.",
                "rfc2136",
                default="",
                pattern=r"[a-z0-9][a-z0-9-]{0,62}",
            ),
            "credentials": Option(
                "dict",
                "Contents of the plugin's INI file, as in the plugin's documentation. Store secrets in ansible-vault.",
                {"dns_rfc2136_server": "203.0.113.53", "dns_rfc2136_secret": "{{ vault_dns_secret }}"},
                default={},
            ),
            "propagation": Option(
                "int",
                "Time to wait until a new record has reached the certificate authority's resolvers, in seconds.",
                30,
                default=30,
                minimum=0,
                maximum=3600,
            ),
            "package": Option(
                "str",
                "Packages of a DNS plugin that does not come from certbot's developers, pinned, each with its hashes.",
                "certbot-dns-hetzner==3.0.0 --hash=sha256:" + "0123456789abcdef" * 4,
                default="",
                pattern=rf"(?:{PINNED}(?: ?; ?[^\\\n]*?)?{HASH}+\s*)+",
            ),
        },
    ),
}


def acme_settings(acme: dict[str, Any] | None, email: str = "") -> dict[str, Any]:
    """Turn the site's settings ``acme`` and ``acme_email`` into the input of the role that requests certificates.

    Args:
        acme: the user's setting, already validated by :mod:`preflight`; None or empty if not set.
        email: the address that the CA writes to. Setting it accepts the CA's terms.

    Returns:
        The keys of :data:`ACME_OPTIONS` with their defaults, and ``email``. ``external_account`` and ``dns`` are empty
        if not set. The credentials are strings.
    """
    settings = with_defaults(acme or {}, ACME_OPTIONS)
    if not settings["external_account"]["key_id"]:
        settings["external_account"] = {}
    if not settings["dns"]["plugin"]:
        settings["dns"] = {}
    else:
        credentials = settings["dns"]["credentials"]
        settings["dns"]["credentials"] = {key: as_text(value) for key, value in credentials.items()}
    return {"email": email or "", **settings}
