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

from ansible.module_utils.flaskhost.app_model import SLOTS
from ansible.module_utils.flaskhost.runner import ReleaseError, Run, tail

#: Seconds that nginx may go on using a connection to the slot that served before: its ``keepalive_time`` is 1 s.
KEEPALIVE_SECONDS = 1.5


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket.

    Args:
        path: the socket's path.
        timeout: seconds that one operation may take.
    """

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def probe(path: str, url: str, host: str, timeout: float = 5.0) -> tuple[int, str]:
    """Ask a slot as nginx would: with the app's own name, and as if over HTTPS.

    Without the name ``TRUSTED_HOSTS`` answers 400, and without the protocol an app that forces HTTPS answers 302.

    Args:
        path: the slot's socket.
        url: the path to ask for.
        host: the app's canonical domain.
        timeout: seconds.

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
    connection = UnixConnection(path, timeout)
    try:
        connection.request("GET", urllib.parse.quote(url, safe="/%:@!$&'()*+,;=?"), headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(500).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def replace_link(link: Path, target: str) -> bool:
    """Point a symbolic link elsewhere by one atomic rename; tell whether it was another before."""
    if link.is_symlink() and str(link.readlink()) == target:
        return False
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    os.replace(partial, link)  # noqa: PTH105 - the same call, and the one that this rests on
    return True


class Slots:
    """The slots of one app on this host.

    Args:
        run: runs a command.
        unit: the unit's name before the ``@``.
        root: the app's folder under /srv.
        socket_dir: the folder of the sockets.
        live_socket: the link that nginx connects through.
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
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.run, self.unit, self.socket_dir, self.live_socket = run, unit, socket_dir, live_socket
        self.links, self.current, self.pause = root / "slots", root / "current", pause

    def socket(self, slot: str) -> str:
        """The path of a slot's socket."""
        return str(self.socket_dir / f"{slot}.sock")

    def service(self, slot: str) -> str:
        """The service of a slot."""
        return f"{self.unit}@{slot}.service"

    def live(self) -> str:
        """The slot that serves; empty before the first release."""
        if not self.live_socket.is_symlink():
            return ""
        name = self.live_socket.readlink().stem
        return name if name in SLOTS and (self.links / name).is_symlink() else ""

    def idle(self) -> str:
        """The slot that the next release starts in."""
        return SLOTS[1] if self.live() == SLOTS[0] else SLOTS[0]

    def release(self, slot: str) -> str:
        """The identifier of the release that a slot holds; empty when none."""
        link = self.links / slot
        return link.readlink().name if slot and link.is_symlink() else ""

    def is_active(self, slot: str) -> bool:
        """Whether a slot's service runs."""
        return self.run(["systemctl", "is-active", "--quiet", self.service(slot)])[0] == 0

    def is_enabled(self, slot: str) -> bool:
        """Whether a reboot starts a slot."""
        return self.run(["systemctl", "is-enabled", "--quiet", self.service(slot)])[0] == 0

    def start(self, slot: str, release: str) -> None:
        """Start a release in a slot that does not serve.

        Raises:
            ReleaseError: the service does not start: the app cannot be imported, most likely.
        """
        self.stop(slot)
        self.links.mkdir(mode=0o755, exist_ok=True)
        replace_link(self.links / slot, f"../releases/{release}")
        self.start_again(slot)

    def start_again(self, slot: str) -> None:
        """Start the release that a slot holds.

        Raises:
            ReleaseError: as in :meth:`start`.
        """
        self.run(["systemctl", "daemon-reload"], check_rc=True)
        began = int(time.time())
        if self.run(["systemctl", "start", self.service(slot)])[0]:
            log = self.log(slot, began)
            raise ReleaseError(
                f"Start the {slot} slot", f"{self.service(slot)} does not start. Its last lines:\n{log}", _CURE
            )

    def gate(self, slot: str, host: str, health: Mapping[str, Any]) -> None:
        """Let a slot show that it answers, before any visitor reaches it.

        Args:
            slot: the slot.
            host: the app's canonical domain.
            health: ``path``, ``status``, ``probes`` (good answers in a row) and ``timeout`` (seconds for all).

        Raises:
            ReleaseError: it does not. The slot is left as it is: whether to stop it is for the caller to say.
        """
        began = int(time.time())
        deadline = time.monotonic() + health["timeout"]
        good, status, body = 0, 0, ""
        while good < health["probes"]:
            status, body = probe(self.socket(slot), health["path"], host, max(1.0, deadline - time.monotonic()))
            good = good + 1 if status == health["status"] else 0
            if time.monotonic() > deadline:
                break
            if not good:
                self.pause(0.5)
        if good >= health["probes"]:
            return
        log = self.log(slot, began)
        answer = f"{status}" if status else "no answer"
        raise ReleaseError(
            f"Ask the {slot} slot for {health['path']}",
            f"got {answer}, wanted {health['status']}; {good} of {health['probes']} answers in a row were good after "
            f"{health['timeout']} s. The last one began:\n{tail(body, 5)}\nIts last log lines:\n{log}",
            _CURE,
        )

    def flip(self, slot: str) -> None:
        """Let a slot serve: enable it for the next boot, rename the live link, and follow with ``current``."""
        self.run(["systemctl", "enable", "--quiet", self.service(slot)], check_rc=True)
        replace_link(self.live_socket, self.socket(slot))
        replace_link(self.current, f"releases/{self.release(slot)}")

    def stop(self, slot: str) -> None:
        """Stop a slot and its socket; requests in flight are finished first."""
        # The socket first: with it open, a late connection would start the service again.
        self.run(["systemctl", "disable", "--quiet", self.service(slot)])
        self.run(["systemctl", "stop", f"{self.unit}@{slot}.socket", self.service(slot)])
        self.run(["systemctl", "reset-failed", self.service(slot)])

    def drain(self, slot: str) -> None:
        """Stop the slot that served before, once nginx has let go of its connections."""
        self.pause(KEEPALIVE_SECONDS)
        self.stop(slot)

    def log(self, slot: str, since: int) -> str:
        """The last lines that a slot has written to the journal since a time in seconds."""
        self.run(["journalctl", "--sync"])
        # Not --lines: together with --since systemd 252 shows the first lines, not the last.
        command = ["journalctl", "--no-pager", "--output=cat", f"--since=@{since}", f"--unit={self.service(slot)}"]
        return tail(self.run(command)[1]) or "(none)"


_CURE = "Correct the release and run the same command again. What served before still serves."
