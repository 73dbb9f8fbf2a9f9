"""Run other programs: certbot, nginx, systemctl and the hooks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.module_utils.flaskhost.host import command as system

#: Timeout of certbot, in seconds. An order with DNS records that propagate slowly takes minutes.
CERTBOT_SECONDS = 1200
#: Timeout of hooks and all other commands, in seconds.
HOOK_SECONDS = 120


def run_command(command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run a command in the C locale, so that its output does not depend on the host's language.

    Args:
        command: the command; it must not contain a secret.
        env: additional environment variables.

    Returns:
        Its exit status, output and errors. As in the shell, the status is 127 if the command does not exist, and 124
        if it timed out.
    """
    seconds = CERTBOT_SECONDS if Path(command[0]).name == "certbot" else HOOK_SECONDS
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    return system.run(command, environment=environment, timeout=seconds)
