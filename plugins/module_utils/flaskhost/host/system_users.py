"""System users for programs: they cannot log in, and have no password."""

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass

# Absolute imports: Mitogen does not find relative ones.
from ansible.module_utils.flaskhost.host.runner import Run, tail

#: The shell of users who cannot log in.
SHELL = "/usr/sbin/nologin"


class UserError(Exception):
    """A user cannot be created or changed."""


@dataclass(frozen=True)
class SystemUser:
    """A system user with a group of the same name.

    Attributes:
        name: its name.
        home: its home folder, which is not created.
    """

    name: str
    home: str

    def command(self) -> list[str]:
        """Return the command that creates or corrects the user; empty if it is right. Its password is left alone."""
        try:
            entry = pwd.getpwnam(self.name)
        except KeyError:
            # A group without the user is left of a killed run.
            group = ["--gid", self.name] if self._has_group() else ["--user-group"]
            options = ["--system", *group, "--no-create-home", "--home-dir", self.home, "--shell", SHELL]
            return ["useradd", *options, self.name]
        if (entry.pw_dir, entry.pw_shell) == (self.home, SHELL):
            return []
        return ["usermod", "--home", self.home, "--shell", SHELL, self.name]

    def _has_group(self) -> bool:
        try:
            grp.getgrnam(self.name)
        except KeyError:
            return False
        return True

    def ensure(self, run: Run, change: bool) -> bool:
        """Create or correct the user.

        Args:
            run: runs a command.
            change: whether to change anything.

        Returns:
            Whether it was, or would be, created or changed.

        Raises:
            UserError: the command failed.
        """
        command = self.command()
        if command and change:
            status, out, err = run(command)
            if status:
                raise UserError(f"{' '.join(command)} failed: {tail(err or out, 3)}")
        return bool(command)
