"""What the program remembers, and its lock."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from fakes import Killer
from flaskhost_certificates import state
from flaskhost_certificates.config import CertificateError
from flaskhost_certificates.state import State

KNOWN = State("acme", 5, 7, "no", 6, ("a.test", "b.test"), "https://ca.test/dir", "abc", "/tls/shop")


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "states"
    assert state.save(folder, "shop", KNOWN)
    assert state.load(folder, "shop") == KNOWN
    assert stat.S_IMODE((folder / "shop.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert state.names(folder) == ["shop"]


def test_nothing_is_written_where_nothing_is_new(tmp_path: Path) -> None:
    state.save(tmp_path, "shop", KNOWN)
    with Killer() as disk:
        assert not state.save(tmp_path, "shop", KNOWN)
    assert disk.count == 0


def test_an_empty_state_is_kept_too(tmp_path: Path) -> None:
    assert state.save(tmp_path, "shop", State())
    assert state.names(tmp_path) == ["shop"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_what_cannot_be_read_counts_as_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "shop.json").write_text(text, encoding="utf-8")
    assert state.load(tmp_path, "shop") == State()
    assert state.load(tmp_path, "wiki") == State()


def test_a_value_of_another_kind_counts_as_nothing_and_the_others_stay(tmp_path: Path) -> None:
    values = {"source": 3, "trusted_since": "soon", "not_before": 7.9, "asked": "a", "error": "no", "other": 1}
    (tmp_path / "shop.json").write_text(json.dumps(values), encoding="utf-8")
    assert state.load(tmp_path, "shop") == State(not_before=7, error="no")


def test_a_write_that_is_cut_off_leaves_what_was_there(tmp_path: Path) -> None:
    state.save(tmp_path, "shop", KNOWN)
    for number in (1, 2):
        with Killer(number), pytest.raises(KeyboardInterrupt):
            state.save(tmp_path, "shop", State("files"))
        assert state.load(tmp_path, "shop") == KNOWN
        assert state.names(tmp_path) == ["shop"]
    assert state.save(tmp_path, "shop", State("files"))


def test_a_state_is_forgotten(tmp_path: Path) -> None:
    state.save(tmp_path, "shop", KNOWN)
    state.remove(tmp_path, "shop")
    state.remove(tmp_path, "shop")
    assert state.names(tmp_path) == []


def test_one_run_at_a_time_and_the_other_says_who_is_at_work(tmp_path: Path) -> None:
    path, waits = tmp_path / "lock", []
    with (
        state.lock("renew", path),
        pytest.raises(CertificateError, match=r"is active: renew, process \d+, since .* UTC\."),
        state.lock("apply", path, 1.0, waits.append),
    ):
        pytest.fail("two runs at once")
    assert sum(waits) == 1.0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_lock_is_free_after_a_run_however_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ValueError, match="broken"), state.lock("renew", path):
        raise ValueError("broken")
    with state.lock("apply", path, 0):
        assert json.loads(path.read_text(encoding="utf-8"))["verb"] == "apply"


def test_who_waits_goes_on_when_the_other_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = state.lock("a verb with a long name", path)
    other.__enter__()
    with state.lock("apply", path, 1.0, lambda _: other.__exit__(None, None, None)):
        assert json.loads(path.read_text(encoding="utf-8"))["verb"] == "apply"


def test_a_lock_file_with_anything_in_it_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("garbage", encoding="utf-8")
    with state.lock("apply", path, 0):
        assert json.loads(path.read_text(encoding="utf-8"))["verb"] == "apply"
