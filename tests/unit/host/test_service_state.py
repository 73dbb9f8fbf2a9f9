"""A service is started, reloaded or restarted when its files say so, and at no other time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.host import service_state
from ansible.module_utils.flaskhost.host.service_state import state_changed_at, steps, youngest

RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "StateChangeTimestamp": "Sat 2026-11-21 10:30:12.123456 UTC",
}


def at(seconds: float) -> str:
    """A time as ``systemctl show --timestamp=us+utc`` writes it."""
    return time.strftime("%a %Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06d} UTC"


def test_what_systemctl_shows_is_read() -> None:
    text = "ActiveState=active\nDescription=a=b\nStateChangeTimestamp=\n\nno line of its\n"
    assert service_state.parse_show(text) == {"ActiveState": "active", "Description": "a=b", "StateChangeTimestamp": ""}
    assert service_state.parse_show("") == {}


def test_a_time_is_read_in_utc() -> None:
    assert state_changed_at(RUNNING) == 1795257012.123456
    assert state_changed_at({"StateChangeTimestamp": "Thu 1970-01-01 00:00:01 UTC"}) == 1.0
    assert state_changed_at({"StateChangeTimestamp": at(1795257012.25)}) == 1795257012.25


@pytest.mark.parametrize("text", ["", "n/a", "0", "@1795257012", "Sat 2026-13-41 10:30:12 UTC", "a b c d"])
def test_no_time_is_long_ago(text: str) -> None:
    assert state_changed_at({"StateChangeTimestamp": text}) == 0.0
    assert state_changed_at({}) == 0.0


def test_the_youngest_of_files_and_folders(tmp_path: Path) -> None:
    assert youngest([]) == 0.0
    assert youngest([str(tmp_path / "missing")]) == 0.0
    for name in ("old", "folder/new"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        time.sleep(0.02)
    new = (tmp_path / "folder/new").stat().st_ctime
    assert youngest([str(tmp_path / "old")]) < new
    assert youngest([str(tmp_path / "folder"), str(tmp_path / "old")]) == new


def test_a_file_that_is_taken_out_of_a_folder_counts(tmp_path: Path) -> None:
    (tmp_path / "site").touch()
    before = youngest([str(tmp_path)])
    time.sleep(0.02)
    (tmp_path / "site").unlink()
    assert youngest([str(tmp_path)]) > before


def test_the_time_in_a_file_is_not_believed(tmp_path: Path) -> None:
    """An archive, or a copy that keeps times, brings an old one along."""
    began = time.time() - 1
    file = tmp_path / "site"
    file.touch()
    os.utime(file, (0, 0))
    assert youngest([str(file)]) > began


def test_a_link_that_leads_nowhere_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("missing")
    assert youngest([str(tmp_path / "link")]) == 0.0
    assert youngest([str(tmp_path)]) == tmp_path.stat().st_ctime


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "nginx.conf"
    path.touch()
    return str(path)


def since(file: str, seconds: float) -> dict[str, str]:
    """A service that changed its state some seconds after the file was written."""
    return {**RUNNING, "StateChangeTimestamp": at(Path(file).stat().st_ctime + seconds)}


# -- a clock that was set back -----------------------------------------------------------------------------------------


def changed(seconds: float, ahead: float) -> dict[str, str]:
    """A service that changed its state some seconds ago, while the clock was ahead by others."""
    elapsed = int((time.monotonic() - seconds) * 1e6)
    text = at(time.time() - seconds + ahead)
    return {**RUNNING, "StateChangeTimestamp": text, "StateChangeTimestampMonotonic": str(elapsed)}


def test_a_state_that_was_changed_by_a_clock_ahead_is_as_old_as_it_is(file: str) -> None:
    """Else no change of a file would reach the service until the clock is there again."""
    assert state_changed_at(changed(60, ahead=3600)) == pytest.approx(time.time() - 60, abs=1)
    assert steps(changed(60, ahead=3600), True, [file], []) == ["reload"]


@pytest.mark.parametrize("ahead", [0, -3600])
def test_a_clock_that_is_right_or_was_late_is_believed(ahead: float) -> None:
    properties = changed(60, ahead)
    assert state_changed_at(properties) == state_changed_at({**properties, "StateChangeTimestampMonotonic": ""})


def test_files_of_the_future_get_the_present_time_and_others_keep_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was written with the clock ahead would restart its service at every run."""
    paths = [tmp_path / name for name in ("old", "folder/new", "missing")]
    for path in paths[:2]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    times = {path: path.stat().st_ctime_ns for path in (*paths[:2], tmp_path / "folder")}
    service_state.settle(map(str, [paths[0], tmp_path / "folder", paths[2]]))
    assert {path: path.stat().st_ctime_ns for path in times} == times
    now = time.time()
    monkeypatch.setattr(service_state.time, "time", lambda: now - 3600)
    before = paths[1].stat()
    service_state.settle([str(tmp_path / "folder")])
    assert paths[0].stat().st_ctime_ns == times.pop(paths[0])
    assert all(path.stat().st_ctime_ns > time_then for path, time_then in times.items())
    assert (paths[1].stat().st_mtime_ns, paths[1].read_text()) == (before.st_mtime_ns, "x")


