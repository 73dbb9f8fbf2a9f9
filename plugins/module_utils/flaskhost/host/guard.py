"""A change that takes itself back unless somebody who has come in after it says that it is good.

The rules of a firewall or the settings of sshd can cut off whoever changes them, and then nobody is there to put them
right. So the old state is put aside first, and a timer of systemd is started that brings it back. Only then the change
is made. A *new* SSH connection, made after it, stops the timer; the connection that made the change proves nothing.

What is kept on the host, in ``/var/lib/flaskhost/guard/<name>``, from the arming to the decision:

========================  ===========================================================================================
``put-back``              the script that brings the old state back; shell, since it must not need anything
``0.old``, ``1.old``      the files as they were
``nonce``                 names the run that armed the guard
``applied``               when the change had been made, in seconds since boot
``decision``              a link to ``confirmed`` or ``put-back``, made once, atomically: who makes it has decided
``outcome``               what the script has done: ``ok``, or the commands that failed
========================  ===========================================================================================

The folder is put in place by one rename, before anything is changed: there is no moment with a change and without a
way back. A timer that systemd-run makes does not outlive a reboot; ``flaskhost-guard.service`` does. It runs the
script early at boot, before the firewall, the network and sshd.
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
#: Seconds that systemd and a loaded host may need beyond the timer's own.
GRACE = 30
UNIT = "flaskhost-guard"


class Guard:
    """A guarded change on the host that this runs on.

    Args:
        run: runs a command.
        change: what is to be so.
        state: the folder of all guards.
        units: systemd's folder of units.
        proc: where the kernel shows processes.
        pause: waits some seconds.
        clock: seconds since boot.
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
        """Seconds until the timer that :meth:`apply` has started puts the old state back."""
        return self._deadline - self.clock()

    # -- what there is to do ----------------------------------------------------------------------------------------

    def reasons(self) -> list[str]:
        """Why something has to be done; empty when the host is as it should be."""
        found = [f"{file.path} is another" for file in self.change.files if not file.is_there()]
        found += [f"{self.change.service}: {step}" for step in self._steps()]
        if self._socket_is_on():
            found.append(f"{self.change.socket} holds the ports of {self.change.service}")
        if not found and self.change.live and self._live() != _text(self.loaded):
            found.append(f"{self.change.service} has something else loaded than what was confirmed")
        return found

    def diff(self) -> list[dict[str, str]]:
        """The files that change, as Ansible shows them."""
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
        """Bring a guard that another run has left to its end.

        Returns:
            What had to be done; empty when there was nothing.
        """
        if not self.folder.exists():
            return ""
        waited = 0
        while self._is_waiting() and waited < self.change.seconds + GRACE:
            self.pause(1)
            waited += 1
        if self._decision() == "confirmed":
            self._clean()
            return "a run before this one was killed after its change had been confirmed"
        if self._put_back() != "ok":
            raise GuardError(self._broken(), old_state=False)
        self._clean()
        return "a run before this one was killed before its change had been confirmed; the old state was put back first"

    def apply(self, nonce: str) -> None:
        """Arm the guard, make the change, and leave it to be confirmed.

        Args:
            nonce: names this run.

        Raises:
            GuardError: it did not work; the old state is back, or was never left.
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
            nonce: the one that :meth:`apply` was given.
            process: a process of the connection that confirms.
            direct: that no SSH connection can be asked for, since the way to the host is another one.

        Raises:
            GuardError: it is too late, or it is the old connection that asks.
        """
        if _text(self.confirmed) == nonce:
            # The answer to the first time was lost on its way.
            return
        if _text(self.folder / "nonce") != nonce:
            raise GuardError("it is too late: the host has already put the old state back", old_state=True)
        since = connected_since(process, self.proc)
        applied = float(_text(self.folder / "applied") or "inf")
        if not direct and since is not None and since < applied:
            raise GuardError("this connection was there before the change, and proves nothing", old_state=False)
        if not self._decide("confirmed"):
            raise GuardError("it is too late: the host is putting the old state back", old_state=True)
        self._stop_timer()
        if self.change.live:
            _write(File(self.loaded, self._live() or "", 0o600))
        _write(File(self.confirmed, nonce, 0o600))
        self._clean()

    def returned(self, nonce: str) -> str:
        """Wait until the host has put the old state back.

        Args:
            nonce: the one that :meth:`apply` was given.

        Returns:
            ``ok``, the commands that failed, or ``confirmed`` where the change was kept after all: the connection that
            confirmed it may be cut before it has the answer.
        """
        if self._is_confirmed(nonce):
            return "confirmed"
        waited = 0
        while self._is_waiting() and waited < self.change.seconds + GRACE:
            self.pause(1)
            waited += 1
        if not self.folder.exists():
            return "ok"
        # A timer that is gone without having run: systemd was told to stop it.
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
                # systemd's own default may be a minute late.
                "--timer-property=AccuracySec=1s",
                "/bin/sh",
                str(self.folder / "put-back"),
            ]
        )
        if status:
            self._clean()
            raise GuardError(
                f"the timer cannot be started, so nothing was changed: {tail(out + err, 3)}", old_state=True
            )

    def _install_boot_unit(self) -> None:
        unit = File(self.units / f"{UNIT}.service", BOOT_UNIT)
        if not unit.is_there():
            _write(unit)
            self._must("systemctl", "daemon-reload")
        if self.run(["systemctl", "is-enabled", "--quiet", f"{UNIT}.service"])[0]:
            self._must("systemctl", "enable", "--quiet", f"{UNIT}.service")

    def _script_body(self, folder: Path) -> list[str]:
        """The lines that bring everything back, and copies of the files in a folder."""
        service, socket = shlex.quote(self.change.service), shlex.quote(self.change.socket)
        before = self._show(self.change.service)
        was_on, was_enabled = before["ActiveState"] in ("active", "reloading"), _is_enabled(before)
        lines: list[str] = []
        # A unit that is to go is stopped while its file, which says how, is still there.
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
            # A socket cannot take its ports while the service that it is for has them.
            lines.append(f"running && try systemctl stop {service}")
            lines.append(f"running && try systemctl start {socket}")
            if was_on:
                # Not only with the next connection: until then sshd has not even the folder that it tries a file in.
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
        """Have the service take the files in."""
        handed_over = self._socket_is_on()
        if handed_over:
            self._must("systemctl", "disable", "--quiet", "--now", self.change.socket)
        settle(self._loaded_files())
        needed = self._steps()
        if handed_over or (self.change.socket and "enable" in needed):
            # sshd keeps what the socket has given it over a reload. And it has to stop before it is enabled: with that
            # its other name, sshd.service, comes back, which systemd has in mind as a unit that is not there; it takes
            # that one's state for both, forgets the process, and starts another that finds the port taken. Whoever is
            # logged in stays so: sshd's unit stops nobody but the process that listens.
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
        """Make the decision, if nobody has; whether it is this one now."""
        with suppress(FileExistsError, FileNotFoundError):
            (self.folder / "decision").symlink_to(what)
            atomic.sync(self.folder)
        return self._decision() == what

    def _is_waiting(self) -> bool:
        """Whether the timer, or what it has started, is still to be waited for."""
        if (self.folder / "outcome").exists() or not self.folder.exists():
            return False
        units = [f"{self.unit}.timer", f"{self.unit}.service"]
        # Of several units one that is active, or on its way, is enough; the script is "activating" or "active".
        shown = self.run(["systemctl", "show", "--property=ActiveState", *units])[1]
        return any(state in shown for state in ("=active", "=activating", "=reloading"))

    def _put_back(self) -> str:
        """Bring the old state back now, if nobody has, and say how it went."""
        if (_text(self.folder / "outcome") or "ok").strip() != "ok":
            # What stood in the way may be gone by now; a host that has failed once would never be changed again.
            (self.folder / "outcome").unlink()
        _status, out, err = self.run(["/bin/sh", str(self.folder / "put-back")])
        # Not before: should this be killed, the timer goes on with it. Two of the script wait for each other.
        self._stop_timer()
        return (_text(self.folder / "outcome") or tail(out + err, 5) or "the script did not end").strip()

    def _stop_timer(self) -> None:
        self.run(["systemctl", "stop", f"{self.unit}.timer"])

    def _broken(self) -> str:
        failed = (_text(self.folder / "outcome") or "").strip()
        return f"Not everything could be put back: {failed or 'the script did not run'}. Copies are in {self.folder}"

    def _clean(self) -> None:
        """Take the folder away in one step, then what is in it."""
        gone = Path(tempfile.mkdtemp(prefix=f".{self.change.name}.", dir=self.state))
        with suppress(FileNotFoundError):
            self.folder.rename(gone)
            atomic.sync(self.state)
        # And what runs that were killed here have left.
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
    """Put a file in place, and have its name on the disk too: the host may be reset the next moment."""
    file.write()
    atomic.sync(file.path.parent)
