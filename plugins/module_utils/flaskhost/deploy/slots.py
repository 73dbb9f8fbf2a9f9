"""The two slots of an app: their systemd units and sockets, the live link that selects one, and the health gate."""

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
from ansible.module_utils.flaskhost.deploy import drivers, server
from ansible.module_utils.flaskhost.deploy.hints import hint
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.journal import read_journal
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError, Run, cure_for, tail

#: Maximum number of bytes that a probe reads from a body.
BODY_BYTES = 64 * 1024
#: Maximum bytes of a whole response, including headers. Chunked encoding makes a response longer than its body.
RESPONSE_BYTES = 1024 * 1024
#: Prefix of a listener's address, as in nginx's configuration; its path follows.
UNIX = "unix:"
#: Seconds between two health checks while a slot settles.
SETTLE_INTERVAL = 0.25
#: Seconds for which nginx can still use a connection to the previous slot: half a second until it stops keeping
#: connections (``keepalive_time``), and another half until it closes the last one (``keepalive_timeout``).
KEEPALIVE_SECONDS = 1.1


#: The fix in the message for a rejected release.
CURE = f"Correct the release and run the same command again. {STILL}"


class BoundedSocket(socket.socket):
    """A Unix stream socket with a deadline and a limit on the bytes read.

    The timeout of a plain socket restarts with every byte, so an app that sends one byte now and then would block
    forever.

    Args:
        timeout: seconds for the connection, the request and the response together.
        size: maximum number of bytes to read.
    """

    def __init__(self, timeout: float, size: int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.deadline, self.left = time.monotonic() + timeout, size
        self.settimeout(timeout)

    def recv_into(self, *args: Any) -> int:
        """Read like the plain socket, within the remaining time. http.client reads only with this method."""
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
    """Send a request to a slot as nginx would: with the app's domain, and as if over HTTPS.

    Without the domain, ``TRUSTED_HOSTS`` returns 400. Without the protocol, an app that enforces HTTPS returns 302.

    Args:
        path: the slot's socket, or the address of a listener in nginx's notation (``unix:`` and a path).
        url: the path to request.
        host: the app's canonical domain.
        timeout: seconds for the whole response.

    Returns:
        The status (0 without a response) and the beginning of the body, or the reason.
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
    """Check whether the socket of a listener (``unix:`` and a path) exists."""
    return Path(address.removeprefix(UNIX)).is_socket()


class Slots:
    """The slots of one app on this host.

    Args:
        run: runs a command.
        unit: the unit's name before the ``@``.
        root: the app's folder under /srv.
        socket_dir: the folder of the sockets.
        live_socket: the link that nginx connects through.
        template: the unit file for both slots; each slot starts with its own copy. None to start with the template.
        pause: sleeps for a number of seconds; replaced in tests.
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
        #: When traffic left a slot in this run, on the monotonic clock.
        self._left: dict[str, float] = {}

    def socket(self, slot: str) -> str:
        """Return the path of a slot's socket."""
        return str(self.socket_dir / f"{slot}.sock")

    def service(self, slot: str) -> str:
        """Return the service of a slot."""
        return f"{self.unit}@{slot}.service"

    def live(self) -> str:
        """Return the live slot, even if its link was removed; empty before the first release."""
        if not self.live_socket.is_symlink():
            return self._should_serve()
        name = self.live_socket.readlink().stem
        return name if name in SLOTS and (self.links / name).is_symlink() else ""

    def _should_serve(self) -> str:
        # Flaskhost never removes the live link without this one.
        name = self.current.readlink().name if self.current.is_symlink() else ""
        held = [slot for slot in SLOTS if name and self.release(slot) == name]
        # During a restart, both slots had the same release.
        return max(held, key=lambda slot: (self.is_active(slot), self.is_enabled(slot)), default="")

    def is_lost(self) -> bool:
        """Check whether a slot should be live, but the live link to it was removed."""
        return not self.live_socket.is_symlink() and bool(self.live())

    def idle(self) -> str:
        """Return the slot for the next release."""
        return SLOTS[1] if self.live() == SLOTS[0] else SLOTS[0]

    def release(self, slot: str) -> str:
        """Return the ID of the release in a slot; empty if there is none."""
        link = self.links / slot
        return link.readlink().name if slot and link.is_symlink() else ""

    def is_active(self, slot: str) -> bool:
        """Check whether a slot's service runs; for the live slot, also whether nginx finds its socket."""
        runs = self.run(["systemctl", "is-active", "--quiet", self.service(slot)])[0] == 0
        return runs and not self._is_cut_off(slot)

    def _is_cut_off(self, slot: str) -> bool:
        """Check whether a slot is live, but the file of its socket was removed."""
        path = self.socket(slot)
        leads = self.live_socket.is_symlink() and str(self.live_socket.readlink()) == path
        return leads and not os.path.lexists(path)

    def is_enabled(self, slot: str) -> bool:
        """Check whether a slot starts at boot."""
        return self.run(["systemctl", "is-enabled", "--quiet", self.service(slot)])[0] == 0

    def units(self, slot: str) -> list[str]:
        """Return the units of a slot, socket first."""
        return [f"{self.unit}@{slot}.socket", self.service(slot)]

    def invocation(self, slot: str) -> str:
        """Return an ID for the current run of a slot's service. It changes after a crash."""
        shown = self.run(["systemctl", "show", "--property=InvocationID,NRestarts", self.service(slot)])[1]
        return " ".join(sorted(shown.split()))

    def start(self, slot: str, release: str, timeout: int, command: str = "") -> None:
        """Start a release in a slot that is not live.

        Args:
            slot: the slot.
            release: the release.
            timeout: seconds that it can take to load.
            command: the start command of its application server; empty for the one in the current unit file.

        Raises:
            ReleaseError: the service did not start; most likely, the app cannot be imported.
        """
        self.stop(slot)
        self.links.mkdir(mode=0o755, exist_ok=True)
        atomic.link(self.links / slot, f"../releases/{release}")
        self.start_again(slot, timeout, is_new=self._copy_unit(slot, command))

    def _copy_unit(self, slot: str, command: str) -> bool:
        """Give a slot a copy of the current unit file. Return whether its unit file changed.

        A change to the template belongs to the next release. Without a copy, systemd would apply a lower memory limit
        to the live slot at the next daemon-reload, and another sandbox when that slot crashes: before the new release
        has passed its gate, and even if the release is rejected.
        """
        if not self.template or not self.template.exists():
            return False
        copy, text = self.template.with_name(self.service(slot)), self.template.read_text(encoding="utf-8")
        text = server.with_command(text, command) if command else text
        if copy.is_file() and copy.read_text(encoding="utf-8") == text:
            return False
        atomic.write(copy, text, mode=0o644)
        return True

    def start_again(self, slot: str, timeout: int, *, is_new: bool = False) -> None:
        """Start the release in a slot.

        Args:
            slot: the slot.
            timeout: seconds that it can take to load.
            is_new: whether its unit file has just been written.

        Raises:
            ReleaseError: as in :meth:`start`.
        """
        # Only if a file changed: a reload takes systemd 0.2 seconds.
        show = ["systemctl", "show", "--property=NeedDaemonReload", "--value", *self.units(slot)]
        if is_new or "yes" in self.run(show)[1].split():
            status, _out, err = self.run(["systemctl", "daemon-reload"])
            if status:
                # check_rc would end the module, as in flip().
                raise ReleaseError(f"Start the {slot} slot", f"systemctl daemon-reload failed: {tail(err, 3)}", CURE)
        if self._is_cut_off(slot):
            # systemd recreates a socket only while its service is stopped.
            self.run(["systemctl", "stop", *self.units(slot)])
        began = int(time.time())
        status = self.run(["timeout", str(timeout), "systemctl", "start", self.service(slot)])[0]
        if not status:
            return
        step = f"Start the {slot} slot"
        why = f"did not start within {timeout} s (health.timeout)" if status == 124 else "did not start"
        if self._was_killed(slot):
            why = "was killed during startup, most likely because it needed more memory than limits.memory allows"
        log = self.log(slot, began)
        hints = hint(log, drivers.packages(self.links / slot / "venv"))
        raise ReleaseError(step, f"{self.service(slot)} {why}. The last log lines:\n{log}", cure_for(log, CURE + hints))

    def _was_killed(self, slot: str) -> bool:
        shown = self.run(["systemctl", "show", "--property=Result,ExecMainCode,ExecMainStatus", self.service(slot)])[1]
        # 2 is CLD_KILLED. With version 1 of control groups, systemd does not learn that the cause was memory.
        return "Result=oom-kill" in shown or {"ExecMainCode=2", "ExecMainStatus=9"} <= set(shown.split())

    def gate(self, slot: str, host: str, health: Mapping[str, Any], address: str = "", settle: float = 0) -> None:
        """Check the health of a slot before any visitor reaches it.

        First on its own socket, then during the settle time, and then once through nginx as a visitor would.

        Args:
            slot: the slot.
            host: the app's canonical domain.
            health: ``path``, ``status``, ``body`` (text that the response contains), ``probes`` (successes in a row)
                and ``timeout`` (seconds for all of them).
            address: nginx's listener that only root can use (``unix:`` and a path); empty to skip nginx.
            settle: seconds for which it must stay healthy without a restart of its service.

        Raises:
            ReleaseError: a check failed. The slot stays as it is: the caller decides whether to stop it.
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
            found = f"{good} of {health['probes']} responses in a row were good after {health['timeout']} s"
            raise self._bad(slot, health, found, (status, body), began)
        until = time.monotonic() + settle
        for _number in range(int(settle / SETTLE_INTERVAL)):
            self.pause(SETTLE_INTERVAL)
            if time.monotonic() > until:
                # All responses were good; each of them took time too.
                break
            status, body = probe(self.socket(slot), health["path"], host)
            if not is_good(status, body, health):
                raise self._bad(
                    slot, health, "the first responses were good, a later one was not", (status, body), began
                )
        if address:
            try:
                atomic.link(self.gate_socket, self.socket(slot))
                status, body = probe(address, health["path"], host)
            finally:
                self.close_gate()
            if not is_good(status, body, health):
                raise self._bad(slot, health, f"the request went through nginx ({address})", (status, body), began)
        if self.invocation(slot) != invocation:
            raise self._bad(slot, health, "its service crashed and was restarted", (status, body), began)

    def close_gate(self) -> None:
        """Remove the link to the gated slot: between two deploys, nginx's gate listener has no upstream."""
        self.gate_socket.unlink(missing_ok=True)

    def _bad(self, slot: str, health: Mapping[str, Any], found: str, last: tuple[int, str], began: int) -> ReleaseError:
        status, body = last
        answer = f"{status}" if status else "no response"
        wanted = f"{health['status']}" + (f" with {health['body']!r} in the body" if health.get("body") else "")
        return ReleaseError(
            f"Check the health of the {slot} slot",
            f"{health['path']} returned {answer}, expected {wanted}; {found}. The last response began:\n"
            f"{_beginning(body)}\n"
            "The last log lines:\n"
            f"{self.log(slot, began)}",
            CURE,
        )

    def flip(self, slot: str) -> None:
        """Switch traffic to a slot: enable it for the next boot, rename the live link, and update ``current``."""
        # Not with --no-reload, which would save 0.2 seconds: systemd 257 then reports that every unit of the host needs
        # a reload.
        status, _out, err = self.run(["systemctl", "enable", "--quiet", self.service(slot)])
        if status:
            # check_rc would end the module before the slot is stopped again.
            raise ReleaseError(f"Switch traffic to the {slot} slot", f"Enabling its unit failed: {tail(err, 3)}", CURE)
        self._follow(slot)

    def flip_back(self, slot: str) -> None:
        """Switch traffic back to the previous slot. It is still enabled; the rename comes first."""
        self._follow(slot)
        self.run(["systemctl", "enable", "--quiet", self.service(slot)])

    def withdraw(self, slot: str) -> None:
        """Take the live slot out of service if nothing was live before it: nginx then has no upstream, as before."""
        # First the link that marks a release as live here.
        self.current.unlink(missing_ok=True)
        self.live_socket.unlink(missing_ok=True)
        self._left[slot] = time.monotonic()
        self.drain(slot)

    def restore(self) -> None:
        """Restore the live link after someone removed it."""
        atomic.link(self.live_socket, self.socket(self.live()))

    def _follow(self, slot: str) -> None:
        atomic.link(self.live_socket, self.socket(slot))
        self._left = {other: time.monotonic() for other in SLOTS if other != slot}
        atomic.link(self.current, f"releases/{self.release(slot)}")

    def stop(self, slot: str) -> None:
        """Stop a slot and its socket. Requests in flight are finished first."""
        self._disable(slot)
        self._halt(slot)

    def _disable(self, slot: str) -> None:
        if self.is_enabled(slot):
            self.run(["systemctl", "disable", "--quiet", self.service(slot)])

    def _halt(self, slot: str) -> None:
        # The socket first: if it stayed open, a late connection would start the service again.
        stop = ["systemctl", "stop", *self.units(slot)]
        if self.run(stop)[0]:
            # An app can extend its stop timeout without limit (EXTEND_TIMEOUT_USEC of sd_notify(3)). The unit's
            # JobRunningTimeoutSec ends only the wait, not the app.
            self.run(["systemctl", "kill", "--signal=SIGKILL", self.service(slot)])
            self.run(stop)
        self.run(["systemctl", "reset-failed", *self.units(slot)])

    def drain(self, slot: str) -> None:
        """Stop the previous slot after nginx has closed its connections. The time since the switch counts."""
        # Disabled first, which takes 0.2 seconds and stops nothing.
        self._disable(slot)
        left = self._left.get(slot)
        # Without a switch in this run, nobody knows how long ago it was.
        remaining = KEEPALIVE_SECONDS - (time.monotonic() - left if left is not None else 0)
        if remaining > 0:
            self.pause(remaining)
        self._halt(slot)

    def log(self, slot: str, since: int) -> str:
        """Return the last journal lines of a slot and its units since a time, given in seconds since 1970."""
        # Not --lines: together with --since, systemd 252 shows the first lines instead of the last.
        return tail(read_journal(self.run, self.unit, self.units(slot), f"--since=@{since}")) or "(none)"


def is_good(status: int, body: str, health: Mapping[str, Any]) -> bool:
    """Check whether a response is that of a healthy release."""
    return status == health["status"] and health.get("body", "") in body


def _beginning(body: str) -> str:
    return "\n".join([line for line in body.splitlines() if line.strip()][:5])[:500]
