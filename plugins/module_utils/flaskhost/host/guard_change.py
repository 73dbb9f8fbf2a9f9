"""A guarded change: its files, the service that loads them, and the error if it is not made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.wanted import File


class GuardError(Exception):
    """A guarded change was not made, or was reverted.

    Args:
        reason: what went wrong.
        old_state: whether the host is in its old state.
    """

    def __init__(self, reason: str, *, old_state: bool) -> None:
        super().__init__(reason)
        self.old_state = old_state


@dataclass(frozen=True)
class Change:
    """The files and the service of a guarded change.

    Attributes:
        name: the name of the guard: ``sshd``, ``firewall``.
        files: the files, as they should be.
        service: the unit that loads the files when it is reloaded.
        socket: a socket unit that would hold the service's ports, whatever the files say. It is disabled.
        checks: commands, and the lines that their output must contain after the files are installed and before the
            reload.
        live: the command that prints what the service has loaded. If its output differs from that after the last
            confirmed change, the files are loaded again.
        seconds: how long the host waits for the confirmation.
    """

    name: str
    files: tuple[File, ...]
    service: str
    socket: str = ""
    checks: tuple[Mapping[str, Any], ...] = ()
    live: tuple[str, ...] = ()
    seconds: int = 45


def wanted_files(files: Iterable[Mapping[str, Any]]) -> tuple[File, ...]:
    """Return the files of the module's option ``files``.

    Raises:
        GuardError: a file into which a block is inserted cannot be read.
    """
    return tuple(
        File(
            Path(file["dest"]),
            _with_block(str(file["dest"]), str(file["content"]), str(file["behind"]))
            if file.get("behind")
            else str(file["content"]),
            int(str(file.get("mode") or "0644"), 8),
            validate=tuple(file.get("validate") or []),
        )
        for file in files
    )


def _with_block(dest: str, block: str, behind: str) -> str:
    """Return the text of somebody else's file with a block of ours between two marks.

    Args:
        dest: the file.
        block: the lines.
        behind: a regular expression. The block follows the first line that it matches, or else begins the file.
    """
    try:
        lines = Path(dest).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        raise GuardError(f"{dest} cannot be read, so nothing was changed: {error}", old_state=True) from None
    begin, end = (f"# --- flaskhost: {word} ---" for word in ("begin", "end"))
    if begin in lines and end in lines[lines.index(begin) :]:
        first = lines.index(begin)
        del lines[first : lines.index(end, first) + 1]
    place = next((number + 1 for number, line in enumerate(lines) if re.search(behind, line)), 0)
    lines[place:place] = [begin, *block.splitlines(), end]
    return "\n".join(lines) + "\n"
