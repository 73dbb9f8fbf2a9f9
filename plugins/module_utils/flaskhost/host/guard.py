"""A change that is reverted automatically unless a new login confirms it.

Firewall rules or settings of sshd can lock out the person who changes them, and then nobody can correct them.
So the old state is saved first, and a systemd timer is started that restores it. Only then is the change made. A *new*
SSH connection, made after the change, stops the timer. The connection that made the change proves nothing.

The files in ``/var/lib/flaskhost/guard/<name>`` on the host, from the arming to the decision:

========================  ===========================================================================================
``put-back``              the script that restores the old state, in shell because it must not depend on anything
``0.old``, ``1.old``      the old files
``nonce``                 the run that armed the guard
``applied``               when the change was complete, in seconds since boot
``decision``              a link to ``confirmed`` or ``put-back``; created once, atomically
``outcome``               the result of the script: ``ok``, or the commands that failed
========================  ===========================================================================================

The folder is put in place by one rename, before anything is changed, so every change can be reverted at any time. A
timer of systemd-run does not survive a reboot, but ``flaskhost-guard.service`` does. It runs the script early at boot,
before the firewall, the network and sshd.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.flaskhost.host import atomic, guard_checks
from ansible.module_utils.flaskhost.host.guard_change import Change, GuardError
from ansible.module_utils.flaskhost.host.guard_script import BOOT_UNIT, STATE, script
from ansible.module_utils.flaskhost.host.runner import Run, tail
from ansible.module_utils.flaskhost.host.service_state import PROPERTIES, parse_show, settle, steps
from ansible.module_utils.flaskhost.host.ssh_connection import PROC, connected_since
from ansible.module_utils.flaskhost.host.wanted import File

UNITS = Path("/etc/systemd/system")
#: Additional seconds that systemd can need on a loaded host, after the timer has elapsed.
GRACE = 30
UNIT = "flaskhost-guard"


class Guard:
    """A guarded change on the host that this runs on.

    Args:
        run: runs a command.
        change: the change.
        state: the folder of all guards.
        units: systemd's folder of units.
        proc: the mount point of proc(5).
        pause: sleeps for a number of seconds.
        clock: returns the seconds since boot.
    """

    def __init__(
        self,
        run: Run,
        change: Change,
        *,
        state: Path = STATE,
        units: Path = UNITS,
        proc: Path = PROC,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self.run, self.change, self.state, self.units, self.proc = run, change, state, units, proc
        self.pause, self.clock = pause, clock
        self.folder = state / change.name
        self.unit = f"{UNIT}-{change.name}"
        self.loaded = state / f"{change.name}.live"
        self.confirmed = state / f"{change.name}.confirmed"
        self._deadline = 0.0

    @property
    def left(self) -> float:
        """Seconds until the timer that :meth:`apply` started reverts the change."""
        return self._deadline - self.clock()

    # -- the plan ---------------------------------------------------------------------------------------------------

    def reasons(self) -> list[str]:
        """Return why a change is needed; empty if the host is in the requested state."""
        found = [f"{file.path} differs" for file in self.change.files if not file.is_there()]
        found += [f"{self.change.service}: {step}" for step in self._steps()]
        if self._socket_is_on():
            found.append(f"{self.change.socket} holds the ports of {self.change.service}")
        if not found and self.change.live and self._live() != _text(self.loaded):
            found.append(f"{self.change.service} has loaded a configuration that was not confirmed")
        return found

    def diff(self) -> list[dict[str, str]]:
        """Return the changes of the files, in the form of Ansible's diffs."""
        return [file.diff() for file in self.change.files if not file.is_there()]

    def validate(self) -> None:
        """Test the new files beside the old ones, before anything is changed.

        Raises:
            GuardError: a program rejects a file.
        """
        guard_checks.validate(self.run, self.change)

    def check(self) -> None:
        """Test the installed files, together with all others that the service reads.

        Raises:
            GuardError: a file that the service reads first overrides them.
        """
        guard_checks.check(self.run, self.change)

    # -- the change -------------------------------------------------------------------------------------------------

    def recover(self) -> str:
        """Finish a guarded change that an earlier run left unfinished.

        Returns:
            What was unfinished; empty if nothing was.
        """
        if not self.folder.exists():
            return ""
        waited = 0
        while self._is_waiting() and waited < self.change.seconds + GRACE:
            self.pause(1)
            waited += 1
        if self._decision() == "confirmed":
            self._clean()
            return "an earlier run was killed after its change was confirmed"
        if self._put_back() != "ok":
            raise GuardError(self._broken(), old_state=False)
        self._clean()
        return "an earlier run was killed before its change was confirmed; that change was reverted first"

    def apply(self, nonce: str) -> None:
        """Arm the guard and make the change, which then needs a confirmation.

        Args:
            nonce: the name of this run.

        Raises:
            GuardError: the change failed, and was reverted if it had begun.
        """
        self._arm(nonce)
        try:
            for file in self.change.files:
                if not file.is_there():
                    _write(file)
            self.check()
            self._load()
            _write(File(self.folder / "applied", f"{self.clock()}\n", 0o600))
        except (GuardError, OSError) as error:
            outcome = self._put_back()
            if outcome != "ok":
                raise GuardError(f"{error}\n{self._broken()}", old_state=False) from None
            self._clean()
            raise GuardError(str(error), old_state=True) from None

    def confirm(self, nonce: str, process: int, *, direct: bool = False) -> None:
        """Keep the change.

        Args:
            nonce: the nonce of :meth:`apply`.
            process: a process of the connection that confirms.
            direct: whether the connection to the host is not SSH, so that no new SSH connection can confirm.

        Raises:
            GuardError: it is too late, or the connection is older than the change.
        """
        if _text(self.confirmed) == nonce:
            # The response to the first confirmation was lost.
            return
        if _text(self.folder / "nonce") != nonce:
            raise GuardError("it is too late: the host has already reverted the change", old_state=True)
        since = connected_since(process, self.proc)
        applied = float(_text(self.folder / "applied") or "inf")
        if not direct and since is not None and since < applied:
            raise GuardError("this connection was made before the change, so it proves nothing", old_state=False)
        if not self._decide("confirmed"):
            raise GuardError("it is too late: the host is reverting the change", old_state=True)
        self._stop_timer()
        if self.change.live:
            _write(File(self.loaded, self._live() or "", 0o600))
        _write(File(self.confirmed, nonce, 0o600))
        self._clean()

    def returned(self, nonce: str) -> str:
        """Wait until the host has reverted the change.

        Args:
            nonce: the nonce of :meth:`apply`.

        Returns:
            ``ok``, the commands that failed, or ``confirmed`` if the change was kept after all: the connection that
            confirmed it can break before it receives the response.
        """
        if self._is_confirmed(nonce):
            return "confirmed"
        waited = 0
        while self._is_waiting() and waited < self.change.seconds + GRACE:
            self.pause(1)
            waited += 1
        if not self.folder.exists():
            return "ok"
        # The timer is gone but has not run: somebody has stopped it.
        outcome = self._put_back()
        if outcome == "ok":
            self._clean()
        return outcome

    # -- arming -----------------------------------------------------------------------------------------------------

    def _arm(self, nonce: str) -> None:
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._install_boot_unit()
        folder = Path(tempfile.mkdtemp(prefix=f".{self.change.name}.", dir=self.state))
        try:
            text = script(self.change.name, self.folder, self._script_body(folder))
            _write(File(folder / "put-back", text, 0o700))
            _write(File(folder / "nonce", nonce, 0o600))
            atomic.sync(folder)
            folder.rename(self.folder)
            atomic.sync(self.state)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._deadline = self.clock() + self.change.seconds
        status, out, err = self.run(
            [
                "systemd-run",
                "--quiet",
                "--collect",
                f"--unit={self.unit}",
                f"--description=Revert the change of {self.change.name}",
                f"--on-active={self.change.seconds}s",
                # With systemd's default, the timer can be a minute late.
                "--timer-property=AccuracySec=1s",
                "/bin/sh",
                str(self.folder / "put-back"),
            ]
        )
        if status:
            self._clean()
            raise GuardError(
                f"the timer could not be started, so nothing was changed: {tail(out + err, 3)}", old_state=True
            )

    def _install_boot_unit(self) -> None:
        unit = File(self.units / f"{UNIT}.service", BOOT_UNIT)
        if not unit.is_there():
            _write(unit)
            self._must("systemctl", "daemon-reload")
        if self.run(["systemctl", "is-enabled", "--quiet", f"{UNIT}.service"])[0]:
            self._must("systemctl", "enable", "--quiet", f"{UNIT}.service")

    def _script_body(self, folder: Path) -> list[str]:
        """Copy the old files into a folder, and return the lines of the script that revert the change."""
        service, socket = shlex.quote(self.change.service), shlex.quote(self.change.socket)
        before = self._show(self.change.service)
        was_on, was_enabled = before["ActiveState"] in ("active", "reloading"), _is_enabled(before)
        lines: list[str] = []
        # Stop a unit that will be removed while its file still exists, because the file defines how.
        if not was_on:
            lines.append(f"running && try systemctl stop {service}")
        if not was_enabled:
            lines.append(f"try systemctl disable --quiet {service}")
        for number, file in enumerate(self.change.files):
            path, dest = file.path, shlex.quote(str(file.path))
            if os.path.lexists(path):
                copy = folder / f"{number}.old"
                shutil.copy2(path, copy, follow_symlinks=False)
                status = path.lstat()
                os.chown(copy, status.st_uid, status.st_gid, follow_symlinks=False)
                atomic.sync(copy)
                lines.append(f"try restore {number}.old {dest}")
            else:
                lines.append(f"try rm -f {dest}")
        lines.append("try systemctl daemon-reload")
        if self._socket_is_on():
            if self._socket_is_enabled():
                lines.append(f"try systemctl enable --quiet {socket}")
            # A socket cannot bind its ports while its service has them.
            lines.append(f"running && try systemctl stop {service}")
            lines.append(f"running && try systemctl start {socket}")
            if was_on:
                # Do not wait for the next connection: without its runtime folder, sshd cannot even validate a file.
                lines.append(f"running && try systemctl start {service}")
        elif was_on:
            lines.append(f"running && {{ systemctl reload-or-restart {service} || try systemctl restart {service}; }}")
        return lines

    # -- the service ------------------------------------------------------------------------------------------------

    def _show(self, unit: str) -> dict[str, str]:
        show = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", unit]
        found = parse_show(self.run(show)[1])
        return {name: found.get(name, "") for name in PROPERTIES}

    def _loaded_files(self) -> list[str]:
        return [str(file.path) for file in self.change.files if file.path.parent != self.units]

    def _steps(self) -> list[str]:
        return steps(self._show(self.change.service), True, self._loaded_files(), [])

    def _socket_is_on(self) -> bool:
        if not self.change.socket:
            return False
        return self._socket_is_enabled() or self._show(self.change.socket)["ActiveState"] == "active"

    def _socket_is_enabled(self) -> bool:
        return _is_enabled(self._show(self.change.socket))

    def _load(self) -> None:
        """Load the files into the service."""
        handed_over = self._socket_is_on()
        if handed_over:
            self._must("systemctl", "disable", "--quiet", "--now", self.change.socket)
        settle(self._loaded_files())
        needed = self._steps()
        if handed_over or (self.change.socket and "enable" in needed):
            # sshd keeps the socket's descriptors over a reload. It has to stop before it is enabled: enabling brings
            # back its alias sshd.service, which systemd remembers as a missing unit. systemd then uses that state for
            # both names, forgets the process, and starts another one, which finds the port in use. Sessions stay
            # logged in: stopping the unit of sshd ends only the listening process.
            self._must("systemctl", "stop", self.change.service)
            needed = [step for step in needed if step not in ("reload", "start", "restart")] + ["start"]
        elif not {"reload", "start", "restart"} & set(needed):
            needed.append("reload")
        for step in needed:
            self._must("systemctl", step, *([] if step == "daemon-reload" else [self.change.service]))

    def _live(self) -> str | None:
        status, out, _err = self.run(list(self.change.live))
        return None if status else out

    def _must(self, *command: str) -> None:
        status, out, err = self.run(list(command))
        if status:
            raise GuardError(f"{' '.join(command)} failed: {tail(out + err, 5)}", old_state=False)

    # -- the decision -----------------------------------------------------------------------------------------------

    def _decision(self) -> str:
        with suppress(OSError):
            return str((self.folder / "decision").readlink())
        return ""

    def _is_confirmed(self, nonce: str) -> bool:
        return _text(self.confirmed) == nonce or self._decision() == "confirmed"

    def _decide(self, what: str) -> bool:
        """Record a decision if there is none yet. Return whether it is the one in force."""
        with suppress(FileExistsError, FileNotFoundError):
            (self.folder / "decision").symlink_to(what)
            atomic.sync(self.folder)
        return self._decision() == what

    def _is_waiting(self) -> bool:
        """Return whether the timer, or the script that it started, has not finished yet."""
        if (self.folder / "outcome").exists() or not self.folder.exists():
            return False
        units = [f"{self.unit}.timer", f"{self.unit}.service"]
        # One active unit is enough. While the script runs, its unit is "activating" or "active".
        shown = self.run(["systemctl", "show", "--property=ActiveState", *units])[1]
        return any(state in shown for state in ("=active", "=activating", "=reloading"))

    def _put_back(self) -> str:
        """Revert the change now, unless that is done already, and return the outcome."""
        if (_text(self.folder / "outcome") or "ok").strip() != "ok":
            # Try again, as the obstacle can be gone. Otherwise, a host that failed once could never be changed again.
            (self.folder / "outcome").unlink()
        _status, out, err = self.run(["/bin/sh", str(self.folder / "put-back")])
        # Not earlier: if this process is killed, the timer continues. Two runs of the script wait for each other.
        self._stop_timer()
        return (_text(self.folder / "outcome") or tail(out + err, 5) or "the script did not finish").strip()

    def _stop_timer(self) -> None:
        self.run(["systemctl", "stop", f"{self.unit}.timer"])

    def _broken(self) -> str:
        failed = (_text(self.folder / "outcome") or "").strip()
        return f"Not everything could be reverted: {failed or 'the script did not run'}. Old files: {self.folder}"

    def _clean(self) -> None:
        """Move the folder away in one step, then delete it."""
        gone = Path(tempfile.mkdtemp(prefix=f".{self.change.name}.", dir=self.state))
        with suppress(FileNotFoundError):
            self.folder.rename(gone)
            atomic.sync(self.state)
        # Also delete what killed runs left behind.
        for path in self.state.glob(f".{self.change.name}.*"):
            shutil.rmtree(path, ignore_errors=True)


def _is_enabled(properties: Mapping[str, str]) -> bool:
    return properties.get("UnitFileState") in ("enabled", "enabled-runtime", "alias", "static", "generated")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _write(file: File) -> None:
    """Put a file in place, and sync its folder too, because the host can be reset at any moment."""
    file.write()
    atomic.sync(file.path.parent)
