"""The controller's half of a release: the code is sent when the host asks for it, and at no other time."""

from __future__ import annotations

import base64
import getpass
import hashlib
import io
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.module_utils.flaskhost.deploy.sources import folders
from loading import load_plugin

PLUGIN = "plugins/action/flask_release.py"


class Controller:
    """The action, with Ansible's side of it made up: what the host answers, and what was done to it.

    All code is too large to go along with the module, unless a test says otherwise.
    """

    def __init__(
        self, arguments: dict[str, Any], *answers: dict[str, Any] | Exception, small: int = -1, check: bool = False
    ) -> None:
        self.done: list[str] = []
        self.sent: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.local: Path | None = None
        self.answers = list(answers)
        #: The temporary folders on the host, those that were made and those that are left.
        self.made: list[str] = []
        self.left: list[str] = []
        self.shell = SimpleNamespace(join_path=lambda *parts: "/".join(parts), tmpdir=None)
        task = MagicMock(args=arguments, async_val=0, check_mode=check)
        connection = SimpleNamespace(_shell=self.shell)
        self.plugin = load_plugin(PLUGIN)
        self.plugin.SMALL = small
        self.action = self.plugin.ActionModule(task, connection, MagicMock(), MagicMock(), MagicMock())
        self.action._execute_module = self.execute
        self.action._make_tmp_path = self.make
        self.action._transfer_file = self.transfer
        self.action._remove_tmp_path = self.remove

    def execute(self, module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        assert task_vars == {"a": 1}
        self.done.append("module")
        self.asked.append(dict(module_args))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def make(self) -> str:
        self.shell.tmpdir = f"/tmp/ansible-{len(self.made) + 1}"
        self.made.append(self.shell.tmpdir)
        self.left.append(self.shell.tmpdir)
        return self.shell.tmpdir

    def remove(self, path: str | None) -> None:
        if path:
            self.left.remove(path)
            self.shell.tmpdir = None

    def transfer(self, local: str, remote: str) -> str:
        assert remote.rpartition("/")[0] in self.left
        self.done.append("send")
        self.local = Path(local)
        self.content = self.local.read_bytes()
        with tarfile.open(local) as archive:
            self.sent = sorted(archive.getnames())
        return remote

    def run(self) -> dict[str, Any]:
        try:
            return self.action.run(task_vars={"a": 1})
        finally:
            self.action.cleanup()


NEEDED = {"changed": True, "needs_source": True}
RELEASED = {"changed": True, "needs_source": False, "release": "r1"}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for name in ("app.py", "instance/dev.db", "shop/uploads/cat.png", "shop/__init__.py", ".env"):
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return tmp_path / "code"


def test_a_repository_is_the_hosts_own_business() -> None:
    controller = Controller({"app": "shop", "source_repo": "https://example.com/x.git", "source_path": ""}, RELEASED)
    assert controller.run() == RELEASED
    assert controller.done == ["module"]
    assert "source_digest" not in controller.asked[0]


def test_code_that_the_host_has_is_not_sent(code: Path) -> None:
    controller = Controller({"source_path": str(code)}, {"changed": False, "needs_source": False})
    assert controller.run() == {"changed": False, "needs_source": False}
    assert controller.done == ["module"]
    assert controller.asked[0]["source_digest"] == folders.digest(code)
    assert "archive" not in controller.asked[0]


def test_code_that_the_host_asks_for_is_sent_and_cleaned_up(code: Path) -> None:
    controller = Controller({"source_path": str(code), "persistent": ["instance"]}, NEEDED, RELEASED)
    assert controller.run() == RELEASED
    assert controller.done == ["module", "send", "module"]
    assert controller.sent == ["app.py", "shop/__init__.py", "shop/uploads/cat.png"]
    first, second = controller.asked
    assert second == {**first, "archive": f"{controller.made[-1]}/source.tar.gz"}
    assert first["source_digest"] == folders.digest(code, ["instance"])
    assert controller.local
    assert not controller.local.parent.exists()


def test_data_is_left_out_relative_to_the_apps_folder(code: Path) -> None:
    arguments = {"source_path": str(code), "source_subdir": "shop", "persistent": ["uploads"]}
    controller = Controller(arguments, NEEDED, RELEASED)
    controller.run()
    assert controller.sent == ["app.py", "instance/dev.db", "shop/__init__.py"]


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.test", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_what_git_tracks_of_the_data_is_sent_for_the_first_use(code: Path) -> None:
    (code / "instance/seed.csv").touch()
    git(code, "init")
    git(code, "add", "instance/seed.csv", "app.py")
    arguments = {"app": "shop", "source_path": str(code), "persistent": ["instance", "shop/uploads"]}
    before = folders.digest(code, arguments["persistent"])
    controller = Controller(arguments, NEEDED, {**RELEASED, "new_folders": ["instance"], "warnings": ["one"]})
    answer = controller.run()
    assert controller.sent == ["app.py", "instance/seed.csv", "shop/__init__.py"]
    # A change to it makes no new release.
    assert controller.asked[0]["source_digest"] == before
    first, second = answer["warnings"]
    assert (first, second) == (
        "one",
        "shop: not copied into the new data folder instance, because git does not track it on the control node: "
        "instance/dev.db. If the app needs it, copy it to the host, into data/instance.",
    )


def test_of_data_that_was_there_before_nothing_is_said(code: Path) -> None:
    controller = Controller({"source_path": str(code), "persistent": ["instance"]}, NEEDED, RELEASED)
    assert "warnings" not in controller.run()


def test_the_tasks_own_arguments_are_not_changed(code: Path) -> None:
    arguments = {"source_path": str(code)}
    Controller(arguments, NEEDED, RELEASED).run()
    assert arguments == {"source_path": str(code)}


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "code"
    if kind == "file":
        path.touch()
    controller = Controller({"source_path": str(path)})
    result = controller.run()
    assert result["failed"] is True
    assert str(path) in result["msg"]
    assert "on the control node" in result["msg"]
    assert controller.done == []


def test_a_failure_of_the_module_is_passed_on(code: Path) -> None:
    failed = {"failed": True, "msg": "shop was not released."}
    assert Controller({"source_path": str(code)}, failed).run() == failed
    controller = Controller({"source_path": str(code)}, NEEDED, failed)
    assert controller.run() == failed
    assert controller.done == ["module", "send", "module"]
    assert controller.made[-1] not in controller.left


def test_the_host_is_cleaned_up_when_the_connection_breaks(code: Path) -> None:
    controller = Controller({"source_path": str(code)}, NEEDED, ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        controller.run()
    assert controller.made[-1] not in controller.left
    assert controller.local
    assert not controller.local.parent.exists()


def test_a_folder_is_made_on_the_host_for_the_code_alone_and_none_is_left(code: Path) -> None:
    controller = Controller({"source_path": str(code)}, {"changed": False, "needs_source": False})
    controller.run()
    assert controller.made == []
    controller = Controller({"source_path": str(code)}, NEEDED, RELEASED)
    controller.run()
    assert len(controller.made) == 1
    assert controller.left == []


# -- code that goes along with the module ----------------------------------------------------------------------------


def test_a_small_folder_is_one_module_run(code: Path) -> None:
    arguments = {"app": "shop", "source_path": str(code), "persistent": ["instance"]}
    controller = Controller(arguments, {**RELEASED, "new_folders": ["instance"]}, small=10_000)
    answer = controller.run()
    assert (controller.done, controller.made) == (["module"], [])
    packed = io.BytesIO(base64.b64decode(controller.asked[0]["source_data"]))
    with tarfile.open(fileobj=packed) as archive:
        assert sorted(archive.getnames()) == ["app.py", "shop/__init__.py", "shop/uploads/cat.png"]
    assert controller.asked[0]["source_digest"] == folders.digest(code, ["instance"])
    assert "instance/dev.db" in answer["warnings"][0]


def test_a_large_folder_waits_until_the_host_asks_for_it(code: Path) -> None:
    arguments = {"source_path": str(code)}
    size = sum((code / path).stat().st_size for path in folders.files(code))
    for small, packed, along in ((size, 10_000, True), (size - 1, 10_000, False), (size, 10, False)):
        controller = Controller(arguments, RELEASED, small=small)
        controller.plugin.SMALL_PACKED = packed
        controller.run()
        assert bool(controller.asked[0]["source_data"]) == along
    controller = Controller(arguments, RELEASED, small=size, check=True)
    controller.run()
    assert controller.asked[0]["source_data"] == "", "check mode builds nothing"


# -- an archive -----------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(code: Path) -> tuple[Path, str]:
    """An archive on the controller, and its checksum."""
    path = code.with_name("shop-1.0.tar.gz")
    folders.pack(code, path)
    return path, f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_an_archive_is_sent_as_it_is_when_the_host_asks_for_it(archive: tuple[Path, str]) -> None:
    path, checksum = archive
    content = path.read_bytes()
    controller = Controller({"source_archive": str(path), "source_checksum": checksum}, NEEDED, RELEASED)
    assert controller.run() == RELEASED
    assert controller.done == ["module", "send", "module"]
    assert controller.content == content
    first, second = controller.asked
    assert first["source_digest"] == checksum.removeprefix("sha256:")
    assert second == {**first, "archive": f"{controller.made[-1]}/source.tar.gz"}
    assert controller.left == []
    assert path.exists()
    controller = Controller({"source_archive": str(path), "source_checksum": checksum}, RELEASED)
    controller.run()
    assert controller.done == ["module"]


def test_another_archive_than_the_one_that_was_meant_goes_nowhere(archive: tuple[Path, str]) -> None:
    path, checksum = archive
    for wrong in ("sha256:" + "0" * 64, ""):
        controller = Controller({"source_archive": str(path), "source_checksum": wrong})
        result = controller.run()
        assert result["failed"] is True
        assert wrong in result["msg"]
        assert "source.checksum" in result["msg"]
        assert controller.done == []
        assert (checksum in result["msg"]) == bool(wrong)


def test_an_archive_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "shop.tar"
    controller = Controller({"source_archive": str(path), "source_checksum": "sha256:" + "0" * 64})
    result = controller.run()
    assert result["failed"] is True
    assert f"{path} on the control node: No such file" in result["msg"]
    assert controller.done == []


def test_an_archive_behind_a_url_is_the_hosts_own_business() -> None:
    arguments = {"source_archive": "https://h.test/a.tar.gz", "source_checksum": "sha256:" + "0" * 64}
    controller = Controller(arguments, RELEASED)
    assert controller.run() == RELEASED
    assert controller.done == ["module"]
    assert "source_digest" not in controller.asked[0]


# -- what needs no code ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "looked_at"),
    [
        ({"phases": ["gate", "flip"]}, False),
        ({"verb": "rollback"}, False),
        ({"verb": "rollback", "phases": ["prepare"]}, False),
        ({"phases": ["prepare"]}, True),
        ({"phases": []}, True),
        ({"verb": "deploy"}, True),
    ],
    ids=str,
)
def test_the_code_is_looked_at_only_where_a_release_may_be_made(
    code: Path, archive: tuple[Path, str], arguments: dict[str, Any], looked_at: bool
) -> None:
    for place in ({"source_path": str(code)}, {"source_archive": str(archive[0]), "source_checksum": archive[1]}):
        controller = Controller({**place, **arguments}, RELEASED)
        assert controller.run() == RELEASED
        assert ("source_digest" in controller.asked[0]) == looked_at
    # The folder may even be gone by then.
    if not looked_at:
        assert Controller({"source_path": str(code / "gone"), **arguments}, RELEASED).run() == RELEASED


# -- who deploys ----------------------------------------------------------------------------------------------------


def test_the_host_is_told_who_deploys(code: Path) -> None:
    for place in ({"source_path": str(code)}, {"source_repo": "https://example.com/x.git"}):
        controller = Controller({**place, "by": "mallory"}, RELEASED)
        controller.run()
        asked = controller.asked[0]
        assert asked["by"] == f"{getpass.getuser()}@{socket.gethostname()}"
        assert asked["controller"] == {**asked["controller"], "pid": os.getpid()}
        assert asked["controller"]["started"] > 0
        assert asked["deploy"] == "{id}-{pid}-{started}".format(**asked["controller"])
        assert asked["stamp"] == controller.plugin.LOADED
        assert "takeover" not in asked


def test_one_machine_has_one_name_which_is_not_its_machine_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = load_plugin(PLUGIN)
    plugin.MACHINE_ID = tmp_path / "machine-id"
    names = []
    for text in ("4f0c8a7be1d2", "9d3e5b6a0c1f", "", None):
        plugin.MACHINE_ID.unlink() if text is None else plugin.MACHINE_ID.write_text(text, encoding="ascii")
        names.append(plugin._machine())
        assert plugin._machine() == names[-1]
        assert not text or text not in names[-1]
    # One that is empty is none.
    assert len(set(names)) == 3
    for card in (2 << 40, 4 << 40, 1 << 40):
        monkeypatch.setattr(plugin.uuid, "getnode", lambda card=card: card)
        names.append(plugin._machine())
    assert len(set(names)) == 6
    # Another random number, which says nothing.
    monkeypatch.setattr(plugin.uuid, "getnode", lambda: 3 << 40)
    assert plugin._machine() == names[-1]
    monkeypatch.setattr(plugin.socket, "gethostname", lambda: "laptop")
    assert plugin._machine() not in names


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = load_plugin(PLUGIN)

    def nobody() -> str:
        raise KeyError

    monkeypatch.setattr(plugin.getpass, "getuser", nobody)
    assert plugin._who()["by"] == f"{os.getuid()}@{socket.gethostname()}"


def locked(plugin: Any, process: int, started: int, machine: str = "") -> dict[str, Any]:
    controller = {"id": machine or plugin._machine(), "pid": process, "started": started}
    return {"failed": True, "msg": "locked", "lock_holder": {"deploy": "the dead one", "controller": controller}}


@pytest.fixture
def dead_process() -> int:
    """The number of a process that is no more."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


@pytest.mark.parametrize("place", [{"source_repo": "https://example.com/x.git"}, {"source_path": "code"}])
def test_the_lock_of_a_dead_run_is_taken_once(code: Path, dead_process: int, place: dict[str, str]) -> None:
    arguments = {key: str(code) if key == "source_path" else value for key, value in place.items()}
    failed = locked(load_plugin(PLUGIN), dead_process, 7)
    controller = Controller(arguments, failed, RELEASED)
    assert controller.run() == RELEASED
    first, second = controller.asked
    assert second == {**first, "takeover": "the dead one"}
    controller = Controller(arguments, failed, failed)
    assert controller.run() == failed
    assert len(controller.asked) == 2


def test_a_lock_that_is_met_when_the_code_is_sent_is_taken_too(code: Path, dead_process: int) -> None:
    controller = Controller({"source_path": str(code)}, NEEDED, locked(load_plugin(PLUGIN), dead_process, 7), RELEASED)
    assert controller.run() == RELEASED
    assert [asked.get("takeover") for asked in controller.asked] == [None, None, "the dead one"]
    assert controller.asked[2]["archive"] == controller.asked[1]["archive"]


def test_another_process_with_the_same_number_is_not_the_one(code: Path) -> None:
    plugin = load_plugin(PLUGIN)
    controller = Controller({}, locked(plugin, os.getpid(), plugin._started(os.getpid()) - 1), RELEASED)
    assert controller.run() == RELEASED


def test_a_process_that_nobody_has_buried_is_dead() -> None:
    plugin = load_plugin(PLUGIN)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    controller = {"id": plugin._machine(), "pid": child.pid, "started": plugin._started(child.pid)}
    assert not plugin._is_dead(controller)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert plugin._is_dead(controller)
    child.communicate()


def test_the_lock_of_a_run_that_lives_or_may_live_is_left_alone(dead_process: int) -> None:
    plugin = load_plugin(PLUGIN)
    me = plugin._started(os.getpid())
    answers = [
        locked(plugin, os.getpid(), me),
        locked(plugin, os.getpid(), 0),
        locked(plugin, dead_process, 7, machine="another one"),
        locked(plugin, -1, 7),
        locked(plugin, 10**30, 7),
        locked(plugin, True, 7),
        {"failed": True, "msg": "locked", "lock_holder": {"deploy": "x"}},
        {"failed": True, "msg": "locked", "lock_holder": "somebody"},
        {**locked(plugin, dead_process, 7), "failed": False},
    ]
    for answer in answers:
        controller = Controller({}, answer)
        assert controller.run() == answer
        assert len(controller.asked) == 1
