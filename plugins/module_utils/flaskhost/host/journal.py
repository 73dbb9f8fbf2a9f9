"""The journal of each app: a namespace of systemd-journald with its own size limit.

journald rotates by size, so the noisiest writer displaces the lines of all others. Its rate limits count lines, not
bytes. In a namespace, an app displaces only its own lines. The lines that systemd writes about an app's units
("Started", "Failed with result") stay in the host's journal, so both journals are read together.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, legible, tail
from ansible.module_utils.flaskhost.host.service_state import UNITS, parse_show, settle, state_changed_at, youngest

#: The folder of each namespace's sockets.
RUN_DIR = Path("/run/systemd")
#: The sockets that an app writes to; the fourth one controls journald and belongs to root.
SOCKETS = ("socket", "dev-log", "stdout")
#: The folder of each namespace's configuration, which journald finds by its name.
CONFIG_DIR = Path("/etc/systemd")
#: Seconds to wait until a journal is flushed: an app can keep its own journal busy without end.
_LONGEST_SYNC = 10
#: Limits the output when a journal is read: a message can have 10 MB, and a compressible one takes hardly any space.
_BOUNDED = ("/bin/sh", "-c", 'timeout 30 "$@" | tail --bytes=65536', "sh")
_PROPERTIES = "Id,ActiveState,NeedDaemonReload,SocketGroup,StopWhenUnneeded,RuntimeDirectory,StateChangeTimestamp"


def read_journal(run: Run, namespace: str, units: Iterable[str], *options: str) -> str:
    """Read the lines of an app's units: their own, and those that systemd writes about them.

    Args:
        run: runs a command.
        namespace: the namespace, which is also the prefix of the app's units; empty for the host's journal alone.
        units: the units.
        options: additional options of journalctl, such as ``--lines=15``.

    Returns:
        The messages, oldest first.
    """
    # --sync accepts only one journal.
    for journal in ([f"--namespace={namespace}"], []) if namespace else ([],):
        run(["timeout", str(_LONGEST_SYNC), "journalctl", *journal, "--sync"])
    # The plus sign includes the host's journal.
    journals = [f"--namespace=+{namespace}"] if namespace else []
    command = ["journalctl", "--no-pager", "--output=cat", *journals, *options]
    text = run([*_BOUNDED, *command, *(f"--unit={unit}" for unit in units)])[1]
    return "".join(f"{legible(line)}\n" for line in text.splitlines())


def socket_unit(namespace: str) -> str:
    """Return the unit of a namespace's sockets."""
    return f"systemd-journald@{namespace}.socket"


def service_unit(namespace: str) -> str:
    """Return the unit of a namespace's journald."""
    return f"systemd-journald@{namespace}.service"


def helper_units(namespace: str) -> list[str]:
    """Return the units that accompany a namespace's sockets; systemd 252 has only the first."""
    return [f"systemd-journald-varlink@{namespace}.socket", f"systemd-journald-sync@{namespace}.service"]


def require_journal(namespace: str, step: str, config_dir: Path = CONFIG_DIR) -> None:
    """Stop on a host of an earlier version of Flaskhost, whose apps write to the host's journal.

    Without the drop-ins for the namespace's sockets, systemd starts and stops them around each command, and rejects a
    command that begins meanwhile ("Transaction is destructive").

    Args:
        namespace: the namespace, which is also the prefix of the app's units.
        step: the step, as shown to the operator.
        config_dir: the folder of the namespaces' configuration.

    Raises:
        ReleaseError: the namespace has no configuration here.
    """
    if not (config_dir / f"journald@{namespace}.conf").is_file():
        raise ReleaseError(
            step,
            f"an earlier version of Flaskhost set up this app: {namespace} has no journal of its own on this host.",
            "Run site.yml first: ansible-playbook site.yml",
        )


