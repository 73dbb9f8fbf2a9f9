"""The environment file says to systemd what it was told, whatever that is, and a secret is nobody's but root's."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost import environment
from ansible.module_utils.flaskhost.runner import ReleaseError
from fakes import load_environment_file

HOSTILE = [
    "",
    " both ends ",
    '"',
    "'",
    "\\",
    "\\\\n",
    "ends in a backslash\\",
    "$HOME ${HOME} $$ `id` $(id)",
    "two\nlines",
    "\nEVIL=1\n",
    '"\nEVIL="1',
    "\\\nEVIL=1",
    "# no comment",
    "; no comment",
    "a=b=c",
    "-----BEGIN KEY-----\r\nabc\r\n-----END KEY-----\r\n",
    "tab\there",
    "\x1b[31m\x7f",
    "%n %% %h",
    "Grüße, 世界 \U0001f600 \u2028 \u0085",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_systemd_reads_back_what_was_written(value: str) -> None:
    text = environment.render({"FIRST": value, "SECOND": "2"})
    assert load_environment_file(text) == {"FIRST": value, "SECOND": "2"}


def test_systemd_reads_back_any_mixture_of_special_characters() -> None:
    chance = random.Random(27)  # noqa: S311 - the same every time
    for _ in range(3000):
        value = "".join(chance.choice("\\\"$`'\n\r\t #;={}ab\u00e9") for _ in range(chance.randrange(12)))
        assert load_environment_file(environment.render({"A": value, "B": ""})) == {"A": value, "B": ""}


def test_the_text_does_not_depend_on_the_order() -> None:
    assert environment.render({"B": "2", "A": "1"}) == environment.render({"A": "1", "B": "2"}) == 'A="1"\nB="2"\n'
    assert environment.render({}) == ""


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A\nB", "#A", "Ä", "A-B", "A\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        environment.render({name: "the value"})
    assert "the value" not in str(caught.value)


@pytest.mark.parametrize("character", ["\0", "\ud800", "\ufffe", "\uffff", "\ufdd0"])
def test_a_character_with_which_systemd_refuses_the_whole_file_is_refused(character: str) -> None:
    with pytest.raises(ReleaseError, match="MAIL_PASSWORD") as caught:
        environment.render({"MAIL_PASSWORD": f"hunter{character}2"})
    assert "hunter" not in caught.value.reason


def test_the_secret_key_is_made_once_and_is_roots_alone(tmp_path: Path) -> None:
    key = environment.secret_key(tmp_path)
    assert len(key) >= 64
    assert environment.secret_key(tmp_path) == environment.secret_key(tmp_path, create=False) == key
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


def test_two_apps_have_two_secret_keys(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert environment.secret_key(tmp_path / "one") != environment.secret_key(tmp_path / "two")


def test_check_mode_makes_no_secret_key(tmp_path: Path) -> None:
    assert environment.secret_key(tmp_path, create=False) == ""
    assert environment.secret_key(tmp_path / "missing", create=False) == ""
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_no_secret_key(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("\n", encoding="utf-8")
    key = environment.secret_key(tmp_path)
    assert key
    assert environment.secret_key(tmp_path) == key


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_private_file_is_private_whatever_was_there_before(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "env"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o666)
    (tmp_path / "env.partial").symlink_to(tmp_path / "elsewhere")
    before = os.umask(umask)
    try:
        environment.write_private(path, "new Grüße\n")
    finally:
        os.umask(before)
    assert path.read_text(encoding="utf-8") == "new Grüße\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["env"]


def test_a_private_file_is_never_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "env"
    environment.write_private(path, "old")

    def full_disk(_descriptor: int) -> None:
        assert stat.S_IMODE((tmp_path / "env.partial").stat().st_mode) == 0o600
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            environment.write_private(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    environment.write_private(path, "newer")
    assert path.read_text(encoding="utf-8") == "newer"
