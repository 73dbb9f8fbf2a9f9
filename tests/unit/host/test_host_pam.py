"""The module host_pam: what pam-auth-update makes of a profile is accepted, or all is as it was before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import run_module
from loading import load_plugin

AUTH = """\
auth	[success=1 default=ignore]	pam_unix.so nullok
auth	requisite			pam_deny.so
auth	required			pam_permit.so
"""
ACCOUNT = """\
account	[success=1 new_authtok_reqd=done default=ignore]	pam_unix.so
account	requisite			pam_deny.so
account	required			pam_permit.so
"""
PASSWORD = "password	[success=1 default=ignore]	pam_unix.so obscure yescrypt\n"
HISTORY = "password	requisite	pam_pwhistory.so remember=24 use_authtok\n"
PROFILE = """\
Name: Reject recent passwords
Default: yes
Priority: 1023
Password-Type: Primary
Password:
	requisite pam_pwhistory.so remember=24 use_authtok
"""
GIVEN = [{"name": "example-pwhistory", "content": PROFILE}]


class Pam:
    """A host with Debian's stacks, and its pam-auth-update.

    Attributes:
        makes: what the program appends to a stack when it enables profiles.
        status: its exit code.
        says: its output.
        calls: its arguments so far.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stacks, self.profiles, self.state = (folder / name for name in ("pam.d", "pam-configs", "state"))
        self.makes, self.status, self.says, self.calls = {"password": HISTORY}, 0, "", list[list[str]]()
        self._monkeypatch = monkeypatch
        for path in (self.stacks, self.profiles, self.state):
            path.mkdir()
        texts = {"auth": AUTH, "account": ACCOUNT, "password": PASSWORD, "session": ""}
        for kind, text in texts.items():
            self.stack(kind).write_text(text)
            self.stack(kind).chmod(0o644)
        (self.state / "seen").write_text("unix\n")

    def stack(self, kind: str) -> Path:
        return self.stacks / f"common-{kind}"

    def run(self, command: list[str], *, environ_update: dict[str, str]) -> tuple[int, str, str]:
        assert command[:2] == ["/usr/sbin/pam-auth-update", "--package"]
        assert environ_update == {"DEBIAN_FRONTEND": "noninteractive"}
        self.calls.append(command[2:])
        (self.state / "seen").write_text("unix\nexample-pwhistory\n")
        for kind, text in self.makes.items():
            before = self.stack(kind).read_text()
            added = before + text if command[2] == "--enable" else before.replace(text, "")
            self.stack(kind).write_text(added)
        return self.status, self.says, ""

    def converge(self, *, check: bool = False, **given: Any) -> dict[str, Any]:
        module = load_plugin("plugins/modules/host_pam.py")
        for name, path in (("STACKS", self.stacks), ("PROFILES", self.profiles), ("STATE", self.state)):
            self._monkeypatch.setattr(module, name, path)
        return run_module(self._monkeypatch, module, self.run, check=check, **{"profiles": GIVEN, **given})

    def everything(self) -> dict[str, tuple[str, int]]:
        """Each file with its text and mode."""
        files = (path for top in (self.stacks, self.profiles, self.state) for path in top.iterdir())
        return {str(path): (path.read_text(), path.stat().st_mode) for path in files}


@pytest.fixture
def pam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pam:
    return Pam(tmp_path, monkeypatch)


# --- What is accepted ------------------------------------------------------------------------------------------------


def test_a_profile_is_enabled_once(pam: Pam) -> None:
    result = pam.converge()
    assert (result["changed"], result["missing"]) == (True, ["password pam_pwhistory.so"])
    assert pam.calls == [["--enable", "example-pwhistory"]]
    assert (pam.profiles / "example-pwhistory").read_text() == PROFILE
    assert HISTORY in pam.stack("password").read_text()
    # pam_unix's own options: no empty passwords, and a key is enough for an account whose password has expired.
    assert "nullok" not in pam.stack("auth").read_text()
    assert pam.stack("account").read_text().count("pam_unix.so no_pass_expiry\n") == 1
    shown = {item["after_header"].rpartition("/")[2] for item in result["diff"]}
    assert shown == {"example-pwhistory", "common-auth", "common-account"}
    before = pam.everything()
    again = pam.converge()
    assert (again["changed"], again["missing"], again["diff"]) == (False, [], [])
    assert pam.everything() == before
    assert len(pam.calls) == 1


