"""Processes and timers: what a Procfile says, how their commands are run, and that the units follow the release."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import processes, procfile
from ansible.module_utils.flaskhost.deploy.processes import Units, check_timers
from ansible.module_utils.flaskhost.deploy.procfile import read_procfile, script, scripts, wanted
from ansible.module_utils.flaskhost.host.runner import ReleaseError

ROOT = Path(__file__).resolve().parents[3]
NIGHTLY = {"command": "flask purge", "on_calendar": "*-*-* 03:00"}


class Systemd:
    """What systemd knows of units, as far as systemctl and a folder of unit files show it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, []
        self.active: dict[str, str] = {}
        self.restarts: dict[str, int] = {}
        self.loaded: dict[str, str] = {}
        self.refused: set[str] = set()
        # The run is killed before the command that comes after so many which change something.
        self.killed_after: int | None = None

    def file(self, unit: str) -> Path:
        """The unit's own file, or that of its template."""
        own = self.folder / unit
        return own if own.exists() else self.folder / re.sub(r"@[^.]*", "@", unit)

    def __call__(self, args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        self.calls.append(list(args))
        if "journalctl" in args:
            return 0, f"a line of {args[-1]}\n", ""
        if args[0] == "systemd-analyze":
            return (0, "ok", "") if args[-1] != "someday" else (1, "", "Failed to parse: Invalid argument")
        verb, *units = (item for item in args[1:] if not item.startswith("--"))
        if self.killed_after is not None and verb not in ("show", "list-units"):
            if not self.killed_after:
                raise KeyboardInterrupt
            self.killed_after -= 1
        return getattr(self, verb.replace("-", "_"))(units)

    def daemon_reload(self, _units: list[str]) -> tuple[int, str, str]:
        return 0, "", ""

    def enable(self, units: list[str]) -> tuple[int, str, str]:
        for unit in units:
            if not self.file(unit).exists():
                return 1, "", f"Unit file {unit} does not exist."
            wants = "timers.target.wants" if unit.endswith(".timer") else "multi-user.target.wants"
            (self.folder / wants).mkdir(exist_ok=True)
            link = self.folder / wants / unit
            link.unlink(missing_ok=True)
            link.symlink_to(self.file(unit))
        return 0, "", ""

    def disable(self, units: list[str]) -> tuple[int, str, str]:
        for unit in units:
            for link in self.folder.glob(f"*.wants/{unit}"):
                link.unlink()
        return 0, "", ""

    def restart(self, units: list[str]) -> tuple[int, str, str]:
        for unit in units:
            assert self.file(unit).exists(), unit
            if unit in self.refused:
                self.active[unit] = "failed"
                return 1, "", f"Job for {unit} failed."
            self.active[unit] = "active"
            self.loaded[unit] = self.file(unit).read_text()
        return 0, "", ""

    def stop(self, units: list[str]) -> tuple[int, str, str]:
        for pattern in units:
            for unit in [name for name in self.active if fnmatch(name, pattern)]:
                del self.active[unit]
        return 0, "", ""

    def reset_failed(self, units: list[str]) -> tuple[int, str, str]:
        for unit in units:
            self.restarts.pop(unit, None)
        return 1, "", "Unit not loaded."

    def list_units(self, patterns: list[str]) -> tuple[int, str, str]:
        shown = [unit for unit in self.active if any(fnmatch(unit, pattern) for pattern in patterns)]
        return 0, "".join(f"{unit} loaded {self.active[unit]} running What it is\n" for unit in shown), ""

    def show(self, units: list[str]) -> tuple[int, str, str]:
        blocks = []
        for unit in units:
            enabled = any(self.folder.glob(f"*.wants/{unit}"))
            blocks.append(
                f"Id={unit}\nActiveState={self.active.get(unit, 'inactive')}\nSubState=so\n"
                f"UnitFileState={'enabled' if enabled else 'disabled'}\n"
                # What systemd 257 says of every unit once another one was enabled with --no-reload, as slots are.
                f"NeedDaemonReload=yes\nNRestarts={self.restarts.get(unit, 0)}\n"
            )
        return 0, "\n".join(blocks), ""


class Host:
    """One app's units on a made-up host."""

    def __init__(self, folder: Path) -> None:
        self.units_folder, self.root = folder / "system", folder / "shop"
        self.units_folder.mkdir()
        self.root.mkdir()
        self.systemd = Systemd(self.units_folder)
        self.units = Units(
            self.systemd,
            unit="flask-shop",
            user="shop",
            root=self.root,
            data=self.root / "data",
            secret_env=folder / "secret_key.env",
            memory_mb=300,
            drain=20,
            folder=self.units_folder,
        )
        self.release("one")

    def release(self, name: str) -> None:
        (self.root / "current").unlink(missing_ok=True)
        (self.root / "current").symlink_to(f"releases/{name}")

    def files(self) -> set[str]:
        return {path.name for path in self.units_folder.rglob("*") if not path.is_dir()}

    def restarted(self) -> list[str]:
        found = [call[2:] for call in self.systemd.calls if call[:2] == ["systemctl", "restart"]]
        self.systemd.calls.clear()
        return [unit for units in found for unit in units]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# --- What is wanted --------------------------------------------------------------------------------------------------


def test_a_procfile_is_read() -> None:
    text = (
        "# said\nweb: gunicorn app\nworker:celery -A shop worker\r\nrelease: flask db upgrade\n\n  b-2_X:  run a: b  \n"
    )
    assert read_procfile(text) == {
        "web": "gunicorn app",
        "worker": "celery -A shop worker",
        "release": "flask db upgrade",
        "b-2_X": "run a: b",
    }


@pytest.mark.parametrize(
    "line", ["", "worker", "worker:", "worker: ", "a b: c", "../x: c", "#worker: c", "x" * 32 + ": c"]
)
def test_a_line_of_another_form_is_left_out(line: str) -> None:
    assert read_procfile(f"{line}\nclock: tick") == {"clock": "tick"}


def test_the_users_processes_win_and_web_is_none() -> None:
    procfile = {"web": "gunicorn", "release": "migrate", "worker": "theirs", "clock": "tick", "mailer": "mail"}
    assert wanted({"worker": "ours", "mailer": "", "beat": "b"}, procfile) == {
        "beat": "b",
        "clock": "tick",
        "worker": "ours",
    }


def test_a_process_cannot_take_the_place_of_a_timer() -> None:
    with pytest.raises(ReleaseError, match="timer-nightly"):
        wanted({}, {"timer-nightly": "x"})


# --- The scripts -----------------------------------------------------------------------------------------------------


def run_script(folder: Path, command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a script as a unit does: from a release, by way of the link ``current``."""
    release = folder / "releases/one"
    for name in ("processes", "app", "venv/bin"):
        (release / name).mkdir(parents=True, exist_ok=True)
    (release / "processes/worker").write_text(script(command))
    current = folder / "current"
    if not current.is_symlink():
        current.symlink_to("releases/one")
    call = ["/bin/sh", str(current / "processes/worker")]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=120, **options)


def test_a_script_stays_with_its_release(tmp_path: Path) -> None:
    """The link may lead elsewhere while it runs."""
    shown = run_script(tmp_path, 'ln -sfn elsewhere ../../../current; echo "$PATH $PYTHONPATH"; pwd -P').stdout
    release = tmp_path / "releases/one"
    path = f"{release}/venv/bin:/usr/local/bin:/usr/bin:/bin"
    assert shown == f"{path} {release}/app:{release}/app/src\n{release}/app\n"


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'echo $PPID'",
        "A=1 B='c; d' sh -c 'echo $PPID'",
        "sh -c 'echo $PPID' $(echo x) 2>&1",
        "sh -c 'echo $PPID' ''",
    ],
)
def test_a_single_command_takes_the_place_of_the_shell(command: str, tmp_path: Path) -> None:
    """It is the one that systemd sends its signal to."""
    assert run_script(tmp_path, command).stdout.strip() == str(os.getpid())


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("cd / && pwd", "/"),
        ("A=5; echo $A", "5"),
        ("echo 1 | cat", "1"),
        ("A='x y' sh -c 'echo $A'", "x y"),
        ("echo 'a && b'", "a && b"),
        ("for i in 1 2; do printf $i; done", "12"),
        ('echo "it\'s"', "it's"),
        ("test -d /nowhere || echo no", "no"),
    ],
)
def test_a_command_means_what_it_means_to_the_shell(command: str, output: str, tmp_path: Path) -> None:
    assert run_script(tmp_path, command).stdout.strip() == output


def test_the_exit_status_is_that_of_the_command(tmp_path: Path) -> None:
    assert run_script(tmp_path, "sh -c 'exit 7'").returncode == 7
    assert run_script(tmp_path, "no-such-program-here").returncode == 127


def test_a_release_brings_a_script_for_each() -> None:
    made = scripts({"worker": "w"}, {"nightly": NIGHTLY})
    assert made == {"worker": script("w"), "timer-nightly": script("flask purge")}


# --- Timers ----------------------------------------------------------------------------------------------------------


def test_a_time_that_systemd_does_not_understand_is_named(host: Host) -> None:
    check_timers(host.systemd, {"nightly": NIGHTLY}, "shop")
    with pytest.raises(ReleaseError) as caught:
        check_timers(host.systemd, {"a": NIGHTLY, "b": {"command": "x", "on_calendar": "someday"}}, "shop")
    assert "flask_apps.shop.timers.b.on_calendar" in caught.value.reason
    assert "Invalid argument" in caught.value.reason


def test_a_time_is_never_an_option(host: Host) -> None:
    check_timers(host.systemd, {"a": {"command": "x", "on_calendar": "--version"}})
    assert host.systemd.calls == [["systemd-analyze", "calendar", "--", "--version"]]


# --- The units -------------------------------------------------------------------------------------------------------


def directives(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"[A-Z]\w+=", line)]


@pytest.mark.parametrize("outbound", [True, False])
def test_the_sandbox_is_that_of_the_slots(host: Host, outbound: bool) -> None:
    """Whatever confines a slot confines a process, in the same words."""
    host.units.outbound = outbound
    slot = (ROOT / "roles/slots/templates/slot.service.j2").read_text()
    confined = re.compile(
        r"(?:Protect|Private|Restrict|System|Capability|Ambient|Lock|NoNew|UMask|ProcSubset|TasksMax|LimitNOFILE"
        r"|ReadOnlyPaths|TemporaryFileSystem|OOMPolicy|LogRateLimit).*"
    )
    host.units.switch({"worker": "w"}, {"nightly": NIGHTLY})
    for name in ("flask-shop_process@.service", "flask-shop_timer@.service"):
        text = (host.units_folder / name).read_text()
        wanted = {*filter(confined.match, directives(slot))} - ({"PrivateNetwork=yes"} if outbound else set())
        assert {*filter(confined.match, directives(text))} == wanted, name
        assert f"ReadWritePaths={host.root}/data" in text
        assert "MemoryMax=300M\nMemorySwapMax=150M\n" in text
        assert "AppArmorProfile=-flask-shop\n" in text
        assert "LogNamespace=flask-shop\n" in text
        assert "TimeoutStopSec=30" in text
        assert "User=shop\nGroup=shop\n" in text


def test_the_releases_own_variables_are_read_last(host: Host) -> None:
    host.units.switch({"worker": "w"}, {})
    lines = directives((host.units_folder / "flask-shop_process@.service").read_text())
    files = [line for line in lines if line.startswith("EnvironmentFile=")]
    assert files == [
        f"EnvironmentFile=-{host.units.secret_env}",
        f"EnvironmentFile={host.root}/current/env",
    ]
    assert f"ExecStart=/bin/sh {host.root}/current/processes/%i" in lines
    assert "Restart=always" in lines


def test_a_timers_service_runs_once(host: Host) -> None:
    host.units.switch({}, {"nightly": NIGHTLY})
    lines = directives((host.units_folder / "flask-shop_timer@.service").read_text())
    assert "Type=oneshot" in lines
    assert f"ExecStart=/bin/sh {host.root}/current/processes/timer-%i" in lines
    assert [line for line in lines if line.startswith("Restart=")] == []
    timer = directives((host.units_folder / "flask-shop_timer@nightly.timer").read_text())
    assert "StartLimitIntervalSec=0" in timer, "restores and deploys start it as often as they are repeated"
    assert {"OnCalendar=*-*-* 03:00", "Persistent=true", "AccuracySec=1s", "RandomizedDelaySec=0"} <= set(timer)


def test_an_app_without_any_has_no_unit_and_asks_nothing(host: Host) -> None:
    assert host.units.in_order({}, {})
    assert host.units.switch({}, {}) is False
    assert host.units.failures() == []
    assert (host.files(), host.systemd.calls) == (set(), [])


def test_what_is_wanted_runs_and_is_in_order(host: Host) -> None:
    processes_, timers = {"worker": "w", "clock": "c"}, {"nightly": NIGHTLY}
    assert not host.units.in_order(processes_, timers)
    assert host.units.switch(processes_, timers) is True
    assert set(host.systemd.active) == {
        "flask-shop_process@worker.service",
        "flask-shop_process@clock.service",
        "flask-shop_timer@nightly.timer",
    }
    assert host.units.in_order(processes_, timers)
    assert host.units.failures() == []


def test_the_next_release_restarts_the_processes(host: Host) -> None:
    host.units.switch({"worker": "w"}, {})
    host.restarted()
    host.release("two")
    # The units' text is the same; a run that was killed after the flip left it like this.
    assert not host.units.in_order({"worker": "w"}, {})
    assert host.units.switch({"worker": "w"}, {}) is True
    assert host.restarted() == ["flask-shop_process@worker.service"]
    assert host.units.in_order({"worker": "w"}, {})


def test_what_is_not_wanted_any_more_is_gone(host: Host) -> None:
    host.units.switch({"worker": "w", "clock": "c"}, {"nightly": NIGHTLY, "hourly": NIGHTLY})
    host.units.switch({"worker": "w"}, {"hourly": NIGHTLY})
    assert set(host.systemd.active) == {"flask-shop_process@worker.service", "flask-shop_timer@hourly.timer"}
    assert not [name for name in host.files() if "nightly" in name or "clock" in name]
    assert host.units.in_order({"worker": "w"}, {"hourly": NIGHTLY})
    host.units.remove()
    assert (host.files(), host.systemd.active) == (set(), {})
    assert host.units.in_order({}, {})


def test_a_timer_that_is_gone_leaves_no_failed_job_behind(host: Host) -> None:
    """It was due between the flip and the switch, and the release that serves has no script for it."""
    host.units.switch({}, {"nightly": NIGHTLY})
    host.systemd.calls.clear()
    host.units.switch({}, {})
    wanted_ = ["systemctl", "reset-failed", "flask-shop_timer@nightly.service"]
    assert wanted_ in host.systemd.calls
    assert host.systemd.calls.index(["systemctl", "stop", "flask-shop_timer@nightly.timer"]) < host.systemd.calls.index(
        wanted_
    )


def test_a_process_that_runs_without_being_enabled_is_found(host: Host) -> None:
    """A run was killed between the start and the rest, or a hand was at it."""
    host.units.switch({"worker": "w"}, {})
    host.systemd.active["flask-shop_process@old.service"] = "active"
    assert not host.units.in_order({"worker": "w"}, {})
    host.units.switch({"worker": "w"}, {})
    assert "flask-shop_process@old.service" not in host.systemd.active


def test_another_apps_units_are_left_alone(host: Host) -> None:
    others = {
        "flask-shop-two_process@.service",
        "flask-shop-two_timer@nightly.timer",
        "flask-shop@.service",
        "flask-shopping_process@.service",
    }
    for name in others:
        (host.units_folder / name).write_text("[Service]\n")
    host.systemd.active["flask-shop-two_process@worker.service"] = "active"
    host.units.switch({"worker": "w"}, {"nightly": NIGHTLY})
    host.units.remove()
    assert host.files() == others
    assert host.systemd.active == {"flask-shop-two_process@worker.service": "active"}


@pytest.mark.parametrize("damage", ["text", "missing", "stopped", "disabled", "marker", "foreign timer"])
def test_damage_is_seen_and_repaired(host: Host, damage: str) -> None:
    wanted_ = ({"worker": "w"}, {"nightly": NIGHTLY})
    host.units.switch(*wanted_)
    template = host.units_folder / "flask-shop_process@.service"
    good = template.read_text()
    if damage == "text":
        template.write_text(good.replace("NoNewPrivileges=yes\n", ""))
    elif damage == "missing":
        (host.units_folder / "flask-shop_timer@nightly.timer").unlink()
    elif damage == "stopped":
        del host.systemd.active["flask-shop_process@worker.service"]
    elif damage == "disabled":
        host.systemd.disable(["flask-shop_timer@nightly.timer"])
    elif damage == "marker":
        host.units.marker.unlink()
    else:
        (host.units_folder / "flask-shop_timer@weekly.timer").write_text("[Timer]\n")
        host.systemd.enable(["flask-shop_timer@weekly.timer"])
    assert not host.units.in_order(*wanted_)
    assert host.units.switch(*wanted_) is True
    assert template.read_text() == good
    assert host.units.in_order(*wanted_)


def test_a_run_that_is_killed_amid_the_switch_leaves_it_to_the_next_one(host: Host) -> None:
    """A unit may be on the disk that systemd has not read, and a process may run the release before."""
    before, after = ({"worker": "w"}, {}), ({"worker": "w"}, {"nightly": NIGHTLY})
    host.units.switch(*before)
    host.systemd.calls.clear()
    host.units.switch(*after)
    commands = [" ".join(call) for call in host.systemd.calls if call[1] not in ("show", "list-units")]
    assert len(commands) > 4
    for number in range(len(commands)):
        host.units.switch(*before)
        host.systemd.killed_after = number
        with pytest.raises(KeyboardInterrupt):
            host.units.switch(*after)
        host.systemd.killed_after = None
        assert not host.units.in_order(*after), commands[number]
        host.units.switch(*after)
        assert host.units.in_order(*after)


def test_a_timer_gets_its_new_time(host: Host) -> None:
    host.units.switch({}, {"nightly": NIGHTLY})
    later = {"nightly": {**NIGHTLY, "on_calendar": "*-*-* 05:00"}}
    assert not host.units.in_order({}, later)
    assert host.units.switch({}, later) is True
    assert "OnCalendar=*-*-* 05:00" in host.systemd.loaded["flask-shop_timer@nightly.timer"]
    assert host.units.switch({}, later) is False, "nothing was changed"


def test_what_systemd_refuses_is_told_with_its_log(host: Host) -> None:
    host.systemd.refused.add("flask-shop_process@worker.service")
    with pytest.raises(ReleaseError) as caught:
        host.units.switch({"worker": "w"}, {})
    assert "Job for flask-shop_process@worker.service failed." in caught.value.reason
    assert "a line of --unit=flask-shop_process@worker.service" in caught.value.reason
    assert not host.units.in_order({"worker": "w"}, {})


def test_a_process_that_fails_is_told_with_its_log(host: Host) -> None:
    unit = "flask-shop_process@worker.service"
    host.units.switch({"worker": "w", "clock": "c"}, {})
    host.systemd.active[unit] = "activating"
    (message,) = host.units.failures()
    assert message.startswith(f"{unit} is activating (so)")
    assert f"a line of --unit={unit}" in message
    assert processes.down(host.systemd, "flask-shop", host.units_folder) == ["worker"]


def test_a_process_that_came_back_is_told_too(host: Host) -> None:
    """It runs at the moment; it has ended since the release."""
    host.units.switch({"worker": "w"}, {})
    host.systemd.restarts["flask-shop_process@worker.service"] = 3
    assert "has ended and was restarted 3 times" in host.units.failures()[0]
    assert processes.down(host.systemd, "flask-shop", host.units_folder) == []
    host.units.switch({"worker": "w"}, {})
    assert host.units.failures() == [], "counted anew for each release"


def test_a_name_in_a_units_text_is_no_format(host: Host) -> None:
    timers = {"nightly": {"command": "echo {user}", "on_calendar": "*-*-{1,2}"}}
    host.units.switch({}, timers)
    assert "OnCalendar=*-*-{1,2}\n" in (host.units_folder / "flask-shop_timer@nightly.timer").read_text()


def test_names_of_scripts_cannot_meet() -> None:
    assert procfile.TIMER_PREFIX == "timer-"
    assert set(scripts(wanted({"a": "x"}, {}), {"a": NIGHTLY})) == {"a", "timer-a"}
