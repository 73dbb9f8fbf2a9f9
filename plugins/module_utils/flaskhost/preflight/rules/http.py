"""Rules about requests and responses: paths, methods, statuses, headers and passwords."""

from __future__ import annotations

import re
from typing import Any

from ...apps.options import APP_OPTIONS
from ..report import Fault, show, snippet, type_name

EXAMPLE_BASIC_AUTH = 'basic_auth: {ada: "{{ vault_shop_basic_auth }}"}  # in vault.yml: the output of openssl passwd -6'
EXAMPLE_HEADERS = "headers: {X-Frame-Options: DENY}"
#: Headers that have an option of their own.
_OWN_HEADERS = {
    "content-security-policy": "csp",
    "strict-transport-security": "tls.hsts",
    "x-robots-tag": "noindex",
}
#: Headers that describe a single response.
_MESSAGE_HEADERS = frozenset(
    """
    accept-ranges age allow alt-svc cache-control connection content-disposition content-encoding content-length
    content-range content-type date etag expires keep-alive last-modified location retry-after server set-cookie trailer
    transfer-encoding upgrade vary via www-authenticate x-content-type-options
    """.split()
)
#: nginx computes the hash at each request, and its worker handles no other request meanwhile.
_MOST_BCRYPT_COST = 10


def static_url(value: str) -> Fault | None:
    """Check the URL prefix of static files."""
    if not value.strip("/"):
        problem = "The whole site would be static files, and no request would reach the app. Use a prefix."
        return Fault("static_is_everything", problem)
    better = f"/{value.strip('/')}/"
    if value != better and re.fullmatch(APP_OPTIONS["static"].options["url"].pattern, better):
        return Fault(
            "malformed", f"{show(value)} does not start and end with one slash.", snippet(("static", "url"), better)
        )
    return None


def protected_url(value: str) -> Fault | None:
    """Check the URL prefix of protected files."""
    option = APP_OPTIONS["protected_files"].options["url"]
    if not value.strip("/"):
        problem = "No request would reach the app. Use a prefix that no page of the app has."
        return Fault("protected_is_everything", problem)
    better = f"/{value.strip('/')}/"
    if value != better and re.fullmatch(option.pattern, better):
        problem = f"{show(value)} does not start and end with one slash."
        return Fault("malformed", problem, snippet(("protected_files", "url"), better))
    return None


def health_status(value: int) -> Fault | None:
    """Check the expected status of the health check."""
    if 300 <= value <= 399:
        problem = f"{value} is a redirect, which does not prove that the app works: its target can fail."
        return Fault("health_redirect", problem)
    return None


def method(value: str) -> Fault | None:
    """Check an HTTP method."""
    if re.fullmatch(r"[A-Za-z]+", value) and value != value.upper():
        problem = f"{show(value)} is not an HTTP method. Write methods in capital letters."
        return Fault("malformed", problem, snippet(("methods",), ["GET", "HEAD", value.upper()]))
    if value in ("CONNECT", "TRACE"):
        return Fault("wrong_choice", f"{value} is for proxies and tests, and nginx always rejects it.")
    return None


def login_path(value: str) -> Fault | None:
    """Check a path whose requests have the rate limit of logins."""
    if not re.fullmatch(APP_OPTIONS["login"].options["paths"].pattern, value):
        problem = f"{show(value)} is not a path. A path starts with a slash, and has no query and no spaces."
        works = re.sub(r"[?#].*", "", re.sub(r"(?i)^[a-z]+://[^/]*", "", value.strip())).strip("/")
        return Fault("malformed", problem, snippet(("login", "paths"), [f"/{works}"]) if works.isalnum() else "")
    return None


def csp(value: str) -> Fault | None:
    """Check a policy by the grammar of Content Security Policy Level 3, 2.2."""
    if re.match(r"(?i)\s*content-security-policy\s*:", value):
        problem = "The policy starts with the name of the header. Write only the part after the colon."
        return Fault("malformed", problem)
    if "$" in value or '"' in value or "\\" in value:
        return Fault("malformed", "Contains $, a backslash or a double quote. Use single quotes in a policy.")
    for part in filter(None, map(str.strip, value.split(";"))):
        name = part.split()[0]
        if not re.fullmatch(r"[A-Za-z-]+", name):
            return Fault("malformed", f"{show(name)} is not a directive. Separate directives by semicolons.")
    bare = re.search(r"(?<!['\w.:/-])(self|none|unsafe-inline|unsafe-eval|strict-dynamic)(?!['\w.:/-])", value)
    if bare:
        problem = f"Without single quotes, browsers read {bare[1]} as a host name. Write '{bare[1]}'."
        return Fault("malformed", problem)
    return None


def header_fault(name: Any, value: Any) -> str:
    """Check a header that is added to all responses; empty if it is valid."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,39}", name):
        return "Not a valid header name. Use at most 40 letters, digits and hyphens."
    if option := _OWN_HEADERS.get(name.lower()):
        return f"This header has its own option: {option}."
    if name.lower() in _MESSAGE_HEADERS:
        return "This header describes a single response, so only nginx or the app can set it."
    if not isinstance(value, str):
        return f"Must be a string, but is {type_name(value)}. Write it in quotes."
    if not re.fullmatch(r"[ -#%-~]*", value):
        return (
            "Contains a line break, a character that is not allowed in a header, or $, which nginx reads as a variable."
        )
    return ""


def basic_auth_fault(name: Any, value: Any) -> str:
    """Check a user of basic_auth; empty if it is valid. The message shows no part of the hash."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", name):
        return "Not a valid user name. Use at most 64 letters, digits and . _ @ -, starting with a letter or digit."
    if not isinstance(value, str):
        return f"Must be a password hash, but is {type_name(value)}."
    text = value.strip()
    bcrypt = re.fullmatch(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", text)
    # The formats of SHA-256, SHA-512 and yescrypt in crypt(5).
    sha = re.fullmatch(r"\$[56]\$(?:rounds=\d{4,6}\$)?[./A-Za-z0-9]{1,16}\$(?:[./A-Za-z0-9]{43}){1,2}", text)
    yescrypt = re.fullmatch(r"\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{43}", text)
    problem = ""
    if text.startswith(f"{name}:"):
        problem = "The hash starts with the user's name. Write only the part after the colon."
    elif re.match(r"\$(?:apr1|1)\$|\{(?:SHA|SSHA|PLAIN)\}", text):
        problem = "The hash is weak, or the password is not hashed. Create a hash with openssl passwd -6."
    elif bcrypt and int(bcrypt[1]) > _MOST_BCRYPT_COST:
        problem = f"Each request would take nginx a quarter of a second. Use a cost of {_MOST_BCRYPT_COST} or less."
    elif not (bcrypt or sha or yescrypt):
        problem = "Not a password hash. Create one with openssl passwd -6, and keep it in ansible-vault."
    return problem
