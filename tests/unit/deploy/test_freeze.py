"""A freeze holds for whom it is meant, until it ends, and what cannot be read counts as one."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import freeze
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from ansible.module_utils.flaskhost.requests import freeze as freeze_request
from fakes import run_module
from loading import load_plugin

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()
HOUR = 3600.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flaskhost" / "freeze.json"


def put(file: Path, app: str, hours: float = 12, reason: str = "audit", now: float = NOW) -> dict[str, Any]:
    entries = freeze.put(app, reason=reason, until=now + hours * HOUR, by="ada@laptop", path=file, now=now)
    freeze.write(entries, file)
    return entries


def refusal(app: str, file: Path, now: float = NOW) -> ReleaseError:
    with pytest.raises(ReleaseError) as caught:
        freeze.check(app, file, now)
    return caught.value


# --- What holds ------------------------------------------------------------------------------------------------------


def test_without_a_file_nothing_is_frozen(file: Path) -> None:
    freeze.check("shop", file, NOW)
    assert freeze.active(file, NOW) == {}


def test_a_frozen_app_is_refused_with_reason_and_end(file: Path) -> None:
    put(file, "shop")
    error = refusal("shop", file)
    assert error.step == "Check for a freeze"
    assert error.reason == (
        "shop is frozen since 2026-11-21 12:00 UTC by ada@laptop: audit. It ends at 2026-11-22 00:00 UTC."
    )
    lift = "lift the freeze: ansible-playbook playbooks/freeze.yml -e freeze=off -e app=shop"
    assert error.cure == f"Wait until it ends, or {lift}"
    freeze.check("blog", file, NOW)


def test_all_apps_are_frozen_at_once(file: Path) -> None:
    put(file, freeze.ALL)
    assert "blog is frozen" in refusal("blog", file).reason
    assert refusal("shop", file).cure.endswith("-e freeze=off")


def test_of_two_freezes_the_longer_one_is_told(file: Path) -> None:
    put(file, freeze.ALL, hours=2, reason="move")
    put(file, "shop", hours=9, reason="sale")
    assert "sale" in refusal("shop", file).reason
    put(file, freeze.ALL, hours=20, reason="move")
    assert "move" in refusal("shop", file).reason


def test_a_freeze_ends_by_itself_and_is_dropped_at_the_next_write(file: Path) -> None:
    put(file, "shop", hours=1)
    freeze.check("shop", file, NOW + HOUR)
    assert refusal("shop", file, NOW + HOUR - 1)
    put(file, "blog", now=NOW + 2 * HOUR)
    assert list(json.loads(file.read_text())) == ["blog"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"shop": 1}',
        '{"shop": {}}',
        '{"shop": {"reason": "x", "until": "soon", "since": 1}}',
        '{"shop": {"reason": "x", "until": NaN, "since": 1}}',
        '{"shop": {"reason": "x", "until": 1e99, "since": 1}}',
        "\\udcff",
    ],
)
def test_a_damaged_file_counts_as_frozen_and_is_named(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_bytes(b"\xff" if text.startswith("\\") else text.encode())
    error = refusal("shop", file)
    assert str(file) in error.reason
    assert error.cure.endswith("-e freeze=off")
    for call in (lambda: put(file, "shop"), lambda: freeze.lift("shop", file, NOW)):
        with pytest.raises(ReleaseError):
            call()
    freeze.write(freeze.lift(freeze.ALL, file, NOW), file)
    freeze.check("shop", file, NOW)


def test_a_file_that_may_not_be_read_counts_as_frozen(file: Path) -> None:
    file.mkdir(parents=True)
    assert str(file) in refusal("shop", file).reason


def test_everybody_may_read_it_whatever_the_umask(file: Path) -> None:
    before = os.umask(0o077)
    try:
        put(file, "shop")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in file.parent.iterdir()] == ["freeze.json"]


def test_the_same_again_changes_nothing(file: Path) -> None:
    first = put(file, "shop")
    again = freeze.put("shop", reason="audit", until=NOW + 12 * HOUR, by="bob@desk", path=file, now=NOW + HOUR)
    assert again == first


def test_a_longer_one_holds_since_the_first(file: Path) -> None:
    put(file, "shop")
    entries = freeze.put("shop", reason="audit", until=NOW + 20 * HOUR, by="bob@desk", path=file, now=NOW + HOUR)
    assert entries["shop"] == {"reason": "audit", "until": NOW + 20 * HOUR, "since": NOW, "by": "bob@desk"}


def test_lifting_one_leaves_the_others(file: Path) -> None:
    for app in ("shop", "blog", freeze.ALL):
        put(file, app)
    assert set(freeze.lift("shop", file, NOW)) == {"blog", freeze.ALL}
    freeze.write(freeze.lift(freeze.ALL, file, NOW), file)
    assert not file.exists(), "all means all"


def test_what_may_pass_says_how(tmp_path: Path) -> None:
    file = tmp_path / "freeze.json"
    freeze.write({"shop": {"reason": "sale", "until": NOW + 60, "since": NOW, "by": ""}}, file)
    with pytest.raises(ReleaseError) as caught:
        freeze.check("shop", file, NOW, passed_by="-e force=true")
    cure = "Add -e force=true to continue despite the freeze, or lift the freeze: ansible-playbook "
    assert caught.value.cure.startswith(cure)


# --- What an operator asks for ---------------------------------------------------------------------------------------


def ask(**given: Any) -> dict[str, Any]:
    return freeze_request.request({"reason": "audit", "hours": "12", **given}, ["shop", "blog"], NOW)


def test_a_request_is_understood() -> None:
    found = ask()
    assert found.pop("says")
    assert found == {
        "problem": "",
        "app": "*",
        "state": "present",
        "reason": "audit",
        "ends": NOW + 12 * HOUR,
        "by": freeze_request.operator(),
    }
    assert "@" in freeze_request.operator()


@pytest.mark.parametrize(
    ("given", "option", "value"),
    [
        ({"app": "shop"}, "app", "shop"),
        ({"app": "all"}, "app", "*"),
        ({"reason": "  a\n b "}, "reason", "a b"),
        ({"hours": 2}, "ends", NOW + 2 * HOUR),
        ({"hours": "0.5"}, "ends", NOW + HOUR / 2),
        ({"hours": "", "until": "2026-12-01 08:00"}, "ends", datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()),
        ({"hours": "", "until": "2026-12-01T08:00:00Z"}, "ends", datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()),
        ({"hours": "", "until": "2026-12-01T08:00+02:00"}, "ends", datetime(2026, 12, 1, 6, tzinfo=UTC).timestamp()),
        ({"hours": "", "until": "2026-12-01"}, "ends", datetime(2026, 12, 1, tzinfo=UTC).timestamp()),
        ({"freeze": "on"}, "state", "present"),
        ({"freeze": True}, "state", "present"),
        ({"freeze": "off", "reason": "", "hours": ""}, "state", "absent"),
        ({"freeze": False, "reason": "", "hours": ""}, "state", "absent"),
        ({"freeze": "OFF", "app": "shop"}, "app", "shop"),
    ],
    ids=str,
)
def test_what_is_given_arrives(given: dict[str, Any], option: str, value: Any) -> None:
    request = ask(**given)
    assert (request["problem"], request.get(option)) == ("", value)


@pytest.mark.parametrize(
    ("given", "variable", "word"),
    [
        ({"app": "shp"}, "app", "blog, shop"),
        ({"app": "shp", "freeze": "off"}, "app", "blog, shop"),
        ({"freeze": "maybe"}, "freeze", "on or off"),
        ({"reason": ""}, "reason", "hours=12"),
        ({"reason": "  "}, "reason", "hours=12"),
        ({"hours": ""}, "hours or until", "none is set"),
        ({"until": "2026-12-01 08:00"}, "hours or until", "both are set"),
        ({"hours": "0"}, "hours", "number of hours"),
        ({"hours": "-1"}, "hours", "number of hours"),
        ({"hours": "nan"}, "hours", "number of hours"),
        ({"hours": "12h"}, "hours", "number of hours"),
        ({"hours": "2161"}, "hours", "90 days"),
        ({"hours": "", "until": "tomorrow"}, "until", "tomorrow"),
        ({"hours": "", "until": "2026-11-21 12:00"}, "until", "end in the past"),
        ({"hours": "", "until": "2020-01-01"}, "until", "end in the past"),
        ({"hours": "", "until": "2027-03-01"}, "until", "90 days"),
        ({"lost": "sale"}, "'sale'", "reason='big sale'"),
    ],
    ids=str,
)
def test_what_is_not_clear_is_named(given: dict[str, Any], variable: str, word: str) -> None:
    request = ask(**given)
    assert set(request) == {"problem"}
    assert request["problem"].startswith((f"{variable}: ", f"{variable} belongs"))
    assert word in request["problem"]
    assert request["problem"].endswith("Nothing has been changed.")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "All apps are frozen until 2026-"),
        ({"app": "shop"}, "shop is frozen until 2026-"),
        ({"freeze": "off"}, "All apps are no longer frozen."),
        ({"freeze": "off", "app": "shop"}, "shop is no longer frozen."),
    ],
)
def test_a_freeze_repeats_until_when(given: dict[str, Any], says: str) -> None:
    found = ask(**given)["says"]
    assert found.startswith(says)
    if not given.get("freeze"):
        assert " UTC: audit. To lift the freeze: ansible-playbook playbooks/freeze.yml -e freeze=off" in found
        assert found.endswith(" -e app=shop") is ("app" in given)


# --- The module ------------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, check: bool = False, **options: Any) -> dict[str, Any]:
    return run_module(monkeypatch, load_plugin("plugins/modules/flask_freeze.py"), check=check, **options)


def test_the_module_freezes_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"path": str(file), "reason": "audit", "ends": 4e9, "by": "ada@laptop"}
    predicted = run(monkeypatch, check=True, **options)
    assert predicted["changed"]
    assert not file.exists()
    first = run(monkeypatch, **options)
    assert first["changed"]
    assert "audit" in first["diff"]["after"]
    assert "shop is frozen" in refusal("shop", file).reason
    assert run(monkeypatch, **options)["changed"] is False


def test_the_module_lifts_once_and_says_what_still_holds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(file, freeze.ALL, now=4e9)
    put(file, "shop", now=4e9)
    one = run(monkeypatch, path=str(file), app="shop", state="absent")
    assert one["changed"]
    assert "shop stays frozen" in one["warnings"][0]
    assert run(monkeypatch, path=str(file), state="absent")["changed"]
    last = run(monkeypatch, path=str(file), state="absent")
    assert (last["changed"], last["warnings"], file.exists()) == (False, [], False)


@pytest.mark.parametrize("options", [{"ends": 4e9}, {"reason": "x", "ends": 5.0}])
def test_the_module_wants_a_reason_and_an_end(
    file: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    assert run(monkeypatch, path=str(file), **options)["failed"]
    assert not file.exists()


def test_the_module_repairs_a_damaged_file_only_as_a_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.parent.mkdir()
    file.write_text("{")
    assert run(monkeypatch, path=str(file), app="shop", state="absent")["failed"]
    assert run(monkeypatch, path=str(file), state="absent")["changed"]
    assert not file.exists()


def test_the_file_can_be_read_by_people_and_is_the_same_for_the_same_entries() -> None:
    assert freeze.render({}) == ""
    assert freeze.render({"b": {"by": "Zoë", "at": 1}, "a": {}}) == (
        '{\n  "a": {},\n  "b": {\n    "at": 1,\n    "by": "Zoë"\n  }\n}\n'
    )
