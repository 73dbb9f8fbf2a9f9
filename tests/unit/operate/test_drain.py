"""An app host leaves the rotation and comes back: the mark, the wait and the note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.operate import drain
from fakes import run_module
from loading import load_plugin

module = load_plugin("plugins/modules/flask_drain.py")


def test_the_mark_is_put_once_and_lifted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = tmp_path / "flaskhost" / "drained"

    def play(check: bool = False, **options: Any) -> tuple[bool, bool]:
        done = run_module(monkeypatch, module, check=check, path=str(mark), **options)
        return done["changed"], done["drained"]

    assert play(check=True, state="present") == (True, False)
    assert not mark.exists()
    assert play(state="present", by="ada@laptop") == (True, False)
    assert drain.read(mark)["by"] == "ada@laptop"
    assert play(state="present", by="bob@laptop") == (False, True)
    assert drain.read(mark)["by"] == "ada@laptop", "who drained it first"
    assert play() == (False, True)
    assert play(state="absent") == (True, True)
    assert play(state="absent") == (False, False)
    assert drain.read(mark) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"at": "noon"}', "\udcff"])
def test_a_mark_that_cannot_be_read_is_a_mark(text: str, tmp_path: Path) -> None:
    mark = tmp_path / "drained"
    mark.write_text(text, errors="surrogateescape")
    assert drain.read(mark) == {"by": "somebody", "at": 0.0}
    assert list(drain.notes(mark)) == [
        "DRAINED by somebody: no visitors until ansible-playbook playbooks/drain.yml -e drain=off"
    ]


def test_the_status_says_since_when(tmp_path: Path) -> None:
    mark = tmp_path / "drained"
    assert list(drain.notes(mark)) == []
    drain.put("ada@laptop", 1000.0, mark)
    (note,) = drain.notes(mark, now=1000.0 + 3 * 3600)
    assert note.startswith("DRAINED for 3 h by ada@laptop: ")
    assert json.loads(mark.read_text()) == {"by": "ada@laptop", "at": 1000.0}


def test_the_live_releases_are_reported(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "current").symlink_to("releases/20261121T101500Z-1a2b3c4")
    roots = {"shop": str(tmp_path / "shop"), "hello": str(tmp_path / "hello")}
    assert drain.releases(roots) == {"shop": "20261121T101500Z-1a2b3c4", "hello": ""}


def test_the_wait_ends_with_the_last_request_or_in_time() -> None:
    counts, pauses = iter([2, 1, 0]), []
    assert drain.wait(60, lambda: next(counts), pauses.append) == 0
    assert len(pauses) == 2
    assert drain.wait(3, lambda: 1, pauses.append) == 1


def test_only_workers_that_leave_are_waited_for(tmp_path: Path) -> None:
    names = [b"nginx: worker process is shutting down", b"nginx: worker process", b"nginx: master process nginx", b""]
    for number, name in enumerate(names, 100):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes(name + b"\0")
    (tmp_path / "104").mkdir()
    assert drain.leaving(tmp_path) == 1
