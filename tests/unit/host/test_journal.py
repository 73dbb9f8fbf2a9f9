"""Each app has a journal of its own, which is as its files say whoever has written them and whenever."""

from __future__ import annotations

import grp
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host.journal import SOCKETS, Journals, read_journal
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import run_module
from loading import load_plugin

GROUPS = {"flask-blog": "blog", "flask-shop": "shop"}


class Systemd:
    """What systemd knows of the units of two namespaces: all that the drop-ins say, and that nothing runs."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.refuses = ""
        self.states: dict[str, dict[str, str]] = {}
        for namespace, group in GROUPS.items():
            self.states[f"systemd-journald@{namespace}.socket"] = {"SocketGroup": group, "StopWhenUnneeded": "no"}
            self.states[f"systemd-journald-varlink@{namespace}.socket"] = {"StopWhenUnneeded": "no"}
            self.states[f"systemd-journald-sync@{namespace}.service"] = {"StopWhenUnneeded": "no"}
            self.states[f"systemd-journald@{namespace}.service"] = {
                "ActiveState": "inactive",
                "StateChangeTimestamp": "",
            }

    def __call__(self, args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        self.calls.append(list(args))
        if self.refuses and self.refuses in args:
            return 1, "", "Connection timed out"
        if args[1] == "show":
            units = [item for item in args[2:] if not item.startswith("--")]
            blocks = [
                "".join(f"{key}={value}\n" for key, value in {"Id": unit, **self.states[unit]}.items())
                for unit in units
            ]
            return 0, "\n".join(blocks), ""
        return 0, "", ""

    def runs(self, namespace: str, since: float) -> None:
        """Let the journald of a namespace run."""
        text = time.strftime("%a %Y-%m-%d %H:%M:%S", time.gmtime(since)) + ".000000 UTC"
        self.states[f"systemd-journald@{namespace}.service"] = {"ActiveState": "active", "StateChangeTimestamp": text}


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


@pytest.fixture
def journals(systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journals]:
    own = grp.getgrgid(os.getgid())
    known = {"shop": own}
    monkeypatch.setattr(grp, "getgrnam", known.__getitem__)
    for namespace in GROUPS:
        (tmp_path / f"journald@{namespace}.conf").write_text("[Journal]\n")
    # The path of a socket may have 107 bytes.
    monkeypatch.chdir(tmp_path)
    return Journals(systemd, GROUPS, run_dir=Path("run"), config_dir=tmp_path, units_dir=tmp_path)


def listen(namespace: str, mode: int) -> list[socket.socket]:
    """Make the sockets of a namespace."""
    folder = Path("run") / f"journal.{namespace}"
    folder.mkdir(parents=True)
    made = []
    for name in SOCKETS:
        made.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        made[-1].bind(str(folder / name))
        (folder / name).chmod(mode)
    return made


def test_nothing_is_done_where_all_is_read_and_nothing_runs(journals: Journals, systemd: Systemd) -> None:
    assert journals.needed() == {}
    assert [call[:2] for call in systemd.calls] == [["systemctl", "show"]]


def test_a_host_without_apps_is_not_asked(systemd: Systemd) -> None:
    assert Journals(systemd, {}).needed() == {}
    assert systemd.calls == []


@pytest.mark.parametrize(
    ("unit", "changed"),
    [
        ("systemd-journald@flask-shop.socket", {"SocketGroup": ""}),
        ("systemd-journald@flask-shop.socket", {"StopWhenUnneeded": "yes"}),
        ("systemd-journald@flask-shop.service", {"NeedDaemonReload": "yes"}),
        ("systemd-journald@flask-shop.service", {"RuntimeDirectory": "systemd/journal.flask-shop"}),
        ("systemd-journald-varlink@flask-shop.socket", {"StopWhenUnneeded": "yes"}),
        ("systemd-journald-sync@flask-shop.service", {"StopWhenUnneeded": "yes"}),
    ],
)
def test_drop_ins_that_systemd_has_not_read(
    journals: Journals, systemd: Systemd, unit: str, changed: dict[str, str]
) -> None:
    systemd.states[unit].update(changed)
    assert journals.needed() == {"daemon-reload": ["flask-shop"]}
    journals.take("daemon-reload", ["flask-shop"])
    assert systemd.calls[-1] == ["systemctl", "daemon-reload"]


def test_settings_that_are_younger_than_what_runs(journals: Journals, systemd: Systemd) -> None:
    systemd.runs("flask-shop", time.time() - 60)
    systemd.runs("flask-blog", time.time() + 60)
    assert journals.needed() == {"restart": ["flask-shop"]}
    journals.take("restart", ["flask-shop"])
    assert systemd.calls[-1] == ["systemctl", "restart", "systemd-journald@flask-shop.service"]


def test_a_drop_in_that_is_younger_than_what_runs(journals: Journals, systemd: Systemd) -> None:
    systemd.runs("flask-shop", time.time() + 60)
    folder = journals.units_dir / "systemd-journald@flask-shop.service.d"
    folder.mkdir()
    (folder / "60-flaskhost.conf").touch()
    assert journals.needed() == {}
    systemd.runs("flask-shop", time.time() - 60)
    assert journals.needed() == {"restart": ["flask-shop"]}


def test_sockets_that_are_open_to_every_app(journals: Journals) -> None:
    made = listen("flask-shop", 0o666)
    assert journals.needed() == {"sockets": ["flask-shop"]}
    journals.take("sockets", ["flask-shop"])
    assert {path.stat().st_mode & 0o777 for path in Path("run/journal.flask-shop").iterdir()} == {0o660}
    assert journals.needed() == {}
    for item in made:
        item.close()


def test_an_app_without_a_user_yet_has_no_sockets_to_close(journals: Journals) -> None:
    made = listen("flask-blog", 0o666)
    assert journals.needed() == {}
    for item in made:
        item.close()


@pytest.mark.parametrize("verb", ["show", "daemon-reload", "restart"])
def test_what_systemd_refuses_is_said(journals: Journals, systemd: Systemd, verb: str) -> None:
    systemd.refuses = verb
    with pytest.raises(ReleaseError, match="Connection timed out"):
        journals.needed() if verb == "show" else journals.take(verb, ["flask-shop"])


def test_the_lines_of_a_unit_and_those_about_it(systemd: Systemd) -> None:
    read_journal(systemd, "flask-shop", ["flask-shop@blue.service"], "--since=@1")
    own, host, read = systemd.calls
    assert own[-3:] == ["journalctl", "--namespace=flask-shop", "--sync"]
    assert host[-2:] == ["journalctl", "--sync"]
    assert own[0] == host[0] == "timeout", "an app that writes without end keeps its journal from being up to date"
    assert {"--namespace=+flask-shop", "--since=@1", "--unit=flask-shop@blue.service"} < set(read)


def test_a_journal_of_gigabytes_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program := tmp_path / "journalctl").write_text(
        "#!/bin/sh\ncase $* in *--sync*) exit;; esac\n"
        "head --bytes=50000000 /dev/zero | tr '\\0' x\nprintf '\\nthe \\033[2J\\007last line\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sizes = []

    def run(command: Sequence[str]) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        sizes.append(len(done.stdout))
        return done.returncode, done.stdout, done.stderr

    *_others, last = read_journal(run, "flask-shop", ["flask-shop@blue.service"]).splitlines()
    assert max(sizes) <= 65536
    assert last == "the ?last line"


def test_the_units_are_written_before_the_journals_are_looked_at(
    tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load_plugin("plugins/modules/flask_journals.py")
    monkeypatch.setattr(module.host_files, "numbers", lambda _owner, _group: (os.getuid(), os.getgid()))
    path = tmp_path / "systemd" / "flask-shop@.service"
    given = {"files": {str(path): "[Service]\n"}, "groups": {"flask-shop": "shop"}}
    planned = run_module(monkeypatch, module, systemd, check=True, **given)
    assert (planned["changed"], path.exists()) == (True, False)
    assert planned["diff"][0]["after"] == "[Service]\n"
    assert run_module(monkeypatch, module, systemd, **given)["changed"]
    assert path.read_text() == "[Service]\n"
    again = run_module(monkeypatch, module, systemd, **given)
    assert (again["changed"], again["steps"]) == (False, [])
