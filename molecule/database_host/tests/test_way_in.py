"""The runs logged in as root, to hosts without sudo. Root keeps its login by key until a run logs in as somebody else.

The last tests of this scenario: the inventory's user cannot log in any more after them.
"""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest
from hosts import connect, play

HOSTS = ("fh-database-app", "fh-database-db")


def log_in(known: dict[str, Any], user: str, *options: str, command: str = "true") -> tuple[bool, str]:
    """Log in by a connection of its own, as the operator does; return whether it worked, and what was said."""
    ssh = ["ssh", *"-o ControlPath=none -o BatchMode=yes -o ConnectTimeout=8 -o LogLevel=ERROR".split(), *options]
    ssh += ["-i", known["ansible_ssh_private_key_file"], "-p", str(known["ansible_port"])]
    ssh += [*shlex.split(known["ansible_ssh_common_args"]), f"{user}@{known['ansible_host']}", command]
    done = subprocess.run(ssh, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 0, (done.stdout + done.stderr).strip()


@pytest.fixture(params=HOSTS)
def known(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The variables of each host."""
    return connect(request.param).ansible.get_variables()


@pytest.fixture(scope="module")
def administrator() -> None:
    """A run that logs in as an administrator, after those that logged in as root."""
    play("site", "--tags", "hardening", ansible_user="ada")


def test_root_that_the_runs_log_in_as_still_logs_in_by_key_and_by_nothing_else(known):
    assert log_in(known, "root", command="id --user") == (True, "0")
    without_key = log_in(known, "root", "-o", "PubkeyAuthentication=no")
    assert without_key[0] is False
    assert "Permission denied (publickey)" in without_key[1]


def test_run_as_an_administrator_shuts_root_out_and_the_administrator_becomes_root(known, administrator):
    assert log_in(known, "ada", command="sudo --non-interactive id --user") == (True, "0")
    root = log_in(known, "root")
    assert root[0] is False
    assert "Permission denied (publickey)" in root[1]
