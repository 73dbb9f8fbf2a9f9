"""Run one module, and return a failed connection or login as a result instead of ending the run.

Ansible stops a host that is unreachable, or on which sudo fails, with its own message. With ``any_errors_fatal``, even
``ignore_unreachable`` ends the whole run without further output (measured on 2.19). Here the play continues, and can
report this problem together with all others.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The action ``preflight_attempt``: ``module`` is the module to run, ``arguments`` its arguments.

    The result never counts as failed. It has the module's facts, and ``attempt``: the target of the login (``address``,
    ``port``, ``user``), whether ``become`` was used, whether the host was reached (``connected``), and ``refusal``, the
    error; empty on success. ``answers`` is the module's own, if it has any. If they contain the host's time, the fact
    ``flaskhost_clock`` has by how many seconds the host's clock can be ahead of the control node's: the least, and the
    most.
    """

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _VALID_ARGS = frozenset({"module", "arguments"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module."""
        super().run(tmp, task_vars)
        module, arguments = self._task.args["module"], self._task.args.get("arguments") or {}
        connected, refusal, facts, answers = True, "", {}, {}
        before = time.time()
        try:
            result = self._execute_module(module_name=module, module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            connected, refusal = False, self._reason(error)
        except AnsibleError as error:
            # A wrong sudo password; without become, the control node itself lacks something (sshpass).
            connected, refusal = self._connection.become is not None, str(error)
        else:
            facts, answers = result.get("ansible_facts") or {}, result.get("answers") or {}
            if result.get("failed"):
                # The host's own output; Ansible's message only if there is none.
                said = (str(result.get(key) or "").strip() for key in ("module_stderr", "module_stdout", "msg"))
                refusal = next(filter(None, said), "no reason was given")
        attempt = {
            "address": self._play_context.remote_addr,
            "port": self._play_context.port,
            "user": self._play_context.remote_user,
            "become": self._connection.become is not None,
            "connected": connected,
            "refusal": refusal,
        }
        # The host has read its clock at some time in between, however long the connection took.
        if isinstance(known := answers.get("clock"), float):
            facts = {**facts, "flaskhost_clock": [known - time.time(), known - before]}
        return {"changed": False, "ansible_facts": facts, "attempt": attempt, "answers": answers}

    def _reason(self, error: AnsibleConnectionFailure) -> str:
        """Return SSH's reason why the host was not reached.

        If SSH ends while Ansible still sends the module to it, Ansible only reports that the host cannot be reached
        "over SSH" (with a reason, it is "over ssh: ..."). Whether that happens depends on the load of the control node.
        Without data to send, SSH reports the reason.
        """
        if "can be reached over SSH" in str(error):
            try:
                self._connection.exec_command("true", sudoable=False)
            except AnsibleConnectionFailure as reason:
                return str(reason)
        return str(error)
