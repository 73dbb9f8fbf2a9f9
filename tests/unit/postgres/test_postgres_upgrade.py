"""Another major version of PostgreSQL: the data is copied, the former cluster stays, and there is a way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.postgres import server as logic
from fakes import run_module
from loading import load_plugin


class Host:
    """A host with clusters, on which Debian's programs do what they are made for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = load_plugin("plugins/modules/postgres_upgrade.py")
        self.folder, self.monkeypatch = folder, monkeypatch
        monkeypatch.setattr(logic, "SETTINGS", folder / "etc")
        monkeypatch.setattr(logic, "DATA", folder)
        monkeypatch.setattr(logic.clusters, "__defaults__", (folder / "etc",))
        self.calls: list[list[str]] = []
        self.fails, self.megabytes, self.closed = "", 10, "[]"

    def make(self, version: str, port: int, start: str) -> None:
        settings, data = self.folder / "etc" / version / "main", self.folder / "lib" / version
        settings.mkdir(parents=True, exist_ok=True)
        data.mkdir(parents=True, exist_ok=True)
        (settings / "postgresql.conf").write_text(f"data_directory = '{data}'\nport = {port}\t# it\n")
        (settings / "start.conf").write_text(f"{start}\n")
        (data / "PG_VERSION").write_text(version)

    def run_command(self, command: list[str], data: str | None = None, **_options: Any) -> tuple[int, str, str]:
        if command[0] == "du":
            return 0, f"{self.megabytes}\t/x\n", ""
        if command[0] == "pg_lsclusters":
            return 0, "15 main 5432 online\n", ""
        if "psql" in command:
            return (0, f"{self.closed}\n", "") if self.closed else (2, "", "no server\n")
        self.calls.append(command)
        if self.fails and command[0] == self.fails:
            return 1, "", "it says why\n"
        if command[0] == "pg_upgradecluster":
            self.make("15", 5433, "manual")
            self.make("17", 5432, "auto")
        if command[0] == "pg_conftool":
            path = self.folder / "etc" / command[1] / "main" / "postgresql.conf"
            path.write_text(path.read_text() + f"port = {command[-1]}\n")
        if command[-2] == "tee" and data is not None:
            # Root must not write there: the folder is postgres's.
            assert "--reuid=postgres" in command
            Path(command[-1]).write_text(data)
        return 0, "", ""

    def run(self, state: str = "upgraded", check: bool = False, method: str = "upgrade") -> dict[str, Any]:
        given = {"cluster": "17/main", "state": state, "method": method}
        found = run_module(self.monkeypatch, self.module, self.run_command, check=check, **given)
        assert found.pop("warnings") == []
        return found

    def state(self) -> dict[str, tuple[int, bool]]:
        folders = {version: self.folder / "etc" / version / "main" for version in ("15", "17")}
        return {version: (logic.port(path), logic.starts(path)) for version, path in folders.items()}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path, monkeypatch)
    found.make("15", 5432, "auto")
    return found


def test_there_and_back_and_a_second_time_nothing(host: Host) -> None:
    assert host.run() == {"changed": True, "former": "15"}
    assert [call[0] for call in host.calls] == ["pg_upgradecluster", "setpriv"]
    assert host.run()["changed"] is False
    assert host.run("back") == {"changed": True, "former": "15"}
    assert host.state() == {"15": (5432, True), "17": (5433, False)}
    assert host.run("back")["changed"] is False


def test_check_mode_moves_nothing(host: Host) -> None:
    assert host.run(check=True)["changed"]
    assert host.calls == []


def test_a_dump_is_refused_before_anything_is_touched(host: Host) -> None:
    """It would run what the apps' owners have written as a superuser."""
    found = host.run(method="dump")
    assert found["failed"]
    assert "method=dump is no longer supported" in found["msg"]
    assert "Nothing has been changed" in found["msg"]
    assert host.calls == []


def test_without_room_for_a_copy_nothing_is_touched(host: Host) -> None:
    host.megabytes = 10**12
    assert "Nothing has been changed" in host.run()["msg"]
    assert host.calls == []


def test_a_database_that_would_be_left_behind_is_named(host: Host) -> None:
    host.closed = '["shop_old"]'
    assert "ALTER DATABASE shop_old WITH ALLOW_CONNECTIONS true" in host.run()["msg"]
    host.closed = ""
    assert "must run" in host.run()["msg"]
    assert host.calls == []


def test_a_failure_says_where_the_data_is(host: Host) -> None:
    host.fails = "pg_upgradecluster"
    message = host.run()["msg"]
    assert "it says why" in message
    assert str(host.folder / "lib" / "15") in message


def test_an_upgrade_that_was_cut_off_is_not_taken_for_one_that_is_done(host: Host) -> None:
    host.make("17", 5433, "auto")
    message = host.run()["msg"]
    # The former one was stopped by then, and has to run for another upgrade, and for the apps until then.
    assert "sudo pg_dropcluster --stop 17 main; sudo systemctl start postgresql@15-main" in message
    assert host.calls == []


def test_a_host_without_another_version(host: Host) -> None:
    assert "no previous cluster to return to" in host.run("back")["msg"]
    (host.folder / "lib" / "15" / "PG_VERSION").unlink()
    assert "Run site.yml" in host.run()["msg"]
