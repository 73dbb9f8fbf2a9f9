"""Instances run with the files on the disk, and those that nobody wants go without losing their data."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import instances
from ansible.module_utils.flaskhost.host.instances import Instances, said_of_itself
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import nest, run_module
from loading import load_plugin

UNIT = "flask-shop_queue.service"
FILE = """\
# Role: {engine}.
[Service]
User=wrong

[Install]
WantedBy=multi-user.target

[X-Flaskhost]
Engine={engine}
User=shop_queue
Config={folder}/shop.conf
State={folder}/state
"""


class Host:
    """A host with the units of one folder: what systemctl shows of them, and the commands that ran."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.units = folder, folder / "units"
        self.units.mkdir()
        self.calls: list[str] = []
        self.refuses, self.status = "", 1
        self.read: list[str] = []
        self.users = {"shop_queue"}
        self.state = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}

    def unit(self, name: str = UNIT, engine: str = "redis") -> Path:
        path = self.units / name
        path.write_text(FILE.format(engine=engine, folder=self.folder))
        return path

    def running(self, since: float) -> None:
        text = time.strftime("%a %Y-%m-%d %H:%M:%S", time.gmtime(since)) + f".{int(since % 1 * 1e6):06d} UTC"
        self.state["StateChangeTimestamp"] = text

    def __call__(self, args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        if args[1] == "show":
            return 0, "".join(f"{key}={value}\n" for key, value in self.state.items()), ""
        if "journalctl" in args:
            self.read.append(" ".join(args))
            return 0, "Bad file format\n\x1b[31mred\n", ""
        self.calls.append(" ".join(args).removeprefix(f"timeout {instances.LONGEST_START} "))
        if self.refuses and self.refuses in self.calls[-1]:
            return self.status, "", "Job failed."
        if args[0] == "userdel":
            self.users.discard(args[1])
        return 0, "", ""

    def instances(self, *units: str, engine: str = "redis") -> Instances:
        wanted = [{"unit": unit, "user": "shop_queue", "config": str(self.folder / "shop.conf")} for unit in units]
        return Instances(self, engine, wanted, units_dir=self.units, is_user=self.users.__contains__)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    owners: list[tuple[str, int, int]] = []

    def chown(path: object, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        assert not (follow_symlinks and Path(str(path)).is_symlink()), "its target would be root's"
        owners.append((str(path), uid, gid))

    monkeypatch.setattr(os, "chown", chown)
    found = Host(tmp_path)
    found.owners = owners
    return found


def test_a_unit_file_says_what_it_is(host: Host) -> None:
    said = said_of_itself(host.unit())
    assert said == {
        "Engine": "redis",
        "User": "shop_queue",
        "Config": f"{host.folder}/shop.conf",
        "State": f"{host.folder}/state",
    }


def test_comments_and_other_sections_say_nothing(host: Host) -> None:
    path = host.units / UNIT
    path.write_text(
        "[X-Flaskhost]\n[Service]\nUser=a\n\n[X-Flaskhost]\n#Engine=b\nConfig=/c=d\nwords\n[Install]\nUser=e\n"
    )
    assert said_of_itself(path) == {"Config": "/c=d"}


def test_units_of_others_are_never_touched(host: Host) -> None:
    """Of the distribution, of an administrator, of another server, and links."""
    (host.units / "own.service").write_text("[Service]\nUser=ada\n")
    host.unit("flask-blog_cache.service", engine="memcached")
    (host.units / "link.service").symlink_to(host.unit())
    assert list(host.instances().leaving()) == [UNIT]
    assert host.instances(UNIT).leaving() == {}
    assert list(host.instances(engine="memcached").leaving()) == ["flask-blog_cache.service"]


def test_a_running_instance_with_its_files_needs_nothing(host: Host) -> None:
    host.unit()
    host.running(time.time() + 100)
    assert host.instances(UNIT).needed() == {}
    assert host.instances(UNIT).missing_users() == []


def test_a_newer_file_restarts_its_instance(host: Host) -> None:
    host.unit()
    host.running(time.time() - 100)
    found = host.instances(UNIT)
    assert found.needed() == {UNIT: ["daemon-reload", "restart"]} or found.needed() == {UNIT: ["restart"]}
    found.take(found.needed())
    assert host.calls[-1] == f"systemctl restart {UNIT}"


def test_newer_settings_restart_their_instance(host: Host) -> None:
    host.unit()
    time.sleep(0.02)
    host.running(time.time())
    time.sleep(0.02)
    assert host.instances(UNIT).needed() == {}
    (host.folder / "shop.conf").write_text("")
    assert host.instances(UNIT).needed() == {UNIT: ["restart"]}
    without = Instances(host, "redis", [{"unit": UNIT, "user": "shop_queue"}], units_dir=host.units)
    assert without.needed() == {}, "of an instance that has no settings"


def test_files_from_a_clock_that_was_ahead_restart_their_instance_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each run would restart it, until the clock has caught up."""
    path = host.unit()
    before, now = path.stat().st_ctime_ns, time.time()
    time.sleep(0.02)
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    host.instances(UNIT).take({UNIT: ["restart"]})
    assert path.stat().st_ctime_ns > before


def test_a_new_instance_gets_a_user_who_cannot_log_in(host: Host) -> None:
    host.users.clear()
    host.state = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
    found = host.instances(UNIT)
    found.create_users(found.missing_users())
    found.take(found.needed())
    assert host.calls[0].endswith("--shell /usr/sbin/nologin shop_queue")
    assert host.calls[1:] == ["systemctl daemon-reload", f"systemctl enable {UNIT}", f"systemctl start {UNIT}"]


def test_an_instance_that_does_not_start_is_tried_again(host: Host) -> None:
    path = host.unit()
    host.state["ActiveState"] = "failed"
    host.refuses = "start"
    before = path.stat().st_ctime_ns
    time.sleep(0.02)
    found = host.instances(UNIT)
    (reason,) = found.take(found.needed())
    assert f"systemctl start {UNIT} failed. Job failed." in reason
    assert path.stat().st_ctime_ns > before, "newer than the failed start"


def test_an_instance_that_does_not_start_holds_up_no_other(host: Host) -> None:
    """An app can have commands in its file that take Redis longer than a start can take, again at each start."""
    other = "flask-blog_queue.service"
    host.unit()
    host.unit(other)
    host.state["ActiveState"] = "failed"
    host.refuses, host.status = f"start {UNIT}", 124
    found = host.instances(UNIT, other)
    (reason,) = found.take(found.needed())
    assert f"systemctl start {UNIT} did not end within 60 s" in reason
    assert host.calls[-1] == f"systemctl start {other}"


def test_the_reason_is_read_from_the_journal_of_the_app(host: Host) -> None:
    host.unit()
    host.state["ActiveState"] = "failed"
    host.refuses = "start"
    wanted = {"unit": UNIT, "user": "shop_queue", "journal": "flask-shop"}
    found = Instances(host, "redis", [wanted], units_dir=host.units, is_user=host.users.__contains__)
    (reason,) = found.take(found.needed())
    assert "Bad file format\nred" in reason, "without control characters"
    assert "--namespace=+flask-shop" in host.read[-1]
    found = host.instances(UNIT)
    found.take(found.needed())
    assert "--namespace" not in host.read[-1]


def test_the_data_of_a_removed_instance_is_kept_for_root(host: Host) -> None:
    path, state = host.unit(), host.folder / "state"
    (state / "appendonlydir").mkdir(parents=True)
    (state / "appendonlydir" / "a.aof").write_text("job")
    (host.folder / "shop.conf").write_text("")
    found = host.instances()
    copy = Path(found.remove(UNIT, found.leaving()[UNIT]))
    assert (copy / "appendonlydir" / "a.aof").read_text() == "job"
    assert copy.stat().st_mode & 0o777 == 0o700
    assert host.owners == [(str(copy), 0, 0)]
    assert host.calls == [
        f"systemctl disable --now {UNIT}",
        f"chown --recursive --no-dereference root:root {copy}",
        "userdel shop_queue",
        "systemctl daemon-reload",
    ]
    assert not path.exists()
    assert not state.exists()
    assert not (host.folder / "shop.conf").exists()


def test_links_in_the_data_stay_links(host: Host) -> None:
    """The instance's user could have put them there, to get a file of root's for itself, or the other way round."""
    (host.folder / "state").mkdir()
    (host.folder / "state" / "link").symlink_to("/etc/shadow")
    host.unit()
    found = host.instances()
    copy = found.remove(UNIT, found.leaving()[UNIT])
    assert f"chown --recursive --no-dereference root:root {copy}" in host.calls
    assert Path(copy, "link").is_symlink()


def test_an_instance_without_data_leaves_no_folder(host: Host) -> None:
    (host.folder / "state").mkdir()
    host.unit()
    found = host.instances()
    assert found.remove(UNIT, found.leaving()[UNIT]) == ""
    assert list(host.folder.glob("state*")) == []


@pytest.mark.parametrize("said", [{}, {"User": ""}, {"User": "somebody_gone"}])
def test_a_user_that_is_not_there_is_not_removed(host: Host, said: dict[str, str]) -> None:
    host.unit()
    host.instances().remove(UNIT, said)
    assert [call for call in host.calls if "userdel" in call] == []


def test_users_of_the_host_are_known(host: Host) -> None:
    wanted = [{"unit": UNIT, "user": user} for user in ("root", "no_such_user")]
    assert Instances(host, "redis", wanted, units_dir=host.units).missing_users() == ["no_such_user"]


def test_folders_without_end_do_not_stop_a_removal(host: Host) -> None:
    """The server itself can write there, if somebody takes it over."""
    host.unit()
    nest(host.folder / "state")
    found = host.instances()
    copy = Path(found.remove(UNIT, found.leaving()[UNIT]))
    assert copy.stat().st_mode & 0o777 == 0o700
    assert found.leaving() == {}
    subprocess.run(["rm", "--recursive", copy], check=True)


def test_a_removal_that_was_interrupted_is_finished(host: Host) -> None:
    host.unit()
    (host.folder / "state").mkdir()
    (host.folder / "state" / "dump").write_text("job")
    host.refuses = "userdel"
    found = host.instances()
    with pytest.raises(ReleaseError):
        found.remove(UNIT, found.leaving()[UNIT])
    (copy,) = host.folder.glob("state.*")
    host.refuses = ""
    assert found.remove(UNIT, found.leaving()[UNIT]) == "", "it is already aside"
    assert (copy / "dump").read_text() == "job"
    assert found.leaving() == {}


def test_an_instance_that_does_not_stop_keeps_all(host: Host) -> None:
    path = host.unit()
    (host.folder / "state").mkdir()
    (host.folder / "state" / "dump").write_text("job")
    host.refuses = "disable"
    found = host.instances()
    with pytest.raises(ReleaseError):
        found.remove(UNIT, found.leaving()[UNIT])
    assert path.exists()
    assert (host.folder / "state" / "dump").exists()


def test_a_folder_behind_a_link_is_not_moved(host: Host) -> None:
    elsewhere = host.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("")
    (host.folder / "state").symlink_to(elsewhere)
    host.unit()
    found = host.instances()
    assert found.remove(UNIT, found.leaving()[UNIT]) == ""
    assert host.owners == []


def module(host: Host, monkeypatch: pytest.MonkeyPatch, check: bool = False, **given: Any) -> dict[str, Any]:
    """Run the module on the host."""
    monkeypatch.setattr(instances.Instances.__init__, "__kwdefaults__", {
        "units_dir": host.units, "is_user": host.users.__contains__,
    })  # fmt: skip
    return run_module(monkeypatch, load_plugin("plugins/modules/host_instances.py"), host, check=check, **given)


def test_the_module_reports_what_leaves_and_removes_it_only_when_told(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = host.unit(), host.folder / "state"
    state.mkdir()
    (state / "a.aof").write_text("job")
    result = module(host, monkeypatch, engine="redis", instances=[])
    assert (result["changed"], result["leaving"], host.calls) == (False, [UNIT], [])
    result = module(host, monkeypatch, check=True, engine="redis", instances=[], state="pruned")
    assert (result["changed"], result["steps"], host.calls) == (True, [f"remove {UNIT}"], [])
    assert path.exists()
    result = module(host, monkeypatch, engine="redis", instances=[], state="pruned")
    assert [Path(copy).parent for copy in result["copies"]] == [host.folder]
    result = module(host, monkeypatch, engine="redis", instances=[], state="pruned")
    assert (result["changed"], result["copies"]) == (False, [])


def test_the_module_does_nothing_in_check_mode(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.users.clear()
    host.state = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
    wanted = [{"unit": UNIT, "user": "shop_queue", "config": ""}]
    result = module(host, monkeypatch, check=True, engine="redis", instances=wanted)
    assert result["steps"] == [
        "useradd shop_queue",
        *(f"{step} {UNIT}" for step in ("daemon-reload", "enable", "start")),
    ]
    assert host.calls == []


def test_the_module_creates_the_user_before_the_instance_starts(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.users.clear()
    host.state = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
    result = module(host, monkeypatch, engine="redis", instances=[{"unit": UNIT, "user": "shop_queue", "config": ""}])
    assert result["changed"]
    assert [" ".join(call.split()[:2]) for call in host.calls] == [
        "useradd --system", "systemctl daemon-reload", "systemctl enable", "systemctl start",
    ]  # fmt: skip


def test_the_module_says_why_an_instance_does_not_start(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.unit()
    host.state["ActiveState"] = "failed"
    host.refuses = "start"
    result = module(host, monkeypatch, engine="redis", instances=[{"unit": UNIT, "user": "shop_queue", "config": ""}])
    assert "failed" not in result
    assert "See systemctl status" in result["broken"][0]
