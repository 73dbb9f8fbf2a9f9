"""The controller's half of flask_release: a folder of the controller is sent to the host, and only where needed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(UTILS)

from ansible.module_utils.flaskhost import source  # noqa: E402 - needs the path above


class ActionModule(ActionBase):
    """Asks the host whether it has the release, and sends the code only when it says no."""

    # The code's folder on the host is made only when there is code to send.
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, a second time with the code where the first says that it is missing.

        Args:
            tmp: unused; Ansible's own signature.
            task_vars: the task's variables.

        Returns:
            The module's result.
        """
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        path = str(arguments.get("source_path") or "")
        if not path:
            return {**result, **self._execute_module(module_args=arguments, task_vars=task_vars)}
        folder = Path(path)
        if not folder.is_dir():
            return {**result, "failed": True, "msg": f"source.path: there is no folder {folder} on the controller."}
        # Folders of data in the developer's own tree are no part of the code.
        app_dir = Path(str(arguments.get("source_subdir") or ""))
        persistent = [str(app_dir / name) for name in arguments.get("persistent") or []]
        try:
            arguments["source_digest"] = source.folder_digest(folder, persistent)
        except OSError as error:
            return {**result, "failed": True, "msg": f"source.path: {error.filename}: {error.strerror}."}
        answer = self._execute_module(module_args=arguments, task_vars=task_vars)
        if answer.get("needs_source"):
            answer = self._send(folder, persistent, arguments, task_vars)
        return {**result, **answer}

    def _send(
        self, folder: Path, persistent: list[str], arguments: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        remote = self._make_tmp_path()
        try:
            with tempfile.TemporaryDirectory(prefix="flaskhost-") as local:
                archive = Path(local) / "source.tar.gz"
                source.pack_folder(folder, archive, persistent)
                arguments["archive"] = self._transfer_file(
                    str(archive), self._connection._shell.join_path(remote, archive.name)
                )
            return self._execute_module(module_args=arguments, task_vars=task_vars)
        finally:
            self._remove_tmp_path(remote)
