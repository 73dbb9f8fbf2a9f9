"""flaskhost-backup and its lock: who waits, who is told, and what a restore does with a copy that hangs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import lock as lock_file
from backup_settings import NOW, settings
from flaskhost_backup import cli, config, leftovers, prepare, restic, restore_files, second_copy, state, tools
from flaskhost_backup.result import Result
from flaskhost_backup.tools import Done

RESTORE = ["restore-files", "--app=shop", "--confirm=shop"]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a program is asked to do whose lock is in a folder of the test, and which waits for nobody."""
    calls: list[str] = []
    (tmp_path / "config.json").write_text(
        json.dumps({"host": "h1", "state": str(tmp_path / "state"), "repository": str(tmp_path / "repository")}),
        encoding="utf-8",
    )
    monkeypatch.setattr(state, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(cli, "PATIENCE", 0.0)
    monkeypatch.setattr(restore_files, "check", lambda *_given, **_more: Result(lines=["It can be restored."]))
    monkeypatch.setattr(restore_files, "files", lambda *_given, **_more: Result(changed=True, lines=["Restored."]))
    monkeypatch.setattr(second_copy, "end", lambda: calls.append("end"))
    return calls


def run(tmp_path: Path, *arguments: str) -> int:
    """Run the program on the test's configuration."""
    return cli.main([*arguments, "--config", str(tmp_path / "config.json")])


@contextlib.contextmanager
def running(verb: str, tmp_path: Path) -> Iterator[contextlib.ExitStack]:
    """Hold the lock as another run does; the stack lets go of it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_file.hold(tmp_path / "lock", verb, 0.0))
        yield stack


def test_a_restore_ends_a_copy_that_is_in_its_way(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running("copy", tmp_path) as copy:
        monkeypatch.setattr(second_copy, "end", copy.close)
        assert run(tmp_path, *RESTORE) == 0
    out = capsys.readouterr().out
    assert out.startswith("The copy to the second repository was in the way and has been stopped.")
    assert "Restored." in out
    assert asked == []


def test_a_copy_of_the_operators_own_is_named(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """systemd does not know it, so it goes on."""
    with running("copy", tmp_path):
        assert run(tmp_path, *RESTORE) == 1
    assert asked == ["end"]
    told = capsys.readouterr().err
    assert "Another run is active: copy, process" in told
    assert "sudo systemctl stop flaskhost-backup@copy" in told


def test_a_check_before_a_restore_ends_nothing(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with running("copy", tmp_path):
        assert run(tmp_path, *RESTORE, "--check") == 0
    assert asked == []
    assert "It can be restored." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "held"), [("restore-files", "full"), ("restore-files", "restore"), ("remove", "copy")]
)
def test_nothing_else_is_ended(
    verb: str, held: str, tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with running(held, tmp_path):
        assert run(tmp_path, *(RESTORE if verb == "restore-files" else [verb])) == 1
    assert asked == []
    told = capsys.readouterr().err
    assert f"Another run is active: {held}, process" in told
    assert ("systemctl stop" in told) is (held == "copy")


def test_site_yml_waits_for_no_backup_if_it_has_nothing_to_do(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dry: list[bool] = []
    nothing_to_do = True

    def prepared(_settings: config.Config, **given: Any) -> Result:
        dry.append(given["dry"])
        return Result(changed=not nothing_to_do, data={"first": False})

    monkeypatch.setattr(prepare, "prepare", prepared)
    with running("full", tmp_path):
        assert run(tmp_path, "prepare") == 0
        assert dry == [True]
        nothing_to_do = False
        assert run(tmp_path, "prepare") == 1
    assert "Another run is active: full" in capsys.readouterr().err
    assert dry == [True, True]
    assert run(tmp_path, "prepare") == 0
    assert dry == [True, True, True, False]


def test_the_time_of_the_first_run_is_a_change_too(tmp_path: Path) -> None:
    """The age of a backup that never was counts from it, so it is written although the repositories are there."""
    given = settings(tmp_path)
    given.files_repository.mkdir(parents=True)
    (given.files_repository / "config").touch()
    assert prepare.prepare(given, dry=True, now=NOW).changed
    assert prepare.prepare(given, dry=False, now=NOW).changed
    assert not prepare.prepare(given, dry=True, now=NOW).changed


def test_a_run_keeps_the_login_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the repository, too. A copy that took a later login held the lock for a quarter of an hour."""
    given: list[Any] = []

    def done(_command: Any, **options: Any) -> Done:
        given.append(options["env"].get("AWS_SECRET_ACCESS_KEY"))
        return Done(0, "", "")

    monkeypatch.setattr(tools, "run", done)
    file, login = tmp_path / "config.json", tmp_path / "secrets" / "environment.json"
    login.parent.mkdir()
    file.write_text(json.dumps({"host": "h1", "secrets": str(login.parent), "second": "s3:https://store/b/h1"}))
    login.write_text('{"AWS_SECRET_ACCESS_KEY": "right"}')
    first = config.load(file)
    login.write_text('{"AWS_SECRET_ACCESS_KEY": "another"}')
    for loaded in (first, config.load(file)):
        restic.second(loaded).run("cat", "config")
        restic.local(loaded).run("cat", "config")
    assert given == ["right", None, "another", None]
    assert "right" not in repr(first)


@pytest.mark.parametrize("text", ["", "no JSON", "[]", None])
def test_without_a_login_there_is_none(text: str | None, tmp_path: Path) -> None:
    file, login = tmp_path / "config.json", tmp_path / "environment.json"
    file.write_text(json.dumps({"host": "h1", "secrets": str(tmp_path)}))
    if text is not None:
        login.write_text(text)
    assert config.load(file).login == {}


def test_what_killed_runs_left_is_ended_before_the_work_begins(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "end_left", lambda _config: asked.append("end what is left"))
    monkeypatch.setattr(restore_files, "files", lambda *_given, **_more: asked.append("restore") or Result())
    assert run(tmp_path, *RESTORE) == 0
    assert asked == ["end what is left", "restore"]
