"""Apps, settings and facts that are in order, for the tests of preflight to put one fault into."""

from __future__ import annotations

import base64
import copy
import datetime
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

import yaml
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.apps.names import is_address
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from loading import ROOT


def case_name(value: object) -> str:
    """The name of a value in a test's own name: short, and without keys and certificates, which are new in each run."""
    return re.sub(r"-----BEGIN ([A-Z ]+)-----.*", r"<\1>", str(value), flags=re.DOTALL)[:60]


#: Stands for whatever must not be shown; 44 characters that look like a real secret.
SECRET = "q7Wd-Zk2pXv9Lr4TmB8nHs3YcJ6fGa1EuKo5Ri0NtVy="


class Thing:
    """An object that is nothing else. Its name is the same in all processes, and so is the name of a test with it."""

    def __repr__(self) -> str:
        return "<thing>"


#: Takes an option out of the good app.
GONE = Thing()
#: A repository that is read over SSH, in the place of the folder.
SSH_REPO: dict[str, Any] = {"path": GONE, "repo": "git@h.test:a/b.git", "version": "v1"}


def private_key(cipher: bytes = b"none", line: str = "\n") -> str:
    """A text that is built as OpenSSH builds a private key, with nothing real in it but its form."""
    blob = b"openssh-key-v1\0" + len(cipher).to_bytes(4, "big") + cipher + bytes(180)
    body = base64.b64encode(blob).decode()
    lines = [body[start : start + 70] for start in range(0, len(body), 70)]
    return line.join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----"])


def own_pair(*names: str, days: tuple[int, int] = (-1, 90), password: bytes = b"") -> dict[str, str]:
    """A certificate, signed by an authority that is in the chain below it, and its key.

    Args:
        names: the names and addresses in it.
        days: from when until when it is valid, counted from today.
        password: the passphrase of the key.
    """
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("leaf", "authority")}
    known = [x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name) for name in names]
    chain = []
    for name, key in keys.items():
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
        )
        if name == "leaf" and known:
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        chain.append(builder.sign(keys["authority"], hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode())
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    key = keys["leaf"].private_bytes(serialization.Encoding.PEM, form, cipher).decode()
    return {"mode": "files", "certificate": "".join(chain), "key": key}


PAIR = own_pair("shop.localhost", "*.shop.localhost", "10.0.0.7")
LEAF, CHAIN = (
    f"{part}-----END CERTIFICATE-----\n" for part in PAIR["certificate"].split("-----END CERTIFICATE-----\n")[:2]
)
#: Its key's middle, by which a message that shows a part of the key is found out.
KEY_PART = PAIR["key"].splitlines()[1]
EMAIL = "ops@shop.localhost"
HETZNER = "certbot-dns-hetzner==3.0.0 --hash=sha256:" + "0123456789abcdef" * 4
#: What uv pip compile --universal --generate-hashes prints.
UV_OUTPUT = """\
certbot-dns-hetzner==3.0.0 \\
    --hash=sha256:{0} \\
    --hash=sha256:{0}
soupsieve==2.10 ; python_full_version < '3.11.5' \\
    --hash=sha256:{0}
""".format("0123456789abcdef" * 4)
DNS = {"plugin": "rfc2136", "credentials": {"dns_rfc2136_server": "10.0.0.53", "dns_rfc2136_secret": SECRET}}
KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))).decode() + " ada@laptop"
#: The checksum of an empty file, as the project's archive is one.
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ARCHIVE: dict[str, Any] = {"path": GONE, "archive": "dist/shop-1.0.tar.gz", "checksum": EMPTY}
#: Of a password, as openssl passwd -6 prints it.
GOOD_HASH = "$6$abcdefgh$" + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG" * 2
GOOD_APP: dict[str, Any] = {
    "domains": ["shop.localhost", "www.shop.localhost"],
    "source": {"path": "sample_app"},
    "wsgi": "shop:create_app()",
    "persistent": ["instance", "uploads"],
    "env": {"MAIL_FROM": "shop@localhost", "TOKEN_LIFETIME": 60, "MOTTO": ""},
    "secrets": {"SECRET_KEY": SECRET, "PIN": 90210},
    "static": {"url": "/static/", "path": "shop/static"},
    "health": {"path": "/healthz"},
    "limits": {"memory": 300, "body": 16, "rate": 0, "burst": 0, "connections": 0},
    "login": {"paths": ["/sign-in", "/konto/anmeldung.html"], "rate": 0},
    "basic_auth": {"ada": GOOD_HASH, "b.o-b@shop.test": "$2b$10$" + "a" * 53},
    "allow": ["203.0.113.0/24", "2001:db8::1"],
    "methods": ["GET", "HEAD", "POST", "M-SEARCH"],
    "csp": "default-src 'self'; script-src 'self' https://js.shop.localhost 'nonce-a'; upgrade-insecure-requests;",
    "headers": {"X-Frame-Options": "", "Permissions-Policy": 'geolocation=(self "https://maps.shop.localhost")'},
}
OTHER_APP: dict[str, Any] = {
    "domains": ["todo.localhost"],
    "source": {"repo": "git@git.localhost:ada/todo.git", "version": "v1.0"},
    "wsgi": "todo:app",
    "database": False,
    "protected_files": {"folder": "uploads/invoices", "url": "/protected-files/"},
}
GOOD_SETTINGS: dict[str, Any] = {
    "admin_users": [{"name": "ada", "keys": [KEY]}, {"name": "debian", "keys": [KEY + "\n"]}],
    "firewall_allow": [{"port": 8443}, {"port": 8443, "protocol": "udp", "from": ["10.0.0.0/8", "2001:db8::1"]}],
    "fail2ban_ignore": ["203.0.113.0/24", "2001:db8::1"],
    "timezone": "Europe/Stockholm",
    "tls_policy": "intermediate",
    "trusted_proxies": ["203.0.113.0/24"],
    "ssh_port": 2222,
    "time_servers": ["ntp.example.com", "2001:db8::123"],
    "reboot_time": "04:30",
    "swap_mb": 1024,
    "http3": False,
    "postgres_version": "15",
    "postgres_extra_settings": {
        "work_mem": "64MB",
        "jit": False,
        "random_page_cost": 1.5,
        "pg_stat_statements.max": 99,
    },
}
#: As openssl rand -base64 24 prints it.
BACKUP: dict[str, Any] = {"passphrase": "b0Zr7pSg1y/3VwqK9+Xd0uTj5LhEaMcN"}
GOOD_SETTINGS["backup"] = BACKUP | {
    "second": {
        "repository": "sftp:backup@203.0.113.20:/flaskhost/production1",
        "ssh_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbg==\n-----END OPENSSH PRIVATE KEY-----\n",
        "known_hosts": "203.0.113.20 ssh-ed25519 AAAA\n203.0.113.20 ssh-rsa AAAA\n",
        "every": 59,
    },
    "full": "Sun *-*-* 02:15",
    "hook": "/usr/local/bin/tell --loud",
}
GOOD_FACTS: dict[str, Any] = {
    "architecture": "x86_64",
    "distribution": "Debian",
    "distribution_major_version": "12",
    "memtotal_mb": 960,
    "mounts": [{"mount": "/", "size_available": 20 * 1024**3, "size_total": 25 * 1024**3}],
    "processor_vcpus": 1,
    "python": {"version": {"major": 3, "minor": 11, "micro": 2}},
    "service_mgr": "systemd",
}


