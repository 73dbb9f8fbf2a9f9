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
