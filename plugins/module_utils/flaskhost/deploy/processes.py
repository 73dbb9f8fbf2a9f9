"""The processes and timers of an app: workers and scheduled commands, as sandboxed units of the live release.

Each release has a small script for each of them (:mod:`procfile`). The units (:mod:`process_units`) are the same for
all releases, and find the script through the link ``current`` when they start. After the switch, a restart is enough,
and after a reboot they run the live release. An app without processes and timers has no such units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ansible.module_utils.flaskhost.deploy import process_units
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.journal import read_journal
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, tail

#: systemd's folder for the administrator's units.
UNITS_DIR = Path("/etc/systemd/system")
_PROPERTIES = "Id,ActiveState,SubState,UnitFileState,NRestarts"
_CURE = "Correct the release and run the same command again."


def check_timers(run: Run, timers: Mapping[str, Mapping[str, str]], app: str = "<app>") -> None:
    """Validate the schedules of the timers with the host's systemd. Call this before the flip.

    Args:
        run: runs a command.
        timers: ``command`` and ``on_calendar`` by name.
        app: the app's name, for the message.

    Raises:
        ReleaseError: systemd rejects a schedule.
    """
    for name, timer in timers.items():
        status, out, err = run(["systemd-analyze", "calendar", "--", timer["on_calendar"]])
        if status:
            raise ReleaseError(
                "Check the timers",
                f"flask_apps.{app}.timers.{name}.on_calendar: systemd cannot parse {timer['on_calendar']!r}: "
                f"{tail(err or out, 3)}",
                "Use the format of systemd.time(7), such as 'daily', 'Mon..Fri 06:30' or '*-*-* 03:15'.",
            )


def down(run: Run, unit: str, folder: Path = UNITS_DIR) -> list[str]:
    """Find the processes of an app that should run but do not.

    Args:
        run: runs a command.
        unit: the unit's name before the ``@`` of the slots.
        folder: systemd's folder for the administrator's units.

    Returns:
        Their names.
    """
    units = _enabled(folder, unit, "process", ".service")
    states = _show(run, units)
    lame = [name for name in units if states.get(name, {}).get("ActiveState") != "active"]
    return [name.partition("@")[2].removesuffix(".service") for name in lame]


def _enabled(folder: Path, unit: str, kind: str, suffix: str) -> list[str]:
    """Return the units that start at boot, from systemd's own links."""
    return sorted({path.name for path in folder.glob(f"*.wants/{unit}_{kind}@?*{suffix}")})


def _show(run: Run, units: list[str]) -> dict[str, dict[str, str]]:
    """Return the properties of units, by name."""
    if not units:
        return {}
    blocks = run(["systemctl", "show", f"--property={_PROPERTIES}", *units])[1].split("\n\n")
    states = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]
    return {state["Id"]: state for state in states if "Id" in state}


