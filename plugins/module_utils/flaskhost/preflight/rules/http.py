"""Rules about requests and responses: paths, methods, statuses, headers and passwords."""

from __future__ import annotations

import re
from typing import Any

from ...apps.options import APP_OPTIONS
from ..report import Fault, show, snippet, type_name

EXAMPLE_BASIC_AUTH = 'basic_auth: {ada: "{{ vault_shop_basic_auth }}"}  # in vault.yml: what openssl passwd -6 prints'
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
        problem = "All of the site would be static files, and no request would reach the app. Name a prefix."
        return Fault("static_is_everything", problem)
    better = f"/{value.strip('/')}/"
    if value != better and re.fullmatch(APP_OPTIONS["static"].options["url"].pattern, better):
        return Fault(
            "malformed", f"{show(value)} does not begin and end with one slash.", snippet(("static", "url"), better)
        )
    return None


def health_status(value: int) -> Fault | None:
    """Check the expected status of the health check."""
    if 300 <= value <= 399:
        problem = f"{value} is a redirect, which says nothing about the app: it may lead to a page that fails."
        return Fault("health_redirect", problem)
    return None


def method(value: str) -> Fault | None:
    """Check an HTTP method."""
    if re.fullmatch(r"[A-Za-z]+", value) and value != value.upper():
        problem = f"{show(value)} is no method of HTTP, which are written in capital letters."
        return Fault("malformed", problem, snippet(("methods",), ["GET", "HEAD", value.upper()]))
    if value in ("CONNECT", "TRACE"):
        return Fault("wrong_choice", f"{value} is for proxies and tests, and nginx answers it with an error anyway.")
    return None


def login_path(value: str) -> Fault | None:
    """Check a path whose requests are limited like log-ins."""
    if not re.fullmatch(APP_OPTIONS["login"].options["paths"].pattern, value):
        problem = f"{show(value)} is no path: it begins with a slash, and has no query and no spaces in it."
        works = re.sub(r"[?#].*", "", re.sub(r"(?i)^[a-z]+://[^/]*", "", value.strip())).strip("/")
        return Fault("malformed", problem, snippet(("login", "paths"), [f"/{works}"]) if works.isalnum() else "")
    return None


def csp(value: str) -> Fault | None:
    """Check a policy by the grammar of Content Security Policy Level 3, 2.2."""
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


def header_fault(name: Any, value: Any) -> str:
    """Check a header that is added to all responses; empty if it is valid."""
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
    """Check a user of basic_auth; empty if it is valid. The message shows no part of the hash."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", name):
        return "A user's name is made of letters, digits and . _ @ -, at most 64, a letter or digit first."
    if not isinstance(value, str):
        return f"It has to be the hash of a password, and is {type_name(value)}."
    text = value.strip()
    bcrypt = re.fullmatch(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", text)
    # The formats of SHA-256, SHA-512 and yescrypt in crypt(5).
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
