"""A one-off command runs in the release that serves, confined like it, and its end is told as it is."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy.records import RECORD, Record
from fakes import Unit, run_command, run_module, unsandboxed, without_limit
from loading import load_plugin

SECRET = "correct horse"


class Host:
    """A host where the release ``new`` serves, and the module on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = load_plugin("plugins/modules/flask_run.py")
        self.root, self.freeze, self.monkeypatch = folder / "shop", folder / "freeze.json", monkeypatch
        for name in ("old", "new"):
            (self.root / "releases" / name / "app").mkdir(parents=True)
            (self.root / "releases" / name / "venv/bin").mkdir(parents=True)
            text = f'FLASKHOST_RELEASE="{name}"\nMAIL_PASSWORD="{SECRET}"\nSECRET_KEY="from the release"\n'
            (self.root / "releases" / name / "env").write_text(text)
        (folder / "secret_key.env").write_text('SECRET_KEY="made"\n')
        (self.root / "slots").mkdir()
        (self.root / "slots/blue").symlink_to("../releases/old")
        (self.root / "slots/green").symlink_to("../releases/new")
        (self.root / "live.sock").symlink_to(folder / "run/green.sock")
        self.options = {
            "app": "shop",
            "user": "shop",
            "root": str(self.root),
            "data": str(self.root / "data"),
            "secret_key_file": str(folder / "secret_key.env"),
            "unit": "flask-shop",
            "socket_dir": str(folder / "run"),
            "live_socket": str(self.root / "live.sock"),
            "freeze": str(self.freeze),
        }
        (folder / "journald@flask-shop.conf").touch()
        monkeypatch.setattr(self.module.require_journal, "__defaults__", (folder,))
        self.calls: list[list[str]] = []
        self.units: list[Unit] = []
        self.wrapped = unsandboxed(self.units)

    def _run(self, args: Sequence[str], **options: Any) -> tuple[int, str, str]:
        if options.get("expand_user_and_vars", True):
            args = [os.path.expandvars(item) for item in args]  # what AnsibleModule does
        args = without_limit(args)
        self.calls.append(args)
        return self.wrapped(args, **options)

    def run(self, command: str, check: bool = False, **changes: Any) -> dict[str, Any]:
        given = {**self.options, "command": command, **changes}
        return run_module(self.monkeypatch, self.module, self._run, check=check, **given)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_command_runs_in_the_live_release_with_its_variables(host: Host) -> None:
    told = host.run('echo "$FLASKHOST_RELEASE"; pwd; echo "$PATH $PYTHONPATH $HOME"')
    folder = f"{host.root}/releases/new"
    assert told["output"].splitlines() == [
        "new",
        f"{folder}/app",
        f"{folder}/venv/bin:/usr/local/bin:/usr/bin:/bin {folder}/app:{folder}/app/src {host.root}/data",
    ]
    assert (told["rc"], told["changed"], told["release"]) == (0, True, "new")


def test_it_is_the_users_shell_command_unchanged(host: Host) -> None:
    told = host.run("A=$((20 + 1)); printf '%s' \"$A $HOME\" | tr 1 2")
    assert told["output"] == f"22 {host.root}/data".replace("1", "2")


def test_the_releases_own_variables_win(host: Host) -> None:
    assert host.run('echo "$SECRET_KEY"')["output"] == "from the release"
    files = [item for item in host.calls[-1] if "EnvironmentFile" in item]
    assert files == [
        f"--property=EnvironmentFile=-{host.options['secret_key_file']}",
        f"--property=EnvironmentFile={host.root}/releases/new/env",
    ]


def test_it_is_confined_to_the_apps_user_and_data(host: Host) -> None:
    host.run("true", timeout=77)
    (unit,) = host.units
    assert {"--uid=shop", "--gid=shop"} <= set(host.calls[-1])
    assert unit.properties["ReadWritePaths"] == [f"{host.root}/data"]
    assert unit.properties["ProtectSystem"] == ["strict"]
    assert unit.properties["RuntimeMaxSec"] == ["77"]


def test_as_the_owner_of_the_tables_it_has_the_owners_variables(host: Host, tmp_path: Path) -> None:
    owner = tmp_path / "database_owner.env"
    assert "does not exist on this host" in host.run("true", owner_file=str(owner))["msg"]
    owner.write_text('PGPASSWORD="sesame"\n')
    host.calls.clear()
    host.run("true", owner_file=str(owner))
    assert f"--property=EnvironmentFile={owner}" in host.calls[-1]
    assert {"--uid=shop", "--gid=flaskhost-owner", "--property=SupplementaryGroups=shop"} <= set(host.calls[-1])
    host.run("true")
    assert not any(str(owner) in item for item in host.calls[-1])


def test_a_deploy_does_not_stop_it(host: Host) -> None:
    """A deploy stops the units whose names begin like those of its own tasks."""
    host.run("true")
    (name,) = (item for item in host.calls[-1] if item.startswith("--unit="))
    assert name.startswith("--unit=flask-shop_run-")


def test_no_secret_is_in_the_arguments_or_the_answer(host: Host) -> None:
    told = host.run("echo done")
    assert SECRET not in json.dumps([told, host.calls])


