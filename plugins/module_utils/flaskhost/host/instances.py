"""Instances of a server such as Redis, each with a systemd unit and a system user of its own.

A role writes the unit files. Here, the users are created and the units run with the files on the disk, and instances
that the role does not have any more are removed. A unit file says in a section of its own to which server it belongs
and where its data is, so that it can be removed when nothing else knows of it any more.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.journal import read_journal
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, tail
from ansible.module_utils.flaskhost.host.service_state import PROPERTIES, UNITS, make_younger, parse_show, settle, steps

#: The section of a unit file that systemd ignores and this module reads.
SECTION = "[X-Flaskhost]"
#: Exit status of timeout(1).
_TIMED_OUT = 124
#: Seconds to wait for an instance that starts or restarts. systemd goes on. Its client decides how long it takes: Redis
#: executes the commands in its file again, however slow they are.
LONGEST_START = 60


class Instances:
    """The instances of one server on this host.

    Args:
        run: runs a command.
        engine: the server, as the unit files name it.
        wanted: for each instance ``unit``, ``user``, ``config`` and ``journal``, its namespace; the last two can be
            empty.
        units_dir: the folder of the unit files.
        is_user: whether a user exists.
    """

    def __init__(
        self,
        run: Run,
        engine: str,
        wanted: Sequence[Mapping[str, Any]],
        *,
        units_dir: Path = Path(UNITS),
        is_user: Callable[[str], bool] | None = None,
    ) -> None:
        self.run, self.engine, self.wanted = run, engine, wanted
        self.units_dir, self.is_user = units_dir, is_user or _is_user

    def leaving(self) -> dict[str, dict[str, str]]:
        """Return the instances on the host that are not wanted any more: by unit, what its file says of itself."""
        wanted = {instance["unit"] for instance in self.wanted}
        found = {path.name: said_of_itself(path) for path in sorted(self.units_dir.glob("*.service"))}
        return {unit: said for unit, said in found.items() if said.get("Engine") == self.engine and unit not in wanted}

    def missing_users(self) -> list[str]:
        """Return the users that have to be created."""
        return [instance["user"] for instance in self.wanted if not self.is_user(instance["user"])]

    def needed(self) -> dict[str, list[str]]:
        """Return the steps of systemctl after which each instance runs with its files, by unit, without empty ones.

        Raises:
            ReleaseError: systemctl failed.
        """
        found = {}
        for instance in self.wanted:
            show = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", instance["unit"]]
            state = parse_show(self._run("Read the state of an instance", show))
            if needed := steps(state, True, [], self._files(instance)):
                found[instance["unit"]] = needed
        return found

    def create_users(self, users: Sequence[str]) -> None:
        """Create system users who cannot log in and have no home folder.

        Raises:
            ReleaseError: useradd failed.
        """
        for user in users:
            options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
            self._run("Create a user", ["useradd", *options, "--shell", "/usr/sbin/nologin", user])

    def take(self, needed: Mapping[str, Sequence[str]]) -> list[str]:
        """Execute the steps of :meth:`needed`. An instance that does not start holds up no other one.

        Returns:
            For each instance that did not start, the reason and the fix.

        Raises:
            ReleaseError: systemd does not read the units.
        """
        broken = []
        if any("daemon-reload" in steps_of_unit for steps_of_unit in needed.values()):
            self._run("Read the units", ["systemctl", "daemon-reload"])
        for instance in self.wanted:
            unit = instance["unit"]
            files = self._files(instance)
            settle(files)
            for step in needed.get(unit, ()):
                if step == "daemon-reload":
                    continue
                status, out, err = self.run(["timeout", str(LONGEST_START), "systemctl", step, unit])
                if status:
                    # A failed start counts as a change of state too, so the next run must repeat it.
                    make_younger(files)
                    why = f"did not end within {LONGEST_START} s" if status == _TIMED_OUT else "failed"
                    log = tail(read_journal(self.run, instance.get("journal") or "", [unit], "--lines=15"))
                    reason = f"systemctl {step} {unit} {why}. {tail(out + err, 3)}\nIts last log lines:\n{log}"
                    error = ReleaseError("Start an instance", reason, f"See systemctl status {unit}.")
                    broken.append(f"{error} {error.cure}")
                    break
        return broken

    def remove(self, unit: str, said: Mapping[str, str]) -> str:
        """Stop an instance and remove its unit, its settings and its user. Its data is kept as a copy.

        A killed run can be repeated: the unit file, which names all the rest, goes last.

        Args:
            unit: the unit.
            said: what its file says of itself.

        Returns:
            The folder of the copy; empty if the instance had no data.

        Raises:
            ReleaseError: the instance does not stop, or its user cannot be removed.
        """
        self._run("Stop an instance", ["systemctl", "disable", "--now", unit])
        copy = self._set_aside(Path(said["State"])) if said.get("State") else ""
        if said.get("User") and self.is_user(said["User"]):
            self._run("Remove a user", ["userdel", said["User"]])
        for path in (said.get("Config"), str(self.units_dir / unit)):
            if path:
                Path(path).unlink(missing_ok=True)
        self._run("Read the units", ["systemctl", "daemon-reload"])
        return copy

    def _set_aside(self, state: Path) -> str:
        """Move a folder of data aside, for root alone: the user who owns it goes, and another could get its number."""
        if not state.is_dir() or state.is_symlink():
            return ""
        if not any(state.iterdir()):
            state.rmdir()
            return ""
        copy = state.with_name(f"{state.name}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        state.rename(copy)
        os.chown(copy, 0, 0)
        copy.chmod(0o700)
        # With chown(1), which follows no link and has no limit on the depth.
        self._run("Keep the data", ["chown", "--recursive", "--no-dereference", "root:root", str(copy)])
        return str(copy)

    def _files(self, instance: Mapping[str, Any]) -> list[str]:
        config = instance.get("config") or ""
        return [str(self.units_dir / instance["unit"]), *([config] if config else [])]

    def _run(self, what: str, command: Sequence[str]) -> str:
        status, out, err = self.run(list(command))
        if status:
            reason = f"{' '.join(command)} failed: {tail(err or out, 3)}"
            raise ReleaseError(what, reason, "Run the same command again.")
        return out


def said_of_itself(path: Path) -> dict[str, str]:
    """Return the settings of a unit file's section for this module; empty if it has none, or is no file."""
    if path.is_symlink() or not path.is_file():
        return {}
    _before, found, section = path.read_text(encoding="utf-8", errors="replace").partition(f"\n{SECTION}\n")
    lines = section.partition("\n[")[0].splitlines() if found else []
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