def test_a_service_that_runs_with_its_files_is_left_alone(file: str) -> None:
    assert steps(since(file, 1), True, [file], [file]) == []
    assert steps(RUNNING, True, [], []) == []


def test_a_younger_file_is_taken_in(file: str) -> None:
    assert steps(since(file, -1), True, [file], []) == ["reload"]
    assert steps(since(file, -1), True, [], [file]) == ["restart"]


def test_a_restart_is_a_reload_too(file: str) -> None:
    assert steps(since(file, -1), True, [file], [file]) == ["restart"]


@pytest.mark.parametrize("state", ["inactive", "failed", "activating", "deactivating", ""])
def test_a_service_that_does_not_run_is_started_and_nothing_else(file: str, state: str) -> None:
    assert steps({**since(file, -1), "ActiveState": state}, True, [file], [file]) == ["start"]


def test_a_service_that_reloads_is_running(file: str) -> None:
    assert steps({**since(file, 1), "ActiveState": "reloading"}, True, [file], []) == []


@pytest.mark.parametrize("state", ["disabled", "enabled-runtime", "linked", "masked", ""])
def test_a_service_that_a_reboot_would_not_start_is_enabled(state: str) -> None:
    assert steps({**RUNNING, "UnitFileState": state}, True, [], []) == ["enable"]
    assert steps({**RUNNING, "UnitFileState": state}, False, [], []) == []


@pytest.mark.parametrize("state", ["static", "generated", "alias", "indirect"])
def test_a_service_that_cannot_be_enabled_is_left_alone(state: str) -> None:
    assert steps({**RUNNING, "UnitFileState": state}, True, [], []) == []


def test_a_changed_unit_is_read_first(file: str) -> None:
    properties = {**since(file, -1), "NeedDaemonReload": "yes", "UnitFileState": "disabled"}
    assert steps(properties, True, [], [file]) == ["daemon-reload", "enable", "restart"]


def test_a_unit_that_is_new_is_read_enabled_and_started(file: str) -> None:
    properties = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": "", "NeedDaemonReload": "no"}
    assert steps(properties, True, [file], []) == ["daemon-reload", "enable", "start"]
    assert steps({}, True, [], []) == ["enable", "start"]


@pytest.mark.parametrize(
    ("state", "needed"), [("active", ["daemon-reload", "restart"]), ("inactive", ["daemon-reload", "start"])]
)
def test_a_folder_of_dropins_that_systemd_does_not_know_yet_is_read_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, needed: list[str]
) -> None:
    monkeypatch.setattr(service_state, "UNITS", f"{tmp_path}/")
    folder = tmp_path / "web.service.d"
    folder.mkdir()
    properties = {"NeedDaemonReload": "no", "LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": state}
    assert steps(properties, True, [], [str(folder)]) == needed


def test_settings_that_are_no_units_need_no_reading_of_units(tmp_path: Path) -> None:
    properties = {"LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": "active"}
    assert steps(properties, True, [], [str(tmp_path)]) == ["restart"]
