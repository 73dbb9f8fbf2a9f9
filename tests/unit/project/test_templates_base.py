"""The templates of the role base, rendered as Ansible does it: sudo, updates and the journal."""

from __future__ import annotations

import re

import pytest
from rendering import render


@pytest.mark.parametrize("names", [[], ["ada"], ["ada", "grace"]])
def test_sudo_is_for_the_administrators(names: list[str]) -> None:
    users = [{"name": name, "keys": []} for name in names]
    text = render("base", "sudoers.j2", base_admin_users=users)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines == [f"{name} ALL=(ALL:ALL) NOPASSWD: ALL" for name in names]
    assert text.endswith("\n"), "sudo refuses a last line without an end"


@pytest.mark.parametrize(("wanted", "value"), [(True, "1"), (False, "0")])
def test_security_updates_can_be_switched_off(wanted: bool, value: str) -> None:
    text = render("base", "unattended-upgrades.j2", base_unattended_upgrades=wanted)
    settings = dict(re.findall(r'^([\w:-]+) "(.*)";$', text, re.MULTILINE))
    assert settings["APT::Periodic::Unattended-Upgrade"] == value
    assert settings["APT::Periodic::Update-Package-Lists"] == value
    assert all(line.startswith("//") or line.endswith('";') for line in text.splitlines() if line)


def test_the_journal_is_kept_and_bounded() -> None:
    lines = render("base", "journald.conf.j2", base_journal_max_use="200M").splitlines()
    settings = lines[lines.index("[Journal]") + 1 :]
    assert "Storage=persistent" in settings
    assert "SystemMaxUse=200M" in settings
    assert "SystemKeepFree=1G" in settings
