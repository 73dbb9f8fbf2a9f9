"""The output of commands that an app controls: limited in size, and safe for a terminal.

An app's build or command can print gigabytes within seconds. Root's process would keep them in memory, for which it has
no limit.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.flaskhost.host.runner import LONGEST_OUTPUT, Run

#: Runs a command, and passes on only the end of its output and of its error output. Its exit status is passed on too.
LIMITED = (
    "/bin/bash",
    "-o",
    "pipefail",
    "-c",
    f'{{ "$@" 2>&1 >&3 3>&- | tail --bytes={LONGEST_OUTPUT} >&2; }} 3>&1 | tail --bytes={LONGEST_OUTPUT}',
    "bash",
)


def limited(run: Run) -> Run:
    """Limit the output of the commands that run as an app, so that root's memory does not depend on what they print.

    Args:
        run: runs a command.

    Returns:
        The same, with only the last :data:`runner.LONGEST_OUTPUT` bytes of each output of a ``systemd-run`` command.
    """

    def go(command: list[str], **more: Any) -> tuple[int, str, str]:
        if command[0] != "systemd-run":
            return run(command, **more)
        status, out, err = run([*LIMITED, *command], **more)
        return status, _marked(out), _marked(err)

    return go


def _marked(text: str) -> str:
    """Say that the beginning of an output is missing."""
    if len(text.encode("utf-8", "surrogateescape")) < LONGEST_OUTPUT:
        return text
    return f"... (only the last {LONGEST_OUTPUT // 1024**2} MB are shown)\n{text}"
