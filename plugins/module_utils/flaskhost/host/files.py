"""Manage many small files in one module run: each run costs half a second, and a hardened host has dozens of files.

Nothing here needs Ansible. All changes are planned before any is made; check mode shows the plan.
"""

from __future__ import annotations

import contextlib
import glob
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host import atomic

#: Runs a command and returns its status, output and error output.
Run = Callable[..., tuple[int, str, str]]


class HostFilesError(Exception):
    """A file cannot be brought into the requested state; the old file is in place."""


@dataclass(frozen=True)
class Change:
    """One file that differs from the requested state.

    Attributes:
        path: the file.
        before: its current text; None if it does not exist.
        after: its new text; None to remove it.
        owner: its new owner, as the numeric IDs of user and group.
        mode: its new permissions.
        note: changes other than to the text.
        validate: a command that validates the new text, with %s for a temporary file with the text.
        folder: whether it is a folder that is created if it is missing.
    """

    path: str
    before: str | None
    after: str | None
    owner: tuple[int, int] = (0, 0)
    mode: int = 0
    note: str = ""
    validate: tuple[str, ...] = ()
    folder: bool = False


def numbers(owner: str, group: str) -> tuple[int, int]:
    """Return the numeric IDs of a user and a group.

    Raises:
        HostFilesError: the user or group does not exist.
    """
    try:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise HostFilesError(f"the user {owner} or the group {group} does not exist: {error}") from error


def read(path: str) -> str | None:
    """Read a file; None if it does not exist. Bytes that are not valid UTF-8 are kept when it is written back."""
    file = Path(path)
    return file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else None


def with_line(text: str, pattern: str, line: str, after: str = "") -> str:
    """Return a text with exactly one matching line: the requested line, at the place of the first match.

    Args:
        text: the text.
        pattern: a regular expression; every line that it matches is replaced or removed.
        line: the requested line; empty to remove the matching lines.
        after: if no line matches ``pattern``, the line goes after the first line that matches this; else to the end.
    """
    old = text.splitlines()
    place = next((index for index, item in enumerate(old) if re.search(pattern, item)), None)
    kept = [(index, item) for index, item in enumerate(old) if not re.search(pattern, item)]
    lines = [item for _index, item in kept]
    if line:
        if place is None and after:
            found = next((index for index, item in enumerate(lines) if re.search(after, item)), None)
            place = len(lines) if found is None else found + 1
        elif place is None:
            place = len(lines)
        lines.insert(min(place, len(lines)), line)
    return "\n".join(lines) + "\n" if lines else ""


def plan_files(files: Iterable[Mapping[str, Any]]) -> list[Change]:
    """Return the files that do not exist, or have another text, owner or mode.

    A file that names another one in ``unless`` is removed instead, while that one exists.
    """
    changes = []
    for file in files:
        if file.get("unless") and os.path.lexists(file["unless"]):
            changes += plan_absent([file["path"]])
            continue
        owner, mode = numbers(file["owner"], file["group"]), int(file["mode"], 8)
        before, note = read(file["path"]), ""
        if before is not None and not Path(file["path"]).is_symlink():
            status = Path(file["path"]).stat()
            if (status.st_uid, status.st_gid) != owner or stat.S_IMODE(status.st_mode) != mode:
                note = f"{file['owner']}:{file['group']} {mode:04o}"
        if before != file["content"] or note or Path(file["path"]).is_symlink():
            validate = tuple(file.get("validate") or ())
            changes.append(Change(file["path"], before, file["content"], owner, mode, note, validate))
    return changes


def plan_folders(folders: Iterable[Mapping[str, Any]]) -> list[Change]:
    """Return the folders that do not exist, or have another owner or mode.

    Raises:
        HostFilesError: something else has the name.
    """
    changes = []
    for folder in folders:
        path, owner, mode = Path(folder["path"]), numbers(folder["owner"], folder["group"]), int(folder["mode"], 8)
        try:
            status = path.lstat()
        except FileNotFoundError:
            status = None
        if status and not stat.S_ISDIR(status.st_mode):
            raise HostFilesError(f"{path} is not a folder. Move it away, and run the same command again.")
        if not status or (status.st_uid, status.st_gid) != owner or stat.S_IMODE(status.st_mode) != mode:
            note = f"{folder['owner']}:{folder['group']} {mode:04o}"
            changes.append(Change(str(path), None, None, owner, mode, note, folder=True))
    return changes


