"""The part of guarded_change on the control node: the new SSH connection that confirms a change, or its failure."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(UTILS)

from ansible.module_utils.flaskhost.preflight.access import refusal_text

#: Connections through sshd and the firewall. Neither can cut any other connection (local, or to a container).
OVER_SSH = {"ssh", "paramiko", "paramiko_ssh", "libssh", "mitogen_ssh"}
#: ssh uses the first value of an option, so these come before those of ansible.cfg.
NEW_CONNECTION = "-o ControlMaster=no -o ControlPath=none"
#: Seconds: between two attempts, for one attempt, and before the end of the host's timer, when no new attempt begins.
PAUSE = 2
ATTEMPT = 10
MARGIN = 5
#: Seconds after the end of the host's timer within which the old state must be back.
WAY_BACK = 60
DEFAULT_SECONDS = 45


class ActionModule(ActionBase):
    """Makes the change and confirms it over a new connection, or waits until the host has reverted it."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    #: Replaced in tests.
    _sleep = staticmethod(time.sleep)
    _now = staticmethod(time.monotonic)

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, once for each phase.

        Args:
            tmp: unused; part of Ansible's signature.
            task_vars: the task's variables.

        Returns:
            The first phase's result, with ``proven``; or a failure that reports what the host has done.
        """
        result = super().run(tmp, task_vars)
        arguments = {**self._task.args, "nonce": secrets.token_hex(16)}
        seconds = int(arguments.get("seconds") or DEFAULT_SECONDS)
        try:
            answer = self._phase("apply", arguments, task_vars)
        except AnsibleConnectionFailure as error:
            # The change can have cut the connection that made it. The host handles that by itself.
            return {**result, **self._failed(arguments, task_vars, f"The connection broke: {_words(error)}", seconds)}
        if answer.get("failed") or not answer.get("armed"):
            if answer.get("failed"):
                answer["msg"] = self._say_refusal(arguments, answer)
            return {**result, **answer}
        if not self._is_over_ssh():
            confirmed = self._phase("confirm", {**arguments, "direct": True}, task_vars)
            if confirmed.get("failed"):
                return {**result, **confirmed}
            return {**result, **answer, "proven": False}
        # Use the time left on the host's timer, because a slow host takes long until it starts the timer.
        refusal = self._prove(arguments, task_vars, self._now() + float(answer["left"]) - MARGIN)
        if refusal:
            return {**result, **self._failed(arguments, task_vars, refusal, seconds)}
        return {**result, **answer, "proven": True}

    # -- the phases -------------------------------------------------------------------------------------------------

    def _phase(self, phase: str, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        return self._execute_module(
            module_name="guarded_change", module_args={**arguments, "phase": phase}, task_vars=task_vars
        )

    def _prove(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None, deadline: float) -> str:
        """Confirm over a new connection, at least once, and retry until the deadline.

        Returns:
            Why it failed; empty on success.
        """
        with self._new_connection(int(arguments.get("port") or 0)):
            while True:
                try:
                    answer = self._phase("confirm", arguments, task_vars)
                except AnsibleError as error:
                    # No connection, or one without root access. sshd can still be starting.
                    refusal = _words(error)
                else:
                    if not answer.get("failed"):
                        return ""
                    refusal = _said(answer)
                    if "old_state" in answer:
                        # The host has decided, and its result will not change.
                        return refusal
                self._sleep(PAUSE)
                if self._now() >= deadline:
                    return refusal

    def _failed(
        self, arguments: dict[str, Any], task_vars: dict[str, Any] | None, refusal: str, seconds: int
    ) -> dict[str, Any]:
        """Wait on the old connection until the host has reverted the change, and report it."""
        outcome = self._wait_for_return(arguments, task_vars, seconds)
        if outcome == "confirmed":
            return {"changed": True, "armed": True, "proven": True, "reasons": []}
        way = self._way(int(arguments.get("port") or 0))
        ends = {
            "ok": "The host has reverted the change, and responds as before.",
            "": f"The host does not respond, {WAY_BACK} seconds after it should have reverted the change. It reverts "
            "the change at its next boot at the latest: use your provider's console, or reset the host there.",
        }
        end = ends.get(outcome, f"The host has reverted the change, except for: {outcome}")
        port = int(arguments.get("port") or 0)
        if port:
            end += f" The host's firewall keeps port {port} open until the next run that succeeds."
        message = (
            f"The change of {arguments.get('name')} was reverted, because no new SSH connection could be made {way}: "
            f"{refusal}\n{end}\nTry: {_command(way)}; and check that the provider's firewall allows this port, that "
            "known_hosts has the host's ed25519 key for this port, and that sshd accepts your key."
        )
        return {"failed": True, "changed": False, "msg": message, "old_state": outcome == "ok"}

    def _wait_for_return(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None, seconds: int) -> str:
        """Return what the host has done; empty if it does not respond."""
        deadline = self._now() + seconds + WAY_BACK
        while self._now() < deadline:
            try:
                answer = self._phase("returned", arguments, task_vars)
            except AnsibleConnectionFailure:
                self._sleep(PAUSE)
                continue
            return str(answer.get("outcome") or _said(answer))
        return ""

    # -- the connection ---------------------------------------------------------------------------------------------

    def _is_over_ssh(self) -> bool:
        return self._connection.transport.rpartition(".")[2] in OVER_SSH

    @contextmanager
    def _new_connection(self, port: int) -> Iterator[None]:
        """Make every command open a new connection inside this context, to another port if requested.

        In any case, the host checks the age of the connection that confirms.
        """
        connection = self._connection
        if connection.transport.rpartition(".")[2] != "ssh":
            # Other connection plugins keep one connection open in this process.
            connection.reset()
        wanted: dict[str, Any] = {"timeout": ATTEMPT}
        if connection.transport.rpartition(".")[2] == "ssh":
            wanted["ssh_args"] = f"{NEW_CONNECTION} {connection.get_option('ssh_args') or ''}".strip()
        if port:
            wanted["port"] = port
        saved = {name: connection.get_option(name) for name in wanted}
        try:
            for name, value in wanted.items():
                connection.set_option(name, value)
            yield
        finally:
            for name, value in saved.items():
                connection.set_option(name, value)

    def _way(self, port: int) -> str:
        context = self._play_context
        user = f"as {context.remote_user} " if context.remote_user else ""
        return f"{user}to {context.remote_addr}, port {port or context.port or 22}"

    def _say_refusal(self, arguments: dict[str, Any], answer: dict[str, Any]) -> str:
        """Return the module's message, and the state of the host."""
        message = _said(answer)
        if answer.get("old_state") is None:
            return message
        state = "The host is unchanged." if answer["old_state"] else "The host is NOT in its old state."
        return f"{arguments.get('name')} was not changed: {message}\n{state}"


def _command(way: str) -> str:
    user, _to, place = way.rpartition("to ")
    address, _comma, port = place.partition(", port ")
    name = user.removeprefix("as ").strip()
    return f"ssh -o ControlPath=none -p {port} {name + '@' if name else ''}{address}"


def _words(error: Exception) -> str:
    return refusal_text(str(error))


def _said(answer: dict[str, Any]) -> str:
    """Return the message of a failed module; Ansible's own output only if it has none."""
    said = (str(answer.get(key) or "").strip() for key in ("msg", "module_stderr", "module_stdout"))
    return next(filter(None, said), "no reason was given")
