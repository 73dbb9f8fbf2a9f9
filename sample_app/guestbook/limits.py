"""Rate limits per account, token, endpoint and address, kept in Redis, or in memory without Redis."""

from ipaddress import ip_network
from time import time

from flask import request
from flask_limiter import Limiter

from .sessions import current_account, current_token

# Pages that only read a few rows have no limit here: nginx limits all requests of an address.
WRITES, READS = "10 per minute; 200 per day", "60 per minute"
API_READS, API_WRITES = "120 per minute", "30 per minute; 500 per day"
LOGINS, SIGNUPS = "30 per minute; 300 per day", "10 per hour"


def address() -> str:
    """Return the visitor's address; with IPv6 its network, because one connection has all of it."""
    found = request.remote_addr or "unknown"
    return str(ip_network(f"{found}/64", strict=False)) if ":" in found else found


def who() -> str:
    """Return whom a limit counts: a token or an account, whatever their address, or else the address."""
    if request.path.startswith("/api/"):
        token = current_token()
        return f"token {token.id}" if token else f"address {address()}"
    account = current_account()
    return f"account {account.id}" if account else f"address {address()}"


# Without Redis each process counts for itself until Redis is back.
limiter = Limiter(key_func=who, in_memory_fallback_enabled=True, swallow_errors=True)


def retry_after() -> int:
    """Return the seconds until the limit that was just exceeded ends."""
    limit = limiter.current_limit
    return max(1, int(limit.reset_at - time())) if limit else 60
