"""Ansible's default output with complete commands: each printed command includes the inventory of the current run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
name: flaskhost
type: stdout
short_description: Ansible's default output with complete commands in its messages
description:
  - Like C(default). Commands in messages, such as C(ansible-playbook site.yml), are printed with the options with which
    this run reaches the hosts - the inventory, and how passwords are requested.
extends_documentation_fragment: [default_callback, result_format_callback]
requirements: [set as stdout in configuration]
"""

#: A command of this project without an inventory. In a long message, the line can break after the first word.
COMMAND = re.compile(r"\bansible-playbook(?=\s+(?:playbooks/\w+\.yml|site\.yml))")
#: The options that an operator types with every command, by Ansible's names: with a value, and without one.
VALUES = {"vault_ids": "--vault-id", "vault_password_files": "--vault-password-file", "remote_user": "--user",
          "private_key_file": "--private-key", "become_password_file": "--become-password-file"}  # fmt: skip
SWITCHES = {"ask_vault_pass": "--ask-vault-pass", "become_ask_pass": "-K", "ask_pass": "-k"}


def options(given: Mapping[str, Any], usual: Sequence[str], folder: Path) -> str:
    """Return the options with which a command reaches the hosts of this run.

    Args:
        given: the options of this run, as parsed by Ansible.
        usual: the default inventories.
        folder: the current folder; paths below it are shortened.

    Returns:
        Shell words, each after a space; empty if no options are needed.
    """
    inventories = [str(item) for item in given.get("inventory") or []]
    words = [] if inventories == list(usual) else [("-i", _short(item, folder)) for item in inventories]
    for name, option in VALUES.items():
        values = given.get(name) or []
        for value in [values] if isinstance(values, str) else values:
            words.append((option, _short(str(value), folder)))
    found = [word for pair in words for word in pair]
    found += [option for name, option in SWITCHES.items() if given.get(name)]
    return "".join(f" {shlex.quote(word)}" for word in found)


def _short(value: str, folder: Path) -> str:
    """Shorten a path to what a user in the folder would type."""
    path = Path(value)
    return str(path.relative_to(folder)) if path.is_absolute() and path.is_relative_to(folder) else value


class CallbackModule(Default):
    """Prints like Ansible's default callback, and completes the commands."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "flaskhost"

    def __init__(self) -> None:
        super().__init__()
        words = options(context.CLIARGS, constants.DEFAULT_HOST_LIST, Path.cwd())
        display, shown = self._display, self._display.display
        self._as_it_is = False

        def complete(msg: Any, *arguments: Any, **more: Any) -> Any:
            if isinstance(msg, str) and not self._as_it_is:
                msg = COMMAND.sub(lambda found: found[0] + words, msg)
            return shown(msg, *arguments, **more)

        if words:
            # Warnings and errors use this method too.
            display.display = complete

    def v2_on_file_diff(self, result: Any) -> None:
        """Print the contents of files without changes."""
        self._as_it_is = True
        try:
            super().v2_on_file_diff(result)
        finally:
            self._as_it_is = False
