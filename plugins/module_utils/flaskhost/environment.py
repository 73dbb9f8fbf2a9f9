"""The environment of a release: the file that systemd reads, and the secret key that is made where none is given."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from ansible.module_utils.flaskhost.runner import ReleaseError

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


def secret_key(secrets_dir: Path, create: bool = True) -> str:
    """Read the app's SECRET_KEY, and make it if there is none.

    Args:
        secrets_dir: the app's folder under /etc/flaskhost, which only root reads.
        create: whether to make a missing one; in check mode it is not.

    Returns:
        64 random bytes as text, the same for as long as the file is there; empty where it is missing and not made.
    """
    path = secrets_dir / "secret_key"
    try:
        present = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        present = ""
    if present or not create:
        return present
    key = secrets.token_urlsafe(64)
    write_private(path, key + "\n")
    return key


def write_private(path: Path, text: str) -> None:
    """Write a file that only root reads, whole or not at all, never readable to another for an instant."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
