"""PostgreSQL's stored form of passwords (RFC 5802 and RFC 7677), so that no password is sent to it or logged."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets

#: PostgreSQL's default number of rounds (SCRAM_SHA_256_DEFAULT_ITERATIONS); 256 random bits cannot be guessed anyway.
ITERATIONS = 4096
#: Allowed characters of passwords: printable ASCII, which SASLprep (RFC 4013) does not change.
PLAIN = re.compile(r"[\x21-\x7e]{1,256}")
_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d{1,7}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def new_password() -> str:
    """Generate 256 random bits, in characters that need no quoting in a URL."""
    return secrets.token_urlsafe(32)


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """Return what PostgreSQL stores for a password: it can verify the password, but not reveal it.

    Args:
        password: printable ASCII.
        salt: 16 random bytes; generated if None.
        iterations: the rounds of PBKDF2.

    Returns:
        ``SCRAM-SHA-256$<rounds>:<salt>$<StoredKey>:<ServerKey>``.
    """
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored, server = hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")
    packed = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{packed[0]}${packed[1]}:{packed[2]}"


def fits(password: str, stored: str | None) -> bool:
    """Check whether PostgreSQL's stored value belongs to a password."""
    found = _VERIFIER.fullmatch(stored or "")
    if not found:
        return False
    try:
        salt = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(verifier(password, salt, int(found[1])), stored or "")
