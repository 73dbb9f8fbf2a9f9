"""Many small files of the host's in one go: a run of a module costs half a second, and a hardened host has dozens.

Nothing here knows Ansible. What is to be done is worked out first, and done only then: a plan is what check mode shows.
"""

from __future__ import annotations

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

#: Runs a command and returns its status, its output and its errors.
Run = Callable[..., tuple[int, str, str]]


class HostFilesError(Exception):
    """A file that cannot be as it was asked for; the old one is in place."""


@dataclass(frozen=True)
class Change:
    """One file that is not as it should be.

    Attributes:
        path: the file.
        before: its text; nothing where it is not there.
        after: its text then; nothing where it goes.
        owner: who owns it then, as numbers of user and group.
        mode: its permissions then.
        note: what changes beside the text.
        validate: a command that judges the new text, with %s for a file that has it.
    """

    path: str
    before: str | None
    after: str | None
    owner: tuple[int, int] = (0, 0)
    mode: int = 0
    note: str = ""
    validate: tuple[str, ...] = ()


def numbers(owner: str, group: str) -> tuple[int, int]:
    """The numbers of a user and a group.

    Raises:
        HostFilesError: there is no such user or group.
    """
    try:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise HostFilesError(f"{owner}:{group} is nobody here: {error}") from error


def read(path: str) -> str | None:
    """The text of a file, or nothing where there is none. Bytes that are no UTF-8 survive being written back."""
    file = Path(path)
    return file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else None


def with_line(text: str, pattern: str, line: str, after: str = "") -> str:
    """Return a text with exactly one line that matches: the wanted one, where the first that matched was.

    Args:
        text: the text.
        pattern: a regular expression; every line in which it is found is the line in question.
        line: the wanted line; when empty, the lines go.
        after: where no line matches, the wanted one goes behind the first in which this is found; else to the end.
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
    """Find the files that are not there, or have another text, owner or mode."""
    changes = []
    for file in files:
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


def plan_lines(lines: Iterable[Mapping[str, Any]]) -> list[Change]:
    """Find the files of others in which a line is not as it should be; one that is not there is left out."""
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
    """Find the files and folders that are open to more than they may be, or of somebody else.

    A mode is the most that is allowed: what is closed further stays so. Links are not followed.
    """
    changes = []
    for item in modes:
        owner = None
        if item["owner"]:
            try:
                owner = numbers(item["owner"], item["group"])
            except HostFilesError:
                continue  # A group that is not there belongs to a package that is not there.
        limit = int(item["mode"], 8)
        for path in sorted(glob.glob(item["path"])):  # noqa: PTH207 - the pattern is a whole path
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
    """Find the files that should not be there."""
    return [Change(path, read(path) or "", None) for path in paths if os.path.lexists(path)]


def write(change: Change, run: Run) -> None:
    """Put a file in place by a rename, after its validation.

    Args:
        change: what is planned; a file with a text.
        run: runs the validation.

    Raises:
        HostFilesError: the validation says no; the old file is in place.
    """
    path = Path(change.path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)

    def judge(new: Path) -> None:
        if not change.validate:
            return
        status, out, err = run([part.replace("%s", str(new)) for part in change.validate])
        if status:
            command = " ".join(change.validate)
            raise HostFilesError(f"{change.path} was left as it is: {command} says\n{(out + err).strip()}")

    atomic.write(path, change.after or "", mode=change.mode, owner=change.owner, judge=judge, errors="surrogateescape")


def apply(changes: Iterable[Change], run: Run) -> None:
    """Do what is planned, in its order.

    Args:
        changes: of the four plans.
        run: runs validations.
    """
    for change in changes:
        if change.after is not None:
            write(change, run)
        elif change.before is not None:
            Path(change.path).unlink(missing_ok=True)
        else:
            _set_mode(change)


def _set_mode(change: Change) -> None:
    """Give a file or folder its owner and mode, unless a link has come in its place since it was planned."""
    descriptor = os.open(change.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.chown(f"/proc/self/fd/{descriptor}", *change.owner)
            Path(f"/proc/self/fd/{descriptor}").chmod(change.mode)
    finally:
        os.close(descriptor)


def diff(change: Change) -> dict[str, str]:
    """What Ansible shows of a change with --diff."""
    return {
        "before_header": change.path,
        "after_header": f"{change.path} {change.note}".strip(),
        "before": change.before or "",
        "after": change.after or (f"{change.note}\n" if change.before is None else ""),
    }