def test_options_of_pam_unix_stay_if_that_is_wanted(pam: Pam) -> None:
    assert pam.converge(empty_passwords=True, keys_outlast_passwords=False)["changed"]
    assert (pam.stack("auth").read_text(), pam.stack("account").read_text()) == (AUTH, ACCOUNT)


def test_check_mode_changes_nothing(pam: Pam) -> None:
    before = pam.everything()
    result = pam.converge(check=True)
    assert (result["changed"], result["missing"]) == (True, ["password pam_pwhistory.so"])
    assert pam.everything() == before
    assert pam.calls == []


def test_a_profile_is_removed_once(pam: Pam) -> None:
    pam.converge()
    auth = pam.stack("auth").read_text()
    result = pam.converge(state="absent")
    assert (result["changed"], result["missing"]) == (True, [])
    assert pam.calls[1:] == [["--remove", "example-pwhistory"]]
    assert not (pam.profiles / "example-pwhistory").exists()
    assert HISTORY not in pam.stack("password").read_text()
    assert pam.stack("auth").read_text() == auth, "pam_unix keeps its options"
    assert not pam.converge(state="absent")["changed"]
    assert len(pam.calls) == 2


def test_a_fault_that_was_there_before_is_not_the_profiles(pam: Pam) -> None:
    pam.stack("account").write_text(ACCOUNT.replace("success=1", "success=9"))
    assert pam.converge()["changed"]
    assert HISTORY in pam.stack("password").read_text()


# --- What is taken back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"makes": {"password": HISTORY, "auth": "auth required pam_deny.so\n"}}, "common-auth rejects a correct"),
        ({"makes": {"password": HISTORY, "account": "account required pam_deny.so\n"}}, "rejects a valid account"),
        ({"makes": {}}, "pam-auth-update omitted password pam_pwhistory.so: no output"),
        ({"makes": {}, "says": "local changes\n"}, "pam-auth-update omitted password pam_pwhistory.so: local changes"),
        ({"status": 1, "says": "debconf is locked\n"}, "pam-auth-update failed: debconf is locked"),
    ],
)
@pytest.mark.parametrize("earlier", ["", "Name: an earlier version\n"])
def test_what_would_lock_out_is_taken_back(pam: Pam, changes: dict[str, Any], words: str, earlier: str) -> None:
    for name, value in changes.items():
        setattr(pam, name, value)
    if earlier:
        (pam.profiles / "example-pwhistory").write_text(earlier)
        (pam.profiles / "example-pwhistory").chmod(0o644)
    before = pam.everything()
    result = pam.converge()
    assert result["failed"]
    assert words in result["msg"]
    assert pam.calls == [["--enable", "example-pwhistory"]]
    assert pam.everything() == before


def test_all_faults_are_named_at_once(pam: Pam) -> None:
    pam.makes = {kind: f"{kind} required pam_deny.so\n" for kind in ("auth", "account")} | {"password": HISTORY}
    told = pam.converge()["msg"].partition(": ")[2]
    assert told == (
        "common-account rejects a valid account, which would block every login over SSH; "
        "common-auth rejects a correct password"
    )


def test_a_run_that_breaks_takes_its_changes_back(pam: Pam, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pam.everything()
    run = pam.run

    def broken(command: list[str], **given: Any) -> tuple[int, str, str]:
        run(command, **given)
        raise OSError("No space left on device")

    monkeypatch.setattr(pam, "run", broken)
    with pytest.raises(OSError, match="No space left"):
        pam.converge()
    assert pam.everything() == before
