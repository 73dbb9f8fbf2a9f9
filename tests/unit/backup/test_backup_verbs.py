"""flaskhost-backup: what is remembered, what is late, and one run at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import ClassVar

import pytest
from ansible.module_utils.flaskhost.deploy import migrate
from ansible.module_utils.flaskhost.programs import backup
from backup_settings import CLUSTER, NOW, good, settings
from flaskhost_backup import (
    check,
    cli,
    hook,
    prepare,
    restic,
    state,
    status,
    unlock,
)
from flaskhost_backup.config import BackupError
from flaskhost_backup.result import Result


def test_a_run_that_failed_does_not_make_the_last_good_one_forgotten(tmp_path: Path) -> None:
    now = state.State(tmp_path)
    now.note("database", {"at": 1, "ok": True})
    now.note("database", {"at": 2, "ok": False, "problems": ["No."]})
    assert (now.read("database")["good"]["at"], now.read("database")["last"]["at"]) == (1, 2)
    (tmp_path / "database.json").write_text("{", encoding="utf-8")
    assert now.read("database") == {"last": {}, "good": {}}


def test_a_backup_that_is_late_is_told(tmp_path: Path) -> None:
    config = settings(tmp_path, cluster=CLUSTER, second="/elsewhere")
    good(tmp_path, "database", "files", "copy", "second_files", "drill", at=NOW)
    assert status.late(config, NOW + 600) == []
    after = status.late(config, NOW + 27 * 3600)
    assert [line.split(" is ")[0] for line in after] == [
        "The last backup of the database", "The last backup of the files",
        "The last copy of the files in the second repository", "The last copy of the database in the second repository",
    ]  # fmt: skip
    assert any("good drill" in line for line in status.late(config, NOW + 9 * 86400))


def test_a_new_host_has_its_time(tmp_path: Path) -> None:
    config = settings(tmp_path, cluster=CLUSTER)
    state.write_json(tmp_path / "state" / "since.json", {"at": NOW})
    assert status.late(config, NOW + 3600) == []
    assert "has not been created yet" in status.late(config, NOW + 27 * 3600)[0]


def test_a_new_login_of_the_second_repository_is_tried_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the run of site.yml that has set a wrong one ends well, and the next copy fails."""
    asked: ClassVar[list[str]] = []

    class Store(restic.Restic):
        def make(self) -> bool:
            asked.append(self.repository)
            if "wrong" in login.read_text(encoding="utf-8"):
                raise BackupError("The second repository cannot be reached (401 Unauthorized).", "See to it.")
            return False

    monkeypatch.setattr(restic, "second", lambda config: Store(config, config.second, "The second repository"))
    config = settings(tmp_path, second="rest:https://store/h1/")
    login = tmp_path / "secrets" / "environment.json"
    login.parent.mkdir()
    config.files_repository.mkdir(parents=True)
    (config.files_repository / "config").touch()

    def set_login(text: str) -> Result:
        login.write_text(text, encoding="utf-8")
        os.utime(login, (NOW + len(asked), NOW + len(asked)))
        return prepare.prepare(config, dry=False, now=NOW)

    assert set_login("right").problems == []
    assert prepare.prepare(config, dry=False, now=NOW).changed is False
    assert len(asked) == 1
    for _run in range(2):
        assert "401" in set_login("wrong").problems[0]
    assert len(asked) == 3
    assert set_login("right").problems == []
    assert prepare.prepare(config, dry=False, now=NOW).changed is False


def test_without_a_passphrase_it_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(tmp_path, enabled=False)
    assert prepare.prepare(config, dry=True, now=NOW).problems == [backup.UNSET]
    # By itself the host cannot know which of the two it is; a playbook can.
    (late,) = status.late(config, NOW)
    assert "is not set, or site.yml has not run" in late
    assert backup.why_off(late, "a passphrase").endswith("site.yml has not run since. Run site.yml.")
    assert backup.why_off(late, "").endswith("Put it into the vault (docs/backup.md), then run site.yml.")
    assert backup.why_off("No room.", "") == "No room."
    (tmp_path / "config.json").write_text(
        json.dumps({"host": "h1", "enabled": False, "state": str(tmp_path / "s"), "repository": str(tmp_path / "r")}),
        encoding="utf-8",
    )
    assert cli.main(["check", "--config", str(tmp_path / "config.json")]) == 1
    # A deploy tells that apart from a point that could not be noted.
    point = ["point", "--app", "shop", "--release", "r2", "--previous", "r1"]
    assert cli.main([*point, "--config", str(tmp_path / "config.json")]) == migrate.NO_BACKUPS
    assert "backup.passphrase is not set" in capsys.readouterr().err


