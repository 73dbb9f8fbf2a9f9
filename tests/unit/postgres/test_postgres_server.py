"""A PostgreSQL server runs with what is on the disk: when it is restarted, and what is taken back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import files as host_files
from ansible.module_utils.flaskhost.postgres import server as logic
from fakes import run_module
from loading import load_plugin

FINE: dict[str, Any] = {"settings": [], "access": [], "checksums": True}
REMOVED = 'parameter "shared_buffers" cannot be changed without restarting the server'


# --- The guard -------------------------------------------------------------------------------------------------------


def cluster(folder: Path, version: str, name: str = "main", data: Path | None = None) -> Path:
    settings = folder / "etc" / version / name
    settings.mkdir(parents=True)
    data = data or folder / "lib" / version / name
    (settings / "postgresql.conf").write_text(f"#data_directory = 'x'\ndata_directory = '{data}'\t# where\n")
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text(f"{version}\n")
    return data


def test_clusters_with_data_are_found_where_their_settings_say(tmp_path: Path) -> None:
    elsewhere = cluster(tmp_path, "15", data=tmp_path / "big disk")
    cluster(tmp_path, "15", "other")
    (tmp_path / "etc" / "16" / "main").mkdir(parents=True)
    assert logic.clusters("main", tmp_path / "etc") == {"15": elsewhere}


@pytest.mark.parametrize(
    ("there", "started"),
    [
        ([], []),
        (["17"], ["17"]),
        (["17"], []),
        (["15", "17"], ["17"]),
        (["15", "17"], ["15", "17"]),
        (["15", "17"], []),
    ],
)
def test_a_host_with_its_own_version_or_with_none_goes_on(there: list[str], started: list[str]) -> None:
    logic.guard("17", {version: Path("/x") for version in there}, started)


def test_a_host_that_has_gone_back_is_left_there() -> None:
    """The newer cluster is still on the disk, and is not started at boot."""
    with pytest.raises(logic.ServerError, match='postgres_version: "15"'):
        logic.guard("17", {"15": Path("/old"), "17": Path("/new")}, ["15"])


@pytest.mark.parametrize(("text", "auto"), [("# auto\nmanual\n", False), ("# x\n\nauto # y\n", True), ("", True)])
def test_what_starts_at_boot_is_in_its_file(text: str, auto: bool, tmp_path: Path) -> None:
    assert logic.starts(tmp_path)
    (tmp_path / "start.conf").write_text(text)
    assert logic.starts(tmp_path) is auto


def test_data_of_another_version_stops_with_the_ways_out() -> None:
    with pytest.raises(logic.ServerError) as caught:
        logic.guard("17", {"13": Path("/x"), "15": Path("/var/lib/postgresql/15/main")}, ["13", "15"])
    for words in ("/var/lib/postgresql/15/main", 'postgres_version: "15"', "playbooks/upgrade_postgres.yml", "Nothing"):
        assert words in str(caught.value)


# --- What the server says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reasons", "problems"),
    [
        ([], [], []),
        ([["shared_buffers", logic.WAITS], ["shared_buffers", logic.WAITS]], ["shared_buffers"], []),
        ([["", REMOVED]], ["shared_buffers"], []),
        (
            [["wrok_mem", "unrecognized configuration parameter"]],
            [],
            ["wrok_mem: unrecognized configuration parameter"],
        ),
        ([["", "syntax error"]], [], ["a settings file: syntax error"]),
    ],
)
def test_what_waits_for_a_restart_is_no_fault(settings: list[Any], reasons: list[str], problems: list[str]) -> None:
    answer = {**FINE, "settings": settings}
    assert logic.restart_reasons(answer) == reasons
    assert logic.file_problems(answer) == problems


def test_a_line_of_who_may_log_in_is_named() -> None:
    answer = {**FINE, "access": [[4, 'invalid connection type "x"']]}
    assert logic.file_problems(answer) == ['line 4 of pg_hba.conf: invalid connection type "x"']


def test_a_rule_for_tls_may_come_with_tls() -> None:
    answer = {**FINE, "access": [[4, "hostssl record cannot match because SSL is disabled"]]}
    assert logic.file_problems(answer) == []


@pytest.mark.parametrize(
    ("steps", "reasons", "wanted"),
    [
        (["reload"], [], ["reload"]),
        (["reload"], ["shared_buffers"], ["restart"]),
        ([], ["shared_buffers"], ["restart"]),
        (["daemon-reload", "restart"], ["shared_buffers"], ["daemon-reload", "restart"]),
        (["start"], ["shared_buffers"], ["start"]),
        ([], [], []),
    ],
)
def test_it_is_restarted_for_what_a_reload_does_not_take_in(
    steps: list[str], reasons: list[str], wanted: list[str]
) -> None:
    assert logic.service_steps(steps, reasons) == wanted


def test_what_it_says_against_settings_is_told_without_the_name_that_the_file_had() -> None:
    text = (
        '2026-11-22 01:26:33 GMT [12] LOG:  unrecognized configuration parameter "wrok_mem" in file "/x/.y" line 1\n'
        '2026-11-22 01:26:33 GMT [12] FATAL:  configuration file "/x/.y" contains errors\n'
    )
    assert logic.refusals(text) == 'unrecognized configuration parameter "wrok_mem"'


# --- The module ------------------------------------------------------------------------------------------------------


class Host:
    """A host whose systemd and PostgreSQL answer what they are told to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = load_plugin("plugins/modules/postgres_server.py")
        self.monkeypatch, self.folder = monkeypatch, folder
        monkeypatch.setattr(logic, "SETTINGS", folder / "etc")
        monkeypatch.setattr(logic.clusters, "__defaults__", (folder / "etc",))
        monkeypatch.setattr(host_files, "numbers", lambda *_: (folder.stat().st_uid, folder.stat().st_gid))
        cluster(folder, "17")
        self.settings = folder / "etc/17/main/conf.d/60-flaskhost.conf"
        self.access = folder / "etc/17/main/pg_hba.conf"
        self.answer, self.refuses, self.fails = FINE, "", set[str]()
        self.began, self.calls = "Sat 2200-01-01 00:00:00.000000 UTC", list[str]()

    def run_command(self, args: list[str], **options: Any) -> tuple[int, str, str]:
        if "psql" in args:
            assert options["data"] in (logic.QUESTION, "CHECKPOINT")
            self.calls += ["checkpoint"] if options["data"] == "CHECKPOINT" else []
            return 0, json.dumps(self.answer), ""
        if args[0] == "setpriv" and "-C" in args:
            return (1, "", f"x LOG:  {self.refuses}") if self.refuses else (0, "100", "")
        if args[:2] == ["systemctl", "show"]:
            return 0, f"LoadState=loaded\nActiveState=active\nStateChangeTimestamp={self.began}\n", ""
        if args[0] == "journalctl":
            return 0, "FATAL: it says why\n", ""
        what = args[1] if args[0] == "systemctl" else Path(args[5]).name
        self.calls.append(what)
        if what in self.fails:
            self.fails.discard(what)
            return 1, "", "failed"
        return 0, "", ""

    def run(self, check: bool = False, **changes: Any) -> dict[str, Any]:
        files = {
            "settings_file": {"path": str(self.settings), "content": "work_mem = '8MB'\n"},
            "access_file": {"path": str(self.access), "content": "local all postgres peer\n"},
        }
        given = {"cluster": "17/main", **files, **changes}
        return run_module(self.monkeypatch, self.module, self.run_command, check=check, **given)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_second_run_changes_nothing(host: Host) -> None:
    assert host.run()["changed"]
    host.calls.clear()
    result = host.run()
    assert (result["changed"], host.calls) == (False, [])


