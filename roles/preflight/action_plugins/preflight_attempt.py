"""Run one module, and turn a refusal on the way to it into a result instead of an end.

Ansible stops a host that cannot be reached, or whose sudo refuses, with a message of its own, and under
``any_errors_fatal`` even ``ignore_unreachable`` ends the whole run without another word (measured on 2.19). Here the
play goes on, and can report this problem together with all others.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The action ``preflight_attempt``: ``module`` is the module to run, ``arguments`` its arguments.

    The result never counts as failed. It has the module's facts, and ``attempt``: where the log-in went (``address``,
    ``port``, ``user``), whether with ``become``, whether the host was reached (``connected``), and ``refusal``, what
    was said against it; empty when all went well. ``answers`` is the module's own, where it has some.
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
        try:
            result = self._execute_module(module_name=module, module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            connected, refusal = False, self._reason(error)
        except AnsibleError as error:
            # A wrong sudo password; without become it is this machine that cannot even begin (no sshpass).
            connected, refusal = self._connection.become is not None, str(error)
        else:
            facts, answers = result.get("ansible_facts") or {}, result.get("answers") or {}
            if result.get("failed"):
                # What the host said; Ansible's own words only where it said nothing.
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
        return {"changed": False, "ansible_facts": facts, "attempt": attempt, "answers": answers}

    def _reason(self, error: AnsibleConnectionFailure) -> str:
        """Why the host was not reached, in the words of SSH.

        Where SSH is ending while Ansible still sends it the module, Ansible says that the host cannot be reached "over
        SSH" and no more (with a reason it is "over ssh: ..."); whether that happens depends on how busy this machine
        is. Without data SSH says why.
        """
        if "can be reached over SSH" in str(error):
            try:
                self._connection.exec_command("true", sudoable=False)
            except AnsibleConnectionFailure as reason:
                return str(reason)
        return str(error)
