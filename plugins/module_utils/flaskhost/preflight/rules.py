"""Rules about one value: what is known to go wrong with this very option, with a hint that the schema cannot give."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from ..apps.names import CLOUD_USERS, DOMAIN_NAME, RESERVED_NAMES, is_address
from ..apps.options import APP_OPTIONS
from ..apps.schema import Option
from ..deploy.processes import NOT_PROCESSES, TIMER_PREFIX
from ..deploy.sources.archives import is_url
from ..settings.acme import ACME_OPTIONS
from .calendars import EXAMPLE_TIMER
from .calendars import fault as calendar_fault
from .report import Fault, Place, path_parts, show, snippet, type_name

#: Reserved for documentation by RFC 2606 and RFC 6761: no server can ever be reached under these. The names for tests,
#: .test and .localhost, are fine: they are what demos and tests are for.
#: Addresses for documentation: RFC 5737, RFC 3849 and RFC 9637.
RESERVED_NETWORKS = tuple(
    map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"))
)
RESERVED_DOMAINS = re.compile(r"(?:.*\.)?(?:example\.(?:com|net|org)|example|invalid)")
#: What stands where a name or URL is still to be written. A site about to-do lists must pass.
PLACEHOLDER = re.compile(
    r"(?i).*(?:<[^<>]*>|change[-_ ]?me|replace[-_ ]?me"
    r"|\byour[-_]?(?:domain|site|app|company|server|name|repo|org|user)).*"
)
PASSWORD_IN_URL = re.compile(r"(?is)[a-z][a-z0-9+.-]*://[^/@\s:]*:[^/@\s]+@.*")

EXAMPLE_DOMAIN = "domains: [shop.localhost]  # or your own, once its DNS points to the server"
EXAMPLE_REPO = {"repo": "https://github.com/pallets/flask.git", "version": "3.1.2", "subdir": "examples/tutorial"}
EXAMPLE_ARCHIVE = {
    "archive": "https://codeload.github.com/pallets/flask/tar.gz/refs/tags/3.1.2",
    "checksum": f"sha256:{'0123456789abcdef' * 4}",
    "subdir": "examples/tutorial",
}
EXAMPLE_KEY = 'key: "{{ vault_shop_deploy_key }}"  # in vault.yml: vault_shop_deploy_key: |, and the key\'s lines below'
EXAMPLE_ADMIN = "admin_users: [{name: ada, keys: [\"{{ lookup('file', '~/.ssh/id_ed25519.pub') }}\"]}]"
EXAMPLE_EMAIL = "acme_email: ops@shop.localhost  # beside flask_apps: your own address"
EXAMPLE_CERTIFICATE = (
    'certificate: "{{ vault_shop_certificate }}"  # in vault.yml: vault_shop_certificate: |, and below it the\n'
    "lines of the certificate and of its chain"
)
EXAMPLE_TLS_KEY = 'key: "{{ vault_shop_tls_key }}"  # in vault.yml: vault_shop_tls_key: |, and the key\'s lines below'
EXAMPLE_ACCOUNT = 'acme: {external_account: {key_id: kid-1, hmac_key: "{{ vault_acme_hmac_key }}"}}'
EXAMPLE_ROOT = "acme: {root: \"{{ lookup('file', 'root.pem') }}\"}"
EXAMPLE_RULE = "firewall_allow: [{port: 8443, protocol: tcp, from: [203.0.113.0/24]}]"
EXAMPLE_EGRESS = "firewall_egress_allow: [{port: 587, protocol: tcp, to: [203.0.113.0/24]}]"
EXAMPLE_ALLOW = "allow: [203.0.113.0/24]"
EXAMPLE_IGNORE = "fail2ban_ignore: [203.0.113.0/24]"
EXAMPLE_PROXIES = "trusted_proxies: [203.0.113.0/24]"
EXAMPLE_BASIC_AUTH = 'basic_auth: {ada: "{{ vault_shop_basic_auth }}"}  # in vault.yml: what openssl passwd -6 prints'
EXAMPLE_HEADERS = "headers: {X-Frame-Options: DENY}"

#: What one administrator is: the options of base_admin_users in roles/base, which a unit test compares.
ADMIN_OPTIONS = {
    "name": Option("str", "User name of the administrator.", "ada", required=True, pattern=r"[a-z_][a-z0-9_-]{0,31}"),
    "keys": Option("list", "Public SSH keys of the administrator.", [], required=True),
}
#: What one opening of the firewall is: the options of firewall_allow in roles/firewall, which a unit test compares.
FIREWALL_OPTIONS = {
    "port": Option("int", "Port to open.", 8443, required=True, minimum=1, maximum=65535),
    "protocol": Option("str", "Transport protocol.", "tcp", default="tcp", choices=("tcp", "udp")),
    "from": Option("list", "Networks that can connect. If empty, every address is allowed.", [], default=[]),
}

_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def bare_domain(value: str) -> str:
    """The name that was meant by a URL, a name with a port, capitals or underscores; it need not be a valid one."""
    text = re.split(r"[/?#\s,;]", re.sub(r"(?i)^\s*[a-z]+://", "", value).strip(), maxsplit=1)[0]
    text = re.sub(r":\d*$", "", text.rpartition("@")[2]).strip(".").removeprefix("*.").replace("_", "-")
    if not text.isascii():
        try:
            text = text.encode("idna").decode()
        except UnicodeError:
            return ""
    text = text.lower()
    return text if "." in text or not text else f"{text}.localhost"


def _domain(value: str) -> Fault | None:
    bare = bare_domain(value)
    if is_address(value):
        return _address(value)
    if PLACEHOLDER.fullmatch(value):
        problem = f"{show(value)} is a placeholder. Write a name that you own and whose DNS points to the server."
        return Fault("placeholder_domain", problem, EXAMPLE_DOMAIN)
    if RESERVED_DOMAINS.fullmatch(bare):
        problem = f"{show(value)} is reserved for documentation: no server can be reached under it. Write your own."
        return Fault("placeholder_domain", problem, EXAMPLE_DOMAIN)
    for found, problem in (
        ("://" in value, "is a URL. Write the name alone, without the scheme (https://) and without a path."),
        ("/" in value, "has a path. Write the name alone; an app has the whole of its domain."),
        (re.search(r"[\s,;]", value), "is more than one name, or has a space in it. Write one name in each entry."),
        (is_address(value.strip("[]")), "has brackets. Write the address alone."),
        (re.fullmatch(r".*:\d*", value), "has a port. Write the name alone; the ports are 80 and 443."),
        (":" in value, "has a colon, and is no IPv6 address."),
        ("*" in value.removeprefix("*."), 'has a * in a place where none can be: a wildcard begins with "*.".'),
        (value != value.lower(), "has capital letters. Write it in lower case."),
        (value.strip(".") != value, "begins or ends with a dot. Write it without."),
        ("_" in value, "has an underscore, which no host's name may have. Use a hyphen."),
        (not value.isascii(), "has letters beyond a to z. Write it as the DNS has it, beginning with xn--."),
        (value.startswith("*.") and "." not in value[2:], "is a wildcard of a whole top-level domain. Name your own."),
        ("." not in value, "has no dot. Write the whole name; for a trial, one that ends in .localhost."),
        (
            not _is_domain(value.removeprefix("*.")),
            "is no domain name: letters, digits, hyphens and dots, and no number at the end.",
        ),
    ):
        if found:
            address = value.strip("[]")
            works = next((name for name in (address, bare) if is_address(name) or _is_domain(name)), "shop.localhost")
            return Fault("bad_domain", f"{show(value)} {problem}", snippet(("domains",), [works]))
    return None


def _is_domain(value: str) -> bool:
    return bool(re.fullmatch(DOMAIN_NAME, value))


def _address(value: str) -> Fault | None:
    """What is wrong with a name that is an IP address."""
    address = ipaddress.ip_address(value)
    if any(address in network for network in RESERVED_NETWORKS if network.version == address.version):
        problem = f"{show(value)} is reserved for documentation: no server can be reached under it. Write your own."
        return Fault("placeholder_domain", problem, EXAMPLE_DOMAIN)
    if address.is_unspecified or address.is_multicast or address.is_link_local or "%" in value:
        problem = f"{show(value)} is no address that a visitor can ask for."
        return Fault("bad_domain", problem, EXAMPLE_DOMAIN)
    if value != str(address):
        problem = f"{show(value)} is not as addresses are written (RFC 5952). Write {address}."
        return Fault("bad_domain", problem, snippet(("domains",), [str(address)]))
    return None


def _repo(value: str) -> Fault | None:
    """What is wrong with the URL of a repository. Nothing of it is shown: a token may be in it."""
    example = snippet(("source",), EXAMPLE_REPO)
    if PASSWORD_IN_URL.fullmatch(value):
        problem = (
            "The URL holds a password or token, which would end up in logs and on the host. Use a deploy key: "
            "the URL that begins with git@, and source.key, from ansible-vault."
        )
        return Fault("secret_in_repo", problem, 'source: {repo: "git@github.com:ada/shop.git", version: v1.4.0}')
    if PLACEHOLDER.fullmatch(value) or RESERVED_DOMAINS.fullmatch(_host_of(value)):
        problem = "The URL is a placeholder. Write the one that you would give to git clone."
        return Fault("placeholder_repo", problem, example)
    if not re.fullmatch(APP_OPTIONS["source"].options["repo"].pattern, value):
        problem = "It is not the URL of a git repository: https://, ssh://, git://, file:/// or user@host: begin one."
        return Fault("malformed", problem, example)
    return None


def _host_of(url: str) -> str:
    """The name of the server in a URL, or in git's user@host:path."""
    return re.split(r"[/:]", re.sub(r"(?i)^[a-z+]+://", "", url).rpartition("@")[2], maxsplit=1)[0].lower()


