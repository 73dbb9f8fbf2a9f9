"""Passwords: the rules for new ones, and their hashes (Argon2id)."""

import re
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from flask import current_app

MIN_LENGTH, MAX_LENGTH = 12, 128
# Shown beside the field before anybody breaks one.
RULES = (
    f"at least {MIN_LENGTH} characters",
    "a lower case letter",
    "an upper case letter",
    "a digit",
    "a symbol, such as ! or a space",
    "not a well-known password, and not your name",
)
# What is left of well-known passwords without their digits, symbols and replaced letters.
_WELL_KNOWN = frozenset(
    "abc abcd abcde abcdef abcdefg abcdefgh access admin administrator asdf asdfgh asdfghjkl baseball batman changeme "
    "charlie computer correcthorsebatterystaple default dragon flaskhost football guest guestbook hello helloworld "
    "iloveyou letmein liverpool login master michael monkey mustang passphrase passw password passwords princess "
    "qazwsx qazwsxedc qwer qwert qwerty qwertyui qwertyuiop root secret shadow starwars summer sunshine superman "
    "supersecret test testing trustno user welcome whatever winter zxcvbn zxcvbnm".split()
)
_LETTERS = str.maketrans("@4830!1$579", "aaaeoiisstg")
# A hash takes 19 MiB: a flood of logins must not take all of the memory.
_at_once = BoundedSemaphore(2)


def broken_rules(password: str, name: str = "") -> list[str]:
    """Return the rules that a new password does not follow."""
    kept = (
        len(password) >= MIN_LENGTH,
        any(char.islower() for char in password),
        any(char.isupper() for char in password),
        any(char.isdigit() for char in password),
        any(not char.isalnum() for char in password),
        not is_well_known(password) and not (name and name.lower() in password.lower()),
    )
    return [rule for rule, is_kept in zip(RULES, kept, strict=True) if not is_kept]


def is_well_known(password: str) -> bool:
    """Return whether a password is a well-known one, also with Pa$$w0rd's spelling, numbers around it, or twice."""
    words = {re.sub("[^a-z]", "", text) for text in (password.lower(), password.lower().translate(_LETTERS))}
    words |= {word[: len(word) // 2] for word in words if word[: len(word) // 2] * 2 == word}
    # A digit at the end may be a letter (passw0rd) or a number (password1).
    stripped = re.sub("[^a-z]+$", "", password.lower())
    words.add(re.sub("[^a-z]", "", stripped.translate(_LETTERS)))
    return bool(words & _WELL_KNOWN) or len(set(password)) < 5


def hasher() -> PasswordHasher:
    config = current_app.config
    return PasswordHasher(time_cost=config["ARGON2_PASSES"], memory_cost=config["ARGON2_MEMORY"], parallelism=1)


def hash_password(password: str) -> str:
    with _at_once:
        return hasher().hash(password)


def matches(password_hash: str | None, password: str) -> bool:
    """Compare a password with a hash. Without one, take the same time: nobody learns which accounts exist."""
    if password_hash is None:
        hash_password(password)
        return False
    try:
        with _at_once:
            return hasher().verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def needs_rehash(password_hash: str) -> bool:
    return hasher().check_needs_rehash(password_hash)
