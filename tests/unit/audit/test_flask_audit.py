"""The module flask_audit and its action plugin: which step runs where, and that one scanner affects no other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.flaskhost.audit import bans, host
from ansible.module_utils.flaskhost.audit.model import Scan
from fakes import run_module
from loading import load_plugin

# --- On the host -----------------------------------------------------------------------------------------------------


class Scanners:
    """The scanners of a host, which note what they are asked.

    Attributes:
        calls: what was asked.
        missing: why a scanner could not be downloaded.
        broken: the scanner that fails, and how.
    """

    def __init__(self) -> None:
        self.calls, self.missing, self.run = list[tuple[Any, ...]](), dict[str, str](), "run"
        self.broken: dict[str, Exception] = {}

    def __getattr__(self, name: str) -> Any:
        def scanner(*given: Any) -> Any:
            self.calls.append((name, *given))
            if name in self.broken:
                raise self.broken[name]
            scan = Scan(name, name.title())
            return {"openscap": [scan, Scan("other", "Other")], "nginx": ("http {}", "why")}.get(name, scan)

        return scanner

    def why(self, name: str) -> str:
        return self.missing.get(name, "")


@pytest.fixture
def scanners(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scanners:
    found = Scanners()
    names = ("make_folder", "remove_folder", "system", "os_release", "is_ours", "whereabouts", "lacks")
    for name in names:
        answer = tmp_path if name == "make_folder" else name
        monkeypatch.setattr(host, name, lambda *given, n=name, a=answer: found.calls.append((n, *given)) or a)
    for name in ("ignore", "restore"):
        monkeypatch.setattr(bans, name, lambda *given, n=name: found.calls.append((n, *given)))
    monkeypatch.setattr(host, "Host", lambda folder: found.calls.append(("Host", folder)) or found)
    return found


def audit(monkeypatch: pytest.MonkeyPatch, **given: Any) -> dict[str, Any]:
    module = load_plugin("plugins/modules/flask_audit.py")
    monkeypatch.setattr(module, "abilities", lambda: {"apt": True})
    return run_module(monkeypatch, module, **given)


@pytest.mark.parametrize(
    ("given", "content"),
    [
        ({"scanners": ["lynis", "openscap"], "suite": "trixie"}, True),
        ({"scanners": ["lynis"], "suite": "trixie"}, False),
        ({"scanners": ["openscap"], "suite": "trixie", "content": "/srv/own.xml"}, False),
        ({"scanners": ["openscap"]}, False),
    ],
)
def test_a_host_is_prepared(
    monkeypatch: pytest.MonkeyPatch, scanners: Scanners, tmp_path: Path, given: dict[str, Any], content: bool
) -> None:
    result = audit(monkeypatch, step="prepare", operator="203.0.113.7", **given)
    assert result["changed"] is False
    assert (result["folder"], result["release"], result["ours"]) == (str(tmp_path), "os_release", "is_ours")
    assert (result["own"], result["lacks"], result["system"]) == ("whereabouts", "lacks", "system")
    # The operator is not banned for what the scanners do, so that comes first.
    begin = [("make_folder",), ("Host", tmp_path), ("ignore", tmp_path, "203.0.113.7", "run")]
    assert scanners.calls[:4] == [*begin, ("fetch", given["scanners"])]
    assert (("fetch_content", "trixie") in scanners.calls) is content
    assert ("lacks", {"apt": True}) in scanners.calls


def test_a_host_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, scanners: Scanners, tmp_path: Path) -> None:
    assert audit(monkeypatch, step="clean", folder=str(tmp_path))["changed"] is False
    assert scanners.calls == [("Host", tmp_path), ("restore", tmp_path, "run"), ("remove_folder", tmp_path)]


@pytest.mark.parametrize(
    ("given", "call"),
    [
        ({"scanner": "lynis"}, ("lynis",)),
        ({"scanner": "openscap", "profiles": ["cis"]}, ("openscap", ["cis"], Path("/nonexistent"))),
        ({"scanner": "openscap", "profiles": [], "content": "/x.xml"}, ("openscap", [], Path("/x.xml"))),
        ({"scanner": "testssl", "names": ["a.test"], "authority_pem": "PEM"}, ("testssl", ["a.test"], "PEM")),
        ({"scanner": "exposure", "limits": [{"unit": "x", "most": 2}]}, ("exposure", [{"unit": "x", "most": 2}])),
        ({"scanner": "listeners", "ports": [22]}, ("listeners", [22])),
        ({"scanner": "certificates", "least_days": 7}, ("certificates", 7)),
        ({"scanner": "updates"}, ("updates",)),
        ({"scanner": "backup"}, ("backup",)),
    ],
)
def test_each_scanner_gets_its_options(
    monkeypatch: pytest.MonkeyPatch, scanners: Scanners, given: dict[str, Any], call: tuple[Any, ...]
) -> None:
    result = audit(monkeypatch, step="inside", folder="/run/audit", **given)
    assert scanners.calls == [("Host", Path("/run/audit")), call]
    assert result["changed"] is False
    names = [call[0], "other"] if call[0] == "openscap" else [call[0]]
    assert [(scan["scanner"], scan["ran"]) for scan in result["scans"]] == [(name, True) for name in names]


def test_settings_of_nginx_are_handed_to_the_control_node(monkeypatch: pytest.MonkeyPatch, scanners: Scanners) -> None:
    result = audit(monkeypatch, step="inside", scanner="nginx")
    assert (result["changed"], result["settings"], result["why_not"]) == (False, "http {}", "why")


@pytest.mark.parametrize(
    ("missing", "why"), [({}, "disk is full"), ({"lynis": "Lynis was not downloaded."}, "Lynis was not downloaded.")]
)
@pytest.mark.parametrize("error", [OSError("disk is full"), host.AuditError("disk is full")])
def test_a_scanner_that_fails_is_a_result(
    monkeypatch: pytest.MonkeyPatch, scanners: Scanners, missing: dict[str, str], why: str, error: Exception
) -> None:
    scanners.broken, scanners.missing = {"lynis": error}, missing
    (scan,) = audit(monkeypatch, step="inside", scanner="lynis")["scans"]
    assert (scan["scanner"], scan["ran"], scan["why_not"]) == ("lynis", False, why)


def test_an_unknown_scanner_passes_nothing(monkeypatch: pytest.MonkeyPatch, scanners: Scanners) -> None:
    (scan,) = audit(monkeypatch, step="inside", scanner="make_folder")["scans"]
    assert (scan["ran"], scan["why_not"]) == (False, "There is no such scanner on the host.")


@pytest.mark.parametrize("step", ["outside", "report"])
def test_steps_of_the_control_node_need_the_action_plugin(
    monkeypatch: pytest.MonkeyPatch, scanners: Scanners, step: str
) -> None:
    result = audit(monkeypatch, step=step)
    assert result["failed"]
    assert f"The step {step} runs on the control node" in result["msg"]


# --- On the control node ---------------------------------------------------------------------------------------------


def act(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], **given: Any) -> tuple[dict[str, Any], list[Any]]:
    """Run the action with a module that answers so; return its result, and the module's arguments."""
    plugin = load_plugin("plugins/action/flask_audit.py")
    action, ran = object.__new__(plugin.ActionModule), list[Any]()
    action._task = SimpleNamespace(args=given)
    monkeypatch.setattr(plugin.ActionBase, "run", lambda *_given: {"base": True})
    monkeypatch.setattr(plugin, "write", lambda arguments, _now: {"left": arguments["rate"]})
    monkeypatch.setattr(action, "_scan", lambda arguments, _vars: [Scan(name, "X") for name in arguments["names"]])
    monkeypatch.setattr(action, "_execute_module", lambda **words: ran.append(words["module_args"]) or answer)
    return action.run(task_vars={}), ran