def test_a_library_that_is_not_there_leaves_the_server_and_its_settings_as_they_are(host: Host) -> None:
    host.run()
    before = host.settings.read_text()
    host.calls.clear()
    changed = {"path": str(host.settings), "content": "shared_preload_libraries = 'nope'\n"}
    result = host.run(settings_file=changed)
    assert "no library nope" in result["msg"]
    assert "postgres_extra_packages" in result["msg"]
    assert (host.settings.read_text(), host.calls) == (before, [])


def test_a_change_that_needs_no_restart_is_reloaded(host: Host) -> None:
    host.began = "Sat 2000-01-01 00:00:00.000000 UTC"
    assert host.run()["steps"] == ["reload"]


def test_another_environment_alone_waits_for_the_next_restart(host: Host) -> None:
    """It follows work_mem, and so the number of workers: a restart for it would cost visitors more than it gives."""
    host.began = "Sat 2000-01-01 00:00:00.000000 UTC"
    file = {"path": str(host.folder / "etc/17/main/environment"), "content": "MALLOC_TRIM_THRESHOLD_ = '8'\n"}
    assert host.run(environment_file=file)["steps"] == ["reload"]
    assert Path(file["path"]).read_text() == file["content"]


def test_a_change_that_needs_one_is_a_restart(host: Host) -> None:
    host.answer = {**FINE, "settings": [["shared_buffers", logic.WAITS]]}
    result = host.run()
    assert (result["steps"], result["reasons"]) == (["restart"], ["shared_buffers"])


def test_a_run_that_was_killed_before_its_restart_is_made_good(host: Host) -> None:
    host.run()
    host.answer = {**FINE, "settings": [["shared_buffers", logic.WAITS]]}
    assert host.run()["steps"] == ["restart"]


