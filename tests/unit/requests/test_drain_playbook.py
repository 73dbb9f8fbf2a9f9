"""The real playbooks/drain.yml on hosts of this machine: what it refuses before it changes anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from loading import ROOT
from playing import play

INVENTORY = """
all:
  vars:
    ansible_connection: local
    ansible_become: false
    ansible_python_interpreter: /bin/false
    flask_apps: {}
  children:
    web: {hosts: {WEB: {}}}
    app: {hosts: {app1: {}, app2: {}}}
"""


@pytest.mark.parametrize(
    ("web", "given", "part"),
    [
        ("web1: {}", ["-e", "host=app3"], "host: 'app3' is not in the group app"),
        ("web1: {}", ["-e", "host=app1", "-e", "drain=maybe"], "drain: 'maybe' is neither on nor off"),
        ("app1: {}, app2: {}", ["-e", "host=app1"], "there is nothing to drain"),
    ],
)
def test_a_request_that_makes_no_sense_reaches_no_host(web: str, given: list[str], part: str, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(INVENTORY.replace("WEB: {}", web), encoding="utf-8")
    done = play("-i", inventory, "playbooks/drain.yml", *given, cwd=ROOT, ANSIBLE_FORCE_COLOR="0", COLUMNS="1000")
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0, output
    assert part in output.replace("''", "'")
    assert "Read which app hosts serve" not in output
