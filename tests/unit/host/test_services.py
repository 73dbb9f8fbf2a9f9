"""Files and the services that read them, in one run of a module."""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import files as host_files
from fakes import run_module
from loading import load_plugin

ME = pwd.getpwuid(os.getuid()).pw_name
MY_GROUP = grp.getgrgid(os.getgid()).gr_name
OWN = {"owner": ME, "group": MY_GROUP}


class Systemd:
    """Services that all run since a moment, and whose steps can fail."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.since, self.refused, self.enabled = time.time() + 1, "", "enabled"

    def __call__(self, args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        self.calls.append(list(args))
        if self.refused and self.refused in args:
            return 1, "", "no such luck"
        if args[0] == "journalctl":
            return 0, "its log\n", ""
        if args[:2] != ["systemctl", "show"]:
            return 0, "", ""
        when = time.strftime("%a %Y-%m-%d %H:%M:%S", time.gmtime(self.since)) + ".000000 UTC"
        return 0, f"ActiveState=active\nUnitFileState={self.enabled}\nStateChangeTimestamp={when}\n", ""

    @property
    def steps(self) -> list[str]:
        return [" ".join(call[1:]) for call in self.calls if call[0] == "systemctl" and call[1] != "show"]


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


def service(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "enabled": True, "reload_files": [], "restart_files": [], "test": [], **more}


def test_a_service_is_reloaded_in_the_run_that_writes_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: Systemd
) -> None:
    module, path = load_plugin("plugins/modules/host_files.py"), tmp_path / "a.conf"
    wanted = {
        "files": [{"path": str(path), "content": "x\n", "mode": "0644", "validate": [], **OWN}],
        "services": [service("a.service", reload_files=[str(path)])],
    }
    systemd.since = time.time() - 60
    result = run_module(monkeypatch, module, systemd, **wanted)
    assert (result["changed"], result["paths"], result["steps"]) == (True, [str(path)], ["reload a.service"])
    assert systemd.steps == ["reload a.service"]
    systemd.since = time.time() + 60
    result = run_module(monkeypatch, module, systemd, **wanted)
    assert (result["changed"], result["paths"], result["steps"]) == (False, [], [])


def test_a_reload_that_was_lost_is_made_up_for_and_check_mode_only_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: Systemd
) -> None:
    """The run that wrote the file was killed."""
    module, path = load_plugin("plugins/modules/host_files.py"), tmp_path / "a.conf"
    path.touch()
    systemd.since = time.time() - 60
    wanted = {"services": [service("a.service", restart_files=[str(path)])]}
    result = run_module(monkeypatch, module, systemd, check=True, **wanted)
    assert (result["changed"], result["steps"], systemd.steps) == (True, ["restart a.service"], [])
    run_module(monkeypatch, module, systemd, **wanted)
    assert systemd.steps == ["restart a.service"]


def test_a_file_that_is_refused_leaves_the_services_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: Systemd
) -> None:
    module, path = load_plugin("plugins/modules/host_files.py"), tmp_path / "a.conf"
    systemd.since, systemd.refused = time.time() - 60, "judge"
    wanted = {"path": str(path), "content": "x\n", "mode": "0644", "validate": ["judge", "%s"], **OWN}
    result = run_module(
        monkeypatch, module, systemd, files=[wanted], services=[service("a.service", reload_files=[str(tmp_path)])]
    )
    assert result["failed"]
    assert "judge" in result["msg"]
    assert systemd.steps == []


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("nginx", "b.service was not changed, because nginx -t failed:\nno such luck"),
        ("reload", "systemctl reload b.service failed: no such luck\nIts last log lines:\nits log"),
    ],
)
def test_a_service_that_fails_is_named_and_repeated_by_the_next_run(
    refused: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: Systemd
) -> None:
    module, path = load_plugin("plugins/modules/configured_service.py"), tmp_path / "b.conf"
    path.touch()
    before = path.stat().st_ctime_ns
    time.sleep(0.02)
    systemd.since, systemd.refused = time.time() - 60, refused
    result = run_module(
        monkeypatch,
        module,
        systemd,
        services=[service("a.service"), service("b.service", test=["nginx", "-t"], reload_files=[str(path)])],
    )
    assert (result["failed"], result["msg"], result["steps"]) == (True, message, ["reload b.service"])
    assert (path.stat().st_ctime_ns > before) == (refused == "reload")


def test_several_services_and_one(monkeypatch: pytest.MonkeyPatch, systemd: Systemd) -> None:
    module = load_plugin("plugins/modules/configured_service.py")
    systemd.enabled = "disabled"
    wanted = [service("a.service", enabled=False), service("b.timer"), service("c.timer")]
    result = run_module(monkeypatch, module, systemd, services=wanted)
    assert result["steps"] == ["enable b.timer", "enable c.timer"]
    assert run_module(monkeypatch, module, systemd, **service("d.timer"))["steps"] == ["enable d.timer"]


def test_folders_have_exactly_their_permissions(tmp_path: Path) -> None:
    folder = {"path": str(tmp_path / "a" / "gate"), "mode": "0700", **OWN}
    (change,) = host_files.plan_folders([folder])
    assert host_files.diff(change)["after"] == f"{ME}:{MY_GROUP} 0700\n"
    host_files.apply([change], Systemd())
    assert (tmp_path / "a" / "gate").stat().st_mode & 0o777 == 0o700
    assert host_files.plan_folders([folder]) == []
    (tmp_path / "a" / "gate").chmod(0o755)
    host_files.apply(host_files.plan_folders([folder]), Systemd())
    assert (tmp_path / "a" / "gate").stat().st_mode & 0o777 == 0o700


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    (tmp_path / "gate").symlink_to(tmp_path / "theirs")
    with pytest.raises(host_files.HostFilesError, match="gate is not a folder"):
        host_files.plan_folders([{"path": str(tmp_path / "gate"), "mode": "0700", **OWN}])
    assert (tmp_path / "theirs").stat().st_mode & 0o777 == 0o755
