"""The module flask_maintenance: what it switches for an operator, and what for a run of restore.yml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import freeze
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from ansible.module_utils.flaskhost.operate.maintenance import Outcome, Request, Site
from ansible.module_utils.flaskhost.operate.run_page import LEASE
from fakes import run_module
from loading import load_plugin

SITES = [{"name": "shop", "folder": "/srv/shop/maintenance"}]
OUTCOME = Outcome(changed=True, reloaded=True, apps=["shop"], diff=[{"after": "x"}])


class Pages:
    """Maintenance and RunPages in one, which note their calls."""

    def __init__(self, calls: list[tuple[Any, ...]], *given: Any, **words: Any) -> None:
        self.calls = calls
        calls.append(("made", *given[1:], words))

    def switch(self, request: Request) -> Outcome:
        self.calls.append(("switch", request.on, request.sites))
        if request.message == "fail":
            raise ReleaseError("Reload nginx", "nginx -t failed", "Correct it.")
        return OUTCOME

    def show(self, request: Request, lease: int) -> Outcome:
        self.calls.append(("show", request.sites, lease))
        return OUTCOME

    def end(self, sites: tuple[Site, ...]) -> Outcome:
        self.calls.append(("end", sites))
        return OUTCOME


def switch(monkeypatch: pytest.MonkeyPatch, *, check: bool = False, **given: Any) -> tuple[dict[str, Any], list[Any]]:
    """Run the module; return its result and the calls."""
    module, calls = load_plugin("plugins/modules/flask_maintenance.py"), list[tuple[Any, ...]]()
    for name in ("Maintenance", "RunPages"):
        monkeypatch.setattr(module, name, lambda *more, **words: Pages(calls, *more, **words))
    result = run_module(monkeypatch, module, check=check, **{"sites": SITES, "lease": LEASE, **given})
    return result, calls


SHOP = (Site("shop", Path("/srv/shop/maintenance")),)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(("word", "on"), [("present", True), ("absent", False)])
def test_an_operator_switches(monkeypatch: pytest.MonkeyPatch, check: bool, word: str, on: bool) -> None:
    result, calls = switch(monkeypatch, check=check, state=word)
    assert calls == [("made", freeze.check, {"check": check}), ("switch", on, SHOP)]
    assert (result["changed"], result["reloaded"], result["apps"]) == (True, True, ["shop"])
    assert result["diff"] == OUTCOME.diff


@pytest.mark.parametrize(("word", "call"), [("present", ("show", SHOP, 90)), ("absent", ("end", SHOP))])
def test_a_run_has_a_page_of_its_own(monkeypatch: pytest.MonkeyPatch, word: str, call: tuple[Any, ...]) -> None:
    result, calls = switch(monkeypatch, state=word, run="20261121T101500Z-7", lease=90)
    assert calls == [("made", "20261121T101500Z-7", {"check": False}), call]
    assert result["changed"]


def test_what_fails_is_told_with_its_step_and_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _calls = switch(monkeypatch, state="present", message="fail")
    assert result["failed"]
    assert result["step"] == "Reload nginx"
    assert result["msg"] == "The maintenance page was not switched. Reload nginx: nginx -t failed\nCorrect it."