def _archive(value: str) -> Fault | None:
    """What is wrong with the name or URL of an archive."""
    if PASSWORD_IN_URL.fullmatch(value):
        problem = (
            "The URL holds a password or token, which would end up in logs and on the host. Download the archive to "
            "this machine, and name the file."
        )
        return Fault("secret_in_archive", problem, snippet(("source",), EXAMPLE_ARCHIVE))
    if is_url(value) and (PLACEHOLDER.fullmatch(value) or RESERVED_DOMAINS.fullmatch(_host_of(value))):
        problem = "The URL is a placeholder. Write the one that you would give to curl, or a file on this machine."
        return Fault("placeholder_archive", problem, snippet(("source",), EXAMPLE_ARCHIVE))
    if not re.fullmatch(APP_OPTIONS["source"].options["archive"].pattern, value):
        problem = (
            f"{show(value)} is no archive: a .tar.gz, .tar.xz or .tar on this machine, or a URL of one (https://)."
        )
        return Fault("malformed", problem, snippet(("source",), EXAMPLE_ARCHIVE))
    return None


def _checksum(value: str) -> Fault | None:
    if re.fullmatch(APP_OPTIONS["source"].options["checksum"].pattern, value):
        return None
    problem = f"{show(value)} is not sha256: and 64 digits. 'sha256sum ARCHIVE' prints the digits."
    works = f"sha256:{value.strip()}" if re.fullmatch(r"\s*[0-9a-fA-F]{64}\s*", value) else ""
    return Fault("malformed", problem, snippet(("source", "checksum"), works) if works else "")


