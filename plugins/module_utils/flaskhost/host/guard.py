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
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import Run, tail
from ansible.module_utils.flaskhost.host.service_state import PROPERTIES, parse_show, settle, steps
from ansible.module_utils.flaskhost.host.wanted import File

STATE = Path("/var/lib/flaskhost/guard")
UNITS = Path("/etc/systemd/system")
PROC = Path("/proc")
RUN = Path("/run")
#: Seconds that systemd and a loaded host may need beyond the timer's own.
GRACE = 30
UNIT = "flaskhost-guard"

#: Runs at every boot and does nothing, but after a boot within the minute of a guarded change.
BOOT_UNIT = f"""\
# Written by the module guarded_change of flaskhost. Brings back the old state when the host was booted before a change
# to SSH or to the firewall had been confirmed: the timer that would have done so did not outlive the boot.
[Unit]
Description=Put back changes that were not confirmed before the boot
DefaultDependencies=no
ConditionPathExistsGlob={STATE}/*/put-back
After=local-fs.target
Wants=network-pre.target
Before=network-pre.target sysinit.target flaskhost-firewall.service ssh.service ssh.socket shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for script in {STATE}/*/put-back; do /bin/sh "$$script" boot; done'

[Install]
WantedBy=sysinit.target
"""

_SCRIPT = """\
#!/bin/sh
# Brings back what was there before the guarded change "{name}". Run by a timer, early at boot ($1 is then "boot": the
# services come up by themselves, with the old files), or by the next run. It may be killed and run again.
cd {folder} || exit 1
# On a full disk no link can be made: only a decision against this stops it.
ln -sT put-back decision 2>/dev/null || [ "$(readlink decision)" != confirmed ] || exit 0
exec 9<nonce && flock 9
[ -e outcome ] && exit 0
failed=
try() {{ "$@" || failed="$failed$*; "; }}
restore() {{ cp -dp -T "$1" "$2.flaskhost-guard" && mv -fT "$2.flaskhost-guard" "$2"; }}
running() {{ [ "$boot" != boot ]; }}
boot=${{1-}}
{body}
sync
printf '%s\\n' "${{failed:-ok}}" > outcome.new && mv -fT outcome.new outcome
"""


class GuardError(Exception):
    """A guarded change that was not made, or that is not there any more.

    Args:
        reason: what went wrong.
        old_state: whether the host is as it was before.
    """

    def __init__(self, reason: str, *, old_state: bool) -> None:
        super().__init__(reason)
        self.old_state = old_state


@dataclass(frozen=True)
class Change:
    """What is to be so.

    Attributes:
        name: names the guard: ``sshd``, ``firewall``.
        files: the files.
        service: the unit that takes them in by a reload.
        socket: a socket unit that would hold the service's ports for it, whatever the files say; it is turned off.
        checks: commands and lines that have to be in their output, once the files are in place and before the reload.
        live: the command that prints what the service really has; another output than after the last confirmed change
            is a reason to load the files again.
        seconds: how long the host waits for the confirmation.
    """

    name: str
    files: tuple[File, ...]
    service: str
    socket: str = ""
    checks: tuple[Mapping[str, Any], ...] = ()
    live: tuple[str, ...] = ()
    seconds: int = 45


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
        """Try the new files, beside the old ones.

        Raises:
            GuardError: a program that knows says no.
        """
        self._make_runtime_folders()
        for file in self.change.files:
            if not file.validate:
                continue
            with tempfile.TemporaryDirectory(prefix="flaskhost-guard-") as folder:
                path = Path(folder) / file.path.name
                path.write_text(file.text, encoding="utf-8")
                status, out, err = self.run([word.replace("%s", str(path)) for word in file.validate])
            if status:
                raise GuardError(f"{file.validate[0]} refuses {file.path}: {tail(out + err)}", old_state=True)

    def check(self) -> None:
        """See that the files say, together with all others that the service reads, what they are meant to.

        Raises:
            GuardError: something that the service reads before them says otherwise.
        """
        self._make_runtime_folders()
        for check in self.change.checks:
            command = list(check["command"])
            status, out, err = self.run(command)
            if status:
                raise GuardError(f"{' '.join(command)} says: {tail(err or out)}", old_state=True)
            lines = [" ".join(line.lower().split()) for line in out.splitlines()]
            wanted = [" ".join(line.lower().split()) for line in check["lines"]]
            for line in wanted:
                key = line.partition(" ")[0]
                # Where a key may stand several times (Port), no other one may stand beside those that are wanted.
                really = [other for other in lines if other.partition(" ")[0] == key]
                extra = [other for other in really if other not in wanted]
                if line not in lines or extra:
                    says = "; ".join(extra or really) or f"nothing about {key}"
                    cure = f"\n{check['cure']}" if check.get("cure") else ""
                    raise GuardError(f"{' '.join(command)} says {says}, not {line}{cure}", old_state=True)

    def _make_runtime_folders(self) -> None:
        """Make the folders in memory that the service's unit makes when it starts.

        sshd does not even look at its files without its own; where a socket unit holds its port, it has none before the
        first connection.
        """
        shown = self.run(["systemctl", "show", "--property=RuntimeDirectory", self.change.service])[1]
        for name in parse_show(shown).get("RuntimeDirectory", "").split():
            (RUN / name).mkdir(mode=0o755, parents=True, exist_ok=True)

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
        since = self._connected_since(process)
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
            body = self._script_body(folder)
            text = _SCRIPT.format(name=self.change.name, folder=shlex.quote(str(self.folder)), body="\n".join(body))
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
                f"--description=Put back the old state of {self.change.name}",
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

    def _connected_since(self, process: int) -> float | None:
        """When the SSH connection that a process belongs to was made, in seconds since boot; None when there is none.

        The nearest sshd among its ancestors is the one of the connection: a log-in over a shared connection (OpenSSH's
        ControlMaster) is below the same one, however late it came. sudo and su stay in between.
        """
        ticks = os.sysconf("SC_CLK_TCK")
        while process > 1:
            try:
                # The name stands in parentheses, and may hold anything: proc(5).
                head, _close, rest = (self.proc / str(process) / "stat").read_bytes().rpartition(b")")
            except OSError:
                return None
            fields = rest.split()
            if head.partition(b"(")[2].startswith(b"sshd"):
                # The kernel rounds down to a tick: the end of it is the latest that it can have been.
                return (int(fields[19]) + 1) / ticks
            process = int(fields[1])
        return None


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


def wanted_files(files: Iterable[Mapping[str, Any]]) -> tuple[File, ...]:
    """The module's option ``files``.

    Raises:
        GuardError: a file that a block goes into cannot be read.
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
    """The text of somebody else's file with a block of ours between two marks.

    Args:
        dest: the file.
        block: the lines.
        behind: the block goes behind the first line in which this regular expression is found, else to the beginning.
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
