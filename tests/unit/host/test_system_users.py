"""The apps' users, which are created together with their folders."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host.system_users import SHELL, SystemUser, UserError
from fakes import run_module
from loading import load_plugin

SHOP = SystemUser("shop", "/srv/shop/data")


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The host's users and groups."""
    found: dict[str, dict[str, Any]] = {"users": {}, "groups": {}}
    monkeypatch.setattr(pwd, "getpwnam", lambda name: found["users"][name])
    monkeypatch.setattr(grp, "getgrnam", lambda name: found["groups"][name])
    return found


def entry(home: str = "/srv/shop/data", shell: str = SHELL) -> Any:
    return SimpleNamespace(pw_dir=home, pw_shell=shell)


def test_a_user_is_created_and_one_that_is_right_is_left_alone(accounts: dict[str, dict[str, Any]]) -> None:
    options = ["--no-create-home", "--home-dir", "/srv/shop/data", "--shell", "/usr/sbin/nologin", "shop"]
    assert SHOP.command() == ["useradd", "--system", "--user-group", *options]
    accounts["groups"]["shop"] = object()
    assert SHOP.command() == ["useradd", "--system", "--gid", "shop", *options], "a killed run left the group"
    accounts["users"]["shop"] = entry()
    assert SHOP.command() == []


@pytest.mark.parametrize("wrong", [{"home": "/home/shop"}, {"shell": "/bin/bash"}])
def test_a_user_who_could_log_in_is_corrected(wrong: dict[str, str], accounts: dict[str, dict[str, Any]]) -> None:
    accounts["users"]["shop"] = entry(**wrong)
    assert SHOP.command() == ["usermod", "--home", "/srv/shop/data", "--shell", "/usr/sbin/nologin", "shop"]


def test_check_mode_creates_none_and_an_error_is_said(accounts: dict[str, dict[str, Any]]) -> None:
    calls = []

    def run(args: Sequence[str]) -> tuple[int, str, str]:
        calls.append(args[0])
        return 1, "", "useradd: cannot lock /etc/passwd; try again later.\n"

    assert SHOP.ensure(run, change=False)
    assert calls == []
    with pytest.raises(UserError, match="cannot lock /etc/passwd"):
        SHOP.ensure(run, change=True)
    accounts["users"]["shop"] = entry()
    assert not SHOP.ensure(run, change=True)


def test_users_folders_and_files_of_apps_come_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accounts: dict[str, dict[str, Any]]
) -> None:
    module = load_plugin("plugins/modules/app_disk.py")
    monkeypatch.setattr(module.host_files, "numbers", lambda _owner, _group: (os.getuid(), os.getgid()))
    calls = []

    def run(args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        calls.append(args[0])
        return 0, "", ""

    file, root = tmp_path / "tmpfiles.d" / "apps.conf", tmp_path / "srv"
    given = {
        "users": {"shop": f"{root}/data"},
        "apps": [{"app": "shop", "root": str(root), "disk": "50%", "folders": []}],
        "files": {str(file): "R! /srv/shop/tmp/*\n"},
        "cache_dir": str(tmp_path / "cache"),
    }
    planned = run_module(monkeypatch, module, run, check=True, **given)
    assert (planned["changed"], calls, list(tmp_path.iterdir())) == (True, [], [])
    assert planned["diff"][0]["after"] == "R! /srv/shop/tmp/*\n"
    assert run_module(monkeypatch, module, run, **given)["changed"]
    assert (calls[:1], file.read_text(), root.is_dir()) == (["useradd"], "R! /srv/shop/tmp/*\n", True)
    accounts["users"]["shop"] = entry(f"{root}/data")
    assert not run_module(monkeypatch, module, run, **given)["changed"]
