"""Ansible's usual output, in which each printed command works as printed: it has the inventory of this very run."""

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
short_description: Ansible's usual output, with whole commands in its messages
description:
  - As C(default). A command that a message prints, such as C(ansible-playbook site.yml), is printed with the options of
    this run by which the hosts are reached - the inventory, and how passwords are asked for.
extends_documentation_fragment: [default_callback, result_format_callback]
requirements: [set as stdout in configuration]
"""

#: A command of ours that names no inventory. A long line may have been broken after its first word.
COMMAND = re.compile(r"\bansible-playbook(?=\s+(?:playbooks/\w+\.yml|site\.yml))")
#: What an operator types in every command, by the names of Ansible's own options: with a value, and without.
VALUES = {"vault_ids": "--vault-id", "vault_password_files": "--vault-password-file", "remote_user": "--user",
          "private_key_file": "--private-key", "become_password_file": "--become-password-file"}  # fmt: skip
SWITCHES = {"ask_vault_pass": "--ask-vault-pass", "become_ask_pass": "-K", "ask_pass": "-k"}


def options(given: Mapping[str, Any], usual: Sequence[str], folder: Path) -> str:
    """The options that a command has to have so that it reaches the hosts of this run.

    Args:
        given: the options of this run, as Ansible has read them.
        usual: the inventories that are meant where none is named.
        folder: the present folder, below which paths are shortened.

    Returns:
        Words for a shell, each with a space before it; empty if nothing has to be said.
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
    """A path as somebody in the folder would type it."""
    path = Path(value)
    return str(path.relative_to(folder)) if path.is_absolute() and path.is_relative_to(folder) else value


class CallbackModule(Default):
    """Prints as Ansible's own does, and completes the commands."""

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
            # Warnings and errors come by way of it, too.
            display.display = complete

    def v2_on_file_diff(self, result: Any) -> None:
        """Print what a file holds as it is."""
        self._as_it_is = True
        try:
            super().v2_on_file_diff(result)
        finally:
            self._as_it_is = False
