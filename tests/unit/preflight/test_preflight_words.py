"""Preflight's words about one value: which mistake it is, and what to write instead.

The other tests see that a value is refused. Here, each branch of a rule has a value that no other branch explains.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.preflight.rules import RULES, http
from preflight_cases import GOOD_HASH, case_name

PACKAGES = ("system_packages",)
DOMAINS = ("domains",)
ALLOW = ("allow",)
ADMIN = ("admin_users", "name")
PLUGIN = ("acme", "dns", "plugin")

#: The option, a wrong value, and words of the problem.
WORDS: list[tuple[tuple[str, ...], Any, str]] = [
    (PACKAGES, "--allow-downgrades", "is an option of apt"),
    (PACKAGES, "flask==3.1", "is a Python package"),
    (PACKAGES, "gcc=4:14", "names a version or a release"),
    (PACKAGES, "gcc/trixie", "names a version or a release"),
    (PACKAGES, "gcc:amd64", "names an architecture"),
    (PACKAGES, "gcc make", "is more than one name"),
    (PACKAGES, "gcc,make", "is more than one name"),
    (PACKAGES, "gcc;make", "is more than one name"),
    (PACKAGES, "python3-*", "is a pattern"),
    (PACKAGES, "python3[5]", "is a pattern"),
    (PACKAGES, "^gcc", "is a pattern"),
    (PACKAGES, "GCC", "has capital letters"),
    (PACKAGES, "gcc-", "ends in a sign that apt reads as an instruction"),
    (PACKAGES, "gcc+", "ends in a sign that apt reads as an instruction"),
    (PACKAGES, "g_c", "is not the name of a Debian package"),
    (DOMAINS, "your-domain.test", "is a placeholder"),
    (DOMAINS, "shop.example.com", "is reserved for documentation"),
    (DOMAINS, "192.0.2.7", "is reserved for documentation"),
    (DOMAINS, "https://shop.test", "is a URL"),
    (DOMAINS, "shop.test/x", "has a path"),
    (DOMAINS, "a.test b.test", "is more than one name"),
    (DOMAINS, "a.test,b.test", "is more than one name"),
    (DOMAINS, "[fd00::7]", "has brackets"),
    (DOMAINS, "shop.test:443", "has a port"),
    (DOMAINS, "fd00::7::8:x", "has a colon, but is not an IPv6 address"),
    (DOMAINS, "a.*.test", "has a * in the wrong place"),
    (DOMAINS, "*.*.test", "has a * in the wrong place"),
    (DOMAINS, "Shop.test", "has capital letters"),
    (DOMAINS, "shop.test.", "starts or ends with a dot"),
    (DOMAINS, ".shop.test", "starts or ends with a dot"),
    (DOMAINS, "my_shop.test", "has an underscore"),
    (DOMAINS, "bücher.test", "has letters other than a to z"),
    (DOMAINS, "*.test", "is a wildcard for a top-level domain"),
    (DOMAINS, "shop", "has no dot"),
    (DOMAINS, "-shop.test", "is not a domain name"),
    (DOMAINS, "shop.7", "is not a domain name"),
    (DOMAINS, "0.0.0.0", "is not an address that visitors can use"),  # noqa: S104 - refused
    (DOMAINS, "224.0.0.1", "is not an address that visitors can use"),
    (DOMAINS, "169.254.0.1", "is not an address that visitors can use"),
    (DOMAINS, "FD00::7", "is not in the canonical form"),
    (ALLOW, "shop.test", "is not an IP address or a network"),
    (ALLOW, "fe80::1%eth0", "is not an IP address or a network"),
    (ALLOW, "10.0.0.0/255.0.0.0", "has a netmask instead of a prefix length"),
    (ALLOW, "10.0.0.7/8", "is an address inside a network"),
    (("fail2ban_ignore",), "0.0.0.0/0", "no client would ever be banned"),
    (("fail2ban_ignore",), "10.0.0.7/8", "is an address inside a network"),
    (("trusted_proxies",), "::/0", "could pretend to have another one"),
    (("trusted_proxies",), "10.0.0.7/8", "is an address inside a network"),
    (ADMIN, "www-data", "is reserved"),
    (ADMIN, "Ada", "is not a valid user name"),
    (("static", "url"), "//", "whole site would be static files"),
    (("static", "url"), "assets", "does not start and end with one slash"),
    (("static", "url"), "//assets/", "does not start and end with one slash"),
    (("methods",), "get", "in capital letters"),
    (("methods",), "TRACE", "nginx always rejects it"),
    (("methods",), "CONNECT", "nginx always rejects it"),
    (("login", "paths"), "login", "is not a path"),
    (("csp",), "Content-Security-Policy: default-src 'self'", "starts with the name of the header"),
    (("csp",), "default-src $x", "Contains $"),
    (("csp",), 'default-src "self"', "Contains $"),
    (("csp",), "default-src 'self'\\", "Contains $"),
    (("csp",), "default-src 'self'; 'x' y", "is not a directive"),
    (("csp",), "default-src self", "Write 'self'"),
    (("csp",), "script-src 'self' unsafe-inline", "Write 'unsafe-inline'"),
    (("source", "repo"), "https://ada:pw@h.test/a.git", "contains a password or token"),
    (("source", "repo"), "https://example.com/a.git", "is a placeholder"),
    (("source", "repo"), "https://h.test/your-repo.git", "is a placeholder"),
    (("source", "repo"), "ftp://h.test/a.git", "Not a git URL"),
    (("source", "archive"), "https://ada:pw@h.test/a.tar", "contains a password or token"),
    (("source", "archive"), "https://example.com/a.tar.gz", "is a placeholder"),
    (("source", "archive"), "https://h.test/your-app.tar.gz", "is a placeholder"),
    (("source", "archive"), "a.zip", "is not an archive"),
    (("source", "checksum"), "md5:0", "64 hexadecimal digits"),
    (("source", "subdir"), "/srv", "is not inside the code"),
    (("source", "subdir"), "~/shop", "is not inside the code"),
    (("source", "subdir"), "a/../..", "leaves the app's folder"),
    (("persistent",), ".", "is the whole code"),
    (("persistent",), "/", "is the whole code"),
    (("persistent",), "../data", "leaves the app's folder"),
    (("wsgi",), "shop", "does not name a WSGI application"),
    (("python",), ">=3.12", "is not a version"),
    (("python",), "2.7", "is too old"),
    (("python",), "3.9", "is too old"),
    (("python",), "3", "is too old"),
    (("python",), "3.15.0rc1", "is not a final release"),
    (("health", "status"), 300, "is a redirect"),
    (("health", "status"), 399, "is a redirect"),
    (("acme", "root"), "/etc/ssl/root.pem", "is the name of a file"),
    (("acme", "directory"), "https://ca.example.com/dir", "is a placeholder"),
    (("acme", "directory"), "https://example.com:14000/dir", "is a placeholder"),
    (("acme", "directory"), "http://ca.test/dir", "is not the URL of a directory"),
    (("acme", "external_account", "hmac_key"), "a b", "Not a base64url key"),
    (PLUGIN, "certbot-dns-hetzner", "is not the name that certbot uses"),
    (PLUGIN, "dns_hetzner", "is not the name that certbot uses"),
    (PLUGIN, "Hetzner", "is not the name that certbot uses"),
    (("timers", "on_calendar"), "0 3 * * *", "has the format of cron"),
    (("timers", "on_calendar"), "@daily", "has the format of cron"),
    (("timers", "on_calendar"), "every day", "is not a calendar event"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value", "words"), WORDS, ids=case_name)
def test_the_mistake_is_named(option: tuple[str, ...], value: Any, words: str) -> None:
    fault = RULES[option](value)
    assert fault is not None
    assert words in fault.problem


#: A wrong value, and the one that the example names.
CURES: list[tuple[tuple[str, ...], Any, Any]] = [
    (DOMAINS, "https://shop.test/x", ["shop.test"]),
    (DOMAINS, "shop.test:443", ["shop.test"]),
    (DOMAINS, "my_shop.test", ["my-shop.test"]),
    (DOMAINS, "[fd00::7]", ["fd00::7"]),
    (DOMAINS, "shop", ["shop.localhost"]),
    (DOMAINS, "FD00::0:7", ["fd00::7"]),
    (DOMAINS, "Bücher.test", ["xn--bcher-kva.test"]),
    (DOMAINS, "---", ["shop.localhost"]),
    (ALLOW, "10.0.0.0/255.0.0.0", ["10.0.0.0/8"]),
    (ALLOW, "10.0.0.7/8", ["10.0.0.0/8"]),
    (("static", "url"), "assets", {"url": "/assets/"}),
    (("methods",), "patch", ["GET", "HEAD", "PATCH"]),
    (("login", "paths"), "https://shop.test/login?next=/", {"paths": ["/login"]}),
    (("source", "checksum"), "0" * 64, {"checksum": "sha256:" + "0" * 64}),
    (("wsgi",), "shop/main.py", "shop.main:app"),
    (("wsgi",), "shop/api.py:create_app()", "shop.api:create_app()"),
    (("python",), "^3.12", "3.12"),
    (("python",), "Python 3.12.*", "3.12"),
    (PLUGIN, "certbot_dns_hetzner", {"dns": {"plugin": "hetzner"}}),
    (PLUGIN, "dns-nsone", {"dns": {"plugin": "nsone"}}),
]


@pytest.mark.parametrize(("option", "value", "better"), CURES, ids=case_name)
def test_the_example_works(option: tuple[str, ...], value: Any, better: Any) -> None:
    fault = RULES[option](value)
    assert fault is not None
    assert yaml.safe_load(fault.example) == {option[0]: better}
    while isinstance(better, dict | list):
        better = better[-1] if isinstance(better, list) else next(iter(better.values()))
    assert RULES[option](better) is None


#: Values that are near a mistake and are none.
FINE: list[tuple[tuple[str, ...], Any]] = [
    (PACKAGES, "g++"), (PACKAGES, "libsigc++-2.0-dev"), (DOMAINS, "*.shop.test"), (DOMAINS, "10.0.0.7"),
    (DOMAINS, "fd00::7"), (DOMAINS, "todo-your-self.test"), (ALLOW, "10.0.0.0/8"), (ALLOW, "10.0.0.7"),
    (ALLOW, "2001:db8::/32"), (ALLOW, "0.0.0.0/0"), (("fail2ban_ignore",), "0.0.0.0/1"),
    (("trusted_proxies",), "8000::/1"), (ADMIN, "debian"), (ADMIN, "_ada"), (("static", "url"), "/assets/"),
    (("methods",), "M-SEARCH"), (("methods",), "PATCH"), (("csp",), "script-src https://self.test/none 'self'"),
    (("csp",), "img-src data: ; "), (("source", "repo"), "git@h.test:ada/todo.git"),
    (("source", "archive"), "your-app.tar.gz"), (("source", "subdir"), "a/..b"), (("persistent",), "instance"),
    (("python",), "3.10"), (("python",), "3.12.7"), (("health", "status"), 299), (("health", "status"), 400),
    (("acme", "root"), " "), (("acme", "directory"), "https://ca.test:14000/dir"), (PLUGIN, "hetzner"),
    (PLUGIN, "nothing:of the kind"), (("timers", "on_calendar"), "*-*-* 03:00"), (("timers", "on_calendar"), "daily"),
    (("tls", "key"), ""), (("tls", "certificate"), "\n"), (("source", "key"), " "),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), FINE, ids=case_name)
def test_nothing_is_wrong(option: tuple[str, ...], value: Any) -> None:
    assert RULES[option](value) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (7, GOOD_HASH, "Not a valid user name"),
        ("-ada", GOOD_HASH, "Not a valid user name"),
        ("a" * 65, GOOD_HASH, "Not a valid user name"),
        ("ada", 7, "Must be a password hash, but is a whole number"),
        ("ada", f"ada:{GOOD_HASH}", "starts with the user's name"),
        ("ada", "$apr1$abcdefgh$0123456789012345678901", "is weak"),
        ("ada", "{PLAIN}secret", "is weak"),
        ("ada", "$2b$11$" + "a" * 53, "a cost of 10 or less"),
        ("ada", "$2b$10$" + "a" * 52, "Not a password hash"),
        ("ada", "sesame", "Not a password hash"),
        ("ada", GOOD_HASH, ""),
        ("a" * 64, GOOD_HASH, ""),
        ("ada", "$2b$10$" + "a" * 53, ""),
        ("ada", "$5$rounds=5000$salt$" + "a" * 43, ""),
        ("ada", "$y$j9T$salt$" + "a" * 43 + "\n", ""),
    ],
    ids=case_name,
)
def test_a_user_of_basic_auth(name: Any, value: Any, words: str) -> None:
    problem = http.basic_auth_fault(name, value)
    assert words in problem
    assert bool(problem) is bool(words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("X Y", "a", "Not a valid header name"),
        (7, "a", "Not a valid header name"),
        ("X" * 41, "a", "Not a valid header name"),
        ("Content-Security-Policy", "a", "its own option: csp"),
        ("strict-transport-security", "a", "its own option: tls.hsts"),
        ("Set-Cookie", "a", "describes a single response"),
        ("X-Y", 1, "Must be a string, but is a whole number"),
        ("X-Y", "a\nb", "Contains a line break"),
        ("X-Y", "$a", "Contains a line break"),
        ("X-Y", "é", "Contains a line break"),
        ("X" * 40, 'a "b"~', ""),
        ("X-Y", "", ""),
    ],
)
def test_a_header(name: Any, value: Any, words: str) -> None:
    problem = http.header_fault(name, value)
    assert words in problem
    assert bool(problem) is bool(words)
