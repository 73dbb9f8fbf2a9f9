"""The command line of flaskhost-certificates: exit statuses, and what people, Ansible and journald read."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.host import failures
from certificate_fakes import AUTHORITY
from flaskhost_certificates import apply, cli, commands, serving, state
from flaskhost_certificates.config import CertificateError
from flaskhost_certificates.result import Outcome, Result

FINE = Outcome("shop", "acme", True, "0A", 1_807_776_000, ["It is new."])
BAD = Outcome("blog", problems=["Its record is missing."])


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Calls the program with a configuration of one site."""
    monkeypatch.setattr(state, "LOCK", tmp_path / "lock")
    monkeypatch.delenv(failures.UNIT, raising=False)
    monkeypatch.setattr(serving, "is_running", lambda _run: False)
    folder = tmp_path / "tls/shop"
    site = {
        "name": "shop",
        "domains": ["shop.test"],
        "mode": "files",
        "challenge": "http",
        "variable": "flask_apps.shop",
    }
    site |= {"certificate": str(folder / "fullchain.pem"), "key": str(folder / "privkey.pem")}
    settings = {"certificates": [site], "state": str(tmp_path / "state"), "hooks": str(tmp_path / "hooks")}
    settings |= {"letsencrypt": str(tmp_path / "letsencrypt"), "webroot": str(tmp_path / "webroot")}
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")

    def call(*arguments: str, text: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return cli.main([*arguments, "--config", str(tmp_path / "config.json")])

    return call


def ends_with(monkeypatch: pytest.MonkeyPatch, verb: str, result: Result | Exception) -> None:
    def end(*_: object, **__: object) -> Result:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(f"flaskhost_certificates.{verb}.{verb}", end)


@pytest.mark.parametrize(
    ("verb", "status"), [("prepare", 1), ("apply", 0), ("renew", 1), ("check", 1), ("deployed", 1)]
)
def test_a_problem_fails_all_but_apply(call, monkeypatch, capsys, verb: str, status: int) -> None:
    ends_with(monkeypatch, verb, Result([FINE, BAD]))
    assert call(verb) == status
    assert capsys.readouterr().err == "blog: Its record is missing.\n"
    ends_with(monkeypatch, verb, Result([FINE]))
    assert call(verb) == 0


def test_people_read_a_line_for_each_certificate(call, monkeypatch, capsys) -> None:
    ends_with(monkeypatch, "apply", Result([FINE, BAD], ["wiki"], True))
    call("apply")
    assert capsys.readouterr().out.splitlines() == [
        "shop: acme, until 2027-04-15 08:00 UTC, changed. It is new.",
        "blog: no certificate.",
        "Deleted: wiki.",
        "nginx was reloaded.",
    ]


def test_ansible_reads_one_object(call, monkeypatch, capsys) -> None:
    ends_with(monkeypatch, "apply", Result([BAD], ["wiki"]))
    call("apply", "--json")
    assert json.loads(capsys.readouterr().out) == {
        "changed": True,
        "certificates": [
            {
                "name": "blog",
                "source": "",
                "changed": False,
                "serial": "",
                "not_after": 0,
                "notes": [],
                "problems": ["Its record is missing."],
            }
        ],
        "deleted": ["wiki"],
        "reloaded": False,
        "made": [],
    }


def test_the_journal_shows_problems_as_errors(call, monkeypatch, capsys) -> None:
    monkeypatch.setenv(failures.UNIT, "abc")
    ends_with(monkeypatch, "renew", Result([Outcome("shop", problems=["One.\nTwo."])]))
    call("renew")
    assert capsys.readouterr().err == "<3>shop: One. Two.\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CertificateError("It is locked.", "Wait."), "It is locked. Wait."),
        (OSError(28, "No space left on device", "/x"), "No space left on device (/x)"),
        (ZeroDivisionError("secret"), "flaskhost-certificates has a bug: ZeroDivisionError"),
    ],
)
def test_a_failure_is_a_sentence_and_never_a_stack_trace(call, monkeypatch, capsys, error, said: str) -> None:
    ends_with(monkeypatch, "apply", error)
    assert call("apply", "--json") == 1
    shown = capsys.readouterr()
    assert said in shown.err
    assert said in json.loads(shown.out)["problem"]
    assert "Traceback" not in shown.err
    assert "secret" not in shown.err


def test_a_missing_configuration_is_a_sentence(capsys) -> None:
    assert cli.main(["check", "--config", "/nonexistent/x.json"]) == 1
    assert "/nonexistent/x.json cannot be read" in capsys.readouterr().err


def test_own_certificates_come_by_stdin_and_no_key_is_shown(call, tmp_path: Path, capsys) -> None:
    pair = AUTHORITY.issue(["shop.test"], days=40000)
    other = AUTHORITY.issue(["shop.test"])
    own = {"certificate": pair.chain.decode(), "key": pair.key.decode()}
    assert call("prepare", "--json", text=json.dumps({"files": {"shop": {**own, "key": other.key.decode()}}})) == 1
    shown = capsys.readouterr()
    assert "flask_apps.shop.tls.key" in shown.err
    assert "PRIVATE KEY-----" not in shown.err + shown.out
    assert not (tmp_path / "tls").exists()


def test_the_librarys_warnings_are_not_for_operators(call, monkeypatch, recwarn) -> None:
    monkeypatch.setattr(apply, "apply", lambda *_, **__: warnings.warn("old root", stacklevel=1) or Result())
    assert call("apply") == 0
    assert not recwarn.list


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"files": []}', '{"files": {"shop": "x"}}', "{}"])
def test_another_input_is_refused_without_showing_it(call, capsys, text: str) -> None:
    assert call("prepare", text=text) == 1
    assert "The input of 'prepare' is not what it has to be." in capsys.readouterr().err


def test_the_lock_is_held_while_something_is_changed(call, monkeypatch, tmp_path: Path) -> None:
    held = []

    def look(*_: object, **__: object) -> Result:
        try:
            with state.lock("test", tmp_path / "lock", 0):
                held.append(False)
        except CertificateError:
            held.append(True)
        return Result()

    for verb in ("prepare", "apply", "renew", "deployed", "check"):
        monkeypatch.setattr(f"flaskhost_certificates.{verb}.{verb}", look)
        call(verb)
    assert held == [True, True, True, True, False]
    call("apply", "--check")
    assert held[5:] == [False]
    monkeypatch.setenv(state.LOCKED, "1")
    call("deployed")  # within a run of ours, which waits for it
    call("renew")
    assert held[6:] == [False, True]


def test_commands_run_in_plain_words_and_their_failures_are_statuses(tmp_path: Path) -> None:
    assert commands.run_command(["sh", "-c", "echo $LC_ALL $X; echo no >&2; exit 3"], env={"X": "y"}) == (
        3,
        "C.UTF-8 y\n",
        "no\n",
    )
    assert commands.run_command([str(tmp_path / "missing")])[0] == 127


def test_a_command_that_hangs_is_ended(monkeypatch) -> None:
    monkeypatch.setattr(commands, "HOOK_SECONDS", 0.05)
    status, _, said = commands.run_command(["sleep", "5"])
    assert status == 124
    assert said == "sleep timed out after 0.05 s."
