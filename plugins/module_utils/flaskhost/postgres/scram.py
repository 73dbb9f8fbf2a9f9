"""Passwords as PostgreSQL stores them (RFC 5802 and RFC 7677), so that none is sent to it or comes into its log."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets

#: PostgreSQL's own number of rounds (SCRAM_SHA_256_DEFAULT_ITERATIONS); of 256 random bits none can be guessed anyway.
ITERATIONS = 4096
#: What a password may be made of here: printable ASCII, for which SASLprep (RFC 4013) changes nothing.
PLAIN = re.compile(r"[\x21-\x7e]{1,256}")
_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d{1,7}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def new_password() -> str:
    """256 random bits, in letters that need no quotes in a URL."""
    return secrets.token_urlsafe(32)


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What PostgreSQL stores of a password, by which it can check it and not tell it.

    Args:
        password: printable ASCII.
        salt: 16 random bytes; made where it is left out.
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
    """Whether what PostgreSQL has stored is of this password."""
    found = _VERIFIER.fullmatch(stored or "")
    if not found:
        return False
    try:
        salt = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(verifier(password, salt, int(found[1])), stored or "")
