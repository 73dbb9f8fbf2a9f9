"""Who is logged in, and what they may do.

A session is a signed cookie with the account and its session version. Flask-Login would do the same; its last release
is from 2023, and what this app needs of it is short.
"""

import hashlib
import secrets
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec
from urllib.parse import urlsplit

from flask import abort, g, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select

from .models import MODERATOR, Account, ApiToken, Entry, db

# Secret scanners recognize a token by its prefix.
TOKEN_PREFIX = "guestbook_"  # noqa: S105 - it is no secret
P = ParamSpec("P")


def log_in(account: Account) -> None:
    """Start a new session. Nothing of the visitor's former one stays, so nobody can have prepared it."""
    session.clear()
    session.update(account=account.id, version=account.session_version, id=secrets.token_urlsafe(16))
    session.permanent = True
    g.account, g.account_id = account, account.id


def log_out() -> None:
    session.clear()
    g.account, g.account_id = None, None


def current_account() -> Account | None:
    """Return the account that is logged in. The database is asked once for each request, and only if needed."""
    if "account" not in g:
        account = db.session.get(Account, session["account"]) if "account" in session else None
        if account and session.get("version") != account.session_version:
            account = None
        g.account, g.account_id = account, account.id if account else None
    return g.account


def token_digest(token: str) -> str:
    """Return what is stored of an API token. It is random and long, so that a fast hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def current_token() -> ApiToken | None:
    """Return the token of an API request. A session counts for nothing there, so no other site can use it."""
    if "token" not in g:
        scheme, _space, given = request.headers.get("Authorization", "").partition(" ")
        valid = scheme.lower() == "bearer" and given.startswith(TOKEN_PREFIX)
        found = select(ApiToken).where(ApiToken.digest == token_digest(given))
        g.token = db.session.scalar(found) if valid else None
        g.account_id = g.token.account_id if g.token else None
    return g.token


def login_required(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
    """Send visitors who are not logged in to the login page, and back afterwards."""

    @wraps(view)
    def checked(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
        if current_account() is None:
            target = request.full_path.rstrip("?") if request.method == "GET" else None
            return redirect(url_for("accounts.login", next=target), 303)
        return view(*args, **kwargs)

    return checked


def may_edit(account: Account | None, entry: Entry) -> bool:
    return account is not None and entry.account_id == account.id


def may_delete(account: Account | None, entry: Entry) -> bool:
    return may_edit(account, entry) or (account is not None and account.role == MODERATOR)


def require(allowed: bool) -> None:
    if not allowed:
        abort(403)


def local_target(target: str | None) -> str:
    """Return a path of this site to go on to; anything that a browser could take for another site becomes /."""
    if not target or not target.startswith("/") or "\\" in target or any(ord(char) <= 32 for char in target):
        return url_for("entries.index")
    parts = urlsplit(target)
    if target.startswith("//") or parts.scheme or parts.netloc:
        return url_for("entries.index")
    return target
