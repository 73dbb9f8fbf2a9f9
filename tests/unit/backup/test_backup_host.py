"""What Ansible does of backups: settings, the files on a host, timers, what status and audit tell."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.audit import backup as audit_backup
from ansible.module_utils.flaskhost.host.wanted import File
from ansible.module_utils.flaskhost.operate import status
from ansible.module_utils.flaskhost.programs import backup
from ansible.module_utils.flaskhost.requests.status import COLUMNS
from ansible.module_utils.flaskhost.settings import backup as backup_settings
from fakes import FakeModule
from loading import ROOT, load_plugin

NOW = 1_795_311_000.0
PASSPHRASE = "b0Zr7pSg1y/3VwqK9+Xd0uTj5LhEaMcN"

# --- Settings and files ----------------------------------------------------------------------------------------------


def test_a_site_that_says_nothing_has_no_backups_and_all_defaults() -> None:
    for nothing in (None, {}):
        found = backup_settings.settings(nothing)
        assert (found["passphrase"], found["second"], found["keep_days"]) == ("", {}, 14)
    found = backup_settings.settings({"second": {"repository": "s3:https://s/b", "environment": {"AWS_X": 5}}})
    assert found["second"] == {
        "repository": "s3:https://s/b", "ssh_key": "", "known_hosts": "", "environment": {"AWS_X": "5"}, "every": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("repository", "ends"),
    [
        ("sftp:backup@host:/x", "-l backup host -s sftp"),
        ("sftp:host:x/y", "host -s sftp"),
        ("sftp://backup@host:2222//x", "-p 2222 -l backup host -s sftp"),
        ("sftp://backup@[2001:db8::1]:22//x", "-p 22 -l backup 2001:db8::1 -s sftp"),
    ],
)
def test_ssh_is_told_whom_to_believe(repository: str, ends: str) -> None:
    (option,) = backup.sftp_options({"repository": repository, "ssh_key": "KEY"})
    assert option.startswith("sftp.command=ssh -o BatchMode=yes")
    assert option.endswith(ends)
    assert "StrictHostKeyChecking=yes" in option
    assert "-i /etc/flaskhost/backup/ssh_key" in option


def test_only_sftp_is_told_of_ssh_and_only_a_place_that_is_one() -> None:
    assert backup.sftp_options({"repository": "s3:https://s/b"}) == backup.sftp_options({}) == []
    for repository in ("sftp:host", "sftp://host", "sftp:a b:/x", "sftp:-oProxyCommand=x:/y z@h:/"):
        with pytest.raises(backup.Refused, match="is not a valid SFTP repository"):
            backup.sftp_options({"repository": repository})


def files(**options: Any) -> dict[str, File]:
    given = {"passphrase": PASSPHRASE, "config": {"host": "h1"}, "pgbackrest": "pass=@PASSPHRASE@\n", **options}
    return {file.path.name: file for file in backup.settings_files(given)}


def test_secrets_are_in_files_that_only_root_reads_and_no_diff_shows() -> None:
    second = {"repository": "sftp:a@h:/x", "ssh_key": "KEY", "known_hosts": "h k", "environment": {"A": "sesame"}}
    found = files(second=second)
    secret = [file for file in found.values() if any(word in file.text for word in (PASSPHRASE, "KEY", "sesame"))]
    assert {file.path.name for file in secret} == {"passphrase", "ssh_key", "environment.json", "pgbackrest.conf"}
    for file in secret:
        assert not file.shown
        assert file.diff()["after"] == "(not shown)\n"
        assert (file.mode, file.group) == ((0o640, "postgres") if file.path.name == "pgbackrest.conf" else (0o600, ""))
    config = json.loads(found["backup.json"].text)
    assert (config["enabled"], config["second"], config["host"]) == (True, "sftp:a@h:/x", "h1")


def test_a_key_that_is_taken_away_is_emptied() -> None:
    assert files()["ssh_key"].text == ""
    assert files()["environment.json"].text == "{}\n"


def test_without_a_passphrase_there_is_the_program_alone() -> None:
    found = files(passphrase="")
    assert list(found) == ["backup.json"]
    assert json.loads(found["backup.json"].text)["enabled"] is False


def test_a_passphrase_cannot_bring_settings_of_its_own() -> None:
    with pytest.raises(backup.Refused, match="one line"):
        files(passphrase=f"{PASSPHRASE}\nrepo1-path=/tmp")


def test_a_file_is_written_whole_and_once(tmp_path: Path) -> None:
    file = File(tmp_path / "below" / "file", "text\n", 0o600)
    assert not file.is_there()
    file.write()
    assert file.is_there()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.path.chmod(0o644)
    assert not file.is_there(), "others could read it"


# --- Timers ----------------------------------------------------------------------------------------------------------


class Systemd:
    """systemd with some timers."""

    def __init__(self, **timers: str) -> None:
        self.timers = timers

    def __call__(self, args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        blocks = []
        for name in args[4:]:
            state = self.timers.get(name.removeprefix("flaskhost-backup-").removesuffix(".timer"), "")
            active, enabled = ("active", "enabled") if state else ("inactive", "disabled")
            blocks.append(
                f"LoadState=loaded\nActiveState={active}\nUnitFileState={enabled}\nNeedDaemonReload=no\n"
                "StateChangeTimestamp=Sat 2026-11-21 10:30:12.123456 UTC\n"
            )
        return 0, "\n".join(blocks), ""


def test_timers_run_that_should_and_no_others() -> None:
    wanted = {"flaskhost-backup-full.timer": True, "flaskhost-backup-copy.timer": False}
    assert backup.timer_steps(Systemd(full="on"), wanted) == []
    steps = backup.timer_steps(Systemd(copy="on"), wanted)
    assert steps == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "flaskhost-backup-full.timer"],
        ["systemctl", "start", "flaskhost-backup-full.timer"],
        ["systemctl", "disable", "--now", "flaskhost-backup-copy.timer"],
    ]


def test_the_programs_answer_is_read_and_its_refusal_told() -> None:
    assert backup.ask(lambda *_a, **_o: (0, '{"changed": true}', ""), ["list"]) == {"changed": True}
    with pytest.raises(backup.Refused, match=r"^No room"):
        backup.ask(lambda *_a, **_o: (1, '{"problems": ["No room."]}', "<3>No room."), ["full"])
    with pytest.raises(backup.Refused, match=r"^Traceback"):
        backup.ask(lambda *_a, **_o: (1, "", "Traceback"), ["full"])


# --- Status and audit ------------------------------------------------------------------------------------------------


def answer(**changes: Any) -> str:
    good = {"at": NOW - 7200, "ok": True, "problems": []}
    found: dict[str, Any] = {"enabled": True, "database": True, "second": True, "problems": []}
    for kind, *_rest in audit_backup.KINDS:
        found[f"{kind}_state"] = {"good": good, "last": good}
    return json.dumps({**found, **changes})


FAILED = {"at": NOW, "ok": False, "problems": ["The repository is damaged."]}


@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ({}, {"backup": "2 h", "drill": "2 h"}),
        ({"drill_state": {"good": {}, "last": {}}}, {"backup": "2 h", "drill": ""}),
        (
            {"drill_state": {"good": {"at": NOW - 3 * 86400}, "last": FAILED}},
            {"backup": "2 h", "drill": "3 d, then failed"},
        ),
        ({"drill_state": {"good": {}, "last": FAILED}}, {"backup": "2 h", "drill": "failed"}),
        ({"enabled": False, "problems": ["There are no backups."]}, {"backup": "none", "drill": ""}),
        ({"second": False}, {"backup": "2 h", "drill": "2 h"}),
    ],
)
def test_status_tells_the_age_of_the_last_backup_and_drill(
    tmp_path: Path, changes: dict[str, Any], columns: dict[str, str]
) -> None:
    program = tmp_path / "flaskhost-backup"
    program.touch()
    found, notes = status.backup_status(lambda *_a, **_o: (0, answer(**changes), ""), program, NOW)
    assert found == {**columns, "queues": {}, "aside": []}

    here = [backup.ONLY_HERE] if changes.get("enabled", True) and not changes.get("second", True) else []
    assert notes.all == [*changes.get("problems", []), *here]
    assert notes.problems == (changes.get("problems", []) if changes.get("enabled", True) else [])
    assert {"backup", "drill"} <= set(COLUMNS)


def test_status_tells_the_age_of_the_last_backup_of_each_queue(tmp_path: Path) -> None:
    program = tmp_path / "flaskhost-backup"
    program.touch()
    queues = {"shop": {"good": {"at": NOW - 7200}, "last": {"ok": True}}, "blog": {"good": {}, "last": {}}}
    found, _notes = status.backup_status(lambda *_a, **_o: (0, answer(queues=queues), ""), program, NOW)
    assert found["queues"] == {"shop": "2 h", "blog": ""}


def test_a_host_without_the_program_or_with_a_broken_one_is_no_failure(tmp_path: Path) -> None:
    program = tmp_path / "flaskhost-backup"
    assert status.backup_status(lambda *_a, **_o: (0, "", ""), program, NOW) == ({}, status.Notes())
    program.touch()
    found, notes = status.backup_status(lambda *_a, **_o: (1, "", "it is broken"), program, NOW)
    assert (found, notes.problems) == ({}, ["backups: it is broken"])


def test_the_audit_fails_what_is_late_and_passes_the_rest() -> None:
    scan = audit_backup.parse(answer(), NOW)
    assert {finding.status for finding in scan.findings} == {"passed"}
    assert (scan.ran, scan.score_text) == (True, "2 hours old")
    late = audit_backup.parse(
        answer(drill_state={"good": {}, "last": FAILED}, problems=["The last drill failed."], second=False), NOW
    )
    told = {finding.id: finding.status for finding in late.findings}
    assert told == {
        "database": "passed", "files": "passed", "drill": "failed", "late/1": "failed", "second": "note",
    }  # fmt: skip
    by_id = {finding.id: finding for finding in late.findings}
    assert (by_id["files"].detail, by_id["files"].severity, by_id["files"].advice) == ("2 hours ago.", "info", "")
    assert by_id["drill"].detail == "There has been none. The last run failed: The repository is damaged."
    assert by_id["drill"].severity == "medium"
    assert by_id["drill"].advice == "On the host: sudo flaskhost-backup check"
    once = {"good": {"at": NOW - 7200, "ok": True, "problems": []}, "last": FAILED}
    (again,) = (one for one in audit_backup.parse(answer(files_state=once), NOW).findings if one.id == "files")
    assert (again.status, again.severity) == ("failed", "high")
    older = {"good": {"at": NOW - 18000}, "last": {"at": NOW - 18000, "ok": True, "problems": []}}
    alone = audit_backup.parse(answer(database=False, files_state=older), NOW)
    assert {finding.id for finding in alone.findings} == {"files", "second_files"}
    assert alone.score_text == "5 hours old"
    assert not audit_backup.parse("nonsense", NOW).ran
    assert not audit_backup.parse('{"problem": "The configuration cannot be read."}', NOW).ran


def test_a_host_whose_backups_are_off_has_one_thing_to_do() -> None:
    """The audit of the demo named four, three of them with a command that cannot help."""
    nothing = {"good": {}, "last": {}}
    off = answer(
        enabled=False, second=False, database_state=nothing, files_state=nothing, drill_state=nothing,
        problems=["There are no backups: backup.passphrase is not set."],
    )  # fmt: skip
    scan = audit_backup.parse(off, NOW)
    assert [(finding.id, finding.status, finding.severity) for finding in scan.findings] == [("off", "failed", "high")]
    assert "backup.passphrase is not set" in scan.findings[0].detail


# --- Check mode ------------------------------------------------------------------------------------------------------


def started(monkeypatch: pytest.MonkeyPatch, *, answer: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """What check mode says of the start; without an answer there is no program to ask."""
    module = load_plugin("plugins/modules/flask_backup.py")
    given = {"passphrase": "", "repository": "", "host": "h1", "timers": [], **options}

    def run(command: list[str], **_options: Any) -> tuple[int, str, str]:
        if command[0] == backup.PROGRAM:
            assert answer is not None, "it is not there"
            return 0, json.dumps(answer), ""
        return Systemd()(command)

    monkeypatch.setattr(backup, "is_enabled", lambda: answer is not None)
    return module.start(FakeModule(given, True, run))


def test_check_mode_on_a_bare_host_says_what_the_run_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = started(monkeypatch)
    assert (nothing["changed"], nothing["lines"], nothing["warnings"]) == (False, [], [backup.UNSET])
    alone = started(monkeypatch, passphrase=PASSPHRASE, timers=["full"])
    assert (alone["changed"], alone["lines"]) == (True, ["The first backup would be started."])
    assert alone["warnings"] == [backup.ONLY_HERE]
    assert started(monkeypatch, passphrase=PASSPHRASE, repository="/elsewhere")["warnings"] == []


def test_check_mode_asks_a_host_that_is_backed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"changed": False, "problems": ["The second repository cannot be reached."]}
    found = started(monkeypatch, answer=said, passphrase=PASSPHRASE, repository="/elsewhere")
    assert (found["changed"], found["lines"], found["warnings"]) == (False, [], said["problems"])


class OfAVerb:
    """The module as it runs a verb; the program is a script that takes down what it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, check_mode: bool = False) -> None:
        self.program, self.check_mode, self.params = folder / "flaskhost-backup", check_mode, {"passphrase": "x"}
        self.asked = folder / "asked"
        monkeypatch.setattr(backup, "PROGRAM", str(self.program))
        monkeypatch.setattr(backup, "apart", lambda *_given: [])

    def run_command(self, command: list[str], **_options: Any) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def answers(self, answer: dict[str, Any], status: int = 0) -> None:
        self.program.write_text(f"#!/bin/sh\necho \"$*\" >> {self.asked}\necho '{json.dumps(answer)}'\nexit {status}\n")
        self.program.chmod(0o755)

    def run(self, *arguments: str) -> dict[str, Any]:
        self.params["arguments"] = list(arguments)
        return load_plugin("plugins/modules/flask_backup.py").run_verb(self)


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_verb_on_a_host_without_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, check_mode: bool
) -> None:
    host = OfAVerb(tmp_path, monkeypatch, check_mode=check_mode)
    if check_mode:
        # A run would install it first, and then run the verb.
        assert host.run("full") == {"changed": True, "lines": [], "warnings": []}
    else:
        with pytest.raises(backup.Refused, match="Backups are not set up on this host"):
            host.run("full")


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [(["full"], False), (["restore", "--confirm", "h1"], False), (["status"], True), (["restore", "--check"], True)],
)
def test_check_mode_runs_only_what_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], asks: bool
) -> None:
    host = OfAVerb(tmp_path, monkeypatch, check_mode=True)
    host.answers({"changed": False, "lines": ["It was asked."]})
    found = host.run(*arguments)
    assert host.asked.exists() is asks
    assert found["changed"] is not asks
    assert found["lines"] == (["It was asked."] if asks else [f"flaskhost-backup {' '.join(arguments)} would be run."])


def test_a_verb_is_run_and_its_answer_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = OfAVerb(tmp_path, monkeypatch)
    host.answers({"changed": True, "lines": ["Done."], "restore": {"aside": "/x"}})
    assert host.run("restore", "--confirm", "h1") == {
        "changed": True, "lines": ["Done."], "restore": {"aside": "/x"}, "warnings": [],
    }  # fmt: skip
    assert host.asked.read_text().split()[:3] == ["restore", "--confirm", "h1"]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"enabled": false}', '{"enabled": true}'])
def test_whether_a_host_knows_a_passphrase(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "backup.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert backup.is_enabled(path) is (text == '{"enabled": true}')


def test_program_gets_all_that_the_role_knows_of_an_app() -> None:
    role = ROOT / "roles/backup"
    spec = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    keys = yaml.safe_load((role / "vars/main.yml").read_text())["__backup_app_keys"]
    assert keys == list(spec["backup_apps"]["options"])