def plan_lines(lines: Iterable[Mapping[str, Any]]) -> list[Change]:
    """Return the existing files of other packages in which a line differs; missing files are skipped."""
    first: dict[str, str] = {}
    texts: dict[str, str] = {}
    for item in lines:
        path = item["path"]
        if path not in texts:
            text = read(path)
            if text is None:
                continue
            first[path] = texts[path] = text
        texts[path] = with_line(texts[path], item["pattern"], item["line"], item.get("after") or "")
    changes = []
    for path, text in texts.items():
        if text != first[path]:
            status = Path(path).stat()
            owner = (status.st_uid, status.st_gid)
            changes.append(Change(path, first[path], text, owner, stat.S_IMODE(status.st_mode)))
    return changes


def plan_modes(modes: Iterable[Mapping[str, Any]]) -> list[Change]:
    """Return the files and folders whose permissions are too open, or whose owner differs.

    A mode is the maximum: files with fewer permissions keep them. Links are not followed.
    """
    changes = []
    for item in modes:
        owner = None
        if item["owner"]:
            try:
                owner = numbers(item["owner"], item["group"])
            except HostFilesError:
                continue  # A missing group belongs to a package that is not installed.
        limit = int(item["mode"], 8)
        for path in sorted(glob.glob(item["path"])):  # noqa: PTH207 - the pattern is an absolute path
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                continue
            now, wanted = stat.S_IMODE(status.st_mode), stat.S_IMODE(status.st_mode) & limit
            theirs = (status.st_uid, status.st_gid)
            if now != wanted or (owner and theirs != owner):
                note = f"{item['owner']}:{item['group']} {wanted:04o}" if owner else f"{wanted:04o}"
                changes.append(Change(path, None, None, owner or theirs, wanted, note))
    return changes


def plan_absent(paths: Iterable[str]) -> list[Change]:
    """Return the files to remove."""
    return [Change(path, read(path) or "", None) for path in paths if os.path.lexists(path)]


def write(change: Change, run: Run) -> None:
    """Validate a file and put it in place with a rename.

    Args:
        change: the planned change of a file with a text.
        run: runs the validation.

    Raises:
        HostFilesError: the validation failed; the old file is in place.
    """
    path = Path(change.path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)

    def judge(new: Path) -> None:
        if not change.validate:
            return
        status, out, err = run([part.replace("%s", str(new)) for part in change.validate])
        if status:
            command = " ".join(change.validate)
            raise HostFilesError(f"{change.path} was not changed, because {command} failed:\n{(out + err).strip()}")

    atomic.write(path, change.after or "", mode=change.mode, owner=change.owner, judge=judge, errors="surrogateescape")


def apply(changes: Iterable[Change], run: Run) -> None:
    """Apply the planned changes in order.

    Args:
        changes: changes from the plan functions.
        run: runs validations.
    """
    for change in changes:
        if change.after is not None:
            write(change, run)
        elif change.before is not None:
            Path(change.path).unlink(missing_ok=True)
        else:
            if change.folder:
                Path(change.path).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
                with contextlib.suppress(FileExistsError):
                    Path(change.path).mkdir(mode=0o700)
            _set_mode(change)


def _set_mode(change: Change) -> None:
    """Set the owner and mode of a file or folder, unless a link has replaced it since the plan was made."""
    descriptor = os.open(change.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.chown(f"/proc/self/fd/{descriptor}", *change.owner)
            Path(f"/proc/self/fd/{descriptor}").chmod(change.mode)
    finally:
        os.close(descriptor)


def diff(change: Change) -> dict[str, str]:
    """Return the diff of a change for Ansible's --diff."""
    return {
        "before_header": change.path,
        "after_header": f"{change.path} {change.note}".strip(),
        "before": change.before or "",
        "after": change.after or (f"{change.note}\n" if change.before is None else ""),
    }
