"""The modules guarded_change, kernel_settings and host_abilities: what they make of the logic's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host.guard_change import Change, GuardError
from ansible.module_utils.flaskhost.host.kernel_settings import Result
from fakes import run_module
from loading import load_plugin

# --- guarded_change --------------------------------------------------------------------------------------------------

GIVEN: dict[str, Any] = {
    "name": "sshd",
    "service": "ssh.service",
    "socket": "ssh.socket",
    "files": [{"dest": "/etc/x", "content": "new\n", "behind": "", "mode": "0600", "validate": ["/bin/true", "%s"]}],
    "checks": [{"command": ["sshd", "-T"], "lines": ["x"], "cure": ""}],
    "live": ["ss"],
    "seconds": 30,
}


class FakeGuard:
    """A guard that notes its calls.

    Attributes:
        why: the reasons for a change.
        found: what an earlier run has left.
        fails: the call that fails.
        left: the seconds until the change is reverted.
    """

    def __init__(self) -> None:
        self.why, self.found, self.fails, self.calls = ["/etc/x differs"], "", "", list[Any]()
        self.change: Change | None = None
        self.left = 44.0

    def note(self, *call: Any) -> None:
        self.calls.append(call[0] if len(call) == 1 else call)
        if self.fails == call[0]:
            raise GuardError(f"{call[0]} failed", old_state=call[0] != "confirm")

    def recover(self) -> str:
        self.note("recover")
        return self.found

    def reasons(self) -> list[str]:
        return self.why

    def check(self) -> None:
        self.note("check")

    def validate(self) -> None:
        self.note("validate")

    def diff(self) -> list[dict[str, str]]:
        return [{"after": "new\n"}]

    def apply(self, nonce: str) -> None:
        self.note("apply", nonce)

    def confirm(self, nonce: str, process: int, *, direct: bool) -> None:
        self.note("confirm", nonce, process > 1, direct)

    def returned(self, nonce: str) -> str:
        self.note("returned", nonce)
        return "confirmed"


@pytest.fixture
def guard() -> FakeGuard:
    return FakeGuard()


def guarded(guard: FakeGuard, monkeypatch: pytest.MonkeyPatch, *, check: bool = False, **given: Any) -> dict[str, Any]:
    module = load_plugin("plugins/modules/guarded_change.py")

    def made(_run: Any, change: Change) -> FakeGuard:
        guard.change = change
        return guard

    monkeypatch.setattr(module, "Guard", made)
    return run_module(monkeypatch, module, check=check, **{**GIVEN, **given})


def test_a_change_is_validated_and_armed(guard: FakeGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    result = guarded(guard, monkeypatch, nonce="4f")
    assert guard.calls == ["recover", "validate", ("apply", "4f")]
    assert (result["changed"], result["armed"], result["left"]) == (True, True, 44.0)
    assert (result["reasons"], result["diff"]) == (["/etc/x differs"], [{"after": "new\n"}])
    change = guard.change
    assert change
    assert (change.name, change.service, change.socket, change.seconds) == ("sshd", "ssh.service", "ssh.socket", 30)
    (file,) = change.files
    assert (str(file.path), file.text, file.mode) == ("/etc/x", "new\n", 0o600)
    assert ([*change.checks], [*change.live]) == (GIVEN["checks"], GIVEN["live"])


def test_check_mode_validates_and_arms_nothing(guard: FakeGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    result = guarded(guard, monkeypatch, check=True)
    assert guard.calls == ["validate"]
    assert (result["changed"], result["armed"], result["diff"]) == (True, False, [{"after": "new\n"}])


@pytest.mark.parametrize("left", ["", "an interrupted change was reverted"])
def test_without_a_change_the_state_is_checked(guard: FakeGuard, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    guard.why, guard.found = [], left
    result = guarded(guard, monkeypatch, nonce="4f")
    assert guard.calls == ["recover", "check"]
    assert (result["changed"], result["armed"]) == (bool(left), False)
    assert result["reasons"] == ([left] if left else [])


def test_what_was_left_is_a_reason_among_others(guard: FakeGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.found = "an interrupted change was reverted"
    assert guarded(guard, monkeypatch, nonce="4f")["reasons"] == [guard.found, "/etc/x differs"]


def test_nothing_is_armed_that_nobody_would_confirm(guard: FakeGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    result = guarded(guard, monkeypatch)
    assert result["failed"]
    assert "action plugin" in result["msg"]
    assert guard.calls == ["recover", "validate"]


def test_the_other_phases(guard: FakeGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    result = guarded(guard, monkeypatch, phase="confirm", nonce="4f", direct=True)
    assert result["changed"]
    assert guard.calls == [("confirm", "4f", True, True)]
    result = guarded(guard, monkeypatch, phase="returned", nonce="4f")
    assert (result["changed"], result["outcome"]) == (False, "confirmed")


@pytest.mark.parametrize(
    ("fails", "phase", "old_state"),
    [("validate", "apply", True), ("apply", "apply", True), ("confirm", "confirm", False)],
)
def test_a_failure_says_in_which_state_the_host_is(
    guard: FakeGuard, monkeypatch: pytest.MonkeyPatch, fails: str, phase: str, old_state: bool
) -> None:
    guard.fails = fails
    result = guarded(guard, monkeypatch, phase=phase, nonce="4f")
    assert result["failed"]
    assert (result["msg"], result["old_state"]) == (f"{fails} failed", old_state)


# --- kernel_settings -------------------------------------------------------------------------------------------------


class Kernel:
    """A kernel with a few settings.

    Attributes:
        now: the settings.
        refuses: those that cannot be changed.
        follows: a setting, and another one that changes with it.
        overruled: settings that a later file sets, and that file.
        written: what was set.
    """

    def __init__(self, now: dict[str, str]) -> None:
        self.now, self.refuses, self.follows = now, list[str](), ("", "")
        self.overruled, self.written = dict[str, str](), list[str]()

    def expanded(self, settings: dict[str, str]) -> dict[str, str]:
        return settings

    def examine(self, settings: dict[str, str], _name: str) -> Result:
        differing = {key: self.now[key] for key, value in settings.items() if self.now.get(key, value) != value}
        missing = [key for key in settings if key not in self.now]
        return Result(differing, missing, overruled=self.overruled)

    def render(self, settings: dict[str, str], _found: Result, header: str) -> str:
        return header + "".join(f"{key} = {value}\n" for key, value in settings.items())

    def set_now(self, each: dict[str, str], keys: Any) -> dict[str, str]:
        refused = {}
        for key in keys:
            if key in self.refuses:
                refused[key] = "Read-only file system"
                continue
            self.written.append(key)
            self.now[key] = each[key]
            if key == self.follows[0]:
                self.now[self.follows[1]] = "1"
        return refused


def kernel(
    logic: Kernel, path: Path, monkeypatch: pytest.MonkeyPatch, *, check: bool = False, **settings: Any
) -> dict[str, Any]:
    module = load_plugin("plugins/modules/kernel_settings.py")
    monkeypatch.setattr(module, "logic", logic)
    given = {key.replace("_", ".", 1): value for key, value in settings.items()}
    return run_module(monkeypatch, module, check=check, settings=given, path=str(path), header="# ours\n")


def test_settings_are_written_and_set_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logic, path = Kernel({"vm.swappiness": "60", "net.x": "1"}), tmp_path / "60-flaskhost.conf"
    planned = kernel(logic, path, monkeypatch, check=True, vm_swappiness=10, net_x=1)
    assert planned["changed"]
    assert not path.exists()
    assert logic.written == []
    result = kernel(logic, path, monkeypatch, vm_swappiness=10, net_x=1)
    assert (result["changed"], result["refused"], result["warnings"]) == (True, {}, [])
    assert path.read_text() == "# ours\nvm.swappiness = 10\nnet.x = 1\n"
    assert logic.written == ["vm.swappiness"]
    last = {"before_header": "now", "after_header": "now", "before": "vm.swappiness = 60\n"}
    assert result["diff"][1:] == planned["diff"][1:] == [{**last, "after": "vm.swappiness = 10\n"}]
    again = kernel(logic, path, monkeypatch, vm_swappiness=10, net_x=1)
    assert (again["changed"], again["diff"]) == (False, [])


def test_a_setting_that_another_one_changes_is_set_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logic = Kernel({"net.forward": "1", "net.redirects": "0"})
    logic.follows = ("net.forward", "net.redirects")
    result = kernel(logic, tmp_path / "x", monkeypatch, net_redirects=0, net_forward=0)
    assert logic.written == ["net.forward", "net.redirects"]
    assert logic.now == {"net.forward": "0", "net.redirects": "0"}
    assert result["refused"] == {}


def test_a_refused_value_is_a_warning_and_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logic, path = Kernel({"vm.x": "1"}), tmp_path / "x"
    logic.refuses = ["vm.x"]
    assert kernel(logic, path, monkeypatch, vm_x=2)["changed"], "the file is new"
    result = kernel(logic, path, monkeypatch, vm_x=2)
    assert (result["changed"], result["refused"]) == (False, {"vm.x": "Read-only file system"})
    assert result["warnings"] == ["The kernel rejected vm.x = 2: Read-only file system"]


@pytest.mark.parametrize(
    ("by", "warned"), [("/etc/sysctl.d/99-own.conf", True), ("/usr/lib/sysctl.d/x.conf", False), ("/lib/x", False)]
)
def test_a_file_that_is_read_later_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, warned: bool
) -> None:
    logic = Kernel({"vm.x": "2"})
    logic.overruled = {"vm.x": by}
    warnings = kernel(logic, tmp_path / "x", monkeypatch, vm_x=2)["warnings"]
    assert [f"vm.x keeps the value of {by}" in text for text in warnings] == [True] * warned


# --- host_abilities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("record", "read"), [("/var/lib/x.json", "/var/lib/x.json"), ("", "/nonexistent")])
def test_what_a_host_can_do_is_only_read(monkeypatch: pytest.MonkeyPatch, record: str, read: str) -> None:
    module = load_plugin("plugins/modules/host_abilities.py")
    monkeypatch.setattr(module, "abilities", lambda root, arguments: {"root": str(root), "grub": arguments})
    monkeypatch.setattr(module, "matching", lambda programs: ["matching", programs])
    monkeypatch.setattr(module, "administrators", lambda: ["ada"])
    monkeypatch.setattr(module, "recorded", lambda path: {"read": str(path)})
    monkeypatch.setattr(module, "present", lambda: {"now": True})
    result = run_module(monkeypatch, module, record=record, programs=[{"name": "flask-*", "home": ""}])
    assert result.pop("warnings") == []
    assert result == {
        "changed": False,
        "can": {"root": "/", "grub": "/etc/default/grub.d/60-flaskhost.cfg"},
        "now": {"now": True},
        "record": {"read": read},
        "accounts": {"programs": ["matching", [{"name": "flask-*", "home": ""}]], "administrators": ["ada"]},
    }
