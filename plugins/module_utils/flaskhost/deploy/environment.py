"""The environment of a release: the file that systemd reads, and the secret key that is generated if none is set."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Characters for which systemd rejects the whole file: NUL, surrogates, and Unicode noncharacters.
_UNWRITABLE = re.compile("[\0\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def quote(value: str) -> str:
    """Quote a value for a systemd ``EnvironmentFile``.

    Between double quotes, systemd keeps all characters, including line breaks. Only a backslash before ``"``, ``\\``,
    ``$`` or a backtick is removed (systemd.exec(5), EnvironmentFile).
    """
    for character in '\\"$`':
        value = value.replace(character, "\\" + character)
    return f'"{value}"'


def render(variables: Mapping[str, str]) -> str:
    """Return the text of an environment file, sorted by name so that it changes only if a value does.

    Raises:
        ReleaseError: systemd would reject a variable. The message does not show its value.
    """
    for name, value in variables.items():
        if not _NAME.fullmatch(name) or _UNWRITABLE.search(value):
            raise ReleaseError(
                "Write the environment variables",
                f"{name!r} cannot be an environment variable: its name, or a character in its value, is not allowed.",
                "Correct it in env or secrets. Encode binary values as base64.",
            )
    return "".join(f"{name}={quote(variables[name])}\n" for name in sorted(variables))


class SecretKeys:
    """The keys that sign the app's sessions, generated if the user sets none. The first signs; all are accepted.

    The keys have a file of their own, outside of the releases: a rollback must not log anyone out, and must not restore
    a key that was replaced because it had leaked.

    Args:
        folder: the app's folder under /etc/flaskhost, readable only for root.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.variables_file = folder / "secret_key", folder / "secret_key.env"
        #: The key of an unfinished rotation, so that a killed rotation continues with the same key.
        self.new_file = folder / "secret_key.new"

    def pending(self) -> str:
        """Return the key of an unfinished rotation; empty if there is none."""
        try:
            return self.new_file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    def read(self) -> list[str]:
        """Return the keys on this host; empty if none were generated."""
        try:
            return self.file.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return []

    def names(self) -> set[str]:
        """Return the further names of the key that signs, as the environment file for systemd has them."""
        try:
            text = self.variables_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return set()
        # The keys contain no line breaks.
        return {*re.findall(r"^(\w+)=", text, re.MULTILINE)} - {"SECRET_KEY", "SECRET_KEY_FALLBACKS"}

    def write(self, keys: list[str], names: Iterable[str] | None = None) -> bool:
        """Write the keys and the environment file for systemd.

        Args:
            keys: the keys.
            names: further names of the key that signs; unchanged if None.

        Returns:
            Whether either of the files changed.
        """
        changed, variables = False, self.render(keys, self.names() if names is None else names)
        for path, text in ((self.file, "".join(f"{key}\n" for key in keys)), (self.variables_file, variables)):
            try:
                present = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                present = ""
            if present != text:
                atomic.write(path, text)
                changed = True
        return changed

    def ensure(self, names: Iterable[str] | None = None) -> list[str]:
        """Return the keys on this host. Generate one if there is none.

        Args:
            names: see :meth:`write`.
        """
        keys = self.read() or [new_secret_key()]
        self.write(keys, names)
        return keys

    def render(self, keys: list[str], names: Iterable[str] = ()) -> str:
        """Return the environment file for systemd; the fallbacks are JSON, as Flask's ``from_prefixed_env`` expects."""
        variables = dict.fromkeys(("SECRET_KEY", *names), keys[0])
        if keys[1:]:
            variables["SECRET_KEY_FALLBACKS"] = json.dumps(keys[1:])
        return render(variables)


def new_secret_key() -> str:
    """Generate 64 random bytes as text."""
    return secrets.token_urlsafe(64)


def shared_keys(by_host: list[list[str]], candidate: str) -> list[str]:
    """Return the keys that all hosts of an app should have.

    Args:
        by_host: the keys of each host, in inventory order; empty for a host that has none.
        candidate: a new key, the same for all hosts.

    Returns:
        The keys of the first host that has any, followed by those that only other hosts have, so that sessions signed
        by any of the hosts stay valid; the candidate if no host has a key.
    """
    return list(dict.fromkeys(key for keys in by_host for key in keys)) or [candidate]


def announced_keys(keys: list[str], candidate: str) -> list[str]:
    """Return the keys with a new one that is accepted but does not sign yet, until some processes sign with it."""
    return keys if candidate in keys else [*keys, candidate]


def rotated_keys(keys: list[str], announced: str = "") -> list[str]:
    """Return the keys after the announced key starts to sign. Of the other keys, only the one that signed before stays.

    Args:
        keys: the current keys.
        announced: the announced key; the last key if empty. If it signs already, nothing changes.
    """
    announced = announced or keys[-1]
    return keys if keys[0] == announced else [announced, keys[0]]
