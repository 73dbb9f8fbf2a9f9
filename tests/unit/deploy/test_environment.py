"""The environment file says to systemd what it was told, whatever that is, and a secret is nobody's but root's."""

from __future__ import annotations

import json
import os
import random
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.deploy import environment
from ansible.module_utils.flaskhost.deploy.environment import SecretKeys
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from ansible.module_utils.testing import patch_module_args
from fakes import Ended, load_environment_file
from loading import load_plugin

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
    chance = random.Random(27)
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
    keys = SecretKeys(tmp_path).ensure()
    assert len(keys) == 1
    assert len(keys[0]) >= 64
    assert SecretKeys(tmp_path).ensure() == SecretKeys(tmp_path).read() == keys
    for name in ("secret_key", "secret_key.env"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret_key", "secret_key.env"]
    text = (tmp_path / "secret_key.env").read_text(encoding="utf-8")
    assert load_environment_file(text) == {"SECRET_KEY": keys[0]}


def test_two_apps_have_two_secret_keys(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert SecretKeys(tmp_path / "one").ensure() != SecretKeys(tmp_path / "two").ensure()


def test_to_read_makes_no_secret_key(tmp_path: Path) -> None:
    assert SecretKeys(tmp_path).read() == []
    assert SecretKeys(tmp_path / "missing").read() == []
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_no_secret_key(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("\n", encoding="utf-8")
    keys = SecretKeys(tmp_path).ensure()
    assert keys
    assert SecretKeys(tmp_path).ensure() == keys


def test_older_keys_are_accepted_and_the_first_signs(tmp_path: Path) -> None:
    keys = SecretKeys(tmp_path)
    assert keys.write(["new", "old", "older"]) is True
    assert keys.write(["new", "old", "older"]) is False
    assert keys.read() == ["new", "old", "older"]
    variables = load_environment_file(keys.variables_file.read_text(encoding="utf-8"))
    assert variables["SECRET_KEY"] == "new"
    assert json.loads(variables["SECRET_KEY_FALLBACKS"]) == ["old", "older"]


def test_what_a_killed_run_left_of_the_keys_is_put_right(tmp_path: Path) -> None:
    keys = SecretKeys(tmp_path)
    keys.write(["new"])
    keys.variables_file.unlink()
    assert keys.ensure() == ["new"]
    assert "new" in keys.variables_file.read_text(encoding="utf-8")
    keys.variables_file.write_text("half", encoding="utf-8")
    keys.ensure()
    assert load_environment_file(keys.variables_file.read_text(encoding="utf-8")) == {"SECRET_KEY": "new"}


def test_all_hosts_get_the_same_keys_and_nobody_is_logged_out() -> None:
    assert environment.shared_keys([[], ["a", "b"], ["b", "c"], []], "new") == ["a", "b", "c"]
    assert environment.shared_keys([["a"], ["a"]], "new") == ["a"]
    assert environment.shared_keys([[], []], "new") == environment.shared_keys([], "new") == ["new"]


class KeyHost:
    """The module flask_secret_key on one host."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = load_plugin("plugins/modules/flask_secret_key.py")
        self.folder, self.keys = folder, SecretKeys(folder)

        def ended(_self: object, **result: Any) -> None:
            raise Ended(result)

        monkeypatch.setattr(self.module.AnsibleModule, "exit_json", ended)

    def __call__(self, state: str = "read", check: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {"folder": str(self.folder), "state": state, "_ansible_check_mode": check, **options}
        with patch_module_args(arguments), pytest.raises(Ended) as caught:
            self.module.main()
        return caught.value.args[0]


@pytest.fixture
def key_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyHost:
    return KeyHost(tmp_path / "etc/shop", monkeypatch)


def test_to_read_the_keys_changes_nothing_and_offers_a_new_one(key_host: KeyHost) -> None:
    found = [key_host() for _ in range(2)]
    assert [(item["changed"], item["secret_keys"]) for item in found] == [(False, [])] * 2
    assert found[0]["candidate"] != found[1]["candidate"]
    assert len(found[0]["candidate"]) >= 64
    assert not key_host.folder.exists()


def test_a_host_gets_the_keys_of_all_hosts_once(key_host: KeyHost) -> None:
    key_host.folder.parent.mkdir()
    by_host: list[list[str]] = [[], ["a", "b"], ["c"]]
    for check, changed, kept in ((True, True, []), (False, True, ["a", "b", "c"]), (False, False, ["a", "b", "c"])):
        result = key_host("shared", check, by_host=by_host, candidate="new")
        assert (result["changed"], result["secret_keys"], key_host.keys.read()) == (changed, ["a", "b", "c"], kept)
    assert stat.S_IMODE(key_host.folder.stat().st_mode) == 0o700
    for path in (key_host.keys.file, key_host.keys.variables_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_first_key_is_the_candidate_on_all_hosts(key_host: KeyHost) -> None:
    key_host.folder.parent.mkdir()
    assert key_host("shared", by_host=[[], []], candidate="new")["secret_keys"] == ["new"]
    assert key_host.keys.read() == ["new"]


def test_a_rotation_never_signs_with_what_others_do_not_accept_yet(key_host: KeyHost) -> None:
    key_host.folder.mkdir(parents=True)
    key_host.keys.write(["old", "older"])

    def signs_and_accepts() -> tuple[str, list[str]]:
        variables = load_environment_file(key_host.keys.variables_file.read_text(encoding="utf-8"))
        return variables["SECRET_KEY"], json.loads(variables["SECRET_KEY_FALLBACKS"])

    assert key_host("announced", check=True, candidate="new")["changed"]
    assert signs_and_accepts() == ("old", ["older"])
    assert key_host("announced", candidate="new")["changed"]
    assert signs_and_accepts() == ("old", ["older", "new"])
    assert key_host("rotated")["changed"]
    # Whoever has logged in until now stays so; what was replaced before is worth nothing any more.
    assert signs_and_accepts() == ("new", ["old"])


@pytest.mark.parametrize("done", range(4))
def test_a_rotation_that_was_killed_is_finished_by_the_next_one(
    key_host: KeyHost, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """With another new key nobody would accept what the one before has signed: all visitors would be logged out."""
    key_host.folder.mkdir(parents=True)
    key_host.keys.write(["old", "older"])
    first = key_host()
    assert not first["pending"]
    if done == 0:

        def killed(*_arguments: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(SecretKeys, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                key_host("announced", candidate=first["candidate"])
    for state in ("announced", "rotated", "finished")[:done]:
        key_host(state, **({"candidate": first["candidate"]} if state == "announced" else {}))
    again = key_host()
    assert again["pending"] == (done < 3)
    assert (again["candidate"] == first["candidate"]) == (done < 3)
    if done < 3:
        for state in ("announced", "rotated", "finished"):
            key_host(state, **({"candidate": again["candidate"]} if state == "announced" else {}))
    assert key_host.keys.read() == [first["candidate"], "old"]
    assert sorted(path.name for path in key_host.folder.iterdir()) == ["secret_key", "secret_key.env"]


def test_a_host_that_the_killed_rotation_has_not_reached_takes_part_in_it(key_host: KeyHost) -> None:
    key_host.folder.mkdir(parents=True)
    key_host.keys.write(["old"])
    key_host("announced", candidate="of-a-run-before")
    assert key_host("announced", candidate="of-the-others")["secret_keys"][-1] == "of-the-others"
    assert key_host("rotated")["secret_keys"] == ["of-the-others", "old"]


def test_without_a_key_the_announced_one_is_the_first(key_host: KeyHost) -> None:
    key_host.folder.parent.mkdir()
    assert key_host("announced", candidate="new")["secret_keys"] == ["new"]
    assert key_host("rotated")["secret_keys"] == key_host.keys.read() == ["new"]


def test_a_file_that_was_lost_beside_the_keys_is_a_change(key_host: KeyHost) -> None:
    key_host.folder.mkdir(parents=True)
    key_host.keys.write(["a"])
    key_host.keys.variables_file.unlink()
    assert key_host("shared", by_host=[["a"]], candidate="new")["changed"]
    assert not key_host("shared", by_host=[["a"]], candidate="new")["changed"]


def test_the_keys_are_in_the_result_alone(key_host: KeyHost, capfd: pytest.CaptureFixture[str]) -> None:
    """Their tasks have no_log, which hides the result; nothing else may show them, a diff for instance."""
    key_host.folder.mkdir(parents=True)
    key_host.keys.write(["first-key"])
    result = key_host("announced", candidate="second-key", _ansible_diff=True)
    assert set(result) == {"changed", "secret_keys", "candidate", "pending"}
    assert "-key" not in "".join(capfd.readouterr())
    for path in ("roles/app/tasks/keys.yml", "roles/app/tasks/rotate.yml"):
        tasks = yaml.safe_load((Path(__file__).resolve().parents[3] / path).read_text(encoding="utf-8"))
        used = [task for task in tasks if "flask_secret_key" in task]
        assert used
        assert all(task.get("no_log") is True for task in used)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_private_file_is_private_whatever_was_there_before(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "env"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o666)
    (tmp_path / ".env.partial").symlink_to(tmp_path / "elsewhere")
    before = os.umask(umask)
    try:
        atomic.write(path, "new Grüße\n")
    finally:
        os.umask(before)
    assert path.read_text(encoding="utf-8") == "new Grüße\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["env"]


def test_a_private_file_is_never_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "env"
    atomic.write(path, "old")

    def full_disk(_descriptor: int) -> None:
        assert stat.S_IMODE((tmp_path / ".env.partial").stat().st_mode) == 0o600
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            atomic.write(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    atomic.write(path, "newer")
    assert path.read_text(encoding="utf-8") == "newer"