def test_a_dump_on_standard_output_takes_no_result_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["give-out", "--database", "shop", "--json"])
    said = capsys.readouterr()
    assert said.out == ""
    assert "--json" in said.err and "standard output is the dump" in said.err


def test_backups_on_this_host_alone_are_not_as_they_should_be(tmp_path: Path) -> None:
    good(tmp_path, "files", "copy", "second_files", "drill", at=NOW)
    alone = check.check(settings(tmp_path), NOW)
    assert (alone.problems, alone.lines) == ([], [backup.ONLY_HERE])
    assert status.status(settings(tmp_path), NOW).lines == [backup.ONLY_HERE]
    assert backup.shortcomings("passphrase", "") == [backup.ONLY_HERE]
    both = settings(tmp_path, second="/elsewhere")
    assert check.check(both, NOW).lines == ["All backups are up to date."]
    assert status.status(both, NOW).lines == backup.shortcomings("passphrase", "/elsewhere") == []
    assert status.status(settings(tmp_path, enabled=False), NOW).lines == []


def test_the_hook_is_told_what_is_wrong_and_nobody_else(tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text(
        f'#!/bin/sh\n(echo "$FLASKHOST_HOST $FLASKHOST_VERB $FLASKHOST_PROBLEM"; cat) > {tmp_path}/told\n'
    )
    script.chmod(0o755)
    config = settings(tmp_path, hook=[str(script)])
    assert hook.call_hook(config, "full", Result()) == ""
    assert not (tmp_path / "told").exists()
    assert hook.call_hook(config, "full", Result(problems=["Full."])) == ""
    first, second = (tmp_path / "told").read_text().splitlines()
    assert first == "h1 full Full."
    assert json.loads(second) == {"host": "h1", "verb": "full", "problems": ["Full."]}
    assert "hook" in hook.call_hook(settings(tmp_path, hook=["/nowhere"]), "full", Result(problems=["x"]))


def test_two_runs_do_not_work_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with state.lock("full", path), pytest.raises(BackupError, match="full, process"):  # noqa: SIM117 - the order counts
        with state.lock("drill", path, 0.0, lambda _seconds: None):
            pass
    with state.lock("drill", path, 0.0):
        pass


def test_a_restore_waits_for_no_deploy(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with state.held([path]), pytest.raises(BackupError, match="A deploy has locked"):  # noqa: SIM117 - the order counts
        with state.held([path]):
            pass


def test_nothing_is_replaced_unless_somebody_says_so() -> None:
    with pytest.raises(BackupError, match="--confirm h1"):
        cli._confirmed("shop", "h1", "the cluster")
    cli._confirmed("h1", "h1", "the cluster")


class Locks(restic.Restic):
    """A repository that notes what it is asked."""

    asked: ClassVar[list[str]] = []

    def make(self) -> bool:
        self.asked.append(f"make {self.where}")
        return True

    def unlock(self) -> None:
        self.asked.append(f"unlock {self.where}")


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(restic, "local", lambda config: Locks(config, "/x", "The first"))
    monkeypatch.setattr(restic, "second", lambda config: Locks(config, config.second, "The second"))
    monkeypatch.setattr(Locks, "asked", [])
    return Locks.asked


def test_both_repositories_are_unlocked_if_there_are_backups(tmp_path: Path, locks: list[str]) -> None:
    with pytest.raises(BackupError):
        unlock.unlock(settings(tmp_path, enabled=False, second="rest:https://store/h1/"))
    assert locks == []
    assert unlock.unlock(settings(tmp_path)).changed
    assert unlock.unlock(settings(tmp_path, second="rest:https://store/h1/")).changed
    assert locks == ["unlock The first", "unlock The first", "unlock The second"]


def test_the_first_repository_is_made_once_and_not_by_a_dry_run(tmp_path: Path, locks: list[str]) -> None:
    config = settings(tmp_path)
    assert prepare.prepare(config, dry=True, now=NOW).changed
    assert locks == []
    result = prepare.prepare(config, dry=False, now=NOW)
    assert (result.changed, result.lines) == (True, ["The first was created."])
    config.files_repository.mkdir(parents=True, exist_ok=True)
    (config.files_repository / "config").touch()
    assert not prepare.prepare(config, dry=False, now=NOW).changed
    assert locks == ["make The first"]