class Units:
    """The units of one app's processes and timers on this host.

    Args:
        run: runs a command.
        unit: the unit's name before the ``@`` of the slots.
        user: the app's system user and group.
        root: the app's folder under /srv.
        data: the only folder that the app can write.
        secret_env: an optional environment file, read before the release's own.
        memory_mb: memory limit of each process, in MB.
        drain: seconds that a process has to finish its current work.
        outbound: whether it can connect to other hosts.
        folder: systemd's folder for the administrator's units.
    """

    def __init__(
        self,
        run: Run,
        *,
        unit: str,
        user: str,
        root: Path,
        data: Path,
        secret_env: Path,
        memory_mb: int,
        drain: int,
        outbound: bool = True,
        folder: Path = UNITS_DIR,
    ) -> None:
        self.run, self.unit, self.user, self.folder = run, unit, user, folder
        self.root, self.data, self.secret_env = root, data, secret_env
        self.memory_mb, self.drain, self.outbound = memory_mb, drain, outbound
        # The release for which the units were last updated, written at the end. After a killed run, it shows whether
        # the processes still run the previous release, or systemd has not read a unit. NeedDaemonReload does not show
        # that: once any unit of the host was enabled with --no-reload, systemd 257 reports "yes" for every unit.
        self.marker = root / ".processes"

    def process(self, name: str) -> str:
        """Return the unit of a process."""
        return f"{self.unit}_process@{name}.service"

    def timer(self, name: str) -> str:
        """Return the unit of a timer."""
        return f"{self.unit}_timer@{name}.timer"

    def switch(self, processes: Mapping[str, str], timers: Mapping[str, Mapping[str, str]]) -> bool:
        """Run exactly the processes and timers of the release in ``current``.

        Args:
            processes: the commands by name.
            timers: ``command`` and ``on_calendar`` by name.

        Returns:
            Whether anything changed. A restart counts as a change.

        Raises:
            ReleaseError: systemd rejects a unit, or cannot start it.
        """
        texts = self._texts(processes, timers)
        gone = self._leftovers(processes, timers)
        if not texts and not gone and not self._files():
            self.marker.unlink(missing_ok=True)
            return False
        self.marker.unlink(missing_ok=True)
        changed = bool(gone) | self._write(texts) | bool(processes)
        self._disable(gone)
        for path in self._files():
            if path.name not in texts:
                path.unlink()
                changed = True
        self._do("daemon-reload", [])
        changed |= self._start_timers(list(map(self.timer, timers)))
        self._restart(list(map(self.process, processes)))
        if texts:
            self._mark()
        return changed

    def in_order(self, processes: Mapping[str, str], timers: Mapping[str, Mapping[str, str]]) -> bool:
        """Check whether :meth:`switch` has nothing to do: exactly the requested units exist and run.

        Args:
            processes: the commands by name.
            timers: ``command`` and ``on_calendar`` by name.
        """
        texts = self._texts(processes, timers)
        if {path.name: path.read_text(encoding="utf-8") for path in self._files()} != texts:
            return False
        if not texts:
            return True
        if self._marked() != self._release():
            return False
        units = [*map(self.process, processes), *map(self.timer, timers)]
        states = self._show(units)
        return not self._leftovers(processes, timers) and all(
            states.get(unit, {}).get("ActiveState") == "active" and states[unit].get("UnitFileState") == "enabled"
            for unit in units
        )

    def failures(self) -> list[str]:
        """Find the processes that do not run, or that systemd has restarted since :meth:`switch`.

        Returns:
            A message for each, with its state and its last log lines; empty if all run.
        """
        units = self._enabled("process", ".service")
        states = self._show(units)
        messages = []
        for unit in units:
            state = states.get(unit, {})
            active, restarts = state.get("ActiveState", "unknown"), int(state.get("NRestarts") or 0)
            if active == "active" and not restarts:
                continue
            fault = f"is {active} ({state.get('SubState', 'unknown')})" if active != "active" else "has ended"
            times = f" and was restarted {restarts} times" if restarts else ""
            messages.append(f"{unit} {fault}{times}. Its last log lines:\n{self._log(unit)}")
        return messages

    def remove(self) -> None:
        """Stop all processes and timers of this app, and remove their units."""
        self.switch({}, {})
        self.run(["systemctl", "stop", f"{self.unit}_timer@*.service"])

    # -- the host ---------------------------------------------------------------------------------------------------

    def _files(self) -> list[Path]:
        """Return this app's existing unit files. App names have no underscore, so no other app's files match."""
        patterns = (f"{self.unit}_process@*.service", f"{self.unit}_timer@*.service", f"{self.unit}_timer@*.timer")
        return sorted(path for pattern in patterns for path in self.folder.glob(pattern))

    def _enabled(self, kind: str, suffix: str) -> list[str]:
        return _enabled(self.folder, self.unit, kind, suffix)

    def _leftovers(self, processes: Iterable[str], timers: Iterable[str]) -> list[str]:
        """Return the units of this app that are enabled or run although they should not."""
        present = set(self._enabled("process", ".service")) | set(self._enabled("timer", ".timer"))
        if self._files():
            patterns = [f"{self.unit}_process@*.service", f"{self.unit}_timer@*.timer"]
            listing = ["systemctl", "list-units", "--all", "--full", "--plain", "--no-legend", *patterns]
            lines = self.run(listing)[1].splitlines()
            # LOAD is not-found for a unit that only another unit mentions. ACTIVE is the third column.
            present |= {words[0] for words in map(str.split, lines) if len(words) > 2 and words[2] != "inactive"}
        return sorted(present - {*map(self.process, processes), *map(self.timer, timers)})

    def _write(self, texts: Mapping[str, str]) -> bool:
        changed = False
        for name, text in texts.items():
            path = self.folder / name
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            atomic.write(path, text, mode=0o644)
            changed = True
        return changed

    def _disable(self, units: list[str]) -> None:
        if not units:
            return
        # systemctl reports an error for missing units, but processes the others.
        self.run(["systemctl", "disable", "--quiet", *units])
        self.run(["systemctl", "stop", *units])
        # Also reset the jobs of removed timers: a timer can have been due after the flip, when the live release no
        # longer has a script for it.
        jobs = [unit.removesuffix(".timer") + ".service" for unit in units if unit.endswith(".timer")]
        for unit in (*units, *jobs):
            self.run(["systemctl", "reset-failed", unit])

    def _start_timers(self, units: list[str]) -> bool:
        """Enable the timers, and start those that are stopped or have a new schedule. Return whether any was."""
        if not units:
            return False
        before = self._show(units)
        self._do("enable", units)
        # A running timer keeps its old schedule until it is restarted, which has no side effects.
        self._do("restart", units)
        return any(before.get(unit, {}).get("ActiveState") != "active" for unit in units)

    def _restart(self, units: list[str]) -> None:
        if not units:
            return
        self._do("enable", units)
        # Resets NRestarts, which failures() reads. It fails for units that have never run.
        self.run(["systemctl", "reset-failed", *units])
        # All at once, because each can take a while to finish its current work.
        self._do("restart", units)

    def _do(self, verb: str, units: list[str]) -> None:
        quiet = ["--quiet"] if verb == "enable" else []
        status, out, err = self.run(["systemctl", verb, *quiet, *units])
        if status:
            states = self._show(units)
            lame = [unit for unit in units if states.get(unit, {}).get("ActiveState") != "active"]
            logs = "".join(f"\nThe last log lines of {unit}:\n{self._log(unit)}" for unit in lame[:3])
            raise ReleaseError(
                "Start the processes and timers",
                f"systemctl {verb} {' '.join(units)} failed: {tail(err or out, 5)}{logs}",
                _CURE,
            )

    def _show(self, units: list[str]) -> dict[str, dict[str, str]]:
        return _show(self.run, units)

    def _log(self, unit: str) -> str:
        return tail(read_journal(self.run, self.unit, [unit], "--lines=15")) or "(none)"

    def _release(self) -> str:
        current = self.root / "current"
        return current.readlink().name if current.is_symlink() else ""

    def _marked(self) -> str:
        try:
            return self.marker.read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def _mark(self) -> None:
        atomic.write(self.marker, f"{self._release()}\n", mode=0o644)

    def _texts(self, processes: Mapping[str, str], timers: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return the unit files by their names."""
        settings = {
            "unit": self.unit,
            "user": self.user,
            "root": self.root,
            "data": self.data,
            "secret_env": self.secret_env,
            "memory_mb": self.memory_mb,
            "drain": self.drain,
            "outbound": self.outbound,
        }
        texts = {}
        if processes:
            texts[f"{self.unit}_process@.service"] = process_units.process_service(**settings)
        if timers:
            texts[f"{self.unit}_timer@.service"] = process_units.timer_service(**settings)
        for name, timer in timers.items():
            texts[self.timer(name)] = process_units.timer(self.user, name, timer["on_calendar"])
        return texts
