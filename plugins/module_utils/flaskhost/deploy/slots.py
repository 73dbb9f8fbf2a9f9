"""The two slots of an app: systemd units, the socket of each, the live link between them, and the health gate."""

from __future__ import annotations

import http.client
import os
import socket
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.journal import read_journal
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, cure_for, tail

#: Bytes of a body that a probe reads.
BODY_BYTES = 64 * 1024
#: Bytes of a whole response that a probe reads, headers included; a response in small chunks is longer than its body.
RESPONSE_BYTES = 1024 * 1024
#: What the address of a listener begins with, as in nginx's settings; its path follows.
UNIX = "unix:"
#: Seconds between two questions while a slot has to go on answering.
SETTLE_INTERVAL = 0.25
#: Seconds that nginx may go on using a connection to the slot that served before: half a second until it no longer puts
#: one aside (``keepalive_time``), and another half until it closes the last one that it has (``keepalive_timeout``).
KEEPALIVE_SECONDS = 1.1


#: What to do when a release is refused.
CURE = "Correct the release and run the same command again. What served before still serves."


class BoundedSocket(socket.socket):
    """A stream over a Unix socket that ends at a deadline, and after so many bytes.

    The timeout of a plain socket begins again with every byte: an app that sends one now and then is waited for without
    end.

    Args:
        timeout: seconds for everything: the connection, the request and the response.
        size: bytes that are read at most.
    """

    def __init__(self, timeout: float, size: int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.deadline, self.left = time.monotonic() + timeout, size
        self.settimeout(timeout)

    def recv_into(self, *args: Any) -> int:
        """Read as the plain socket does, with the time that is left; http.client reads by this call alone."""
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out: the response did not end in time")
        self.settimeout(remaining)
        count = super().recv_into(*args)
        self.left -= count
        if self.left < 0:
            raise http.client.HTTPException("the response is too long")
        return count


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket.

    Args:
        path: the socket's path.
        timeout: seconds for the connection, the request and the response together.
    """

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path, self.seconds = path, timeout

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = BoundedSocket(self.seconds, RESPONSE_BYTES)
        self.sock.connect(self.path)


def probe(path: str, url: str, host: str, timeout: float = 5.0) -> tuple[int, str]:
    """Ask a slot as nginx would: with the app's own name, and as if over HTTPS.

    Without the name ``TRUSTED_HOSTS`` answers 400, and without the protocol an app that forces HTTPS answers 302.

    Args:
        path: the slot's socket, or the address of a listener as nginx writes it (``unix:`` and a path).
        url: the path to ask for.
        host: the app's canonical domain.
        timeout: seconds for the whole response.

    Returns:
        The status (0 where there is no answer) and the beginning of the body, or the reason.
    """
    headers = {
        "Host": host,
        "X-Forwarded-Host": host,
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "127.0.0.1",
        "User-Agent": "flaskhost-gate",
        "Connection": "close",
    }
    connection = UnixConnection(path.removeprefix(UNIX), timeout)
    try:
        connection.request("GET", urllib.parse.quote(url, safe="/%:@!$&'()*+,;=?"), headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(BODY_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def listens(address: str) -> bool:
    """Whether the socket of a listener (``unix:`` and a path) is there."""
    return Path(address.removeprefix(UNIX)).is_socket()


class Slots:
    """The slots of one app on this host.

    Args:
        run: runs a command.
        unit: the unit's name before the ``@``.
        root: the app's folder under /srv.
        socket_dir: the folder of the sockets.
        live_socket: the link that nginx connects through.
        template: the unit of both slots; each starts with a copy of its own. None to start with the template itself.
        pause: waits some seconds; another one in tests.
    """

    def __init__(
        self,
        run: Run,
        *,
        unit: str,
        root: Path,
        socket_dir: Path,
        live_socket: Path,
        template: Path | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.run, self.unit, self.socket_dir, self.live_socket = run, unit, socket_dir, live_socket
        self.template = template
        self.links, self.current, self.gate_socket = root / "slots", root / "current", root / "gate.sock"
        self.pause = pause

    def socket(self, slot: str) -> str:
        """The path of a slot's socket."""
        return str(self.socket_dir / f"{slot}.sock")

    def service(self, slot: str) -> str:
        """The service of a slot."""
        return f"{self.unit}@{slot}.service"

    def live(self) -> str:
        """The slot that serves, or should where somebody has removed the live link; empty before the first release."""
        if not self.live_socket.is_symlink():
            return self._should_serve()
        name = self.live_socket.readlink().stem
        return name if name in SLOTS and (self.links / name).is_symlink() else ""

    def _should_serve(self) -> str:
        # Nothing of ours removes the live link and leaves this one.
        name = self.current.readlink().name if self.current.is_symlink() else ""
        held = [slot for slot in SLOTS if name and self.release(slot) == name]
        # A restart has had the same release in both.
        return max(held, key=lambda slot: (self.is_active(slot), self.is_enabled(slot)), default="")

    def is_lost(self) -> bool:
        """Whether a slot should serve, and somebody has removed the live link to it."""
        return not self.live_socket.is_symlink() and bool(self.live())

    def idle(self) -> str:
        """The slot that the next release starts in."""
        return SLOTS[1] if self.live() == SLOTS[0] else SLOTS[0]

    def release(self, slot: str) -> str:
        """The identifier of the release that a slot holds; empty when none."""
        link = self.links / slot
        return link.readlink().name if slot and link.is_symlink() else ""

    def is_active(self, slot: str) -> bool:
        """Whether a slot's service runs; of the one that serves also whether nginx finds its socket."""
        runs = self.run(["systemctl", "is-active", "--quiet", self.service(slot)])[0] == 0
        return runs and not self._is_cut_off(slot)

    def _is_cut_off(self, slot: str) -> bool:
        """Whether visitors should get to a slot, and somebody has removed the file of its socket."""
        path = self.socket(slot)
        leads = self.live_socket.is_symlink() and str(self.live_socket.readlink()) == path
        return leads and not os.path.lexists(path)

    def is_enabled(self, slot: str) -> bool:
        """Whether a reboot starts a slot."""
        return self.run(["systemctl", "is-enabled", "--quiet", self.service(slot)])[0] == 0

    def units(self, slot: str) -> list[str]:
        """The units of a slot, the socket first."""
        return [f"{self.unit}@{slot}.socket", self.service(slot)]

    def invocation(self, slot: str) -> str:
        """What names this very run of a slot's service: it is another one after a crash."""
        shown = self.run(["systemctl", "show", "--property=InvocationID,NRestarts", self.service(slot)])[1]
        return " ".join(sorted(shown.split()))

    def start(self, slot: str, release: str, timeout: int) -> None:
        """Start a release in a slot that does not serve.

        Args:
            slot: the slot.
            release: the release.
            timeout: seconds that it may take to load.

        Raises:
            ReleaseError: the service does not start: the app cannot be imported, most likely.
        """
        self.stop(slot)
        self.links.mkdir(mode=0o755, exist_ok=True)
        atomic.link(self.links / slot, f"../releases/{release}")
        self.start_again(slot, timeout, is_new=self._copy_unit(slot))

    def _copy_unit(self, slot: str) -> bool:
        """Give a slot a copy of the present unit, and tell whether it had another one.

        A change of the template belongs to the next release. Without a copy systemd applies a lower limit of memory to
        the slot that serves, at the next daemon-reload, and another sandbox when that slot crashes: before the release
        that was meant has been gated, and although it is refused.
        """
        if not self.template or not self.template.exists():
            return False
        copy, text = self.template.with_name(self.service(slot)), self.template.read_text(encoding="utf-8")
        if copy.is_file() and copy.read_text(encoding="utf-8") == text:
            return False
        atomic.write(copy, text, mode=0o644)
        return True

    def start_again(self, slot: str, timeout: int, *, is_new: bool = False) -> None:
        """Start the release that a slot holds.

        Args:
            slot: the slot.
            timeout: seconds that it may take to load.
            is_new: whether its unit has just been written.

        Raises:
            ReleaseError: as in :meth:`start`.
        """
        # Only where a file has changed: a reload takes systemd a fifth of a second.
        show = ["systemctl", "show", "--property=NeedDaemonReload", "--value", *self.units(slot)]
        if is_new or "yes" in self.run(show)[1].split():
            status, _out, err = self.run(["systemctl", "daemon-reload"])
            if status:
                # Not by check_rc, as in flip().
                raise ReleaseError(f"Start the {slot} slot", f"systemctl daemon-reload says: {tail(err, 3)}", CURE)
        if self._is_cut_off(slot):
            # systemd makes a socket anew only while its service does not run.
            self.run(["systemctl", "stop", *self.units(slot)])
        began = int(time.time())
        status = self.run(["timeout", str(timeout), "systemctl", "start", self.service(slot)])[0]
        if not status:
            return
        step = f"Start the {slot} slot"
        why = f"does not start within {timeout} s (health.timeout)" if status == 124 else "does not start"
        if self._was_killed(slot):
            why = "was killed while it started, most likely since it took more memory than limits.memory allows"
        log = self.log(slot, began)
        raise ReleaseError(step, f"{self.service(slot)} {why}. Its last lines:\n{log}", cure_for(log, CURE))

    def _was_killed(self, slot: str) -> bool:
        shown = self.run(["systemctl", "show", "--property=Result,ExecMainCode,ExecMainStatus", self.service(slot)])[1]
        # 2 is CLD_KILLED. Where control groups are of version 1 systemd does not learn that it was for the memory.
        return "Result=oom-kill" in shown or {"ExecMainCode=2", "ExecMainStatus=9"} <= set(shown.split())

    def gate(self, slot: str, host: str, health: Mapping[str, Any], address: str = "", settle: float = 0) -> None:
        """Let a slot show that it answers, before any visitor reaches it.

        First over its own socket, then for some seconds more, and then once through nginx as a visitor would.

        Args:
            slot: the slot.
            host: the app's canonical domain.
            health: ``path``, ``status``, ``body`` (a text that it holds), ``probes`` (good answers in a row) and
                ``timeout`` (seconds for all of them).
            address: where nginx listens for root alone (``unix:`` and a path); empty to leave nginx out.
            settle: seconds that it has to go on answering, and its service not to restart.

        Raises:
            ReleaseError: it does not. The slot is left as it is: whether to stop it is for the caller to say.
        """
        began = int(time.time())
        deadline = time.monotonic() + health["timeout"]
        good, status, body = 0, 0, ""
        invocation = self.invocation(slot)
        while good < health["probes"]:
            status, body = probe(self.socket(slot), health["path"], host, max(1.0, deadline - time.monotonic()))
            good = good + 1 if is_good(status, body, health) else 0
            if time.monotonic() > deadline:
                break
            if not good:
                self.pause(0.5)
        if good < health["probes"]:
            found = f"{good} of {health['probes']} answers in a row were good after {health['timeout']} s"
            raise self._bad(slot, health, found, (status, body), began)
        until = time.monotonic() + settle
        for _number in range(int(settle / SETTLE_INTERVAL)):
            self.pause(SETTLE_INTERVAL)
            if time.monotonic() > until:
                # Each answer took its time, and all were good.
                break
            status, body = probe(self.socket(slot), health["path"], host)
            if not is_good(status, body, health):
                raise self._bad(slot, health, "it answered well at first, and then no more", (status, body), began)
        if address:
            try:
                atomic.link(self.gate_socket, self.socket(slot))
                status, body = probe(address, health["path"], host)
            finally:
                self.close_gate()
            if not is_good(status, body, health):
                raise self._bad(slot, health, f"asked through nginx ({address})", (status, body), began)
        if self.invocation(slot) != invocation:
            raise self._bad(slot, health, "its service has crashed and was started again", (status, body), began)

    def close_gate(self) -> None:
        """Remove the link to the slot that was gated: nginx's listener leads nowhere between two deploys."""
        self.gate_socket.unlink(missing_ok=True)

    def _bad(self, slot: str, health: Mapping[str, Any], found: str, last: tuple[int, str], began: int) -> ReleaseError:
        status, body = last
        answer = f"{status}" if status else "no answer"
        wanted = f"{health['status']}" + (f" with {health['body']!r} in it" if health.get("body") else "")
        return ReleaseError(
            f"Ask the {slot} slot for {health['path']}",
            f"got {answer}, wanted {wanted}; {found}. The last one began:\n{_beginning(body)}\n"
            f"Its last log lines:\n{self.log(slot, began)}",
            CURE,
        )

    def flip(self, slot: str) -> None:
        """Let a slot serve: enable it for the next boot, rename the live link, and follow with ``current``."""
        # Not with --no-reload, which would save a fifth of a second: systemd 257 then says of every unit of the host
        # that it has to be reloaded.
        status, _out, err = self.run(["systemctl", "enable", "--quiet", self.service(slot)])
        if status:
            # Not by check_rc, which would end the module before the slot is stopped again.
            raise ReleaseError(f"Let the {slot} slot serve", f"systemctl enable says: {tail(err, 3)}", CURE)
        self._follow(slot)

    def flip_back(self, slot: str) -> None:
        """Let the slot serve again that served before; it is enabled still, and nothing may come before the rename."""
        self._follow(slot)
        self.run(["systemctl", "enable", "--quiet", self.service(slot)])

    def withdraw(self, slot: str) -> None:
        """Take a slot out of service that serves, where nothing served before it: nginx finds nobody, as it did."""
        # First what says that a release should serve here.
        self.current.unlink(missing_ok=True)
        self.live_socket.unlink(missing_ok=True)
        self.drain(slot)

    def restore(self) -> None:
        """Restore the live link that somebody has removed."""
        atomic.link(self.live_socket, self.socket(self.live()))

    def _follow(self, slot: str) -> None:
        atomic.link(self.live_socket, self.socket(slot))
        atomic.link(self.current, f"releases/{self.release(slot)}")

    def stop(self, slot: str) -> None:
        """Stop a slot and its socket; requests in flight are finished first."""
        # The socket first: with it open, a late connection would start the service again.
        if self.is_enabled(slot):
            self.run(["systemctl", "disable", "--quiet", self.service(slot)])
        stop = ["systemctl", "stop", *self.units(slot)]
        if self.run(stop)[0]:
            # An app can prolong its time to stop without end (EXTEND_TIMEOUT_USEC of sd_notify(3)); the unit's
            # JobRunningTimeoutSec ends the wait, and not the app.
            self.run(["systemctl", "kill", "--signal=SIGKILL", self.service(slot)])
            self.run(stop)
        self.run(["systemctl", "reset-failed", *self.units(slot)])

    def drain(self, slot: str) -> None:
        """Stop the slot that served before, once nginx has let go of its connections."""
        self.pause(KEEPALIVE_SECONDS)
        self.stop(slot)

    def log(self, slot: str, since: int) -> str:
        """The last lines that a slot has written to the journal since a time in seconds, and systemd of its units."""
        # Not --lines: together with --since systemd 252 shows the first lines, not the last.
        return tail(read_journal(self.run, self.unit, self.units(slot), f"--since=@{since}")) or "(none)"


def is_good(status: int, body: str, health: Mapping[str, Any]) -> bool:
    """Whether an answer is the one that a healthy release gives."""
    return status == health["status"] and health.get("body", "") in body


def _beginning(body: str) -> str:
    return "\n".join([line for line in body.splitlines() if line.strip()][:5])[:500]
