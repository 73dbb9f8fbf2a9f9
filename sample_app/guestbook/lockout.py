"""Locks an account after five failed logins within ten minutes, for ten minutes, whatever addresses they come from.

The failures are counted by the name that was typed, so accounts that do not exist lock in the same way. A stranger who
keeps an account locked does not keep its owner out: a browser that has logged in before has a signed cookie for that
account, and its failures are counted apart. It has five attempts in ten minutes too, so a stolen cookie helps little.
"""

import hashlib
import hmac
import secrets
from datetime import timedelta
from math import ceil

from flask import Response, current_app, request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import select, text

from .models import Account, Lockout, db, now

ATTEMPTS = 5
WINDOW = timedelta(minutes=10)
LOCK = timedelta(minutes=10)
DEVICE_LIFETIME = timedelta(days=365)


def begin(name: str, account: Account | None) -> tuple[str, int]:
    """Count an attempt before its password is checked, so that many at once do not get past the limit.

    Returns:
        The key to forget the attempt with if the password was right, and the seconds to wait if it may not be checked.
    """
    key = _key(name, known_device(account))
    # With a row that is there, parallel attempts wait for each other.
    db.session.execute(
        text("INSERT INTO lockout (key, attempts) VALUES (:key, '[]') ON CONFLICT DO NOTHING"), {"key": key}
    )
    row = db.session.execute(select(Lockout).where(Lockout.key == key).with_for_update()).scalar_one()
    moment = now()
    if row.locked_until and row.locked_until > moment:
        wait = ceil((row.locked_until - moment).total_seconds())
        db.session.commit()
        return key, wait
    since = (moment - WINDOW).timestamp()
    row.attempts = [*(time for time in row.attempts if time > since), moment.timestamp()]
    row.last_at = moment
    row.locked_until = moment + LOCK if len(row.attempts) >= ATTEMPTS else None
    if row.locked_until:
        current_app.logger.warning("login locked", extra={"fields": {"key": key[:12]}})
    db.session.commit()
    return key, 0


def forget(key: str) -> None:
    """Remove the failed attempts after a successful one."""
    db.session.execute(db.delete(Lockout).where(Lockout.key == key))
    db.session.commit()


def remove_old() -> int:
    """Remove rows that count for nothing any more; return their number."""
    done = db.session.execute(db.delete(Lockout).where(Lockout.last_at < now() - WINDOW - LOCK))
    db.session.commit()
    return done.rowcount


def _key(name: str, device: str) -> str:
    # Not the name itself: people type their password into the wrong field.
    message = f"{name.strip().lower()}\0{device}".encode()
    return hmac.digest(current_app.config["SECRET_KEY"].encode(), message, hashlib.sha256).hex()


def known_device(account: Account | None) -> str:
    """Return the ID of the visitor's device, if it has logged in to this account before."""
    cookie = request.cookies.get(current_app.config["DEVICE_COOKIE_NAME"], "")
    try:
        content = _signer().loads(cookie, max_age=DEVICE_LIFETIME.total_seconds())
    except BadSignature:
        return ""
    return content["device"] if account and content["account"] == account.id else ""


def remember_device(response: Response, account: Account) -> None:
    """Give a device that has logged in the cookie that gets it past a lock."""
    device = known_device(account) or secrets.token_urlsafe(16)
    response.set_cookie(
        current_app.config["DEVICE_COOKIE_NAME"],
        str(_signer().dumps({"account": account.id, "device": device})),
        max_age=DEVICE_LIFETIME,
        secure=current_app.config["SESSION_COOKIE_SECURE"],
        httponly=True,
        samesite="Lax",
    )


def _signer() -> URLSafeTimedSerializer:
    config = current_app.config
    return URLSafeTimedSerializer([*(config["SECRET_KEY_FALLBACKS"] or []), config["SECRET_KEY"]], salt="device")