def test_scans_from_outside_and_the_report_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    result, ran = act(monkeypatch, {}, step="outside", names=["a", "b"])
    assert (result["base"], result["changed"], [scan["scanner"] for scan in result["scans"]]) == (
        True,
        False,
        ["a", "b"],
    )
    assert ran == []
    assert act(monkeypatch, {}, step="report") == ({"base": True, "changed": False, "left": 1000}, [])


@pytest.mark.parametrize("step", ["prepare", "inside", "clean"])
def test_other_steps_run_on_the_host(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    result, ran = act(monkeypatch, {"changed": False, "scans": [1]}, step=step, scanner="lynis")
    assert result == {"base": True, "changed": False, "scans": [1]}
    assert ran == [{"step": step, "scanner": "lynis"}]


@pytest.mark.parametrize(
    ("step", "more", "fails"),
    [("inside", {}, False), ("inside", {"unreachable": True}, True), ("prepare", {}, True), ("clean", {}, True)],
)
def test_a_scanner_that_breaks_the_module_is_a_result(
    monkeypatch: pytest.MonkeyPatch, step: str, more: dict[str, Any], fails: bool
) -> None:
    broken = {"failed": True, "msg": "MODULE FAILURE", "module_stderr": "killed", **more}
    result, _ran = act(monkeypatch, broken, step=step, scanner="lynis")
    assert bool(result.get("failed")) is fails
    if not fails:
        (scan,) = result["scans"]
        assert (result["changed"], scan["scanner"], scan["ran"]) == (False, "lynis", False)
        assert "MODULE FAILURE killed" in scan["why_not"]
