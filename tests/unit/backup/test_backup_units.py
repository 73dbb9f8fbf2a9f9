"""What a restore does with an app's units: they run again after it, or it says which do not, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flaskhost_backup import tools, units
from flaskhost_backup.config import BackupError
from flaskhost_backup.tools import Done

SOCKET, SERVICE, TIMER = "flask-shop@blue.socket", "flask-shop@blue.service", "flask-shop_timer@night.timer"
PATTERNS = ["flask-shop@*", "flask-shop_process@*", "flask-shop_timer@*"]


class Systemd:
    """Units that run or not, as systemctl shows them."""

    def __init__(self) -> None:
        self.active, self.enabled = {SOCKET, SERVICE, TIMER}, {SERVICE, TIMER}
        self.broken: dict[str, str] = {}
        self.stuck: set[str] = set()
        self.mortal = False
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str], **_options: Any) -> Done:  # noqa: PLR0911 - a verb each
        self.calls.append(command)
        program, verb, *rest = command
        names = rest[rest.index("--") + 1 :] if "--" in rest else rest
        if program == "journalctl":
            assert _options.get("timeout"), "an app can keep its journal busy without end"
            unit = next((word.removeprefix("--unit=") for word in command if word.startswith("--unit=")), "")
            return Done(0, f"{unit} begins\n{unit}: Start request \x1b[31mrepeated too quickly.\n" if unit else "", "")
        if verb == "list-units":
            return Done(0, "".join(f"{name} loaded active running\n" for name in sorted(self.active)), "")
        if verb == "is-enabled":
            return Done(0, "enabled\n" if names[0] in self.enabled else "static\n", "")
        if verb == "stop":
            self.active -= set(names) - self.stuck
            return Done(1, "", "Job canceled.") if self.stuck else Done(0, "", "")
        if verb == "kill" and self.mortal:
            self.stuck -= set(names)
        if verb == "start":
            self.active |= {name for name in names if name not in self.broken}
            return (
                Done(1, "", "A dependency job for flask-shop@blue.service failed.") if self.broken else Done(0, "", "")
            )
        if verb == "show":
            states = [
                f"Id={name}\nActiveState={'active' if name in self.active else 'inactive'}\n"
                f"Result={self.broken.get(name, 'success')}"
                for name in names
            ]
            return Done(0, "\n\n".join(states), "")
        return Done(0, "", "")

    def verbs(self) -> list[str]:
        return [command[1] for command in self.calls if command[1] in ("stop", "start", "reset-failed")]


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    fake = Systemd()
    monkeypatch.setattr(tools, "run", fake)
    yield fake


def test_what_ran_runs_again(systemd: Systemd, tmp_path: Path) -> None:
    with units.stopped(tmp_path, PATTERNS) as names:
        assert set(names) == {SOCKET, SERVICE, TIMER}
        assert systemd.active == set()
    assert systemd.active == {SOCKET, SERVICE, TIMER}
    assert systemd.calls[-1][:4] == ["systemctl", "start", "--", SOCKET], "the socket first"
    assert list(tmp_path.iterdir()) == []


def test_the_starts_before_do_not_count_against_it(systemd: Systemd, tmp_path: Path) -> None:
    with units.stopped(tmp_path, PATTERNS):
        pass
    assert systemd.verbs() == ["stop", "reset-failed", "start"]


def test_nothing_is_started_if_the_caller_does_it(systemd: Systemd, tmp_path: Path) -> None:
    with units.stopped(tmp_path, PATTERNS, start=False):
        pass
    assert systemd.active == set()
    assert list(tmp_path.iterdir()) == []


def test_an_app_without_units_is_left_alone(systemd: Systemd, tmp_path: Path) -> None:
    with units.stopped(tmp_path, []) as names:
        assert names == []
    assert systemd.calls == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [BackupError("The dump is damaged."), OSError(28, "No space"), KeyboardInterrupt()])
def test_the_apps_are_started_after_an_error(systemd: Systemd, tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, units.stopped(tmp_path, PATTERNS, start=False):
        raise error
    assert caught.value is error
    assert systemd.active == {SOCKET, SERVICE, TIMER}
    assert list(tmp_path.iterdir()) == []


def test_an_app_that_does_not_stop_is_started_again(systemd: Systemd, tmp_path: Path) -> None:
    systemd.stuck = {SERVICE}
    with pytest.raises(BackupError, match="could not be stopped"), units.stopped(tmp_path, PATTERNS):
        pytest.fail("its data must not be replaced")
    assert systemd.active == {SOCKET, SERVICE, TIMER}


def test_an_app_that_prolongs_its_stop_is_killed(systemd: Systemd, tmp_path: Path) -> None:
    systemd.stuck, systemd.mortal = {SERVICE}, True
    with units.stopped(tmp_path, PATTERNS):
        assert systemd.active == set(), "the data of all would wait for it"
    assert ["systemctl", "kill", "--signal=SIGKILL", "--", SERVICE] in systemd.calls


def test_an_app_that_stays_down_is_named_with_the_reason_and_the_next_command(systemd: Systemd, tmp_path: Path) -> None:
    systemd.broken = {SOCKET: "start-limit-hit", SERVICE: "success"}
    with pytest.raises(BackupError) as caught, units.stopped(tmp_path, PATTERNS):
        pass
    text = str(caught.value)
    assert text.startswith("The data was restored. An app is down")
    assert "dependency job" not in text, "which is no reason"
    assert f"did not start: {SOCKET}, {SERVICE}." in text
    assert f"The last lines of {SOCKET}: {SOCKET} begins | {SOCKET}: Start request ?[31mrepeated too quickly." in text
    assert f"The last lines of {SERVICE}" not in text, "it only waited for its socket"
    assert f"systemctl start {SOCKET} {SERVICE}" in text
    assert TIMER not in text
    assert any("--namespace=+flask-shop" in call for call in systemd.calls), "the app's own lines too"


def test_the_first_error_is_not_hidden_by_an_app_that_stays_down(systemd: Systemd, tmp_path: Path) -> None:
    systemd.broken = {SERVICE: "exit-code"}
    with pytest.raises(BackupError) as caught, units.stopped(tmp_path, PATTERNS):
        raise BackupError("The scrub failed: syntax error.", "Correct it.")
    assert caught.value.reason.startswith("The scrub failed: syntax error. An app is down")
    assert caught.value.cure.startswith("Correct it. Start the app again: sudo systemctl start")


def test_what_a_killed_run_left_stopped_is_started_by_the_next(systemd: Systemd, tmp_path: Path) -> None:
    note = tmp_path / "stopped.json"
    note.write_text(json.dumps({"units": [SOCKET, SERVICE, "flask-shop@green.service", "flask-blog@blue.service"]}))
    systemd.active = {TIMER}
    with units.stopped(tmp_path, PATTERNS):
        kept = json.loads(note.read_text())["units"]
        assert set(kept) == {SERVICE, TIMER, "flask-blog@blue.service"}
    # The service brings its socket; a slot that a reboot would not start is not live any more.
    assert systemd.active == {SERVICE, TIMER}
    assert json.loads(note.read_text())["units"] == ["flask-blog@blue.service"], "another app's come with its own run"