def _deploy_key(value: str) -> Fault | None:
    """What is wrong with a private SSH key. No part of it is shown."""
    text = value.strip()
    match = re.fullmatch(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----\s(.*\s)-----END \1PRIVATE KEY-----", text, re.DOTALL)
    problem = ""
    if not text:
        return None
    if text.startswith(("ssh-", "ecdsa-", "sk-")):
        problem = "It is the public half of a key, which belongs to the repository's server. Write the private half."
    elif "\n" not in text and text.startswith(("~", "/", ".")):
        problem = "It is the name of a file. Write the key, or have the file read."
    elif not match:
        problem = "It is no private SSH key: the lines from -----BEGIN ... PRIVATE KEY----- to the one with END."
    elif "\n" not in match[2].strip() and len(match[2]) > 100:
        problem = "Its lines have been joined to one. In YAML, a text of several lines begins with | after the colon."
    elif _is_encrypted(text, match[2]):
        problem = (
            "The key has a passphrase, and nobody is there to type it when the host reads the repository. Make one "
            "without (ssh-keygen -t ed25519 -N '' -f deploy_key) and keep it in ansible-vault."
        )
    return Fault("bad_deploy_key", problem, EXAMPLE_KEY) if problem else None


def _is_encrypted(text: str, body: str) -> bool:
    """Whether a private key has a passphrase: by the words of PEM, or the cipher's name in OpenSSH's own format.

    The format is in OpenSSH's PROTOCOL.key: the magic, then the length and name of the cipher, "none" where there is
    no passphrase.
    """
    if "ENCRYPTED" in text:
        return True
    try:
        blob = base64.b64decode("".join(body.split()))
    except (binascii.Error, ValueError):
        return False
    magic = b"openssh-key-v1\0"
    return blob.startswith(magic) and not blob[len(magic) :].startswith(b"\0\0\0\4none")


def _certificate(value: str) -> Fault | None:
    """What is wrong with a certificate of the user's own, and its chain. No part of it is shown."""
    return _pem_certificate(value, EXAMPLE_CERTIFICATE)


def _root(value: str) -> Fault | None:
    """What is wrong with the root certificate of a private authority."""
    return _pem_certificate(value, EXAMPLE_ROOT)


def _pem_certificate(value: str, example: str) -> Fault | None:
    """What is wrong with certificates in PEM (RFC 7468, 5). No part is shown: a key may have got there by mistake."""
    text = value.strip()
    block = r"-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
    problem = ""
    if not text:
        return None
    if "PRIVATE KEY" in text:
        problem = "A private key is in it, and the web server gives what is in it to everybody. Take the key out."
    elif problem := _pem_hint(text):
        pass
    # Authorities put lines of explanation between the certificates, which RFC 7468, 2, allows.
    elif not text.startswith("-----BEGIN") or len(re.findall(block, text)) != text.count("-----BEGIN"):
        problem = "It is no certificate in PEM: the lines from -----BEGIN CERTIFICATE----- to the one with END."
    return Fault("bad_certificate", problem, example) if problem else None


def _tls_key(value: str) -> Fault | None:
    """What is wrong with the private key of a certificate. No part of it is shown."""
    text = value.strip()
    match = re.fullmatch(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----\s(.*\s)-----END \1PRIVATE KEY-----", text, re.DOTALL)
    problem = ""
    if not text:
        return None
    if text.startswith("-----BEGIN CERTIFICATE"):
        problem = "It is a certificate. Write the private key that it was made with."
    elif problem := _pem_hint(text):
        pass
    elif "ENCRYPTED" in text:
        problem = (
            "The key has a passphrase, and nobody is there to type it when the web server starts. Take it off "
            "(openssl pkey -in KEY) and keep the key in ansible-vault."
        )
    elif "BEGIN OPENSSH" in text:
        problem = "It is a key of SSH's. Write the private key that the certificate was made with."
    elif not match:
        problem = "It is no private key in PEM: the lines from -----BEGIN ... PRIVATE KEY----- to the one with END."
    return Fault("bad_tls_key", problem, EXAMPLE_TLS_KEY) if problem else None


def _pem_hint(text: str) -> str:
    """What is wrong with a text that has to be PEM, whatever is in it; empty when nothing is seen."""
    if "\n" in text:
        return ""
    if text.startswith(("~", "/", ".")):
        return "It is the name of a file. Write what is in it, or have the file read: {{ lookup('file', NAME) }}."
    if text.startswith("-----BEGIN"):
        return "Its lines have been joined to one. In YAML, a text of several lines begins with | after the colon."
    return ""


def _hmac_key(value: str) -> Fault | None:
    """What is wrong with the key of an external account (base64url, RFC 4648, 5). No part of it is shown."""
    if re.fullmatch(r"[A-Za-z0-9_-]+={0,2}", value):
        return None
    problem = "It is no key in base64url: letters, digits, - and _, as the authority shows it."
    return Fault("bad_hmac_key", problem, EXAMPLE_ACCOUNT)


def _directory(value: str) -> Fault | None:
    """What is wrong with the URL of an ACME directory, which has to be HTTPS (RFC 8555, 6.1)."""
    if PLACEHOLDER.fullmatch(value) or RESERVED_DOMAINS.fullmatch(re.sub(r":\d+$", "", _authority_of(value))):
        problem = "The URL is a placeholder. Write the one that the authority's guide has."
        return Fault("placeholder_directory", problem)
    if not re.fullmatch(ACME_OPTIONS["directory"].pattern, value):
        problem = f"{show(value)} is not the URL of a directory: https://, and without a name or password in it."
        return Fault("malformed", problem)
    return None


def _authority_of(url: str) -> str:
    return re.split(r"[/?#]", re.sub(r"(?i)^[a-z+]+://", "", url), maxsplit=1)[0].lower()


def _plugin(value: str) -> Fault | None:
    """What is wrong with the name of a DNS plugin."""
    better = re.sub(r"^(?:certbot[-_])?dns[-_]", "", value.strip().lower()).replace("_", "-")
    if value != better and re.fullmatch(ACME_OPTIONS["dns"].options["plugin"].pattern, better):
        problem = f"{show(value)} is not how certbot names it. Write the name alone, without certbot-dns-."
        return Fault("malformed", problem, snippet(("acme", "dns", "plugin"), better))
    return None


def _plugin_packages(value: str) -> Fault | None:
    """What is wrong with the packages of a DNS plugin that Flaskhost has no list of."""
    if re.fullmatch(ACME_OPTIONS["dns"].options["package"].pattern, value):
        return None
    name = found.group() if (found := re.match(r"[A-Za-z0-9][\w.-]*(?:==[\w.+!-]+)?", value)) else "certbot-dns-name"
    problem = (
        f"{show(value)} is not a list of pinned packages that have hashes, and root installs no package unverified. "
        "It has to name each package that the plugin needs."
    )
    return Fault("malformed", problem, plugin_packages_example(name))


def plugin_packages_example(name: str) -> str:
    """How ``acme.dns.package`` is written for a plugin, or for the package of one."""
    package = name if name.startswith("certbot") else f"certbot-dns-{name}"
    return (
        "package: |  # below it, indented, the output of this command in the project's folder:\n"
        f"# echo {package} | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header "
        "--no-annotate --constraints roles/certbot/files/requirements.txt -"
    )


def credential_fault(name: Any, value: Any) -> str:
    """What is wrong with a line of a DNS plugin's INI file; empty when nothing. The value is never shown."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_:.-]*", name):
        return "Its name is not one that a plugin's INI file can have: letters, digits and _, as its guide has it."
    if not isinstance(value, (str, bool, int)):
        return f"It has to be a text, and is {type_name(value)}."
    if isinstance(value, str) and (not value.strip() or re.search(r"[\x00-\x1f\x7f]", value)):
        return "It is empty, or of more than one line: in a plugin's INI file a value is one line."
    return ""


def email_fault(value: str) -> Fault | None:
    """What is wrong with the address that an authority writes to."""
    local, _at, domain = value.rpartition("@")
    # The part before the @ as RFC 5322, 3.2.3, has it without quotes, and with dots.
    if not re.fullmatch(r"[A-Za-z0-9.!#$&'*+/=?^_`{|}~-]{1,64}", local) or not _is_domain(domain.lower()):
        return Fault("bad_email", f"{show(value)} is no e-mail address. Write one, without a name.", EXAMPLE_EMAIL)
    # Let's Encrypt refuses such an address too, when the account is made.
    if PLACEHOLDER.fullmatch(value) or RESERVED_DOMAINS.fullmatch(domain.lower()):
        problem = f"{show(value)} is a placeholder. Write an address that is read."
        return Fault("placeholder_email", problem, EXAMPLE_EMAIL)
    return None


def _known_hosts(value: str) -> Fault | None:
    """What is wrong with the lines of a known_hosts file: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"."""
    for line in value.strip().splitlines():
        fields = line.split()
        if fields and fields[0] in ("@cert-authority", "@revoked"):
            del fields[0]
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) < 3 or fields[1] not in _KEY_TYPES or not _is_key(fields[1].encode(), fields[2]):
            problem = f"{show(line)} is not such a line: the server's name, the kind of its key, and the key."
            return Fault("bad_known_hosts", problem, "known_hosts: |  # and below, indented, what ssh-keyscan prints")
    return None


def _inner_path(value: str) -> Fault | None:
    """What is wrong with the name of a folder or file inside of the code."""
    if value.startswith(("/", "~")):
        problem = f"{show(value)} is not inside of the code. Write it relative to the app's folder."
        return Fault("unsafe_path", problem)
    if ".." in PurePosixPath(value).parts:
        return Fault("unsafe_path", f"{show(value)} leaves the app's folder. Write a path without '..'.")
    return None


def _persistent(value: str) -> Fault | None:
    if not path_parts(value):
        problem = "It is the whole of the code, which each release replaces. Name the folders that hold data."
        return Fault("persistent_is_everything", problem)
    return _inner_path(value)


def _wsgi(value: str) -> Fault | None:
    pattern = APP_OPTIONS["wsgi"].pattern
    if re.fullmatch(pattern, value):
        return None
    module, _colon, target = value.partition(":")
    better = f"{re.sub(r'[.]py$', '', module).strip('/').replace('/', '.')}:{target.strip() or 'app'}"
    works = snippet(("wsgi",), better) if re.fullmatch(pattern, better) else ""
    problem = f"{show(value)} does not name a WSGI application: write module:object, or module:factory()."
    return Fault("malformed", problem, works)


def _static_url(value: str) -> Fault | None:
    if not value.strip("/"):
        problem = "All of the site would be static files, and no request would reach the app. Name a prefix."
        return Fault("static_is_everything", problem)
    better = f"/{value.strip('/')}/"
    if value != better and re.fullmatch(APP_OPTIONS["static"].options["url"].pattern, better):
        return Fault(
            "malformed", f"{show(value)} does not begin and end with one slash.", snippet(("static", "url"), better)
        )
    return None


def _health_status(value: int) -> Fault | None:
    if 300 <= value <= 399:
        problem = f"{value} is a redirect, which says nothing about the app: it may lead to a page that fails."
        return Fault("health_redirect", problem)
    return None


def unit_name_fault(name: Any) -> str:
    """What is wrong with the name of a timer or process, which names a unit and a file; empty when nothing."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", name):
        return "Its name names a unit: a to z, digits, _ and -, a letter first, at most 31."
    return ""


def process_name_fault(name: Any) -> str:
    """What is wrong with the name of a process; empty when nothing."""
    if fault := unit_name_fault(name):
        return fault
    if name in NOT_PROCESSES:
        other = {"web": "the web server is there without it", "release": "it is the option release_command"}
        return f"{name} is no process of the background: {other[name]}."
    return f"Names that begin with {TIMER_PREFIX} are kept for timers." if name.startswith(TIMER_PREFIX) else ""


def process_command_fault(command: Any) -> str:
    """What is wrong with the command of a process; empty when nothing."""
    if not isinstance(command, str):
        return f"It has to be a command, and is {type_name(command)}."
    if re.search(r"[\x00-\x1f\x7f]", command):
        return "It holds a line end or another control character; it has to be one line."
    return ""


def _on_calendar(value: str) -> Fault | None:
    """What is wrong with the time of a timer, as far as it can be told without systemd: the host checks the rest."""
    if re.fullmatch(r"\s*@\w+\s*|\s*(?:[\d*/,-]+\s+){4}[\w*/,-]+\s*", value):
        problem = f"{show(value)} is a time as cron has it, and systemd has another form: man systemd.time."
        return Fault("cron_time", problem, EXAMPLE_TIMER)
    return _calendar(value)


def _calendar(value: str) -> Fault | None:
    """What is wrong with a time of systemd's, by its grammar."""
    problem = calendar_fault(value)
    return Fault("bad_calendar", problem) if problem else None


def _method(value: str) -> Fault | None:
    if re.fullmatch(r"[A-Za-z]+", value) and value != value.upper():
        problem = f"{show(value)} is no method of HTTP, which are written in capital letters."
        return Fault("malformed", problem, snippet(("methods",), ["GET", "HEAD", value.upper()]))
    if value in ("CONNECT", "TRACE"):
        return Fault("wrong_choice", f"{value} is for proxies and tests, and nginx answers it with an error anyway.")
    return None


def _login_path(value: str) -> Fault | None:
    if not re.fullmatch(APP_OPTIONS["login"].options["paths"].pattern, value):
        problem = f"{show(value)} is no path: it begins with a slash, and has no query and no spaces in it."
        works = re.sub(r"[?#].*", "", re.sub(r"(?i)^[a-z]+://[^/]*", "", value.strip())).strip("/")
        return Fault("malformed", problem, snippet(("login", "paths"), [f"/{works}"]) if works.isalnum() else "")
    return None


def _csp(value: str) -> Fault | None:
    """What is wrong with a policy; the words of Content Security Policy Level 3, 2.2."""
    if re.match(r"(?i)\s*content-security-policy\s*:", value):
        problem = "It begins with the name of the header. Write what comes after the colon."
        return Fault("malformed", problem)
    if "$" in value or '"' in value or "\\" in value:
        return Fault("malformed", "It holds a character that no policy has: the quotes in a policy are single ones.")
    for part in filter(None, map(str.strip, value.split(";"))):
        name = part.split()[0]
        if not re.fullmatch(r"[A-Za-z-]+", name):
            return Fault("malformed", f"{show(name)} is no directive of a policy, and directives end in a semicolon.")
    bare = re.search(r"(?<!['\w.:/-])(self|none|unsafe-inline|unsafe-eval|strict-dynamic)(?!['\w.:/-])", value)
    if bare:
        problem = f"A browser takes {bare[1]} for the name of a host, unless it is in single quotes: '{bare[1]}'."
        return Fault("malformed", problem)
    return None


#: Headers that have an option of their own, and those that belong to the answer itself.
_OWN_HEADERS = {
    "content-security-policy": "csp",
    "strict-transport-security": "tls.hsts",
    "x-robots-tag": "noindex",
}
#: nginx computes the hash at each request, and answers nobody else meanwhile.
_MOST_BCRYPT_COST = 10
_MESSAGE_HEADERS = frozenset(
    """
    accept-ranges age allow alt-svc cache-control connection content-disposition content-encoding content-length
    content-range content-type date etag expires keep-alive last-modified location retry-after server set-cookie trailer
    transfer-encoding upgrade vary via www-authenticate x-content-type-options
    """.split()
)


def header_fault(name: Any, value: Any) -> str:
    """What is wrong with a header that all answers are to have; empty when nothing."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,39}", name):
        return "A header's name is made of letters, digits and hyphens, at most 40."
    if option := _OWN_HEADERS.get(name.lower()):
        return f"There is an option for it: {option}."
    if name.lower() in _MESSAGE_HEADERS:
        return "It says something of one answer, so that nginx or the app has to send it, and not all answers alike."
    if not isinstance(value, str):
        return f"It has to be a text, and is {type_name(value)}. Write it in quotes."
    if not re.fullmatch(r"[ -#%-~]*", value):
        return (
            "It holds a line end, a letter that a header cannot have, or a dollar sign, which nginx takes for its own."
        )
    return ""


def basic_auth_fault(name: Any, value: Any) -> str:
    """What is wrong with a user of basic_auth; empty when nothing. No part of the hash is shown."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", name):
        return "A user's name is made of letters, digits and . _ @ -, at most 64, a letter or digit first."
    if not isinstance(value, str):
        return f"It has to be the hash of a password, and is {type_name(value)}."
    text = value.strip()
    bcrypt = re.fullmatch(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", text)
    # What crypt(5) names of SHA-256, SHA-512 and yescrypt.
    sha = re.fullmatch(r"\$[56]\$(?:rounds=\d{4,6}\$)?[./A-Za-z0-9]{1,16}\$(?:[./A-Za-z0-9]{43}){1,2}", text)
    yescrypt = re.fullmatch(r"\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{43}", text)
    problem = ""
    if text.startswith(f"{name}:"):
        problem = "It begins with the user's name. Write what comes after the colon."
    elif re.match(r"\$(?:apr1|1)\$|\{(?:SHA|SSHA|PLAIN)\}", text):
        problem = "It is a hash that is quickly guessed, or none. Make one with openssl passwd -6."
    elif bcrypt and int(bcrypt[1]) > _MOST_BCRYPT_COST:
        problem = f"Each request would take nginx a quarter of a second. Take a cost of {_MOST_BCRYPT_COST} or less."
    elif not (bcrypt or sha or yescrypt):
        problem = "It is no hash of a password. Make one with openssl passwd -6, and keep it in ansible-vault."
    return problem


def _admin_name(value: str) -> Fault | None:
    if value in RESERVED_NAMES - CLOUD_USERS:
        return Fault("reserved_admin_name", f"{value} is a user or group of the system's own.", EXAMPLE_ADMIN)
    if not re.fullmatch(ADMIN_OPTIONS["name"].pattern, value):
        problem = f"{show(value)} cannot be a user's name: a to z, digits, _ and -, at most 32, no digit first."
        return Fault("bad_admin_name", problem, EXAMPLE_ADMIN)
    return None


def _ssh_key(value: str) -> Fault | None:
    """What is wrong with a public SSH key. No part of it is shown: it may be a private one."""
    if "PRIVATE KEY" in value:
        problem = (
            "It is a private key, which must stay with its owner. Take it out of every file and commit that it is in, "
            "make a new pair (ssh-keygen -t ed25519), and write the half whose file ends in .pub."
        )
        return Fault("private_ssh_key", problem, EXAMPLE_ADMIN)
    text = value.strip()
    kind, _space, rest = text.partition(" ")
    problem = ""
    if text.endswith(".pub") or text.startswith(("~", "/")):
        problem = "It is the name of a file. Write the key, or have the file read."
    elif "\n" in text:
        problem = "It is more than one line. Write one key in each entry."
    elif kind not in _KEY_TYPES:
        problem = (
            f"It is not a public SSH key, which begins with {_KEY_TYPES[0]}, {_KEY_TYPES[1]} or another such name."
        )
    elif not _is_key(kind.encode(), rest.split(" ")[0]):
        problem = "The key is damaged, cut off, or only an example of one."
    return Fault("bad_ssh_key", problem, EXAMPLE_ADMIN) if problem else None


def _is_key(kind: bytes, encoded: str) -> bool:
    """Whether the middle part of a public key is one: its length and name come first (RFC 4253, 6.6), then 32 bytes."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    return blob.startswith(len(kind).to_bytes(4, "big") + kind) and len(blob) >= 4 + len(kind) + 32


def _network(value: str) -> Fault | None:
    return _network_fault(value, EXAMPLE_RULE)


def _target(value: str) -> Fault | None:
    return _network_fault(value, EXAMPLE_EGRESS)


def _allowed(value: str) -> Fault | None:
    return _network_fault(value, EXAMPLE_ALLOW)


def _ignored(value: str) -> Fault | None:
    fault = _network_fault(value, EXAMPLE_IGNORE)
    if not fault and ipaddress.ip_network(value, strict=False).prefixlen == 0:
        return Fault("bad_network", f"{show(value)} is everybody: nobody would ever be banned.", EXAMPLE_IGNORE)
    return fault


def _trusted(value: str) -> Fault | None:
    fault = _network_fault(value, EXAMPLE_PROXIES)
    if not fault and ipaddress.ip_network(value, strict=False).prefixlen == 0:
        problem = f"{show(value)} is everybody: each visitor could say to be another."
        return Fault("bad_network", problem, EXAMPLE_PROXIES)
    return fault


def _network_fault(value: str, example: str) -> Fault | None:
    """What is wrong with a network or an address."""
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        network = None
    # Python takes any text after a % for the name of an interface, and nft would read that text as rules.
    if network is None or "%" in value:
        problem = f"{show(value)} is not a network: an address, and a slash with a length where it is more than one."
        return Fault("bad_network", problem, example)
    if "/" in value and not re.fullmatch(r".*/\d{1,3}", value):
        problem = f"{show(value)} has a mask where the length of the network is needed. Write {network}."
        return Fault("bad_network", problem, example.replace("203.0.113.0/24", f'"{network}"'))
    if "/" in value and not value.startswith(f"{network.network_address}/"):
        problem = f"{show(value)} is an address inside of a network. Write the network's own, {network}."
        return Fault("bad_network", problem, example.replace("203.0.113.0/24", f'"{network}"'))
    return None


#: The rules, by the option's place in the schema.
RULES: dict[Place, Callable[[Any], Fault | None]] = {
    ("domains",): _domain,
    ("source", "repo"): _repo,
    ("source", "key"): _deploy_key,
    ("source", "known_hosts"): _known_hosts,
    ("source", "archive"): _archive,
    ("source", "checksum"): _checksum,
    ("source", "subdir"): _inner_path,
    ("wsgi",): _wsgi,
    ("requirements",): _inner_path,
    ("wheelhouse",): _inner_path,
    ("persistent",): _persistent,
    ("static", "url"): _static_url,
    ("static", "path"): _inner_path,
    ("health", "status"): _health_status,
    ("login", "paths"): _login_path,
    ("allow",): _allowed,
    ("methods",): _method,
    ("csp",): _csp,
    ("timers", "on_calendar"): _on_calendar,
    ("backup", "full"): _calendar,
    ("backup", "diff"): _calendar,
    ("backup", "drill"): _calendar,
    ("tls", "certificate"): _certificate,
    ("tls", "key"): _tls_key,
    ("acme", "directory"): _directory,
    ("acme", "root"): _root,
    ("acme", "external_account", "hmac_key"): _hmac_key,
    ("acme", "dns", "plugin"): _plugin,
    ("acme", "dns", "package"): _plugin_packages,
    ("admin_users", "name"): _admin_name,
    ("admin_users", "keys"): _ssh_key,
    ("firewall_allow", "from"): _network,
    ("firewall_egress_allow", "to"): _target,
    ("fail2ban_ignore",): _ignored,
    ("trusted_proxies",): _trusted,
}