class Journals:
    """The apps' journals on this host, compared with their files, no matter which run wrote these.

    Args:
        run: runs a command.
        groups: for each namespace, the group whose members can write to it.
        run_dir: the folder of the namespaces' sockets.
        config_dir: the folder of their configuration.
        units_dir: the folder of the administrator's drop-ins.
    """

    def __init__(
        self,
        run: Run,
        groups: Mapping[str, str],
        *,
        run_dir: Path = RUN_DIR,
        config_dir: Path = CONFIG_DIR,
        units_dir: Path = Path(UNITS),
    ) -> None:
        self.run, self.groups = run, groups
        self.run_dir, self.config_dir, self.units_dir = run_dir, config_dir, units_dir

    def needed(self) -> dict[str, list[str]]:
        """Return the steps that bring the journals in line with their files.

        Returns:
            The steps in order, each with the namespaces that need it: ``daemon-reload`` if systemd has not read the
            drop-ins, ``sockets`` if other users can write to the sockets, ``restart`` if journald runs with an earlier
            configuration.

        Raises:
            ReleaseError: systemctl failed.
        """
        if not self.groups:
            return {}
        units = [unit for name in self.groups for unit in (socket_unit(name), service_unit(name), *helper_units(name))]
        show = ["systemctl", "show", "--timestamp=us+utc", f"--property={_PROPERTIES}", *units]
        status, out, err = self.run(show)
        if status:
            raise ReleaseError("Read the state of the journals", tail(err or out, 3), "Run the same command again.")
        states = {state.get("Id", ""): state for state in map(parse_show, out.split("\n\n"))}
        steps = {
            "daemon-reload": [namespace for namespace in self.groups if self._is_unread(namespace, states)],
            "sockets": [namespace for namespace in self.groups if self._open_sockets(namespace)],
            "restart": [
                namespace
                for namespace in self.groups
                if self._is_stale(namespace, states.get(service_unit(namespace), {}))
            ],
        }
        return {step: namespaces for step, namespaces in steps.items() if namespaces}

    def take(self, step: str, namespaces: Iterable[str]) -> None:
        """Execute a step of :meth:`needed`.

        Raises:
            ReleaseError: systemd rejects it.
        """
        if step == "sockets":
            for namespace in namespaces:
                self._close_sockets(namespace)
            return
        # A restart loses no lines: systemd holds the sockets and the open streams for journald in the meantime.
        units = [] if step == "daemon-reload" else list(map(service_unit, namespaces))
        for namespace in namespaces if step == "restart" else ():
            settle(map(str, self._files(namespace)))
        status, out, err = self.run(["systemctl", step, *units])
        if status:
            what = " ".join(["systemctl", step, *units])
            raise ReleaseError("Prepare the journals", f"{what} failed: {tail(err or out, 3)}", "See systemctl status.")

    def _is_unread(self, namespace: str, states: Mapping[str, Mapping[str, str]]) -> bool:
        sockets, service = states.get(socket_unit(namespace), {}), states.get(service_unit(namespace), {})
        others = [sockets, *(states.get(unit, {}) for unit in helper_units(namespace))]
        return (
            any(state.get("NeedDaemonReload") == "yes" for state in (service, *others))
            # Also check the drop-ins' effect: systemd does not report that it has not read a whole folder of them.
            or sockets.get("SocketGroup") != self.groups[namespace]
            or bool(service.get("RuntimeDirectory"))
            or any(state.get("StopWhenUnneeded") == "yes" for state in others)
        )

    def _is_stale(self, namespace: str, service: Mapping[str, str]) -> bool:
        files = map(str, self._files(namespace))
        return service.get("ActiveState") == "active" and youngest(files) > state_changed_at(service)

    def _files(self, namespace: str) -> list[Path]:
        return [self.config_dir / f"journald@{namespace}.conf", self.units_dir / f"{service_unit(namespace)}.d"]

    def _open_sockets(self, namespace: str) -> list[Path]:
        """Return the sockets whose group or permissions differ from the app's."""
        try:
            number = grp.getgrnam(self.groups[namespace]).gr_gid
        except KeyError:
            # The app has no user yet, so nothing of it runs.
            return []
        found = []
        for path in (self.run_dir / f"journal.{namespace}" / name for name in SOCKETS):
            if path.is_socket():
                state = path.stat()
                if (state.st_gid, stat.S_IMODE(state.st_mode)) != (number, 0o660):
                    found.append(path)
        return found

    def _close_sockets(self, namespace: str) -> None:
        # Not with a restart of the sockets' unit, which would restart everything that writes to them.
        for path in self._open_sockets(namespace):
            os.chown(path, -1, grp.getgrnam(self.groups[namespace]).gr_gid)
            path.chmod(0o660)
