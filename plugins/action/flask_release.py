"""The part of flask_release on the control node: who deploys, and uploads of local code when the host needs it."""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import multiprocessing
import os
import socket
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(UTILS)

from ansible.module_utils.flaskhost.deploy.sources import archives, folders
from ansible.module_utils.flaskhost.host.runner import ReleaseError

#: The time when the playbook came to its first release. Ansible's strategies load this file before they fork a process
#: for each host and task, so all of them have the same number.
LOADED = time.time()
MACHINE_ID = Path("/etc/machine-id")
#: Code of up to so many bytes goes along with the first module run: before it is packed, and packed. The module itself
#: is larger, and a second run of it would take longer.
SMALL, SMALL_PACKED = 1024**2, 128 * 1024


class ActionModule(ActionBase):
    """Adds who deploys, runs the module, and uploads the code if the host does not have the release.

    A small folder of code goes along with the module, so that a release is one module run.
    """

    # Creates the temporary folder on the host only when there is code to upload.
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, and run it again with the code if the host does not have it.

        Args:
            tmp: unused; part of Ansible's signature.
            task_vars: the task's variables.

        Returns:
            The module's result.
        """
        result = super().run(tmp, task_vars)
        arguments = {**self._task.args, **_who()}
        path, archive = (str(arguments.get(name) or "") for name in ("source_path", "source_archive"))
        if not _needs_code(arguments) or (not path and (not archive or archives.is_url(archive))):
            return {**result, **self._ask(arguments, task_vars)}
        # Data folders in the developer's own tree are not part of the code.
        app_dir = Path(str(arguments.get("source_subdir") or ""))
        persistent = [str(app_dir / name) for name in arguments.get("persistent") or []]
        try:
            if path:
                arguments["source_digest"] = _digest_folder(Path(path), persistent)
                arguments["source_data"] = "" if self._task.check_mode else _pack_small(Path(path), persistent)
            else:
                arguments["source_digest"] = _digest_archive(Path(archive), str(arguments.get("source_checksum") or ""))
        except ReleaseError as error:
            return {**result, "failed": True, "msg": f"{error.step}: {error.reason}\n{error.cure}"}
        answer = self._ask(arguments, task_vars)
        if answer.get("needs_source"):
            answer = self._send(path, archive, persistent, arguments, task_vars)
        if path and (text := _left_out(Path(path), arguments, answer)):
            answer = {**answer, "warnings": [*(answer.get("warnings") or []), text]}
        return {**result, **answer}

    def _ask(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module, and take over a lock that a dead run of this control node has left behind."""
        answer = self._execute_module(module_args=arguments, task_vars=task_vars)
        holder = answer.get("lock_holder")
        if answer.get("failed") and isinstance(holder, dict) and _is_dead(holder.get("controller")):
            takeover = {**arguments, "takeover": holder.get("deploy") or ""}
            answer = self._execute_module(module_args=takeover, task_vars=task_vars)
        return answer

    def _send(
        self,
        path: str,
        archive: str,
        persistent: list[str],
        arguments: dict[str, Any],
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        remote = self._make_tmp_path()
        try:
            with tempfile.TemporaryDirectory(prefix="flaskhost-") as local:
                packed = Path(archive)
                if path:
                    packed = Path(local) / "source.tar.gz"
                    also = folders.tracked(Path(path), persistent)
                    folders.pack(Path(path), packed, persistent, also)
                # tar detects the format by content, not by name.
                there = self._connection._shell.join_path(remote, "source.tar.gz")
                arguments["archive"] = self._transfer_file(str(packed), there)
            return self._ask(arguments, task_vars)
        finally:
            self._remove_tmp_path(remote)


def _needs_code(arguments: dict[str, Any]) -> bool:
    """Check whether this call can build a release. Other phases, and rollbacks, find the release on the host."""
    phases = arguments.get("phases") or []
    return arguments.get("verb") != "rollback" and (not phases or "prepare" in phases)


def _left_out(path: Path, arguments: dict[str, Any], answer: dict[str, Any]) -> str:
    """Name the files in new data folders that stay on the control node, because git does not track them.

    Args:
        path: the folder of code.
        arguments: the module's arguments.
        answer: its result, with the data folders that it has created.
    """
    app_dir = Path(str(arguments.get("source_subdir") or ""))
    for name in answer.get("new_folders") or []:
        place = app_dir / str(name)
        try:
            there = {place / file for file in folders.files(path / place)} if (path / place).is_dir() else set()
        except OSError:
            there = set()
        if own := sorted(there - {*folders.tracked(path, [str(place)])}):
            files = f"{own[0]} and {len(own) - 1} more" if own[1:] else str(own[0])
            return (
                f"{arguments.get('app')}: not copied into the new data folder {name}, because git does not track it on "
                f"the control node: {files}. If the app needs it, copy it to the host, into data/{name}."
            )
    return ""


def _digest_folder(folder: Path, persistent: list[str]) -> str:
    """Return the digest of a folder on the control node.

    Raises:
        ReleaseError: the folder does not exist, or cannot be read.
    """
    if not folder.is_dir():
        raise ReleaseError("source.path", f"there is no folder {folder} on the control node.", "Correct source.path.")
    try:
        return folders.digest(folder, persistent)
    except OSError as error:
        raise ReleaseError("source.path", f"{error.filename}: {error.strerror}.", "Make it readable.") from None


def _pack_small(folder: Path, persistent: list[str]) -> str:
    """Return a small folder's code as an archive in Base64; empty if it is too large, or cannot be read."""
    try:
        also = folders.tracked(folder, persistent)
        if sum((folder / path).lstat().st_size for path in [*folders.files(folder, persistent), *also]) > SMALL:
            return ""
        with tempfile.TemporaryDirectory(prefix="flaskhost-") as local:
            packed = Path(local) / "source.tar.gz"
            folders.pack(folder, packed, persistent, also)
            content = packed.read_bytes()
    except OSError:
        return ""
    return base64.b64encode(content).decode() if len(content) <= SMALL_PACKED else ""


def _digest_archive(archive: Path, checksum: str) -> str:
    """Verify an archive on the control node, and return its digest.

    Raises:
        ReleaseError: the archive does not exist, cannot be read, or has another checksum.
    """
    try:
        archives.verify(archive, checksum)
    except OSError as error:
        reason = f"{archive} on the control node: {error.strerror}."
        raise ReleaseError("source.archive", reason, "Correct source.archive, or create the archive.") from None
    return archives.checksum_digest(checksum)


# -- who deploys ----------------------------------------------------------------------------------------------------


def _who() -> dict[str, Any]:
    """Return what the host records about this run of the playbook, in its history and in its lock."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container can run with a user ID that has no name.
        user = str(os.getuid())
    process = _playbook()
    controller = {"id": _machine(), "pid": process, "started": _started(process)}
    return {
        "by": f"{user}@{socket.gethostname()}",
        "controller": controller,
        "deploy": "-".join(str(item) for item in controller.values()),
        "stamp": LOADED,
    }


def _playbook() -> int:
    """Return the process ID of ansible-playbook, this process's parent. It stays the same after the parent's death."""
    parent = multiprocessing.parent_process()
    return parent.pid if parent and parent.pid else os.getpid()


def _machine() -> str:
    """Return a stable and unique ID of this control node.

    No single part is enough: machines made from one image share their machine-id, laptops can have the same host name,
    and a process ID is valid only within its own namespace, a container.
    """
    identity, namespace = "", ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        identity = MACHINE_ID.read_text(encoding="ascii").strip()
    # Not Linux: the network card's address. If this bit is set, it is a random number that differs in each process.
    if not identity and not (card := uuid.getnode()) >> 40 & 1:
        identity = f"{card:x}"
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    # machine-id(5) requires that the ID is hashed before it leaves the machine.
    return hashlib.sha256("\0".join(["flaskhost", socket.gethostname(), identity, namespace]).encode()).hexdigest()[:16]


def _stat(process: int) -> list[str]:
    """Return the fields of a process from its state on; empty if there is no such process or no /proc."""
    try:
        # The name comes first, in parentheses, and can contain any character: proc(5), /proc/pid/stat.
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def _started(process: int) -> int:
    """Return the start time of a process in clock ticks since boot; 0 without /proc."""
    fields = _stat(process)
    return int(fields[19]) if fields else 0


def _is_dead(controller: Any) -> bool:
    """Check whether a lock's holder was a run on this control node that has ended. If in doubt, it has not."""
    if not isinstance(controller, dict) or controller.get("id") != _machine():
        return False
    process, started = controller.get("pid"), controller.get("started")
    if type(process) is not int or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        # The process exists and belongs to another user.
        pass
    fields = _stat(process)
    # A zombie process, or another process with the same ID.
    return bool(fields) and (fields[0] in "ZX" or (bool(started) and _started(process) != started))
