"""The controller's half of a release: the code is sent when the host asks for it, and at no other time."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.module_utils.flaskhost import source

PLUGIN = Path(__file__).resolve().parents[2] / "plugins/action/flask_release.py"


def load_plugin() -> Any:
    spec = importlib.util.spec_from_file_location("flask_release_action", PLUGIN)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Controller:
    """The action, with Ansible's side of it made up: what the host answers, and what was done to it."""

    def __init__(self, arguments: dict[str, Any], *answers: dict[str, Any] | Exception) -> None:
        self.done: list[str] = []
        self.sent: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.local: Path | None = None
        self.answers = list(answers)
        #: The temporary folders on the host, those that were made and those that are left.
        self.made: list[str] = []
        self.left: list[str] = []
        self.shell = SimpleNamespace(join_path=lambda *parts: "/".join(parts), tmpdir=None)
        task = MagicMock(args=arguments, async_val=0)
        connection = SimpleNamespace(_shell=self.shell)
        self.action = load_plugin().ActionModule(task, connection, MagicMock(), MagicMock(), MagicMock())
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
    assert controller.asked[0]["source_digest"] == source.folder_digest(code)
    assert "archive" not in controller.asked[0]


def test_code_that_the_host_asks_for_is_sent_and_cleaned_up(code: Path) -> None:
    controller = Controller({"source_path": str(code), "persistent": ["instance"]}, NEEDED, RELEASED)
    assert controller.run() == RELEASED
    assert controller.done == ["module", "send", "module"]
    assert controller.sent == ["app.py", "shop/__init__.py", "shop/uploads/cat.png"]
    first, second = controller.asked
    assert second == {**first, "archive": f"{controller.made[-1]}/source.tar.gz"}
    assert first["source_digest"] == source.folder_digest(code, ["instance"])
    assert controller.local
    assert not controller.local.parent.exists()


def test_data_is_left_out_relative_to_the_apps_folder(code: Path) -> None:
    arguments = {"source_path": str(code), "source_subdir": "shop", "persistent": ["uploads"]}
    controller = Controller(arguments, NEEDED, RELEASED)
    controller.run()
    assert controller.sent == ["app.py", "instance/dev.db", "shop/__init__.py"]


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
    assert "on the controller" in result["msg"]
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
