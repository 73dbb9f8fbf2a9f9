"""The environment of a release: the file that systemd reads, and the secret key that is made where none is given."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: With one of them systemd refuses the whole file: NUL, halves of pairs, and what Unicode calls no characters.
_UNWRITABLE = re.compile("[\0\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def quote(value: str) -> str:
    """Quote one value for a systemd ``EnvironmentFile``.

    Between double quotes systemd keeps everything, line ends too, but for a backslash before one of ``"``, ``\\``,
    ``$`` and the backtick, which is taken away (systemd.exec(5), EnvironmentFile).
    """
    for character in '\\"$`':
        value = value.replace(character, "\\" + character)
    return f'"{value}"'


def render(variables: Mapping[str, str]) -> str:
    """The text of an environment file, sorted by name so that it changes only when a value does.

    Raises:
        ReleaseError: systemd would not take a variable; its value is not shown.
    """
    for name, value in variables.items():
        if not _NAME.fullmatch(name) or _UNWRITABLE.search(value):
            raise ReleaseError(
                "Write the environment",
                f"{name!r} cannot be an environment variable, by its name or by a character in its value.",
                "Correct it in env or secrets; what is not text goes in as base64.",
            )
    return "".join(f"{name}={quote(variables[name])}\n" for name in sorted(variables))


class SecretKeys:
    """The keys that sign the app's sessions, made where the user gives none; the first signs, all are accepted.

    They are in a file of their own and in no release: to go back to an older release must log nobody out, and must not
    bring a key back that was replaced because somebody had seen it.

    Args:
        folder: the app's folder under /etc/flaskhost, which only root reads.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.variables_file = folder / "secret_key", folder / "secret_key.env"
        #: The key of a rotation that is not finished, so that one that was killed is not begun anew.
        self.new_file = folder / "secret_key.new"

    def pending(self) -> str:
        """The key of a rotation that is not finished; empty when there is none."""
        try:
            return self.new_file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    def read(self) -> list[str]:
        """The keys on this host; none when none have been made."""
        try:
            return self.file.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return []

    def write(self, keys: list[str]) -> bool:
        """Write the keys, and the file of variables that systemd reads; tell whether either was another before."""
        changed = False
        for path, text in ((self.file, "".join(f"{key}\n" for key in keys)), (self.variables_file, self.render(keys))):
            try:
                present = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                present = ""
            if present != text:
                atomic.write(path, text)
                changed = True
        return changed

    def ensure(self) -> list[str]:
        """The keys on this host, and a new one where there is none."""
        keys = self.read() or [new_secret_key()]
        self.write(keys)
        return keys

    def render(self, keys: list[str]) -> str:
        """The variables as a file for systemd; the fallbacks are JSON, as Flask's ``from_prefixed_env`` reads it."""
        variables = {"SECRET_KEY": keys[0]}
        if keys[1:]:
            variables["SECRET_KEY_FALLBACKS"] = json.dumps(keys[1:])
        return render(variables)


def new_secret_key() -> str:
    """64 random bytes as text."""
    return secrets.token_urlsafe(64)


def shared_keys(by_host: list[list[str]], candidate: str) -> list[str]:
    """The keys that all hosts of an app should have.

    Args:
        by_host: the keys of each host, in the order of the inventory; none where a host has none.
        candidate: a new key, the same for all hosts.

    Returns:
        The keys of the first host that has some, then those that only others have, so that a session which any of
        the hosts has signed is still accepted; the candidate where no host has one.
    """
    return list(dict.fromkeys(key for keys in by_host for key in keys)) or [candidate]


def announced_keys(keys: list[str], candidate: str) -> list[str]:
    """The keys with a new one that is accepted and does not sign yet: in a moment some processes will sign with it."""
    return keys if candidate in keys else [*keys, candidate]


def rotated_keys(keys: list[str], announced: str = "") -> list[str]:
    """The keys once the announced one signs; of the others the one that signed before is still accepted.

    Args:
        keys: the keys.
        announced: the key that was announced; the last one when empty. Where it signs already nothing changes.
    """
    announced = announced or keys[-1]
    return keys if keys[0] == announced else [announced, keys[0]]
