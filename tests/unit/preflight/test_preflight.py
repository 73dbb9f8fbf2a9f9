"""Preflight: each kind of problem from one minimal fault, all of them at once, and nothing that it falls over."""

from __future__ import annotations

import ast
import base64
import copy
import datetime
import importlib.util
import ipaddress
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.apps.names import is_address
from ansible.module_utils.flaskhost.apps.options import APP_OPTIONS
from ansible.module_utils.flaskhost.apps.record import app_record
from ansible.module_utils.flaskhost.apps.schema import Option
from ansible.module_utils.flaskhost.host import accounts as host_accounts
from ansible.module_utils.flaskhost.preflight import settings
from ansible.module_utils.flaskhost.preflight.rules import access
from ansible.module_utils.flaskhost.settings.acme import ACME_OPTIONS
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rendering import load_filters

ROOT = Path(__file__).resolve().parents[3]
#: Stands for whatever must not be shown; 44 characters that look like a real secret.
SECRET = "q7Wd-Zk2pXv9Lr4TmB8nHs3YcJ6fGa1EuKo5Ri0NtVy="
#: Takes an option out of the good app.
GONE = object()

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


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with sources of several kinds."""
    root = tmp_path_factory.mktemp("project")
    for name in (
        "sample_app/shop/__init__.py sample_app/shop/static/style.css sample_app/requirements.txt "
        "src_layout/src/inner/__init__.py src_layout/uv.lock "
        "mono/uv.lock mono/services/web/main.py "
        "bare/app.py bare/requirements/base.txt "
        "sample_app/vendor/wheels/flask-3.1.3-py3-none-any.whl sample_app/vendor/empty/README.md dist/shop-1.0.tar.gz"
    ).split():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (root / "archive.tar").mkdir()
    (root / "settings_only").mkdir()
    (root / "settings_only/app.py").write_text("")
    (root / "settings_only/pyproject.toml").write_text("[tool.ruff]\n")
    (root / "declared").mkdir()
    (root / "declared/app.py").write_text("")
    (root / "declared/pyproject.toml").write_text('[project]\ndependencies = ["flask"]\n')
    return root


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


# --- In order --------------------------------------------------------------------------------------------------------


def test_what_is_in_order_has_no_problem(project: Path) -> None:
    assert preflight.find_problems(good_apps(), GOOD_SETTINGS, GOOD_FACTS, project) == []


def test_the_demo_has_no_problem() -> None:
    apps = yaml.safe_load((ROOT / "inventories/demo/group_vars/all/apps.yml").read_text())["flask_apps"]
    assert preflight.find_problems(apps, {}, {}, ROOT) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"path": "src_layout"}, "wsgi": "inner:app", "static": GONE},
        {"source": {"path": "mono", "subdir": "services/web"}, "wsgi": "main:app", "static": GONE},
        {"source": {"path": "bare"}, "requirements": "requirements/base.txt", "wsgi": "app:app", "static": GONE},
        {"source": {"path": "declared"}, "wsgi": "app:app", "static": GONE},
        {"domains": ["xn--bcher-kva.test", "a.b.localhost"]},
        {"wsgi": "shop:create_app('production')"},
        {"wheelhouse": "vendor/wheels"},
        {"extra_packages": ["a==1", HETZNER, "b[x]==2 \\\n    --hash=sha256:" + "0" * 64 + "\n"]},
        {"source": {"path": GONE, "archive": "dist/shop-1.0.tar.gz", "checksum": EMPTY}},
        {"source": {"path": GONE, "archive": "dist/shop-1.0.tar.gz", "checksum": "sha256:" + EMPTY[7:].upper()}},
        {"source": {"path": GONE, "archive": "https://h.test/shop/tarball/v1", "checksum": EMPTY, "subdir": "web"}},
        {"source": SSH_REPO | {"key": private_key() + "\n", "known_hosts": f"# ours\n[h.test]:22 {KEY}\n"}},
        {"source": SSH_REPO | {"key": private_key(line="\r\n"), "repo": "ssh://git@h.test:2222/a/b.git"}},
        {"source": SSH_REPO | {"known_hosts": f"@cert-authority *.h.test {KEY}", "key": "", "archive": ""}},
        {"source": SSH_REPO | {"key": f"-----BEGIN RSA PRIVATE KEY-----\n{'A' * 64}\n-----END RSA PRIVATE KEY-----"}},
        {"persistent": [], "env": {}, "secrets": {}},
        {"worker_class": "sync", "threads": 1},
        {"processes": {"worker": "celery -A shop worker", "clock-2_b": ""}},
        {"tls": PAIR},
        {"tls": PAIR | {"certificate": LEAF + "\n i:authority\n" + CHAIN}},
        {"tls": PAIR, "domains": ["shop.localhost", "a.shop.localhost", "*.shop.localhost", "10.0.0.7"]},
        {"tls": {"mode": "selfsigned"}, "domains": ["shop.localhost", "*.shop.localhost", "fd00::7"]},
        {
            "tls": {"mode": None, "challenge": "http", "certificate": "", "hsts": {"max_age": 0}},
            "domains": ["10.0.0.7"],
        },
        {"tls": {"hsts": {"subdomains": True, "preload": True}}},
        {"domains": ["shop.localhost", "*.todo.localhost"]},
        {"timers": {"n": {"command": "cd src && x", "on_calendar": "Mon..Fri *-*-1,2/3 06:30"}}},
        {"secrets": {"PEM": "-----BEGIN\nlines\n-----END"}, "env": {"HOME_PAGE": "https://shop.localhost:8443/a@b"}},
        {"timeout": None, "limits": None, "health": {"status": 401}},
        {"env": {"MAIL_PASSWORD": "", "USE_TOKEN": True}, "release_command": "", "requirements": ""},
    ],
    ids=str,
)
def test_uncommon_and_in_order(project: Path, changes: dict[str, Any]) -> None:
    assert preflight.find_problems(good_apps(changes), {}, {}, project) == []


@pytest.mark.parametrize("facts", [None, {}, {"distribution": "Debian"}, {"mounts": []}, {"memtotal_mb": 64000}])
def test_of_facts_that_are_not_there_nothing_is_said(project: Path, facts: Any) -> None:
    assert preflight.find_problems(good_apps(), None, facts, project) == []


def test_settings_that_are_empty_are_not_set(project: Path) -> None:
    unset = {"admin_users": [], "firewall_allow": None, "timezone": ""}
    assert preflight.find_problems(good_apps(), unset, {}, project) == []


# --- One fault at a time ---------------------------------------------------------------------------------------------

A = "flask_apps.shop."
#: The kind, where it is told, and what is changed in the good app.
APP_FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("unknown_key", A + "worker", {"worker": 2}),
    ("unknown_key", A + "memory", {"memory": 512}),
    ("unknown_key", A + "health.pth", {"health": {"pth": "/x"}}),
    ("unknown_key", A[:-1] + "[true]", {True: 1}),
    ("missing", A + "domains", {"domains": GONE}),
    ("missing", A + "domains", {"domains": []}),
    ("missing", A + "wsgi", {"wsgi": ""}),
    ("missing", A + "source", {"source": None}),
    ("wrong_type", A + "domains", {"domains": "shop.localhost"}),
    ("wrong_type", A + "domains[0]", {"domains": [80]}),
    ("wrong_type", A + "workers", {"workers": "4"}),
    ("wrong_type", A + "workers", {"workers": True}),
    ("wrong_type", A + "database", {"database": "yes"}),
    ("wrong_type", A + "env", {"env": ["A=1"]}),
    ("wrong_type", A + "health", {"health": "/healthz"}),
    ("wrong_type", A + "source.version", {"source": {"path": "", "repo": "git@h.test:a/b.git", "version": 1.0}}),
    ("wrong_choice", A + "worker_class", {"worker_class": "gevent"}),
    ("wrong_choice", A + "database_driver", {"database_driver": "psycopg3"}),
    ("out_of_range", A + "timeout", {"timeout": 0}),
    ("out_of_range", A + "workers", {"workers": 10**6}),
    ("out_of_range", A + "limits.body", {"limits": {"body": 10**9}}),
    ("malformed", A + "extra_packages[0]", {"extra_packages": ["psycopg"]}),
    ("malformed", A + "extra_packages[0]", {"extra_packages": ["psycopg==3.3.9 --hash=sha256:0123"]}),
    ("malformed", A + "extra_packages[0]", {"extra_packages": ["psycopg==3.3.9\n--index-url=https://index.test"]}),
    ("out_of_range", A + "limits.rate", {"limits": {"rate": -1}}),
    ("malformed", A + "login.paths[0]", {"login": {"paths": ["login"]}}),
    ("malformed", A + "login.paths[1]", {"login": {"paths": ["/login", "https://shop.localhost/sign-in"]}}),
    ("malformed", A + "login.paths[0]", {"login": {"paths": ["/login?next=/"]}}),
    ("bad_network", A + "allow[0]", {"allow": ["office"]}),
    ("bad_network", A + "allow[1]", {"allow": ["2001:db8::/32", "203.0.113.7/24"]}),
    ("malformed", A + "methods[1]", {"methods": ["GET", "post"]}),
    ("malformed", A + "methods[1]", {"methods": ["GET", "A|B"]}),
    ("wrong_choice", A + "methods[1]", {"methods": ["GET", "TRACE"]}),
    ("methods_without_get", A + "methods", {"methods": ["POST"]}),
    ("malformed", A + "csp", {"csp": "Content-Security-Policy: default-src 'self'"}),
    ("malformed", A + "csp", {"csp": "default-src self"}),
    ("malformed", A + "csp", {"csp": "default-src 'self', img-src *; 'none'"}),
    ("malformed", A + "csp", {"csp": 'default-src "self"'}),
    ("malformed", A + "csp", {"csp": "img-src https://$host"}),
    ("control_character", A + "csp", {"csp": "default-src 'self';\nimg-src *"}),
    ("bad_header", A + 'headers["X Frame"]', {"headers": {"X Frame": "DENY"}}),
    ("bad_header", A + "headers.X-Count", {"headers": {"X-Count": 1}}),
    ("bad_header", A + "headers.X-Two", {"headers": {"X-Two": "a\r\nSet-Cookie: a=b"}}),
    ("bad_header", A + "headers.X-Host", {"headers": {"X-Host": "$host"}}),
    ("bad_header", A + "headers.content-security-policy", {"headers": {"content-security-policy": "default-src *"}}),
    ("bad_header", A + "headers.Set-Cookie", {"headers": {"Set-Cookie": "a=b"}}),
    ("bad_header", A + "headers.x-a", {"headers": {"X-A": "1", "x-a": "2"}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": SECRET}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": f"{{PLAIN}}{SECRET}"}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": "$apr1$abcdefgh$0123456789abcdefghijkl"}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": f"ada:{GOOD_HASH}"}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": "$2y$14$" + "a" * 53}}),
    ("bad_basic_auth", A + 'basic_auth["a:b"]', {"basic_auth": {"a:b": GOOD_HASH}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": 12345}}),
    ("malformed", A + "wsgi", {"wsgi": "shop.py"}),
    ("malformed", A + "health.path", {"health": {"path": "healthz"}}),
    ("malformed", A + "static.url", {"static": {"url": "static"}}),
    ("malformed", A + "source.repo", {"source": {"path": "", "repo": f"ftp://{SECRET}/shop", "version": "v1"}}),
    ("malformed", A + "source.version", {"source": {"path": "", "repo": "git@h.test:a/b.git", "version": "-x"}}),
    ("control_character", A + "release_command", {"release_command": "flask db upgrade\nrm -rf /"}),
    ("control_character", A + "wsgi", {"wsgi": "shop:app\0"}),
    ("control_character", A + "source.path", {"source": {"path": "nowhere\n"}}),
    ("control_character", A + "domains[0]", {"domains": ["shop.localhost\n"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["https://shop.localhost"]}),
    ("bad_domain", A + "domains[1]", {"domains": ["shop.localhost", "shop.test:8443"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["Shop.localhost"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["my_shop.localhost"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["shop.localhost/eu"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["shop.localhost."]}),
    ("bad_domain", A + "domains[0]", {"domains": ["shop.test, www.shop.test"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["10.0.0.7:443"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["10.0.0"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["10.0.0.0/8"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["0.0.0.0"]}),  # noqa: S104 - a name here
    ("bad_domain", A + "domains[0]", {"domains": ["fe80::1%eth0"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["[fd00::7]"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["FD00:0:0::7"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["fd00::7::8"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["192.0.2.7"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["2001:db8::7"]}),
    ("placeholder_domain", A + "domains[1]", {"domains": ["shop.localhost", "*.example.com"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["bücher.test"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["shop"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["-shop.localhost"]}),
    ("bad_domain", A + "domains[1]", {"domains": ["shop.localhost", "*.localhost"]}),
    ("bad_domain", A + "domains[1]", {"domains": ["shop.localhost", "a.*.localhost"]}),
    ("bad_domain", A + "domains[1]", {"domains": ["shop.localhost", "*shop.localhost"]}),
    ("wildcard_first", A + "domains[0]", {"domains": ["*.shop.localhost"]}),
    (
        "wildcard_first",
        A + "domains[0]",
        {"domains": ["*.shop.localhost"], "tls": own_pair("*.shop.localhost")},
    ),
    ("duplicate_domain", A + "domains[2]", {"domains": ["shop.localhost", "*.a.test", "*.a.test"]}),
    ("acme_without_email", A + "tls.mode", {"tls": {"mode": "acme"}}),
    ("wrong_choice", A + "tls.mode", {"tls": PAIR | {"mode": "file"}}),
    ("wrong_choice", A + "tls.challenge", {"tls": {"challenge": "tls-alpn"}}),
    ("unknown_key", A + "tls.cert", {"tls": {"cert": PAIR["certificate"]}}),
    ("wrong_type", A + "tls", {"tls": "acme"}),
    ("wrong_type", A + "tls.key", {"tls": PAIR | {"key": [KEY_PART]}}),
    ("files_without_pair", A + "tls.certificate", {"tls": {"mode": "files", "key": PAIR["key"]}}),
    ("files_without_pair", A + "tls.key", {"tls": {"mode": "files", "certificate": PAIR["certificate"], "key": " "}}),
    ("pair_without_files", A + "tls.certificate", {"tls": {"certificate": PAIR["certificate"]}}),
    ("pair_without_files", A + "tls.key", {"tls": {"mode": "selfsigned", "key": PAIR["key"]}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": "certificates/shop.pem"}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": "/etc/ssl/shop.pem"}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": PAIR["key"]}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": PAIR["key"] + LEAF}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": LEAF.replace("\n", " ")}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": LEAF + CHAIN[:-10]}}),
    ("bad_tls_key", A + "tls.key", {"tls": PAIR | {"key": LEAF}}),
    ("bad_tls_key", A + "tls.key", {"tls": PAIR | {"key": KEY_PART}}),
    ("bad_tls_key", A + "tls.key", {"tls": PAIR | {"key": PAIR["key"].replace("\n", " ")}}),
    ("bad_tls_key", A + "tls.key", {"tls": PAIR | {"key": private_key()}}),
    ("bad_tls_key", A + "tls.key", {"tls": own_pair("shop.localhost", password=b"sesame")}),
    ("unreadable_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": LEAF[:40] + "A" + LEAF[40:]}}),
    ("unreadable_tls_key", A + "tls.key", {"tls": PAIR | {"key": PAIR["key"].replace(KEY_PART, KEY_PART[8:])}}),
    ("key_of_another", A + "tls.key", {"tls": PAIR | {"key": own_pair("shop.localhost")["key"]}}),
    ("key_of_another", A + "tls.key", {"tls": PAIR | {"certificate": CHAIN + LEAF}}),
    ("chain_out_of_order", A + "tls.certificate", {"tls": PAIR | {"certificate": LEAF + LEAF}}),
    (
        "certificate_without_name",
        A + "tls.certificate",
        {"tls": own_pair("*.localhost"), "domains": ["a.localhost", "b.a.localhost"]},
    ),
    ("certificate_without_name", A + "tls.certificate", {"tls": own_pair("*.shop.localhost")}),
    ("certificate_without_name", A + "tls.certificate", {"tls": own_pair()}),
    ("certificate_without_name", A + "tls.certificate", {"tls": PAIR, "domains": ["10.0.0.8"]}),
    (
        "certificate_out_of_date",
        A + "tls.certificate",
        {"tls": own_pair("*.localhost", days=(-90, -1)), "domains": ["a.localhost"]},
    ),
    (
        "certificate_out_of_date",
        A + "tls.certificate",
        {"tls": own_pair("*.localhost", days=(2, 90)), "domains": ["a.localhost"]},
    ),
    ("out_of_range", A + "tls.hsts.max_age", {"tls": {"hsts": {"max_age": -1}}}),
    ("wrong_type", A + "tls.hsts.preload", {"tls": {"hsts": {"preload": "yes"}}}),
    ("hsts_preload", A + "tls.hsts.preload", {"tls": {"hsts": {"preload": True}}}),
    (
        "hsts_preload",
        A + "tls.hsts.preload",
        {"tls": {"hsts": {"preload": True, "subdomains": True, "max_age": 86400}}},
    ),
    ("placeholder_domain", A + "domains[0]", {"domains": ["CHANGE-ME.org"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["<domain>"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["www.example.com"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["https://example.org/"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["www.your-domain.org"]}),
    ("duplicate_domain", A + "domains[1]", {"domains": ["shop.localhost", "shop.localhost"]}),
    ("duplicate_item", A + "persistent[1]", {"persistent": ["uploads", "uploads"]}),
    ("shared_domain", "flask_apps.todo.domains[0]", {"domains": ["todo.localhost"]}),
    ("no_source", A + "source", {"source": {"path": ""}}),
    ("two_sources", A + "source", {"source": {"repo": "git@h.test:a/b.git", "version": "v1"}}),
    ("version_without_repo", A + "source.version", {"source": {"version": "v1"}}),
    ("repo_without_version", A + "source.version", {"source": {"path": GONE, "repo": "git@h.test:a/b.git"}}),
    ("placeholder_repo", A + "source.repo", {"source": {"path": GONE, "repo": "https://git.example.com/s.git"}}),
    ("placeholder_repo", A + "source.repo", {"source": {"path": GONE, "repo": "git@github.com:your-org/shop.git"}}),
    ("secret_in_repo", A + "source.repo", {"source": {"path": GONE, "repo": f"https://ada:{SECRET}@git.test/s"}}),
    ("forgeable_version", A + "source.version", {"source": SSH_REPO | {"repo": "http://h.test/a"}}),
    ("forgeable_version", A + "source.version", {"source": SSH_REPO | {"repo": "git://h.test/a", "version": "v1"}}),
    (
        "forgeable_version",
        A + "source.version",
        {"source": SSH_REPO | {"repo": "http://h.test/a", "version": "1" * 39}},
    ),
    ("two_sources", A + "source", {"source": {"archive": "dist/shop-1.0.tar.gz", "checksum": EMPTY}}),
    ("version_without_repo", A + "source.version", {"source": ARCHIVE | {"version": "v1"}}),
    ("archive_without_checksum", A + "source.checksum", {"source": ARCHIVE | {"checksum": GONE}}),
    ("archive_without_checksum", A + "source.checksum", {"source": {"path": "", "archive": "https://h.test/a.tgz"}}),
    ("checksum_without_archive", A + "source.checksum", {"source": {"checksum": EMPTY}}),
    ("wrong_checksum", A + "source.checksum", {"source": ARCHIVE | {"checksum": "sha256:" + "0" * 64}}),
    ("malformed", A + "source.checksum", {"source": ARCHIVE | {"checksum": EMPTY[7:]}}),
    ("malformed", A + "source.checksum", {"source": ARCHIVE | {"checksum": "md5:" + "0" * 32}}),
    ("archive_not_found", A + "source.archive", {"source": ARCHIVE | {"archive": "dist/shop-2.0.tar.gz"}}),
    ("archive_not_found", A + "source.archive", {"source": ARCHIVE | {"archive": "~/shop-1.0.tar.gz"}}),
    ("archive_is_a_folder", A + "source.archive", {"source": ARCHIVE | {"archive": "archive.tar"}}),
    ("malformed", A + "source.archive", {"source": ARCHIVE | {"archive": "dist/shop-1.0.zip"}}),
    ("malformed", A + "source.archive", {"source": ARCHIVE | {"archive": "ftp://h.test/shop.tar.gz"}}),
    ("placeholder_archive", A + "source.archive", {"source": ARCHIVE | {"archive": "https://example.com/a.tar.gz"}}),
    (
        "secret_in_archive",
        A + "source.archive",
        {"source": ARCHIVE | {"archive": f"https://ada:{SECRET}@h.test/a.tgz"}},
    ),
    ("key_without_repo", A + "source.key", {"source": {"key": private_key()}}),
    ("key_without_repo", A + "source.known_hosts", {"source": {"known_hosts": f"h.test {KEY}"}}),
    ("key_without_ssh", A + "source.key", {"source": SSH_REPO | {"repo": "https://h.test/a", "key": private_key()}}),
    ("key_without_ssh", A + "source.key", {"source": SSH_REPO | {"repo": "https://a@h.test/a", "key": private_key()}}),
    ("bad_deploy_key", A + "source.key", {"source": SSH_REPO | {"key": SECRET}}),
    ("bad_deploy_key", A + "source.key", {"source": SSH_REPO | {"key": f"{SECRET}\n{private_key()}"}}),
    ("bad_deploy_key", A + "source.key", {"source": SSH_REPO | {"key": private_key()[:-4]}}),
    ("bad_deploy_key", A + "source.key", {"source": SSH_REPO | {"key": private_key(b"aes256-ctr")}}),
    ("bad_known_hosts", A + "source.known_hosts", {"source": SSH_REPO | {"known_hosts": "h.test"}}),
    ("bad_known_hosts", A + "source.known_hosts", {"source": SSH_REPO | {"known_hosts": f"h.test {KEY[:40]}"}}),
    ("wheelhouse_not_found", A + "wheelhouse", {"wheelhouse": "vendor/whl"}),
    ("wheelhouse_not_found", A + "wheelhouse", {"wheelhouse": "vendor/empty"}),
    ("unsafe_path", A + "wheelhouse", {"wheelhouse": "/opt/wheels"}),
    ("source_not_found", A + "source.path", {"source": {"path": "nowhere"}}),
    ("source_not_found", A + "source.path", {"source": {"path": "~/shop"}}),
    ("source_not_found", A + "source.path", {"source": {"path": "x" * 5000}}),
    ("source_not_a_folder", A + "source.path", {"source": {"path": "sample_app/requirements.txt"}}),
    ("subdir_not_found", A + "source.subdir", {"source": {"subdir": "services/web"}}),
    ("unsafe_path", A + "source.subdir", {"source": {"subdir": "../other"}}),
    ("unsafe_path", A + "requirements", {"requirements": "/etc/requirements.txt"}),
    ("unsafe_path", A + "persistent[0]", {"persistent": ["a/../../b"]}),
    ("unsafe_path", A + "static.path", {"static": {"path": "~/static"}}),
    ("no_requirements", A + "requirements", {"source": {"path": "bare"}, "wsgi": "app:app", "static": GONE}),
    ("no_requirements", A + "requirements", {"source": {"path": "settings_only"}, "wsgi": "app:app", "static": GONE}),
    ("requirements_not_found", A + "requirements", {"requirements": "requirements/prod.txt"}),
    ("wsgi_not_found", A + "wsgi", {"wsgi": "shopp:create_app()"}),
    ("wsgi_not_found", A + "wsgi", {"wsgi": "shop.wsgi:app"}),
    ("static_not_found", A + "static.path", {"static": {"path": "shop/assets"}}),
    ("static_is_everything", A + "static.url", {"static": {"url": "/"}}),
    ("static_is_everything", A + "static.url", {"static": {"url": "//"}}),
    ("health_redirect", A + "health.status", {"health": {"status": 302}}),
    ("bad_process_name", A + "processes.web", {"processes": {"web": "gunicorn shop"}}),
    ("bad_process_name", A + "processes.release", {"processes": {"release": "flask db upgrade"}}),
    ("bad_process_name", A + "processes.Worker", {"processes": {"Worker": "celery"}}),
    ("bad_process_name", A + 'processes["a b"]', {"processes": {"a b": "celery"}}),
    ("bad_process_name", A + "processes.timer-a", {"processes": {"timer-a": "celery"}}),
    ("bad_process_name", A + "processes[true]", {"processes": {True: "celery"}}),
    ("bad_process_name", A + "timers.9-to-5", {"timers": {"9-to-5": {"command": "x", "on_calendar": "daily"}}}),
    (
        "secret_in_command",
        A + "release_command",
        {"secrets": {"T": SECRET}, "release_command": f"flask user -p '{SECRET}'"},
    ),
    (
        "secret_in_command",
        A + "processes.mail",
        {"secrets": {"T": SECRET}, "processes": {"mail": f"worker --key={SECRET}"}},
    ),
    (
        "secret_in_command",
        A + "timers.nightly.command",
        {
            "secrets": {"T": SECRET},
            "timers": {"nightly": {"command": f"curl -H {SECRET} x", "on_calendar": "daily"}},
        },
    ),
    ("bad_process_command", A + "processes.worker", {"processes": {"worker": {"command": "celery"}}}),
    ("bad_process_command", A + "processes.worker", {"processes": {"worker": "celery\nworker"}}),
    ("wrong_type", A + "processes", {"processes": ["celery"]}),
    ("wrong_type", A + "timers.nightly", {"timers": {"nightly": "flask purge"}}),
    ("missing", A + "timers.nightly.command", {"timers": {"nightly": {"on_calendar": "daily"}}}),
    ("missing", A + "timers.nightly.on_calendar", {"timers": {"nightly": {"command": "x", "on_calendar": ""}}}),
    (
        "unknown_key",
        A + "timers.nightly.at",
        {"timers": {"nightly": {"command": "x", "on_calendar": "daily", "at": 3}}},
    ),
    ("control_character", A + "timers.n.on_calendar", {"timers": {"n": {"command": "x", "on_calendar": "da\nily"}}}),
    ("cron_time", A + "timers.n.on_calendar", {"timers": {"n": {"command": "x", "on_calendar": "0 3 * * *"}}}),
    ("cron_time", A + "timers.n.on_calendar", {"timers": {"n": {"command": "x", "on_calendar": "@daily"}}}),
    ("bad_variable_name", A + "env.MAIL-FROM", {"env": {"MAIL-FROM": "x"}}),
    ("bad_variable_name", A + "env[1]", {"env": {1: "x"}}),
    ("bad_variable_name", A + "secrets.2FA", {"secrets": {"2FA": SECRET}}),
    ("bad_variable_value", A + "env.HOSTS", {"env": {"HOSTS": ["a", "b"]}}),
    ("bad_variable_value", A + "env.MOTTO", {"env": {"MOTTO": None}}),
    ("bad_variable_value", A + "env.MOTTO", {"env": {"MOTTO": "a\0b"}}),
    ("bad_variable_value", A + "secrets.KEYS", {"secrets": {"KEYS": {"a": SECRET}}}),
    ("variable_twice", A + "secrets.MAIL_FROM", {"secrets": {"MAIL_FROM": SECRET}}),
    ("own_variable", A + "env.FLASK_DEBUG", {"env": {"FLASK_DEBUG": "1"}}),
    ("own_variable", A + "secrets.FLASK_CONFIG", {"secrets": {"FLASK_CONFIG": "development"}}),
    ("secret_in_env", A + "env.MAIL_PASSWORD", {"env": {"MAIL_PASSWORD": SECRET}}),
    ("secret_in_env", A + "env.STRIPE_API_KEY", {"env": {"STRIPE_API_KEY": SECRET}}),
    ("secret_in_env", A + "env.MAIL_URL", {"env": {"MAIL_URL": f"smtp://ada:{SECRET}@mail.test"}}),
    ("placeholder_secret", A + "secrets.SECRET_KEY", {"secrets": {"SECRET_KEY": "changeme"}}),
    ("placeholder_secret", A + "secrets.PASSWORD", {"secrets": {"PASSWORD": "password"}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": "<token>"}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": "xxxxxxxx"}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": "TODO"}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": ""}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": None}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": 12345}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": "please-change-me-now"}}),
    ("short_secret_key", A + "secrets.SECRET_KEY", {"secrets": {"SECRET_KEY": SECRET[:20]}}),
    ("persistent_is_everything", A + "persistent[0]", {"persistent": ["."]}),
    ("persistent_over_static", A + "persistent[0]", {"persistent": ["shop/static"]}),
    ("persistent_over_static", A + "persistent[0]", {"persistent": ["shop"]}),
    ("persistent_over_code", A + "persistent[0]", {"persistent": ["shop"], "static": GONE}),
    ("persistent_over_code", A + "persistent[0]", {"persistent": ["src/shop"], "static": GONE}),
    ("persistent_overlap", A + "persistent[1]", {"persistent": ["data", "data/uploads"]}),
    ("persistent_overlap", A + "persistent[1]", {"persistent": ["data/uploads", "data"]}),
    ("threads_without_gthread", A + "threads", {"worker_class": "sync", "threads": 8}),
    ("memory_limit", A + "limits.memory", {"limits": {"memory": 4096}}),
    ("too_many_workers", A + "workers", {"workers": 12}),
    ("too_many_connections", "flask_apps", {"workers": 4, "threads": 100, "limits": {"memory": 400}}),
]
#: The kind, where it is told, and the whole mapping.
MAPPING_FAULTS: list[tuple[str, str, Any]] = [
    ("no_apps", "flask_apps", None),
    ("no_apps", "flask_apps", {}),
    ("no_apps", "flask_apps", ""),
    ("not_a_mapping", "flask_apps", ["shop"]),
    ("not_a_mapping", "flask_apps", 7),
    ("not_a_mapping", "flask_apps.shop", {"shop": None}),
    ("not_a_mapping", "flask_apps.shop", {"shop": ["domains"]}),
    ("bad_app_name", "flask_apps.Shop", {"Shop": OTHER_APP}),
    ("bad_app_name", "flask_apps.my_shop", {"my_shop": OTHER_APP}),
    ("bad_app_name", "flask_apps.shop-", {"shop-": OTHER_APP}),
    ("bad_app_name", "flask_apps.1shop", {"1shop": OTHER_APP}),
    ("bad_app_name", "flask_apps." + "s" * 32, {"s" * 32: OTHER_APP}),
    ("bad_app_name", "flask_apps[true]", {True: OTHER_APP}),
    ("bad_app_name", 'flask_apps["a b"]', {"a b": OTHER_APP}),
    ("reserved_app_name", "flask_apps.postgres", {"postgres": OTHER_APP}),
    *(
        ("reserved_app_name", f"flask_apps.{name}", {name: OTHER_APP})
        for name in ("docker", "lxd", "vagrant", "ec2-user", "ubuntu")
    ),
    ("app_name_is_admin", "flask_apps.ada", {"ada": OTHER_APP}),
    (
        "addresses_of_two_apps",
        "flask_apps.b.domains[0]",
        {name: OTHER_APP | {"domains": [f"10.0.0.{n}"]} for n, name in enumerate("ab", 1)},
    ),
    ("too_many_apps", "flask_apps", {f"app{n}": OTHER_APP | {"domains": [f"a{n}.localhost"]} for n in range(3)}),
    ("too_many_apps", "flask_apps", {"a": OTHER_APP | {"processes": {"p1": "x", "p2": "x", "p3": "x"}}}),
    ("undefined", "flask_apps", preflight.Unreadable("'apps' is undefined")),
    ("undefined", "flask_apps.shop", {"shop": preflight.Unreadable("'app' is undefined")}),
    ("undefined", A + "secrets.TOKEN", good_apps({"secrets": {"TOKEN": preflight.Unreadable("'v' is undefined")}})),
    ("undefined", A + "domains[0]", good_apps({"domains": [preflight.Unreadable("'v' is undefined"), "b.test"]})),
    ("vault_locked", A + "wsgi", good_apps({"wsgi": preflight.Unreadable("A vault exception marker was tripped.")})),
    ("too_deep", "flask_apps.shop" + ".a" * 12, {"shop": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}}}),
]
MAPPING_FAULTS[-1][2]["shop"]["a"]["a"]["a"]["a"]["a"]["a"]["a"]["a"] = MAPPING_FAULTS[-1][2]["shop"]
#: The kind, where it is told, and the settings.
SETTINGS_FAULTS: list[tuple[str, str, Any]] = [
    ("not_a_mapping", "settings", ["timezone"]),
    ("unknown_setting", "timezon", {"timezon": "UTC"}),
    ("undefined", "admin_users", {"admin_users": preflight.Unreadable("'admins' is undefined")}),
    ("wrong_type", "admin_users", {"admin_users": "ada"}),
    ("wrong_type", "admin_users[0]", {"admin_users": ["ada"]}),
    ("unknown_key", "admin_users[0].key", {"admin_users": [{"name": "ada", "keys": [KEY], "key": KEY}]}),
    ("missing", "admin_users[0].name", {"admin_users": [{"keys": [KEY]}]}),
    ("missing", "admin_users[0].keys", {"admin_users": [{"name": "ada", "keys": []}]}),
    ("bad_admin_name", "admin_users[0].name", {"admin_users": [{"name": "Ada L", "keys": [KEY]}]}),
    ("reserved_admin_name", "admin_users[0].name", {"admin_users": [{"name": "root", "keys": [KEY]}]}),
    ("duplicate_admin", "admin_users[1].name", {"admin_users": 2 * [{"name": "ada", "keys": [KEY]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": ["~/.ssh/id_ed25519.pub"]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": [KEY[:40]]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": [f"{KEY}\n{KEY}"]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": [f"ssh-rsa {KEY[12:]}"]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": [f"ssh-dss {SECRET}"]}]}),
    (
        "private_ssh_key",
        "admin_users[0].keys[0]",
        {"admin_users": [{"name": "ada", "keys": [f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END"]}]},
    ),
    ("missing", "firewall_allow[0].port", {"firewall_allow": [{"protocol": "tcp"}]}),
    ("out_of_range", "firewall_allow[0].port", {"firewall_allow": [{"port": 65536}]}),
    ("wrong_type", "firewall_allow[0].port", {"firewall_allow": [{"port": "443"}]}),
    ("wrong_choice", "firewall_allow[0].protocol", {"firewall_allow": [{"port": 1, "protocol": "icmp"}]}),
    ("bad_network", "firewall_allow[0].from[0]", {"firewall_allow": [{"port": 1, "from": ["10.0.0.300"]}]}),
    ("bad_network", "firewall_allow[0].from[0]", {"firewall_allow": [{"port": 1, "from": ["10.0.0.5/8"]}]}),
    ("duplicate_port", "firewall_allow[1].port", {"firewall_allow": [{"port": 1}, {"port": 1, "protocol": "tcp"}]}),
    ("wrong_type", "fail2ban_ignore", {"fail2ban_ignore": "10.0.0.0/8"}),
    ("wrong_type", "fail2ban_ignore[0]", {"fail2ban_ignore": [10]}),
    ("bad_network", "fail2ban_ignore[0]", {"fail2ban_ignore": ["office.shop.test"]}),
    ("bad_network", "fail2ban_ignore[0]", {"fail2ban_ignore": ["10.0.0.5/8"]}),
    ("bad_network", "fail2ban_ignore[1]", {"fail2ban_ignore": ["10.0.0.0/8", "0.0.0.0/0"]}),
    ("wrong_type", "timezone", {"timezone": 2}),
    ("unknown_timezone", "timezone", {"timezone": "Stockholm"}),
    ("wrong_type", "postgres_version", {"postgres_version": 15.0}),
    ("bad_version", "postgres_version", {"postgres_version": "15.4"}),
    ("wrong_type", "postgres_extra_settings", {"postgres_extra_settings": ["jit"]}),
    ("bad_setting", "postgres_extra_settings.work-mem", {"postgres_extra_settings": {"work-mem": "1MB"}}),
    ("bad_setting", "postgres_extra_settings.port", {"postgres_extra_settings": {"port": 5433}}),
    ("bad_setting", "postgres_extra_settings.fsync", {"postgres_extra_settings": {"fsync": False}}),
    ("wrong_type", "postgres_extra_settings.work_mem", {"postgres_extra_settings": {"work_mem": ["1MB"]}}),
    ("control_character", "postgres_extra_settings.work_mem", {"postgres_extra_settings": {"work_mem": "1MB\nport=1"}}),
    ("wrong_type", "postgres_logins", {"postgres_logins": ["shop"]}),
    ("wrong_type", "postgres_logins.shop", {"postgres_logins": {"shop": SECRET}}),
    ("bad_login", 'postgres_logins.shop["the a"]', {"postgres_logins": {"shop": {"the a": SECRET}}}),
    ("bad_login", "postgres_logins.shop.a", {"postgres_logins": {"shop": {"a": SECRET[:9]}}}),
    ("wrong_type", "postgres_logins.shop.a", {"postgres_logins": {"shop": {"a": 12345678901234567890}}}),
    ("unknown_app", "postgres_logins.shopp", {"postgres_logins": {"shopp": {}}}),
    ("wrong_type", "acme_email", {"acme_email": [EMAIL]}),
    ("bad_email", "acme_email", {"acme_email": "ops"}),
    ("bad_email", "acme_email", {"acme_email": "Ada <ada@shop.localhost>"}),
    ("bad_email", "acme_email", {"acme_email": "ada@shop.localhost\n"}),
    ("placeholder_email", "acme_email", {"acme_email": "ops@example.com"}),
    ("wrong_type", "acme", {"acme": "https://ca.test/directory"}),
    ("unknown_key", "acme.server", {"acme": {"server": "https://ca.test/directory"}}),
    ("unknown_key", "acme.plugin", {"acme": {"plugin": "rfc2136"}}),
    ("wrong_choice", "acme.key_type", {"acme": {"key_type": "p-256"}}),
    ("wrong_choice", "acme.certbot", {"acme": {"certbot": "pip"}}),
    ("wrong_type", "acme.strict", {"acme": {"strict": "yes"}}),
    ("malformed", "acme.profile", {"acme": {"profile": "short lived"}}),
    ("malformed", "acme.directory", {"acme": {"directory": "http://ca.test/directory"}}),
    ("malformed", "acme.directory", {"acme": {"directory": f"https://ada:{SECRET}@ca.test/directory"}}),
    ("placeholder_directory", "acme.directory", {"acme": {"directory": "https://acme.example.com:14000/dir"}}),
    ("bad_certificate", "acme.root", {"acme": {"root": "root.pem"}}),
    ("bad_certificate", "acme.root", {"acme": {"root": PAIR["key"]}}),
    ("malformed", "acme.external_account.key_id", {"acme": {"external_account": {"key_id": "a b", "hmac_key": "aa"}}}),
    (
        "bad_hmac_key",
        "acme.external_account.hmac_key",
        {"acme": {"external_account": {"key_id": "kid", "hmac_key": f"{SECRET}+/"}}},
    ),
    ("malformed", "acme.dns.plugin", {"acme": {"dns": {"plugin": "certbot-dns-rfc2136"}}}),
    ("malformed", "acme.dns.plugin", {"acme": {"dns": {"plugin": "a b"}}}),
    (
        "malformed",
        "acme.dns.package",
        {"acme": {"dns": {"plugin": "hetzner", "package": "certbot-dns-hetzner==3.0.0"}}},
    ),
    ("malformed", "acme.dns.package", {"acme": {"dns": {"plugin": "hetzner", "package": f"{HETZNER}\ntldextract==5"}}}),
    ("malformed", "acme.dns.package", {"acme": {"dns": {"plugin": "hetzner", "package": f"{HETZNER}\n-r x.txt"}}}),
    ("malformed", "acme.dns.package", {"acme": {"dns": {"plugin": "ovh", "package": "--index-url=https://a.test"}}}),
    ("out_of_range", "acme.dns.propagation", {"acme": {"dns": {"plugin": "ovh", "propagation": 9999}}}),
    ("wrong_type", "acme.dns.credentials", {"acme": {"dns": {"plugin": "ovh", "credentials": f"dns_x = {SECRET}"}}}),
    (
        "bad_credential",
        "acme.dns.credentials.dns_x",
        {"acme": {"dns": {"plugin": "ovh", "credentials": {"dns_x": [SECRET]}}}},
    ),
    (
        "bad_credential",
        "acme.dns.credentials.dns_x",
        {"acme": {"dns": {"plugin": "ovh", "credentials": {"dns_x": ""}}}},
    ),
    (
        "bad_credential",
        "acme.dns.credentials.dns_x",
        {"acme": {"dns": {"plugin": "ovh", "credentials": {"dns_x": f"{SECRET}\ndns_y = 1"}}}},
    ),
    (
        "bad_credential",
        'acme.dns.credentials["dns x"]',
        {"acme": {"dns": {"plugin": "ovh", "credentials": {"dns x": SECRET}}}},
    ),
    ("undefined", "acme.root", {"acme": {"root": preflight.Unreadable("'v' is undefined")}}),
    ("wrong_choice", "tls_policy", {"tls_policy": "old"}),
    ("wrong_type", "trusted_proxies", {"trusted_proxies": "203.0.113.0/24"}),
    ("wrong_type", "trusted_proxies[0]", {"trusted_proxies": [4]}),
    ("bad_network", "trusted_proxies[0]", {"trusted_proxies": ["0.0.0.0/0"]}),
    ("bad_network", "trusted_proxies[0]", {"trusted_proxies": ["cdn.example.com"]}),
    ("wrong_type", "ssh_port", {"ssh_port": "2222"}),
    ("wrong_type", "ssh_port", {"ssh_port": True}),
    ("bad_port", "ssh_port", {"ssh_port": 0}),
    ("bad_port", "ssh_port", {"ssh_port": 65536}),
    ("port_is_taken", "ssh_port", {"ssh_port": 443}),
    ("wrong_type", "reboot_time", {"reboot_time": 750}),
    ("bad_time", "reboot_time", {"reboot_time": "24:00"}),
    ("bad_time", "reboot_time", {"reboot_time": "4:30"}),
    ("bad_time", "reboot_time", {"reboot_time": "now"}),
    ("wrong_type", "time_servers", {"time_servers": "ntp.example.com"}),
    ("wrong_type", "time_servers[1]", {"time_servers": ["ntp.example.com", 3]}),
    ("bad_server", "time_servers[0]", {"time_servers": ["ntp example"]}),
    ("wrong_type", "swap_mb", {"swap_mb": "1G"}),
    ("bad_size", "swap_mb", {"swap_mb": -1}),
    ("bad_size", "swap_mb", {"swap_mb": 1}),
    ("wrong_type", "tls_policy", {"tls_policy": True}),
    ("wrong_type", "http3", {"http3": "yes"}),
    ("wrong_type", "backup", {"backup": True}),
    ("unknown_key", "backup.password", {"backup": BACKUP | {"password": SECRET}}),
    ("missing", "backup.passphrase", {"backup": {"keep_days": 7}}),
    ("short_passphrase", "backup.passphrase", {"backup": {"passphrase": "hunter2"}}),
    ("placeholder_secret", "backup.passphrase", {"backup": {"passphrase": "change-me-change-me-change"}}),
    ("malformed", "backup.passphrase", {"backup": {"passphrase": f" {BACKUP['passphrase']}"}}),
    ("control_character", "backup.passphrase", {"backup": {"passphrase": f"{BACKUP['passphrase']}\nrepo1-path=/x"}}),
    ("out_of_range", "backup.keep_days", {"backup": BACKUP | {"keep_days": 0}}),
    ("wrong_type", "backup.keep_days", {"backup": BACKUP | {"keep_days": "14"}}),
    ("malformed", "backup.full", {"backup": BACKUP | {"full": "Sun\u00a002:15"}}),
    ("malformed", "backup.path", {"backup": BACKUP | {"path": "/var/../backups"}}),
    ("malformed", "backup.hook", {"backup": BACKUP | {"hook": "tell"}}),
    ("malformed", "backup.hook", {"backup": BACKUP | {"hook": "/usr/bin/tell 'me"}}),
    ("missing", "backup.second.repository", {"backup": BACKUP | {"second": {"every": 5}}}),
    ("malformed", "backup.second.repository", {"backup": BACKUP | {"second": {"repository": "ftp://host/x"}}}),
    (
        "malformed",
        "backup.second.repository",
        {"backup": BACKUP | {"second": {"repository": "sftp://host", "known_hosts": "host ssh-ed25519 AAAA"}}},
    ),
    ("missing", "backup.second.known_hosts", {"backup": BACKUP | {"second": {"repository": "sftp:ada@host:/x"}}}),
    ("missing", "backup.second.environment", {"backup": BACKUP | {"second": {"repository": "s3:https://host/x"}}}),
    (
        "missing",
        "backup.second.environment",
        {
            "backup": BACKUP
            | {"second": {"repository": "rest:https://host/x", "environment": {"RESTIC_REST_USERNAME": "ada"}}}
        },
    ),
    (
        "secret_in_repo",
        "backup.second.repository",
        {"backup": BACKUP | {"second": {"repository": f"rest:https://ada:{SECRET}@host/x"}}},
    ),
    (
        "malformed",
        "backup.second.repository",
        {"backup": BACKUP | {"second": {"repository": "/var/backups/flaskhost/b"}}},
    ),
    ("wrong_type", "backup.assertions.shop", {"backup": BACKUP | {"assertions": {"shop": 1}}}),
    ("undefined", "backup.passphrase", {"backup": {"passphrase": preflight.Unreadable("'v' is undefined")}}),
]
#: The kind, where it is told, and what is changed in the facts.
FACT_FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("unsupported_distribution", "host.distribution", {"distribution": "Ubuntu", "distribution_major_version": "24"}),
    ("unsupported_release", "host.distribution", {"distribution_major_version": "11"}),
    ("unsupported_architecture", "host.architecture", {"architecture": "armv7l"}),
    ("not_systemd", "host.service_mgr", {"service_mgr": "sysvinit"}),
    ("old_python", "host.python", {"python": {"version": {"major": 3, "minor": 9}}}),
    ("too_little_memory", "host.memory", {"memtotal_mb": 470}),
    ("too_little_disk", "host.disk", {"mounts": [{"mount": "/", "size_available": 10**9}]}),
    (
        "too_little_disk",
        "host.disk",
        {"mounts": [*GOOD_FACTS["mounts"], {"mount": "/srv", "size_available": 10**9}]},
    ),
]


@pytest.mark.parametrize(("kind", "path", "changes"), APP_FAULTS, ids=lambda value: str(value)[:60])
def test_one_fault_of_an_app(project: Path, kind: str, path: str, changes: dict[str, Any]) -> None:
    problems = preflight.find_problems(good_apps(changes), GOOD_SETTINGS, GOOD_FACTS, project)
    assert (kind, path) in found(problems)
    assert len(problems) == 1 or kind in EXPECTED_COMPANIONS, problems
    assert SECRET not in preflight.render(problems, "web1")


#: Faults that are two by their nature: a repo that is a placeholder has no version either, and one process more needs
#: memory, say.
EXPECTED_COMPANIONS = {"placeholder_repo", "secret_in_repo", "too_many_connections", "secret_in_command"}


@pytest.mark.parametrize(("kind", "path", "apps"), MAPPING_FAULTS, ids=lambda value: str(value)[:60])
def test_one_fault_of_the_mapping(project: Path, kind: str, path: str, apps: Any) -> None:
    problems = preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project)
    assert (kind, path) in found(problems)
    assert len(problems) == 1 or kind == "too_deep", problems


def test_roles_that_log_in_from_afar_are_fine(project: Path) -> None:
    logins = {"shop": {"owner": "correct-horse-battery", "a": "staple-correct-horse", "b": ""}}
    assert preflight.find_problems(good_apps(), {**GOOD_SETTINGS, "postgres_logins": logins}, GOOD_FACTS, project) == []


@pytest.mark.parametrize(
    ("changes", "fine"),
    [
        ({}, False),
        ({"secrets": {"MAIL_PASSWORD": SECRET}}, False),
        ({"secrets": {"DATABASE_URL": f"postgresql://shop-a:{SECRET}@10.0.0.5/shop"}}, True),
        ({"env": {"SQLALCHEMY_DATABASE_URI": "postgresql://shop@10.0.0.5/shop"}}, True),
        ({"database": False}, True),
    ],
)
def test_an_app_is_told_where_its_database_is(changes: dict[str, Any], fine: bool, project: Path) -> None:
    problems = preflight.find_problems(good_apps(changes), GOOD_SETTINGS, GOOD_FACTS, project, database=False)
    assert found(problems) == (set() if fine else {(ELSEWHERE, "flask_apps.shop.secrets")})
    assert preflight.find_problems(good_apps(changes), GOOD_SETTINGS, GOOD_FACTS, project) == []


@pytest.mark.parametrize(("name", "logins"), [("shop-owner", {}), ("shop-a", {"shop": {"a": ""}})])
def test_no_app_has_the_name_of_anothers_role(name: str, logins: dict[str, Any], project: Path) -> None:
    apps = {**good_apps(), name: {**copy.deepcopy(OTHER_APP), "domains": ["other.localhost"]}}
    facts = GOOD_FACTS | {"memtotal_mb": 4000}
    problems = preflight.find_problems(apps, {**GOOD_SETTINGS, "postgres_logins": logins}, facts, project)
    assert found(problems) == {(ROLE_NAME, f"flask_apps.{name}")}


@pytest.mark.parametrize(("kind", "path", "changed"), SETTINGS_FAULTS, ids=lambda value: str(value)[:60])
def test_one_fault_of_the_settings(project: Path, kind: str, path: str, changed: Any) -> None:
    problems = preflight.find_problems(good_apps(), changed, GOOD_FACTS, project)
    assert found(problems) == {(kind, path)}
    assert SECRET not in preflight.render(problems, "web1")


#: The kind, where it is told, what is changed in the good app, and the settings.
#: An app without a word about its database, on a host that has no PostgreSQL.
ELSEWHERE, SHARED_REPOSITORY = "database_elsewhere", "shared_repository"
#: An app with the name of another app's role in PostgreSQL.
ROLE_NAME = "app_name_is_role"
ACCOUNT = "account_exists"
ADMIN = "admin_is_builder"
DATABASES = ("database_exists", "database_silent")
SITE_FAULTS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("acme_without_email", A + "tls.mode", {"tls": {"mode": "acme"}}, {"acme": {"strict": True}}),
    (
        "wildcard_without_dns",
        A + "domains[1]",
        {"domains": ["shop.localhost", "*.shop.localhost"]},
        {"acme_email": EMAIL, "acme": {"dns": DNS}},
    ),
    (
        "address_with_dns",
        A + "domains[1]",
        {"domains": ["shop.localhost", "10.0.0.7"], "tls": {"challenge": "dns"}},
        {"acme_email": EMAIL, "acme": {"dns": DNS, "profile": "shortlived"}},
    ),
    ("unknown_app", "backup.assertions.shopp", {}, {"backup": BACKUP | {"assertions": {"shopp": "SELECT true"}}}),
    (
        "unknown_app",
        "backup.assertions.shop",
        {"database": False},
        {"backup": BACKUP | {"assertions": {"shop": "true"}}},
    ),
    ("dns_without_plugin", A + "tls.challenge", {"tls": {"challenge": "dns"}}, {"acme_email": EMAIL}),
    ("address_without_profile", "acme.profile", {"domains": ["10.0.0.7"]}, {"acme_email": EMAIL}),
    (
        "address_without_pinned",
        "acme.certbot",
        {"domains": ["10.0.0.7"]},
        {"acme_email": EMAIL, "acme": {"certbot": "package", "directory": "https://ca.test/directory"}},
    ),
    ("half_account", "acme.external_account.hmac_key", {}, {"acme": {"external_account": {"key_id": "kid"}}}),
    ("half_account", "acme.external_account.key_id", {}, {"acme": {"external_account": {"hmac_key": SECRET}}}),
    ("dns_without_name", "acme.dns.plugin", {}, {"acme": {"dns": {"credentials": {"dns_x": SECRET}}}}),
    ("dns_without_hashes", "acme.dns.package", {}, {"acme": {"dns": {"plugin": "hetzner"}}}),
    (
        "package_without_pinned",
        "acme.dns.package",
        {},
        {"acme": {"certbot": "package", "dns": {"plugin": "hetzner", "package": HETZNER}}},
    ),
    ("http3_too_old", "http3", {}, {"http3": True}),
    ("profile_too_old", "acme.profile", {}, {"acme": {"certbot": "package", "profile": "shortlived"}}),
]


@pytest.mark.parametrize(("kind", "path", "changes", "site"), SITE_FAULTS, ids=lambda value: str(value)[:60])
def test_one_fault_between_an_app_and_the_site(
    project: Path, kind: str, path: str, changes: dict[str, Any], site: dict[str, Any]
) -> None:
    problems = preflight.find_problems(good_apps(changes), site, GOOD_FACTS, project)
    assert found(problems) == {(kind, path)}
    assert SECRET not in preflight.render(problems, "web1")


@pytest.mark.parametrize(
    ("changes", "site"),
    [
        ({}, {"acme_email": EMAIL, "acme": {"profile": "shortlived", "certbot": "pinned"}}),
        ({"tls": {"challenge": "dns"}, "domains": ["shop.localhost", "*.shop.localhost"]}, {"acme": {"dns": DNS}}),
        ({"tls": {"mode": "acme"}, "domains": ["10.0.0.7"]}, {"acme": {"profile": "shortlived"}}),
        ({"domains": ["10.0.0.7"]}, {"acme": {"directory": "https://10.0.0.5:14000/dir", "root": CHAIN}}),
        ({}, {"acme": {"external_account": {"key_id": "kid", "hmac_key": SECRET}, "key_type": "rsa2048"}}),
        ({"tls": {"mode": "selfsigned", "challenge": "dns"}, "domains": ["10.0.0.7"]}, {"acme": {}}),
        ({"tls": PAIR}, {"acme": {"dns": DNS | {"package": HETZNER, "propagation": 0}}}),
        ({}, {"tls_policy": "modern", "http3": False, "acme": {"strict": True, "dns": None}}),
        ({}, {"acme": {"certbot": "package", "dns": {"plugin": "gandi"}}}),
        ({}, {"acme": {"dns": {"plugin": "hetzner", "package": UV_OUTPUT}}}),
    ],
    ids=range(10),
)
def test_an_authority_that_is_in_order(project: Path, changes: dict[str, Any], site: dict[str, Any]) -> None:
    assert preflight.find_problems(good_apps(changes), {"acme_email": EMAIL} | site, GOOD_FACTS, project) == []


@pytest.mark.parametrize("site", [{"http3": True}, {"acme": {"certbot": "package", "profile": "x"}}], ids=str)
def test_what_a_web_host_lacks_is_told_of_web_hosts_alone(project: Path, site: dict[str, Any]) -> None:
    assert len(preflight.find_problems(good_apps(), site, GOOD_FACTS, project)) == 1
    assert preflight.find_problems(good_apps(), site, GOOD_FACTS, project, web=False) == []
    newer = GOOD_FACTS | {"distribution_major_version": "13"}
    assert preflight.find_problems(good_apps(), site, newer, project) == []


@pytest.mark.parametrize("name", ["acme", "acme_email"])
def test_what_is_not_known_of_the_authority_is_told_once(project: Path, name: str) -> None:
    site = {"acme_email": EMAIL, "acme": {}, name: preflight.Unreadable(f"cannot decode {SECRET}")}
    apps = good_apps({"tls": {"mode": "acme", "challenge": "dns" if name == "acme" else "http"}})
    apps["todo"]["domains"] = ["10.0.0.7"]
    problems = preflight.find_problems(apps, site, GOOD_FACTS, project)
    assert found(problems) == {("undefined", name)}
    assert name == "acme_email" or SECRET not in preflight.render(problems, "web1")


@pytest.mark.parametrize(
    ("shop", "todo", "told"),
    [
        (["a.test", "*.b.test"], ["*.b.test"], {"shared_domain", "wildcard_first"}),
        (["a.test", "*.b.test"], ["b.test", "c.b.test"], set()),
        (["a.test", "10.0.0.7"], ["10.0.0.7"], {"shared_domain", "addresses_of_two_apps"}),
        (["a.test", "10.0.0.7"], ["b.test", "10.0.0.8"], {"addresses_of_two_apps"}),
        (["a.test", "fd00::7"], ["b.test", "fd00::8"], {"addresses_of_two_apps"}),
        (["a.test", "10.0.0.7", "fd00::7"], ["b.test"], set()),
    ],
)
def test_what_two_apps_may_share_of_wildcards_and_addresses(
    project: Path, shop: list[str], todo: list[str], told: set[str]
) -> None:
    apps = good_apps({"domains": shop}) | {"todo": OTHER_APP | {"domains": todo}}
    assert {problem["kind"] for problem in preflight.find_problems(apps, {}, GOOD_FACTS, project)} == told


@pytest.mark.parametrize(
    ("tls", "hint"),
    [
        ({"certificate": "/etc/ssl/shop.pem"}, "name of a file"),
        ({"certificate": LEAF.replace("\n", " ")}, "joined to one"),
        ({"certificate": PAIR["key"]}, "Take the key out"),
        ({"key": own_pair("a.test", password=b"sesame")["key"]}, "has a passphrase"),
        ({"key": private_key()}, "a key of SSH's"),
        ({"key": LEAF}, "It is a certificate"),
        ({"certificate": own_pair("a.test", "*.b.test")["certificate"]}, "is not that of the first certificate"),
        (own_pair("a.test", "*.b.test"), "is for *.b.test, a.test."),
    ],
    ids=range(8),
)
def test_hints_about_certificates_show_nothing_of_a_key(project: Path, tls: dict[str, str], hint: str) -> None:
    (problem,) = preflight.find_problems(good_apps({"tls": PAIR | tls}), {}, {}, project)
    assert hint in problem["problem"]
    shown = f"{problem['problem']} {problem['example']}"
    assert [line for line in (PAIR | tls)["key"].splitlines()[1:-1] if line in shown] == []
    assert KEY_PART not in shown


@pytest.mark.parametrize(("kind", "path", "changes"), FACT_FAULTS, ids=lambda value: str(value)[:60])
def test_one_fault_of_the_host(project: Path, kind: str, path: str, changes: dict[str, Any]) -> None:
    problems = preflight.find_problems(good_apps(), GOOD_SETTINGS, GOOD_FACTS | changes, project)
    assert found(problems) == {(kind, path)}


@pytest.mark.parametrize(
    ("mounts", "told"),
    [
        ([{"mount": "/", "size_available": 10**10}, {"mount": "/boot", "size_available": 10**6}], []),
        ([{"mount": "/", "size_available": 10**10}, {"mount": "/srv/old", "size_available": 10**6}], []),
        ([{"mount": "/", "size_available": 10**9}, {"mount": "/srv", "size_available": 10**10}], ["holds /,"]),
        ([{"mount": "/", "size_available": 10**10}, {"mount": "/srv", "size_available": 10**9}], ["holds /srv,"]),
        ([{"mount": "/", "size_available": 10**9}], ["holds / and /srv,"]),
        ([{"mount": "/"}, {"size_available": 1}, {"mount": "/etc/hosts", "size_available": 1}], []),
    ],
)
def test_the_disk_that_counts(project: Path, mounts: list[dict[str, Any]], told: list[str]) -> None:
    problems = preflight.find_problems(good_apps(), {}, {"mounts": mounts}, project)
    assert len(problems) == len(told)
    assert all(part in problem["problem"] for part, problem in zip(told, problems, strict=True))


REFUSALS: list[tuple[str, str, dict[str, Any]]] = [
    ("unreachable", "ssh -p 1 op@192.0.2.7 ", {"refusal": "ssh: connect to host 192.0.2.7 port 1: Connection refused"}),
    ("unreachable", "ssh-copy-id -p 1 op@192.0.2.7", {"refusal": "op@192.0.2.7: Permission denied (publickey)."}),
    ("unreachable", "ssh-keygen -R 192.0.2.7", {"refusal": "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!"}),
    ("unreachable", "by hand", {"refusal": "Host key verification failed."}),
    ("unreachable", "ansible_host", {"refusal": "ssh: connect to host x port 22: Connection timed out"}),
    ("unreachable", "ansible_host", {"refusal": "Could not resolve hostname x: Name or service not known"}),
    ("unreachable", "ssh -p 1 op@192.0.2.7", {"refusal": "something new"}),
    ("no_python", "apt-get install python3", {"connected": True, "refusal": "/bin/sh: 1: /usr/bin/python3: not found"}),
    ("no_facts", "ssh -p 1 op@192.0.2.7", {"connected": True, "refusal": "MemoryError"}),
    ("no_root", "-K", {"connected": True, "become": True, "refusal": "Missing sudo password"}),
    ("no_root", "the right password of op", {"connected": True, "become": True, "refusal": "Incorrect sudo password"}),
    ("no_root", "usermod", {"connected": True, "become": True, "refusal": "op is not in the sudoers file."}),
    ("no_root", "apt-get install sudo", {"connected": True, "become": True, "refusal": "/bin/sh: 1: sudo: not found"}),
]


@pytest.mark.parametrize(("kind", "cure", "changes"), REFUSALS, ids=lambda value: str(value)[:60])
def test_one_refusal_on_the_way(kind: str, cure: str, changes: dict[str, Any]) -> None:
    attempt = {"address": "192.0.2.7", "port": 1, "user": "op", "become": False, "connected": False, **changes}
    (problem,) = preflight.find_access_problems([{"attempt": attempt}, {"skipped": True}], "web1")
    assert (problem["kind"], problem["path"]) == (kind, "host web1")
    assert cure in problem["example"]
    assert all(word in problem["problem"] for word in ("192.0.2.7", "port 1", "op", changes["refusal"]))


def test_a_good_way_has_no_problem() -> None:
    assert preflight.find_access_problems([{"attempt": {"refusal": ""}}, {"skipped": True}, None], "web1") == []


def test_a_way_of_which_little_is_known() -> None:
    """Without a port, user and address of the inventory's own, SSH takes its own; the command to try does too."""
    (problem,) = preflight.find_access_problems([{"attempt": {"refusal": "closed"}}], "web1")
    assert "as the user of ~/.ssh/config, or your own, to web1, port 22" in problem["problem"]
    assert problem["example"].startswith("ssh web1 ")
    (problem,) = preflight.find_access_problems([{"attempt": {"refusal": "closed", "port": 22, "user": "op"}}], "web1")
    assert problem["example"].startswith("ssh op@web1 ")