def good_apps(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Two apps that are in order, the first with changes: mappings are merged, anything else replaces."""
    return {"shop": merged(GOOD_APP, changes or {}), "todo": copy.deepcopy(OTHER_APP)}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if value is GONE:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def found(problems: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(problem["kind"], problem["path"]) for problem in problems}


A = "flask_apps.shop."
CYCLIC: list[Any] = []
CYCLIC.append(CYCLIC)
SCALARS = [
    None, True, False, 0, -1, 1, 2, 8, 302, 10**5000, 1.5, float("nan"), float("inf"), "", " ", ".", "..", "/", "~",
    "trap", "shop", "shop:app", "shop.localhost", "https://shop.localhost", "a\0b", "\ud800", "x" * 9000, "é", "[]",
    "{{ x }}", "sample_app", "../..", KEY, b"bytes", datetime.date(2026, 1, 1), {1, 2}, Thing(), CYCLIC, "\x1b[2J",
    "-----BEGIN PRIVATE KEY-----", "10.0.0.1/99", preflight.Unreadable("'x' is undefined"), preflight.Unreadable(),
    "10.0.0.7", "fd00::7", "*.shop.localhost", "acme", "files", "dns", LEAF,
]  # fmt: skip


class Trap(dict):
    """A mapping as Ansible hands it over, some of whose templates fail when they are read."""

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        if value == "trap":
            raise RuntimeError("the filter failed")
        return value


#: An app without a word about its database, on a host that has no PostgreSQL.
ELSEWHERE, SHARED_REPOSITORY = "database_elsewhere", "shared_repository"
CALENDAR = "bad_calendar"
#: An app with the name of another app's role in PostgreSQL.
#: A Debian package that the host does not know.
PACKAGE = "unknown_debian_package"
ROLE_NAME = "app_name_is_role"
ACCOUNT = "account_exists"
ADMIN = "admin_is_apps_user"
#: An app whose code supports other versions of Python.
PYTHON_RANGE = "python_out_of_range"
DATABASES = ("database_exists", "database_silent")
#: The options of all roles by their names.
SPECS = {
    name: spec
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml"))
    for name, spec in yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"].items()
}
INJECTION = "0.0.0.0/0 } accept; flush ruleset #"


def problems_of(site: Any = None, options: Any = None, answers: Any = None, **app: Any) -> set[tuple[str, str]]:
    """The kinds and paths of the problems of a site whose only app is in order."""
    problems = preflight.find_problems(
        good_apps(app), site or {}, GOOD_FACTS, ROOT / "nowhere", options=options, specs=SPECS, answers=answers
    )
    # The code on the controller is not what is looked at here.
    return {(p["kind"], p["path"]) for p in problems if not p["path"].startswith("flask_apps.shop.source")}


def timers(value: str) -> dict[str, Any]:
    return {"timers": {"t": {"command": "true", "on_calendar": value}}}