def test_secrets_of_one_run_are_in_a_file_of_roots_while_it_runs_and_nowhere_else(host: Host, tmp_path: Path) -> None:
    host.monkeypatch.setattr(host.module.drivers, "RUNTIME", tmp_path / "run/flaskhost")
    (tmp_path / "run").mkdir()
    hard = 'a "quoted" $HOME `id` \\ secret\nof two lines'
    told = host.run('printf "%s" "$MAIL_PASSWORD$COUNT" | sha256sum', secrets={"MAIL_PASSWORD": hard, "COUNT": 3})
    assert told["output"].split()[0] == hashlib.sha256(f"{hard}3".encode()).hexdigest()
    assert hard not in json.dumps([told, host.calls])
    file = host.units[-1].properties["EnvironmentFile"][-1]
    assert file.startswith(f"{tmp_path}/run/flaskhost/run-"), "the last file wins"
    # A module that is killed leaves the command behind, and systemd removes the file.
    assert host.units[-1].properties["ExecStopPost"][-1] == f"-+/bin/rm --force {file}"
    assert list((tmp_path / "run/flaskhost").iterdir()) == []
    assert (tmp_path / "run/flaskhost").stat().st_mode & 0o777 == 0o700
    assert host.module.ARGUMENT_SPEC["secrets"]["no_log"] is True
    told = host.run("true", secrets={"no name": "x"})
    assert told["failed"]
    assert "'no name' cannot be an environment variable" in told["msg"]


def test_without_secrets_there_is_no_file(host: Host, tmp_path: Path) -> None:
    host.monkeypatch.setattr(host.module.drivers, "RUNTIME", tmp_path / "run")
    host.run("true")
    assert not [line for line in host.units[-1].properties["ExecStopPost"] if str(tmp_path / "run") in line]
    assert not (tmp_path / "run").exists()


def test_an_owner_has_the_driver_of_the_live_release(host: Host, tmp_path: Path) -> None:
    host.monkeypatch.setattr(host.module.drivers, "RUNTIME", tmp_path / "run")
    host.monkeypatch.setattr(host.module, "as_owner", lambda *_arguments: "flaskhost-owner")
    record = Record("new", "1", "1", "1", driver="psycopg2")
    (host.root / "releases/new" / RECORD).write_text(json.dumps(asdict(record)), encoding="utf-8")
    owner = tmp_path / "owner.env"
    owner.write_text(f'STORE="postgresql+psycopg://shop-owner:{SECRET[:7]}@/shop?host=/run"\n', encoding="utf-8")
    told = host.run('printf "%s" "$STORE" | sha256sum', owner_file=str(owner), secrets={"A": "b"})
    uri = f"postgresql+psycopg2://shop-owner:{SECRET[:7]}@/shop?host=/run"
    assert told["output"].split()[0] == hashlib.sha256(uri.encode()).hexdigest()
    *_others, login, once = host.units[-1].properties["EnvironmentFile"]
    assert host.units[-1].properties["ExecStopPost"][-1] == f"-+/bin/rm --force {login} {once}"
    assert list((tmp_path / "run").iterdir()) == []


def test_both_outputs_are_shown(host: Host) -> None:
    assert host.run("echo out; echo err >&2")["output"] == "out\nerr"


def test_a_failure_is_told_with_status_and_output(host: Host) -> None:
    told = host.run("echo out; echo err >&2; exit 3")
    assert told["failed"]
    assert told["rc"] == 3
    assert told["msg"] == "'echo out; echo err >&2; exit 3' failed with exit code 3:\nout\nerr"
    assert host.run("exit 4")["msg"] == "'exit 4' failed with exit code 4, without output."


def test_a_failed_command_is_told_without_what_may_be_a_secret(host: Host) -> None:
    told = host.run("TOKEN=sesame sh -c 'exit 3'")
    assert told["msg"] == "'TOKEN=*** sh -c 'exit 3'' failed with exit code 3, without output."


def test_a_command_that_takes_too_long_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 901.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    host.wrapped = lambda _args, **_options: (1, "", "")
    assert "was stopped after 900 s" in host.run("sleep 1000")["msg"]


def test_check_mode_runs_nothing(host: Host) -> None:
    told = host.run("touch nothing", check=True)
    assert (told["changed"], host.calls) == (True, [])


def test_without_a_live_release_nothing_is_run(host: Host) -> None:
    (host.root / "live.sock").unlink()
    told = host.run("true")
    assert told["failed"]
    assert "no release of shop is live" in told["msg"]
    assert "deploy.yml" in told["msg"]
    assert host.calls == []


def test_a_host_that_an_earlier_version_has_set_up_is_left_alone(host: Host, tmp_path: Path) -> None:
    (tmp_path / "journald@flask-shop.conf").unlink()
    result = host.run("true")
    assert result["failed"]
    assert "site.yml" in result["msg"]
    assert not host.units


def test_a_frozen_app_is_left_alone_unless_forced(host: Host) -> None:
    host.freeze.write_text(json.dumps({"*": {"reason": "audit", "until": 4e9, "since": 1, "by": "ada@laptop"}}))
    told = host.run("true")
    assert told["failed"]
    assert "audit" in told["msg"]
    assert "-e force=true" in told["msg"]
    assert host.calls == []
    assert host.run("true", force=True)["rc"] == 0


@pytest.mark.parametrize("timeout", [0, -5])
def test_a_time_that_is_none_is_refused(host: Host, timeout: int) -> None:
    assert "timeout" in host.run("true", timeout=timeout)["msg"]
    assert host.calls == []


def test_the_stand_in_runs_what_it_is_given() -> None:
    """What the tests above rest on."""
    assert run_command(["/bin/sh", "-c", "exit 5"])[0] == 5
