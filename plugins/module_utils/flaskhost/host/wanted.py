"""A file or a folder that a host should have: whether it is there, how it comes there, and what a diff shows of it."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Whole names: Mitogen does not find what is imported by a relative one.
from ansible.module_utils.flaskhost.host import atomic


@dataclass(frozen=True)
class File:
    """A file to have on the host. It belongs to whoever runs this: root.

    Attributes:
        path: where.
        text: what is in it.
        mode: its permissions.
        group: whose group it has; the process's own when empty.
        shown: whether a diff may show what is in it.
        validate: the command that judges a new text, with ``%s`` for a file that has it; empty for none.
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
            # In check mode on a bare host it is not there yet.
            return os.geteuid(), -1

    def is_there(self) -> bool:
        """Whether it is as it should be: text, permissions, owner and group."""
        try:
            status = self.path.lstat()
            same = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == self.mode
            same = same and (status.st_uid, status.st_gid) == self._owner()
            return same and self.path.read_bytes() == self.text.encode()
        except OSError:
            return False

    def write(self) -> None:
        """Put it in place at once: nobody ever reads half of it, or reads it before its permissions are set."""
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        atomic.write(self.path, self.text, mode=self.mode, owner=self._owner())

    def diff(self) -> dict[str, str]:
        """What `--diff` shows."""
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
        path: where.
        owner: whose it is, user and group.
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
        """Whether it is as it should be."""
        try:
            status = self.path.lstat()
        except OSError:
            return False
        right = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == self.mode
        return right and status.st_uid == self._owner()

    def make(self) -> None:
        """Make it, or give it its owner and permissions."""
        self.path.mkdir(parents=True, exist_ok=True)
        os.chown(self.path, self._owner(), pwd.getpwnam(self.owner).pw_gid)
        self.path.chmod(self.mode)


def missing(files: Iterable[File | Folder]) -> list[Any]:
    """The files and folders that are not as they should be."""
    return [file for file in files if not file.is_there()]
