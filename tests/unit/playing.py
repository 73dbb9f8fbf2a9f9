"""Runs of Ansible's real programs, for the tests that need a whole one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from loading import ROOT


def run_ansible(program: str, *arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs in a folder, with the project's ansible.cfg and without the caller's own settings.

    Args:
        program: its name, such as ``ansible-inventory``.
        arguments: its arguments.
        cwd: the folder.
        variables: environment variables, in place of those that are set here or before.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=cwd,
        env=own | settings | variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def play(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``ansible-playbook``; see :func:`run_ansible`."""
    return run_ansible("ansible-playbook", *arguments, cwd=cwd, **variables)