def test_a_missing_sudo_is_not_a_missing_python() -> None:
    attempt = {"refusal": "sudo: python3: command not found", "become": True, "connected": True}
    (problem,) = preflight.find_access_problems([{"attempt": attempt}], "web1")
    assert problem["kind"] == "no_root"


def test_the_noise_around_a_refusal_is_left_out() -> None:
    said = (
        "Task failed: Failed to connect to the host via ssh: Warning: Permanently added '192.0.2.7' (ED25519) to the "
        "list of known hosts.\r\nop@192.0.2.7: Permission denied (publickey)."
    )
    (problem,) = preflight.find_access_problems([{"attempt": {"refusal": said}}], "web1")
    assert problem["problem"].endswith(": op@192.0.2.7: Permission denied (publickey).")


# --- All together ----------------------------------------------------------------------------------------------------


def kinds_in_the_source() -> set[str]:
    """Every kind that the code can tell: the first argument of add(), Fault() and make_problem(), and kind = ..."""
    kinds: set[str] = set()
    for path in Path(preflight.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            values: list[ast.expr] = []
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                values = node.args[:1] if name in ("add", "Fault", "make_problem") else []
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    names = target.elts if isinstance(target, ast.Tuple) else [target]
                    if getattr(names[0], "id", "") == "kind":
                        value = node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value
                        values += [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            kinds |= {value.value for value in values if isinstance(value, ast.Constant) and value.value}
    return kinds


def test_every_kind_is_tested() -> None:
    # It imports this file itself.
    raw = importlib.import_module("test_preflight_raw")
    faults = [*APP_FAULTS, *MAPPING_FAULTS, *SETTINGS_FAULTS, *SITE_FAULTS, *FACT_FAULTS, *REFUSALS]
    tested = {
        ROLE_NAME,
        ACCOUNT,
        ADMIN,
        *DATABASES,
        ELSEWHERE,
        SHARED_REPOSITORY,
        *raw.KINDS,
        *(kind for kind, *_rest in faults),
    }
    assert kinds_in_the_source() == tested
    assert len(tested) >= 25


def test_all_faults_are_told_at_once_and_in_order(project: Path) -> None:
    apps = good_apps(
        {
            "domains": ["https://shop.localhost", "shop.localhost", "todo.localhost"],
            "wsgi": "shopp:app",
            "workers": "4",
            "env": {"MAIL_PASSWORD": SECRET},
            "health": {"status": 302},
            "wrkers": 4,
        }
    )
    problems = preflight.find_problems(
        apps | {"Blog": None}, {"timezone": "Stockholm"}, GOOD_FACTS | {"memtotal_mb": 470}, project
    )
    assert [(problem["kind"], problem["path"]) for problem in problems] == [
        ("bad_domain", A + "domains[0]"),
        ("wsgi_not_found", A + "wsgi"),
        ("wrong_type", A + "workers"),
        ("secret_in_env", A + "env.MAIL_PASSWORD"),
        ("health_redirect", A + "health.status"),
        ("unknown_key", A + "wrkers"),
        ("shared_domain", "flask_apps.todo.domains[0]"),
        ("bad_app_name", "flask_apps.Blog"),
        ("not_a_mapping", "flask_apps.Blog"),
        ("unknown_timezone", "timezone"),
        ("too_little_memory", "host.memory"),
    ]


def test_the_examples_work(project: Path) -> None:
    """Where the example is a line of YAML for the app, the app with that line in it has the problem no more."""
    tried = 0
    for kind, path, changes in APP_FAULTS:
        apps = good_apps(changes)
        problems = preflight.find_problems(apps, {}, GOOD_FACTS, project)
        (example,) = {item["example"] for item in problems if (item["kind"], item["path"]) == (kind, path)}
        # Of these the wrong line has to be taken out as well; what works of the last one is in a vault.
        removal = kind in ("unknown_key", "own_variable", "bad_variable_name", "secret_in_env", "bad_basic_auth")
        line = yaml.safe_load(example) if set(example.partition(":")[0:1]) <= set(APP_OPTIONS) else None
        if removal or not isinstance(line, dict) or not path.startswith("flask_apps.shop."):
            continue
        for key, value in line.items():
            present = apps["shop"].get(key)
            # A variable is put beside the others; anything else is written instead.
            beside = key in ("env", "secrets") and isinstance(present, dict)
            apps["shop"][key] = present | value if beside else value
        after = preflight.find_problems(apps, {}, GOOD_FACTS, project)
        assert (kind, path) not in found(after), example
        tried += 1
    assert tried > 70


def test_hints(project: Path) -> None:
    def told(changes: dict[str, Any], kind: str) -> str:
        (problem,) = preflight.find_problems(good_apps(changes), {}, {}, project)
        assert problem["kind"] == kind
        return f"{problem['problem']} {problem['example']}"

    assert "It is empty. Domain names" in told({"domains": []}, "missing")
    assert "It is missing. Domain names" in told({"domains": GONE}, "missing")
    assert "is a list" in told({"release_command": ["a", "b"]}, "wrong_type")
    assert "is empty" in told({"domains": ["a.test", None]}, "wrong_type")
    assert "in square brackets" in told({"persistent": "instance"}, "wrong_type")
    assert 'wsgi: "shop.main:app"' in told({"wsgi": "shop/main.py"}, "malformed")
    assert "static: {url: /assets/}" in told({"static": {"url": "assets"}}, "malformed")
    assert "Did you mean psycopg2?" in told({"database_driver": "psycopg22"}, "wrong_choice")
    assert "Did you mean workers? workers: 2" in told({"wrkers": 2}, "unknown_key")
    assert "limits: {memory: 512}" in told({"memory": 512}, "unknown_key")
    assert "domains: [shop.test]" in told({"domains": ["https://Shop.test:443/x"]}, "bad_domain")
    assert "without the scheme (https://)" in told({"domains": ["https://shop.test"]}, "bad_domain")
    assert "domains: [xn--bcher-kva.test]" in told({"domains": ["Bücher.test"]}, "bad_domain")
    assert 'wsgi: "shop:create_app()"' in told({"wsgi": "shopp:create_app()"}, "wsgi_not_found")
    assert "Write it without quotes" in told({"workers": "4"}, "wrong_type")
    assert "Write it in quotes" in told({"wsgi": 7}, "wrong_type")
    assert "Modules there: shop." in told({"wsgi": "main:app"}, "wsgi_not_found")
    assert 'wsgi: "shop:app"' in told({"wsgi": "main:app"}, "wsgi_not_found")
    bare = {"source": {"path": "bare"}, "static": GONE}
    assert "Folders there: requirements." in told(
        bare | {"source": {"path": "bare", "subdir": "x"}}, "subdir_not_found"
    )
    assert "Modules there: app." in told(
        bare | {"requirements": "requirements/base.txt", "wsgi": "x:a"}, "wsgi_not_found"
    )
    assert "Files that it may be there: requirements.txt." in told({"requirements": "r.txt"}, "requirements_not_found")
    assert "A ~ is not your home folder" in told({"source": {"path": "~/shop"}}, "source_not_found")
    assert "A ~ is not your home folder" in told({"source": ARCHIVE | {"archive": "~/a.tar"}}, "archive_not_found")
    assert "path and archive" in told({"source": ARCHIVE | {"path": "sample_app"}}, "two_sources")
    assert f"sha256:{EMPTY[7:]}" in told({"source": ARCHIVE | {"checksum": EMPTY[7:]}}, "malformed")
    wrong = told({"source": ARCHIVE | {"checksum": "sha256:" + "0" * 64}}, "wrong_checksum")
    assert EMPTY in wrong
    assert "is sha256:000" in wrong
    assert "holds no package" in told({"wheelhouse": "vendor/empty"}, "wheelhouse_not_found")
    assert "pip download" in told({"wheelhouse": "vendor/empty"}, "wheelhouse_not_found")
    assert "home folder" not in told({"source": {"path": "nowhere"}}, "source_not_found")
    assert "config: production" in told({"env": {"FLASK_CONFIG": "x"}}, "own_variable")
    assert "a strong one is then made" in told({"secrets": {"SECRET_KEY": "dev"}}, "placeholder_secret")


@pytest.mark.parametrize(("zone", "near"), [("stockholm", "Europe/Stockholm"), ("Europe/Stokholm", "Europe/Stockholm")])
def test_the_time_zone_that_was_meant(project: Path, zone: str, near: str) -> None:
    (problem,) = preflight.find_problems(good_apps(), {"timezone": zone}, {}, project)
    assert f"Did you mean {near}?" in problem["problem"]
    assert problem["example"] == f"timezone: {near}"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("~/.ssh/id_ed25519.pub", "name of a file"),
        (f"{KEY}\n{KEY}", "more than one line"),
        (KEY[:40], "damaged, cut off"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI... ada@laptop", "only an example"),
        ("AAAAC3Nza", "begins with ssh-ed25519"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc", "make a new pair"),
    ],
)
def test_hints_about_keys(project: Path, key: str, hint: str) -> None:
    (problem,) = preflight.find_problems(good_apps(), {"admin_users": [{"name": "ada", "keys": [key]}]}, {}, project)
    assert hint in problem["problem"]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        (KEY, "public half"),
        ("~/.ssh/id_ed25519", "name of a file"),
        ("a secret", "no private SSH key"),
        (private_key(line=" "), "joined to one"),
        (private_key(b"aes256-ctr"), "has a passphrase"),
        (f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{SECRET}\n-----END ENCRYPTED PRIVATE KEY-----", "has a passphrase"),
        (
            f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{SECRET}\n-----END RSA PRIVATE KEY-----",
            "has a passphrase",
        ),
    ],
    ids=range(7),
)
def test_hints_about_deploy_keys(project: Path, key: str, hint: str) -> None:
    (problem,) = preflight.find_problems(good_apps({"source": SSH_REPO | {"key": key}}), {}, {}, project)
    assert hint in problem["problem"]
    assert not set(key.split()) & set(f"{problem['problem']} {problem['example']}".split()) - {"a"}


def test_a_few_lines_of_anchors_do_not_take_for_ever(project: Path) -> None:
    laughs: list[Any] = ["ha"] * 10
    for _depth in range(9):
        laughs = [laughs] * 10
    problems = preflight.find_problems(good_apps({"persistent": laughs}), {}, {}, project)
    assert ("too_deep", "flask_apps.shop") in {
        (item["kind"], item["path"].partition(".persistent")[0]) for item in problems
    }
    assert len(problems) < 20


def test_two_domains_that_are_none_are_not_the_same_one(project: Path) -> None:
    apps = good_apps({"domains": ["/"]}) | {"blog": OTHER_APP | {"domains": ["."]}}
    assert {item["kind"] for item in preflight.find_problems(apps, {}, {}, project)} == {"bad_domain"}


def test_a_long_value_is_cut(project: Path) -> None:
    (problem,) = preflight.find_problems(good_apps({"config": "-" * 9000}), {}, {}, project)
    assert len(problem["problem"]) < 300


def test_a_name_that_would_do_is_offered(project: Path) -> None:
    problems = preflight.find_problems(
        {"My Shop_2": OTHER_APP, "42": OTHER_APP | {"domains": ["x.test"]}}, {}, {}, project
    )
    assert [problem["example"] for problem in problems] == ["my-shop-2", "shop"]


def test_apps_without_a_database_open_no_connections(project: Path) -> None:
    changes = {"workers": 4, "threads": 100, "limits": {"memory": 400}, "database": False}
    assert preflight.find_problems(good_apps(changes), {}, GOOD_FACTS, project) == []


def test_another_name_of_the_variable(project: Path) -> None:
    (problem,) = preflight.find_problems({"shop": None}, {}, {}, project, "sites")
    assert problem["path"] == "sites.shop"
    assert problem["example"].startswith("sites:")


def test_generated_secrets_are_not_taken_for_placeholders(project: Path) -> None:
    generator = random.Random(7)
    for _round in range(1000):
        secret = base64.urlsafe_b64encode(generator.randbytes(generator.choice([16, 24, 32, 48]))).decode()
        apps = good_apps(
            {"secrets": {"SECRET_KEY": secret * 2, "TOKEN": secret, "PIN": generator.randrange(10**5, 10**9)}}
        )
        assert preflight.find_problems(apps, {}, {}, project) == []


def test_the_message() -> None:
    problems = [
        {"kind": "a", "path": "flask_apps.shop.wsgi", "problem": "It is missing.", "example": 'wsgi: "shop:app"'},
        {"kind": "b", "path": "flask_apps", "problem": "It is empty.", "example": "flask_apps:\n  shop: {}"},
    ]
    assert preflight.render(problems, "web1").splitlines() == [
        "Preflight has found 2 problems on the way to web1.",
        "",
        "1. flask_apps.shop.wsgi",
        "   What is wrong: It is missing.",
        '   What works:    wsgi: "shop:app"',
        "",
        "2. flask_apps",
        "   What is wrong: It is empty.",
        "   What works:    flask_apps:",
        "                    shop: {}",
        "",
        "Nothing has been changed on web1. Correct these and run the same command again.",
    ]
    assert "1 problem on" in preflight.render(problems[:1], "web1")


# --- Whatever the input ----------------------------------------------------------------------------------------------


class Trap(dict):
    """A mapping as Ansible hands it over, some of whose templates fail when they are read."""

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        if value == "trap":
            raise RuntimeError("the filter failed")
        return value


def test_a_template_that_fails_is_a_problem_among_others(project: Path) -> None:
    apps = good_apps({"wsgi": 7}) | {"blog": Trap(OTHER_APP, domains=["blog.localhost"], config="trap")}
    problems = preflight.find_problems(apps, {}, {}, project)
    assert found(problems) == {("wrong_type", A + "wsgi"), ("undefined", "flask_apps.blog.config")}
    assert "the filter failed" in problems[-1]["problem"]


@pytest.mark.parametrize("option", ["certificate", "key"])
def test_the_reason_of_a_failed_template_shows_nothing_of_a_key(project: Path, option: str) -> None:
    tls = PAIR | {option: preflight.Unreadable(f"cannot decode {SECRET}")}
    problems = preflight.find_problems(good_apps({"tls": tls}), {}, {}, project)
    assert found(problems) == {("undefined", f"{A}tls.{option}")}
    assert SECRET not in preflight.render(problems, "web1")


@pytest.mark.parametrize("option", ["env", "secrets"])
def test_the_reason_of_a_failed_template_is_not_shown_where_it_may_hold_a_secret(project: Path, option: str) -> None:
    values = {
        "TOKEN": preflight.Unreadable(f"cannot decode {SECRET}"),
        "MISSING": preflight.Unreadable("'v' is undefined"),
    }
    problems = preflight.find_problems(good_apps({option: values}), {}, {}, project)
    assert found(problems) == {("undefined", f"{A}{option}.TOKEN"), ("undefined", f"{A}{option}.MISSING")}
    assert SECRET not in preflight.render(problems, "web1")
    assert "the variable v is not defined" in problems[-1]["problem"]


def backing_up_to(repository: Any) -> dict[str, Any]:
    return {"backup": {"second": {"repository": repository}}}


def test_hosts_do_not_share_a_second_repository() -> None:
    one = "sftp:backup@203.0.113.20:/flaskhost"
    variables = {
        "web1": backing_up_to(one),
        "web2": backing_up_to(f"{one}/"),
        "web3": backing_up_to(f"{one}/web3"),
        "web4": {},
        "web5": {"backup": "yes"},
        "web6": backing_up_to(one),
    }
    assert preflight.hosts_with_repository(variables, "web1", variables) == ["web2", "web6"]
    assert preflight.hosts_with_repository(["web1", "web3"], "web1", variables) == []
    for host in ("web3", "web4", "web5"):
        assert preflight.hosts_with_repository(variables, host, variables) == []
    # A path is another place on each host.
    local = {"web1": backing_up_to("/mnt/disk"), "web2": backing_up_to("/mnt/disk")}
    assert preflight.hosts_with_repository(local, "web1", local) == []


def test_a_shared_second_repository_is_told_with_its_hosts(project: Path) -> None:
    shared = ["web2", "web6"]
    problems = preflight.find_problems(good_apps(), GOOD_SETTINGS, GOOD_FACTS, project, same_repository=shared)
    assert found(problems) == {(SHARED_REPOSITORY, "backup.second.repository")}
    assert "web2, web6" in problems[0]["problem"]


CYCLIC: list[Any] = []
CYCLIC.append(CYCLIC)
SCALARS = [
    None, True, False, 0, -1, 1, 2, 8, 302, 10**5000, 1.5, float("nan"), float("inf"), "", " ", ".", "..", "/", "~",
    "trap", "shop", "shop:app", "shop.localhost", "https://shop.localhost", "a\0b", "\ud800", "x" * 9000, "é", "[]",
    "{{ x }}", "sample_app", "../..", KEY, b"bytes", datetime.date(2026, 1, 1), {1, 2}, object(), CYCLIC, "\x1b[2J",
    "-----BEGIN PRIVATE KEY-----", "10.0.0.1/99", preflight.Unreadable("'x' is undefined"), preflight.Unreadable(),
    "10.0.0.7", "fd00::7", "*.shop.localhost", "acme", "files", "dns", LEAF,
]  # fmt: skip


def junk(generator: random.Random, depth: int = 0) -> Any:
    """A random value: YAML's types, and some that YAML cannot make."""
    kind = generator.random()
    if depth > 5 or kind < 0.55:
        return generator.choice(SCALARS)
    if kind < 0.75:
        return [junk(generator, depth + 1) for _ in range(generator.randrange(4))]
    content = {generator.choice(JUNK_KEYS): junk(generator, depth + 1) for _ in range(generator.randrange(8))}
    return Trap(content) if kind < 0.85 else content


def every_key(options: Mapping[str, Option]) -> list[str]:
    return [name for key, option in options.items() for name in (key, *every_key(option.options))]


KEYS = [
    *every_key(APP_OPTIONS),
    *every_key(ACME_OPTIONS),
    *settings.SETTINGS,
    *GOOD_FACTS,
    "name",
    "keys",
    "port",
    "from",
    "protocol",
]
JUNK_KEYS = [*KEYS, *(scalar for scalar in SCALARS if scalar.__hash__)]


def test_no_input_raises_and_no_secret_is_shown(project: Path) -> None:
    generator = random.Random(20261121)
    told: set[str] = set()
    for _round in range(800):
        apps, site, facts = (junk(generator) for _ in range(3))
        if generator.random() < 0.7:
            options = {key: junk(generator) for key in generator.sample(list(APP_OPTIONS), 6)}
            apps = {"shop": merged(GOOD_APP, options), "todo": Trap({generator.choice(KEYS): junk(generator)})}
            apps["shop"]["secrets"] = {"TOKEN": SECRET, "OTHER": [SECRET], "trap": SECRET}
            apps["shop"]["tls"] = {"mode": "files", "certificate": junk(generator), "key": SECRET}
            site = {key: junk(generator) for key in settings.SETTINGS}
            if generator.random() < 0.5:
                site["acme"] = {key: junk(generator) for key in ACME_OPTIONS}
                site["acme"]["external_account"] = {"key_id": junk(generator), "hmac_key": f"{SECRET}+"}
            facts = {key: junk(generator) for key in GOOD_FACTS}
        problems = preflight.find_problems(apps, site, facts, project)
        for problem in problems:
            assert list(problem) == ["kind", "path", "problem", "example"]
            assert all(isinstance(text, str) and text for text in problem.values()), problem
        told |= {problem["kind"] for problem in problems}
        message = preflight.render(problems, "web1")
        message.encode()
        assert SECRET not in message
        assert "\x1b" not in message
        assert isinstance(preflight.find_access_problems([apps, {"attempt": site}, {"attempt": facts}], "web1"), list)
    # The fuzz reaches deep: many rules have spoken.
    assert len(told) >= 20, sorted(told)


# --- The parts that Ansible sees -------------------------------------------------------------------------------------


def test_the_filter_reads_each_variable_by_itself() -> None:
    class Values(list):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise RuntimeError("'vault_admins' is undefined")
            return super().__getitem__(index)

    problems = load_filters()["flask_app_problems"](Values([{}, [], "Stockholm"]), ["sites", "admin_users", "timezone"])
    assert found(problems) == {("no_apps", "sites"), ("undefined", "admin_users"), ("unknown_timezone", "timezone")}


def spec_of(role: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]


def test_settings_are_those_of_the_roles_that_take_them() -> None:
    """What preflight lets pass, the role has to accept; what the role accepts, preflight has to let pass."""
    base = spec_of("base")["base_admin_users"]["options"]
    assert {name: option.required for name, option in access.ADMIN_OPTIONS.items()} == {
        name: option.get("required", False) for name, option in base.items()
    }
    firewall = spec_of("firewall")["firewall_allow"]["options"]
    assert {name: (option.type, option.required) for name, option in access.FIREWALL_OPTIONS.items()} == {
        name: (option["type"], option.get("required", False)) for name, option in firewall.items()
    }
    assert list(access.FIREWALL_OPTIONS["protocol"].choices) == firewall["protocol"]["choices"]
    assert spec_of("preflight")["preflight_settings_variables"]["choices"] == list(settings.SETTINGS)


INVENTORY = """\
all:
  vars:
    preflight_apps_variable: sites
    preflight_settings_variables: [admin_users, timezone, backup]
    preflight_same_repository: >-
      {{ ansible_play_hosts_all | flask_hosts_with_repository(inventory_hostname, hostvars) }}
    timezone: "{{ vault_zone }}"
    backup:
      passphrase: kP4vXq7uJm2s9TzR
      second: {repository: "sftp:backup@203.0.113.20:/flaskhost", known_hosts: 203.0.113.20 ssh-ed25519 AAAA}
    sites:
      shop:
        domains: [shop.localhost]
        source: {path: nowhere}
        wsgi: shop:app
        secrets: {TOKEN: "{{ vault_token }}"}
  hosts:
    web1: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_user: op, ansible_become: true}
    web2: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_user: op}
"""


@pytest.fixture(scope="module")
def refused_run(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The real playbook on two hosts that nobody can reach, with faults in what the user wrote."""
    return run_preflight(tmp_path_factory.mktemp("inventory"), INVENTORY)


def run_preflight(folder: Path, hosts: str) -> subprocess.CompletedProcess[str]:
    """Run the real playbook on an inventory of this text."""
    inventory = folder / "hosts.yml"
    inventory.write_text(hosts)
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "playbooks/preflight.yml"],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_run_that_is_refused_tells_each_host_everything(refused_run: subprocess.CompletedProcess[str]) -> None:
    assert refused_run.returncode == 2, refused_run.stdout + refused_run.stderr
    for host in ("web1", "web2"):
        message = refused_run.stdout.partition(f"fatal: [{host}]")[2].partition("Nothing has been changed on")[0]
        assert f"Preflight has found 6 problems on the way to {host}." in message
        for part in (
            "There is no log-in as op to 127.0.0.1, port 1",
            "Connection refused",
            "sites.shop.source.path",
            "sites.shop.secrets.TOKEN",
            "the variable vault_token is not defined",
            "the variable vault_zone is not defined",
            "backup.passphrase",
            f"backup.second.repository What is wrong: {'web2' if host == 'web1' else 'web1'} would use it too.",
            "/flaskhost/{{ inventory_hostname }}",
        ):
            assert part in " ".join(message.split()), part


def test_a_run_that_is_refused_has_one_failure_per_host_and_no_stack_trace(
    refused_run: subprocess.CompletedProcess[str],
) -> None:
    output = refused_run.stdout + refused_run.stderr
    assert output.count("fatal: [") == 2, output
    assert "unreachable=0" in output
    assert "Traceback" not in output
    assert "UNREACHABLE" not in output


#: An SSH that is refused while Ansible still sends it the module, as happens on a busy machine.
SSH_THAT_ENDS_SLOWLY = """\
#!/bin/sh
exec <&-
sleep 0.3
echo "ssh: connect to host 127.0.0.1 port 1: Connection refused" >&2
exit 255
"""


def test_the_reason_of_ssh_is_told_though_it_ends_while_data_is_sent(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH_THAT_ENDS_SLOWLY)
    ssh.chmod(0o755)
    finished = run_preflight(tmp_path, INVENTORY.replace("vars:", f"vars:\n    ansible_ssh_executable: {ssh}", 1))
    assert finished.returncode == 2, finished.stdout + finished.stderr
    for host in ("web1", "web2"):
        message = finished.stdout.partition(f"fatal: [{host}]")[2].partition("Nothing has been changed on")[0]
        assert "port 1: Connection refused" in " ".join(message.split()), finished.stdout


# --- Accounts of the host ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "word"),
    [
        ({"home": "/home/todo", "group": False}, "user"),
        ({"home": "/srv/other/data", "group": False}, "user"),
        ({"home": "", "group": False}, "user"),
        ({"home": None, "group": True}, "group"),
        ({"home": "/srv/todo/data", "group": True}, "group"),
    ],
)
def test_an_app_takes_over_no_account_of_the_host(project: Path, account: dict[str, Any], word: str) -> None:
    apps = {**good_apps(), "todo": OTHER_APP}
    accounts = {"todo": account}
    (problem,) = preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers={"accounts": accounts})
    assert (problem["kind"], problem["path"]) == (ACCOUNT, "flask_apps.todo")
    assert f"The host has a {word} todo" in problem["problem"]
    assert problem["example"].startswith("todo-app")


def test_an_app_may_have_its_own_account(project: Path) -> None:
    home = app_record("todo", OTHER_APP)["data"]
    apps = {**good_apps(), "todo": OTHER_APP}
    for accounts in ({"todo": {"home": home, "group": False}}, {}, None, {"todo": None}, [], {"x": {"home": "/x"}}):
        assert preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers={"accounts": accounts}) == []


def test_an_administrator_builds_for_no_app(project: Path) -> None:
    apps = {**good_apps(), "todo": OTHER_APP}
    admins = [*GOOD_SETTINGS["admin_users"], {**GOOD_SETTINGS["admin_users"][0], "name": "todo_build"}]
    (problem,) = preflight.find_problems(apps, {**GOOD_SETTINGS, "admin_users": admins}, GOOD_FACTS, project)
    assert (problem["kind"], problem["path"]) == (ADMIN, f"admin_users[{len(admins) - 1}].name")
    assert "flask_apps.todo is built as" in problem["problem"]


# --- Roles and databases of PostgreSQL --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ({"roles": {"todo": ""}, "database": False, "owner": ""}, "has the role todo, which"),
        ({"roles": {}, "database": True, "owner": "carol"}, "has the database todo (owner: carol), which"),
        (
            {"roles": {"todo": "", "todo-owner": "shop"}, "database": True, "owner": "todo"},
            'has the role todo, the role todo-owner (of the app "shop") and the database todo (owner: todo), which',
        ),
    ],
)
def test_an_app_takes_over_nothing_in_postgresql(project: Path, taken: dict[str, Any], words: str) -> None:
    apps = {**good_apps(), "todo": OTHER_APP}
    answers = {"databases": {"foreign": {"todo": taken}, "silent": ""}}
    (problem,) = preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers=answers)
    assert (problem["kind"], problem["path"]) == (DATABASES[0], "flask_apps.todo")
    assert words in problem["problem"]
    assert problem["example"].startswith("todo-app")
    assert "## A name that is taken" in (Path(__file__).parents[3] / "docs/postgres.md").read_text()


def test_postgresql_that_cannot_say_is_a_problem_of_the_host(project: Path) -> None:
    answers = {"databases": {"foreign": {}, "silent": "17/main"}}
    (problem,) = preflight.find_problems(good_apps(), GOOD_SETTINGS, GOOD_FACTS, project, answers=answers)
    assert (problem["kind"], problem["path"]) == (DATABASES[1], "host.postgresql")
    assert problem["example"].startswith("sudo systemctl start postgresql@17-main")


@pytest.mark.parametrize(
    "answer", [None, {}, [], {"foreign": []}, {"foreign": {"todo": None, "shop": {}, "x": {"roles": 1}}}]
)
def test_postgresql_may_say_nothing(project: Path, answer: Any) -> None:
    apps = {**good_apps(), "todo": OTHER_APP}
    assert preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers={"databases": answer}) == []


def test_postgresql_is_asked_for_all_roles_of_the_apps_with_a_database() -> None:
    with_database = {**OTHER_APP, "database": True}
    apps = {"todo": with_database, "plain": OTHER_APP, "a'b": with_database, "postgres": with_database, 7: {}}
    logins = {"postgres_logins": {"todo": {"a": "x", "B": "x", 3: "x"}, "plain": {"a": "x"}}}
    asked = preflight.host_questions(apps, logins)["databases"]
    assert list(asked) == ["todo"]
    assert asked["todo"]["roles"] == ["todo", "todo-owner", "todo-a"]
    record = app_record("todo", OTHER_APP)
    assert (asked["todo"]["owner_file"], asked["todo"]["home"]) == (record["database_owner_file"], record["data"])
    assert preflight.host_questions(apps, logins, has_databases=False)["databases"] == {}
    assert preflight.host_questions(None, None)["databases"] == {}


def test_names_are_read_without_the_values() -> None:
    apps = {"shop": object(), 1: {}, "s" * 50: {}, "a b": {}, "\u00fc": {}}
    assert preflight.names_to_look_up(apps) == ["shop", "a b"]
    for nothing in (None, "", [], preflight.Unreadable("x")):
        assert preflight.names_to_look_up(nothing) == []


def test_accounts_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"shop": SimpleNamespace(pw_dir="/srv/shop/data", pw_gid=7), "ada": SimpleNamespace(pw_dir="/a", pw_gid=8)}
    groups = {"shop": SimpleNamespace(gr_gid=7), "ada": SimpleNamespace(gr_gid=9), "docker": SimpleNamespace(gr_gid=3)}
    monkeypatch.setattr(host_accounts.pwd, "getpwnam", users.__getitem__)
    monkeypatch.setattr(host_accounts.grp, "getgrnam", groups.__getitem__)
    assert host_accounts.accounts(["shop", "ada", "docker", "nobody-has-it"]) == {
        "shop": {"home": "/srv/shop/data", "group": False},
        "ada": {"home": "/a", "group": True},
        "docker": {"home": None, "group": True},
    }
