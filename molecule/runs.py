"""Which tests run, and runs of playbooks: start one, wait for it, check its output, or kill it with its children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]

#: Whether a nightly run asks for everything: the tests with the marker ``nightly``, and slow tests on both releases.
NIGHTLY = bool(os.environ.get("FLASKHOST_NIGHTLY"))
#: Environment variables against Molecule's colors, which would split the words that the tests look for.
PLAIN = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
#: Text that a run must not print: if anything goes wrong, the operator gets sentences. FAILURE alone is for runs that
#: may print the traceback of an app.
FAILURE = ("MODULE FAILURE",)
TRACES = (*FAILURE, "Traceback")


def command(
    playbook: str | Path, /, *arguments: str, inventory: str | Path | None = None, **variables: Any
) -> list[str]:
    """Return the command that runs a playbook.

    Args:
        playbook: its path, absolute or from the project's folder.
        *arguments: further options of the command.
        inventory: a file or a folder; by default, the folder of the scenario's inventory.
        **variables: extra variables.
    """
    folder = inventory or Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    given = ["--extra-vars", json.dumps(variables)]
    return ["ansible-playbook", "--inventory", str(folder), str(playbook), *arguments, *given]


def start(
    words: Sequence[str], environment: Mapping[str, str] = PLAIN, *, start_new_session: bool = False
) -> subprocess.Popen[str]:
    """Start a command in the project's folder.

    Args:
        words: the command.
        environment: environment variables on top of those of the tests.
        start_new_session: whether it gets a process group of its own, to be killed with `os.killpg`.

    Returns:
        The process. Its output and its errors come from one pipe, and it has no input.
    """
    return subprocess.Popen(
        words, cwd=PROJECT, env={**os.environ, **environment}, start_new_session=start_new_session,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait(process: subprocess.Popen[str], timeout: float = 300) -> tuple[int, str]:
    """Wait for a run to end; return its status and its output. Kill it with its children at the timeout."""
    try:
        output, _none = process.communicate(timeout=timeout)
    except BaseException:
        # At the timeout, and if you interrupt the tests.
        kill(process)
        raise
    return process.returncode, output


def finish(
    process: subprocess.Popen[str], timeout: float = 300, *, good: bool | None = None, without: Sequence[str] = ()
) -> tuple[int, str]:
    """Wait for a run to end, and check it.

    Args:
        process: the run.
        timeout: the seconds after which it is killed.
        good: whether it must succeed or must fail; None if it may do either.
        without: text that its output must not contain.

    Returns:
        Its status, and its output with single spaces between the words.
    """
    status, output = wait(process, timeout)
    assert good is None or (status == 0) is good, output
    joined = " ".join(output.split())
    for text in without:
        assert text not in joined, output
    return status, joined


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a run and all that it has started on this machine, as when the machine goes down.

    Ansible's workers are sessions of their own, so that no process group has them all. The SSH connection that is kept
    open for later has left the family and stays.
    """
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    doomed = [process.pid]
    for pid in doomed:
        doomed += children.get(pid, [])
    for pid in doomed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate(timeout=30)
