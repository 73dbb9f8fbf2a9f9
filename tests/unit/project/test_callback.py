"""Commands in messages have the inventory of the run that prints them, so that they work as printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from loading import load_plugin
from playing import play

callback = load_plugin("plugins/callback/flaskhost.py")
USUAL = ["/x/inventories/demo"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"inventory": USUAL}, ""),
        ({"inventory": ["/x/inventories/production"]}, " -i inventories/production"),
        ({"inventory": ["/x/a b", "/elsewhere/hosts.yml", "web1,"]}, " -i 'a b' -i /elsewhere/hosts.yml -i web1,"),
        (
            {"inventory": USUAL, "ask_vault_pass": True, "become_ask_pass": True, "ask_pass": False},
            " --ask-vault-pass -K",
        ),
        (
            {
                "inventory": USUAL,
                "vault_ids": ["prod@/x/pass"],
                "vault_password_files": ["/x/secret"],
                "remote_user": "ada",
            },
            " --vault-id prod@/x/pass --vault-password-file secret --user ada",
        ),
    ],
)
def test_the_options_of_a_run(given: dict[str, Any], words: str) -> None:
    assert callback.options(given, USUAL, Path("/x")) == words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Lift it: ansible-playbook playbooks/freeze.yml -e freeze=off", 1),
        ("ansible-playbook\nsite.yml, then ansible-playbook site.yml --tags nginx", 2),
        ("ansible-playbook -i inventories/staging site.yml", 0),
        ("an ansible-playbook of your own", 0),
    ],
)
def test_which_commands_are_completed(text: str, found: int) -> None:
    assert len(callback.COMMAND.findall(text)) == found


def test_messages_warnings_and_errors_of_a_real_run(tmp_path: Path) -> None:
    say = "Lift it: ansible-playbook playbooks/freeze.yml -e freeze=off"
    tasks = [
        {"ansible.builtin.debug": {"msg": say}},
        # What a file holds is shown as it is.
        {"ansible.builtin.copy": {"content": f"{say}\n", "dest": str(tmp_path / "file")}, "diff": True},
        {"ansible.builtin.fail": {"msg": say}},
    ]
    plays = [{"hosts": "here", "gather_facts": False, "connection": "local", "tasks": tasks}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(plays))
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"here": {}}}}))
    done = play("-i", "hosts.yml", "play.yml", cwd=tmp_path, HOME=str(tmp_path), COLUMNS="200")
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "freeze.yml" in line]
    whole = [line for line in lines if "ansible-playbook -i hosts.yml playbooks/freeze.yml -e freeze=off" in line]
    assert len(whole) >= 3, done.stdout + done.stderr
    assert [line for line in lines if line.startswith("+")] == [f"+{say}"], done.stdout