def test_a_setting_that_is_refused_is_not_put_in_place(host: Host) -> None:
    host.run()
    host.refuses = 'invalid value for parameter "work_mem": "much"'
    file = {"path": str(host.settings), "content": "work_mem = 'much'\n"}
    result = host.run(settings_file=file)
    assert 'invalid value for parameter "work_mem": "much"' in result["msg"]
    assert host.settings.read_text() == "work_mem = '8MB'\n"


def test_rules_that_are_refused_are_taken_back_before_a_reload(host: Host) -> None:
    host.run()
    host.calls.clear()
    host.answer = {**FINE, "access": [[1, "nonsense"]]}
    result = host.run(access_file={"path": str(host.access), "content": "nonsense\n"})
    assert "line 1 of pg_hba.conf: nonsense" in result["msg"]
    assert host.access.read_text() == "local all postgres peer\n"
    assert host.calls == []


def test_settings_with_which_it_does_not_start_are_taken_back(host: Host) -> None:
    host.run()
    host.calls.clear()
    host.answer, host.fails = {**FINE, "settings": [["shared_buffers", logic.WAITS]]}, {"restart"}
    result = host.run(settings_file={"path": str(host.settings), "content": "shared_buffers = '900GB'\n"})
    assert "FATAL: it says why" in result["msg"]
    assert "runs again with the previous files" in result["msg"]
    assert host.settings.read_text() == "work_mem = '8MB'\n"
    # What is written before it stops need not be written while nobody is served.
    assert host.calls == ["checkpoint", "restart", "daemon-reload", "restart"]


def test_check_mode_touches_nothing(host: Host) -> None:
    result = host.run(check=True)
    assert result["changed"]
    assert not host.settings.exists()
    assert host.calls == []


def test_a_cluster_without_checksums_is_told_of(host: Host) -> None:
    host.answer = {**FINE, "checksums": False}
    (warning,) = host.run()["warnings"]
    assert "postgres_enable_checksums" in warning


def test_check_mode_asks_a_server_that_runs_for_its_checksums(host: Host) -> None:
    assert host.run()["checksums"]
    host.answer = {**FINE, "checksums": False}
    result = host.run(check=True)
    assert (result["changed"], result["checksums"], len(result["warnings"])) == (False, False, 1)


def test_checksums_are_added_while_it_is_stopped_and_it_starts_again(host: Host) -> None:
    host.run()
    host.calls.clear()
    host.answer = {**FINE, "checksums": False}
    assert host.run(enable_checksums=True)["steps"] == ["checksums"]
    assert host.calls == ["stop", "pg_checksums", "start"]
    host.calls.clear()
    host.fails = {"pg_checksums"}
    assert "checksums could not be enabled" in host.run(enable_checksums=True)["msg"]
    assert host.calls == ["stop", "pg_checksums", "start"], "PostgreSQL does not stay stopped"


def test_the_guard_alone_changes_nothing(host: Host) -> None:
    assert host.run(only_guard=True) == {
        "changed": False, "steps": [], "reasons": [], "checksums": True, "warnings": []
    }  # fmt: skip
    cluster(host.folder, "15")
    (host.folder / "lib/17/main/PG_VERSION").unlink()
    assert "Nothing has been changed" in host.run(only_guard=True)["msg"]


# -- who may log in until a release does without ----------------------------------------------------------------------

HBA = """# Ansible managed
local   all             postgres                        peer
local   all             +flaskhost_session              scram-sha-256
local   "shop" "shop" peer map=flaskhost
local   "shop" "shop-owner" scram-sha-256
local   "my-blog" "my-blog" peer
hostssl all             postgres        all             reject
hostssl "my-blog" "my-blog" 10.0.0.0/24 scram-sha-256
"""
POOLS = "[databases]\nshop = host=/var/run/postgresql pool_size=7\nold = host=/var/run/postgresql pool_size=3\n"


def test_whom_the_files_on_the_disk_still_let_in_is_read(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logic, "POOLS", tmp_path / "pgbouncer.ini")

    def leaving(**wanted: int) -> list[dict[str, Any]]:
        return list(host.run(databases_in_use=wanted)["leaving"])

    # A bare host.
    assert leaving(shop=7) == []
    (tmp_path / "pgbouncer.ini").write_text(POOLS)
    host.access.write_text(HBA)
    assert leaving(shop=7, **{"my-blog": 0}) == leaving(shop=9, **{"my-blog": 5}) == []
    assert leaving(**{"my-blog": 0}) == [{"name": "shop", "pool": 7}]
    assert leaving(shop=7) == [{"name": "my-blog", "pool": 0}]
    # The database stays, and the way by PgBouncer goes.
    assert leaving(shop=0, **{"my-blog": 0}) == [{"name": "shop", "pool": 7}]
    assert (host.calls, host.access.read_text()) == ([], HBA)
