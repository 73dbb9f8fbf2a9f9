"""Print warnings like Ansible's own: once for all hosts, and without a change or a failure."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The action ``preflight_warn``: ``warnings`` is a list of sentences."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _VALID_ARGS = frozenset({"warnings"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the warnings to Ansible, which prints them."""
        super().run(tmp, task_vars)
        return {"changed": False, "warnings": [str(text) for text in self._task.args.get("warnings") or []]}
