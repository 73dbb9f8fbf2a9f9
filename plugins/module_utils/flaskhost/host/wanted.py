"""Files and folders that a host should have: compare them, write them, and show their diff."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Absolute imports: Mitogen does not find relative ones.
from ansible.module_utils.flaskhost.host import atomic


@dataclass(frozen=True)
class File:
    """A file to have on the host. It belongs to the user of this process, which is root.

    Attributes:
        path: its path.
        text: its content.
        mode: its permissions.
        group: its group; the process's own if empty.
        shown: whether a diff can show its content.
        validate: the command that validates a new text, with ``%s`` for a temporary file with the text; empty for none.
    """

    path: Path
    text: str
    mode: int = 0o644
    group: str = ""
    shown: bool = True
    validate: tuple[str, ...] = ()

    def _owner(self) -> tuple[int, int]:
        if not self.group:
            return os.geteuid(), os.getegid()
        try:
            return os.geteuid(), grp.getgrnam(self.group).gr_gid
        except KeyError:
            # In check mode on a bare host, the group does not exist yet.
            return os.geteuid(), -1

    def is_there(self) -> bool:
        """Check whether the file has the right text, permissions, owner and group."""
        try:
            status = self.path.lstat()
            same = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == self.mode
            same = same and (status.st_uid, status.st_gid) == self._owner()
            return same and self.path.read_bytes() == self.text.encode()
        except OSError:
            return False

    def write(self) -> None:
        """Put the file in place atomically, so that no reader sees a partial file or a wrong mode."""
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        atomic.write(self.path, self.text, mode=self.mode, owner=self._owner())

    def diff(self) -> dict[str, str]:
        """Return the diff for `--diff`."""
        name = str(self.path)
        if not self.shown:
            return {"before_header": name, "after_header": name, "before": "", "after": "(not shown)\n"}
        try:
            before = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            before = ""
        return {"before_header": name, "after_header": name, "before": before, "after": self.text}


@dataclass(frozen=True)
class Folder:
    """A folder to have on the host.

    Attributes:
        path: its path.
        owner: its owner; the group is that user's primary group.
        mode: its permissions.
    """

    path: Path
    owner: str = "root"
    mode: int = 0o755

    def _owner(self) -> int:
        try:
            return pwd.getpwnam(self.owner).pw_uid
        except KeyError:
            return -1

    def is_there(self) -> bool:
        """Check whether the folder has the right owner and permissions."""
        try:
            status = self.path.lstat()
        except OSError:
            return False
        right = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == self.mode
        return right and status.st_uid == self._owner()

    def make(self) -> None:
        """Create the folder, or set its owner and permissions."""
        self.path.mkdir(parents=True, exist_ok=True)
        os.chown(self.path, self._owner(), pwd.getpwnam(self.owner).pw_gid)
        self.path.chmod(self.mode)


def missing(files: Iterable[File | Folder]) -> list[Any]:
    """Return the files and folders that differ from the requested state."""
    return [file for file in files if not file.is_there()]
