"""How much an app may hold of a file system: project quotas, which ext4 and XFS have.

Each app is a project (quota(1), chattr(1) -p). Its folders belong to it, and so does what is made in them, whoever
makes it. A process of an app cannot leave its project: the kernel lets nobody change one from inside a user namespace,
which ``PrivateUsers=`` of the sandbox is (fs/ioctl.c, ``fileattr_set_prepare``).
"""

from __future__ import annotations

import array
import contextlib
import csv
import errno
import fcntl
import io
import os
import re
import resource
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.flaskhost.host.runner import Run, tail

#: ioctl(2) numbers of <linux/fs.h>, and the flag of a folder whose project is inherited.
_GET, _SET, _INHERIT = 0x801C581F, 0x401C5820, 0x00000200
#: Where struct fsxattr of <linux/fs.h>, 28 bytes, has its flags and its project, in words of 4 bytes.
_FLAGS, _PROJECT, _WORDS = 0, 3, 7
_UNITS = {"M": 1024**2, "G": 1024**3, "T": 1024**4}
#: What tells a file that its file system has no such thing, or that there is none to open.
_NOT_HERE = (
    *(errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO),
)
#: How what an app can exchange is opened: no link is followed, no pipe waited for.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: Folders in each other; each of them stays open while what is in it is looked at.
_DEEPEST = 20_000


class QuotaError(Exception):
    """A bound that cannot be set; the text says why and what to do."""


@dataclass(frozen=True)
class FileSystem:
    """A file system that is mounted.

    Attributes:
        mount: where.
        device: of what.
        kind: such as ``ext4``.
        options: how it is mounted, the file system's own options among them.
    """

    mount: str
    device: str
    kind: str
    options: tuple[str, ...] = ()

    @property
    def has_quotas(self) -> bool:
        """Whether it holds projects to their bounds."""
        return self.kind in ("ext4", "xfs") and bool({"prjquota", "pquota"} & {*self.options})


@dataclass(frozen=True)
class Bound:
    """What a project may hold of a file system, and what it holds.

    Attributes:
        blocks: the most, in KiB; 0 for no bound.
        files: the most files and folders; 0 for no bound.
        used: what it holds, in KiB.
    """

    blocks: int
    files: int
    used: int = 0


def file_system(path: Path, table: str = "") -> FileSystem:
    """The file system that a path is on, or will be.

    Args:
        path: the path; it need not be there.
        table: the text of proc_pid_mountinfo(5); this process's when empty.
    """
    place = Path(os.path.realpath(path))
    found = FileSystem("/", "", "")
    for line in (table or Path("/proc/self/mountinfo").read_text(encoding="utf-8")).splitlines():
        before, _, after = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        kind, device, options = after.split()[:3]
        # Later lines lie over earlier ones.
        if place.is_relative_to(mount) and len(mount) >= len(found.mount):
            found = FileSystem(mount, device, kind, (*before.split()[5].split(","), *options.split(",")))
    return found


def size(limit: str, total: int) -> int:
    """A bound in bytes.

    Args:
        limit: ``10G``, ``500M``, ``2T``, or a share of the file system such as ``50%``.
        total: the file system's size in bytes.
    """
    number, unit = int(limit[:-1]), limit[-1]
    return total * number // 100 if unit == "%" else number * _UNITS[unit]


def project_of(name: str) -> int:
    """The number of an app's project: the same on every host, and none that an administrator would give by hand.

    Args:
        name: the app's name.
    """
    return 1 << 30 | zlib.crc32(name.encode()) & (1 << 30) - 1


def wanted(limit: str, mount: str) -> Bound:
    """What a project may hold of a file system; of its files the same share as of its bytes.

    Args:
        limit: as in :func:`size`.
        mount: where the file system is mounted.
    """
    there = os.statvfs(mount)
    total = there.f_blocks * there.f_frsize
    most = size(limit, total)
    return Bound(most // 1024, there.f_files * most // total if total else 0)


def adopt(top: Path, project: int, change: bool = True) -> bool:
    """Give a folder and all that is in it to a project, so that new files in it belong to it too.

    Nothing follows a link, and nothing leaves the file system: a hostile app may exchange what it can write meanwhile.
    Each folder is given to the project before it is listed. What an app creates in it later belongs to the project by
    itself, and nothing can be moved into it that does not.

    Args:
        top: the folder; it may be missing.
        project: the project's number; 0 for none.
        change: whether to do it; else it is only asked for the folder itself.

    Returns:
        Whether something was changed, or would be.

    Raises:
        QuotaError: there are too many folders in each other.
    """
    try:
        descriptor = os.open(top, _FOLDER)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
    try:
        # The folder itself is the last: a run that was killed begins anew.
        if _belongs(descriptor, project):
            return False
        if not change:
            return True
        with _open_files(_DEEPEST + 100):
            _adopt_below(descriptor, project, top)
            _give(descriptor, project)
            # It was listed before it was given: an app that writes into it may have been quicker.
            _adopt_below(descriptor, project, top, known=True)
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def _open_files(number: int) -> Iterator[None]:
    """Let this process have more files open; a folder stays open as long as what is in it is looked at."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        most = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _adopt_below(top: int, project: int, name: Path, known: bool = False) -> None:
    """Give what is in a folder to a project.

    Not os.fwalk(), which lists a folder before anything can be done with it, and fails in a tree of a thousand levels.

    Args:
        top: the folder's descriptor.
        project: the project's number.
        name: the folder, for the message.
        known: whether to pass over the folders that belong to the project: what is in them does, too.
    """
    device = os.fstat(top).st_dev
    stack = [(os.dup(top), iter(os.listdir(top)))]
    try:
        while stack:
            here, names = stack[-1]
            item = next(names, None)
            if item is None:
                os.close(stack.pop()[0])
                continue
            below = _adopt_item(item, here, project, device, known)
            if below is None:
                continue
            stack.append((below, iter(os.listdir(below))))  # noqa: PTH208 - by a descriptor
            if len(stack) > _DEEPEST:
                raise QuotaError(
                    f"In {name} there are more than {_DEEPEST} folders in each other, so limits.disk cannot be set.\n"
                    f"Stop the app, find out where, and remove them: find {name} -mindepth {_DEEPEST} | head -n 1"
                )
    finally:
        for here, _names in stack:
            os.close(here)


def _adopt_item(name: str, folder: int, project: int, device: int, known: bool) -> int | None:
    """Give a file or a folder to a project; returns the folder's descriptor if what is in it has to follow."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return None
        descriptor = os.open(name, _FOLDER if stat.S_ISDIR(mode) else _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return None
        raise
    keep = False
    try:
        status = os.fstat(descriptor)
        if status.st_dev != device:
            return None
        if stat.S_ISDIR(status.st_mode):
            keep = not (known and _belongs(descriptor, project))
        if keep or stat.S_ISREG(status.st_mode):
            _give(descriptor, project)
    finally:
        if not keep:
            os.close(descriptor)
    return descriptor if keep else None


def _attributes(descriptor: int) -> array.array[int]:
    words = array.array("I", [0] * _WORDS)
    fcntl.ioctl(descriptor, _GET, words)
    return words


def _belongs(descriptor: int, project: int) -> bool:
    words = _attributes(descriptor)
    return words[_PROJECT] == project and (not project or bool(words[_FLAGS] & _INHERIT))


def _give(descriptor: int, project: int) -> None:
    words = _attributes(descriptor)
    words[_PROJECT] = project
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        words[_FLAGS] |= _INHERIT
    fcntl.ioctl(descriptor, _SET, words)


def bounds(run: Run, mount: str) -> dict[int, Bound]:
    """What each project may hold of a file system, by its number.

    Args:
        run: runs a command.
        mount: where it is mounted.

    Raises:
        QuotaError: there is no answer.
    """
    # -P without -v leaves out who holds nothing, which may have a bound all the same.
    status, out, err = run(["repquota", "-P", "-n", "-v", "-O", "csv", mount])
    if status:
        raise QuotaError(f"repquota -P {mount} does not answer: {tail(err or out, 3)}\nSee: quotaon -p -P {mount}")
    found = {}
    for row in csv.DictReader(io.StringIO(out)):
        number = (row.get("Project") or row.get("User") or "").lstrip("#")
        if number.isdigit():
            columns = (int(row[name]) for name in ("BlockHardLimit", "FileHardLimit", "BlockUsed"))
            found[int(number)] = Bound(*columns)
    return found


def hold(run: Run, mount: str, limits: Iterable[tuple[str, int, str]], change: bool = True) -> list[str]:
    """Hold projects to their bounds.

    Args:
        run: runs a command.
        mount: where the file system is mounted.
        limits: for each project its name, its number and its limit, as in :func:`size`.
        change: whether to do it, or only to say what would be done.

    Returns:
        What was changed, a line each.

    Raises:
        QuotaError: a project holds more than its limit already, or it cannot be set.
    """
    have, done = bounds(run, mount), []
    for name, number, limit in limits:
        want, now = wanted(limit, mount), have.get(number, Bound(0, 0))
        if (want.blocks, want.files) == (now.blocks, now.files):
            continue
        if now.used > want.blocks:
            raise QuotaError(
                f"{name} holds {now.used // 1024} MB on {mount}; limits.disk is {limit}, {want.blocks // 1024} MB.\n"
                f"Give it more (flask_apps.{name}.limits.disk), or remove what it does not need: du -xh /srv/{name}"
            )
        if change:
            numbers = ("0", str(want.blocks), "0", str(want.files), mount)
            status, out, err = run(["setquota", "-P", str(number), *numbers])
            if status:
                raise QuotaError(f"setquota -P {number} {mount} ended with {status}: {tail(err or out, 3)}")
        done.append(f"{name}: {limit} of {mount}")
    return done


def start_units(unit: str, ready: str, mount: str, limits: Mapping[int, Bound]) -> dict[str, str]:
    """The unit files that lift the bounds before a service starts, and set them once it is ready.

    Args:
        unit: the service's unit.
        ready: a command that succeeds when the service is ready.
        mount: where the file system is mounted.
        limits: the bounds, by the number of the project.

    Returns:
        The text of each file, by its path.
    """
    bounds_unit = f"flaskhost-bounds-{unit.replace('@', '-')}"
    lift = [f"ExecStartPre=-+/usr/sbin/setquota -P {number} 0 0 0 0 {mount}" for number in sorted(limits)]
    set_again = [
        f"ExecStart=-/usr/sbin/setquota -P {number} 0 {bound.blocks} 0 {bound.files} {mount}"
        for number, bound in sorted(limits.items())
    ]
    folder = Path("/etc/systemd/system")
    return {
        f"{folder}/{unit}.d/70-flaskhost-bounds.conf": "\n".join(
            [
                "# Written by Flaskhost: a recovery must not meet the bounds of the disk that apps have.",
                "[Unit]",
                f"Wants={bounds_unit}",
                "[Service]",
                *lift,
                "# A recovery after a crash of one connection still meets the bounds; the next start does not.",
                "Restart=on-failure",
                "RestartSec=2",
                "",
            ]
        ),
        f"{folder}/{bounds_unit}": "\n".join(
            [
                f"# Written by Flaskhost: the bounds of the disk, once {unit} has recovered.",
                "[Unit]",
                f"Description=Bound what apps may hold of {mount} once {unit} is ready",
                f"After={unit}",
                f"PartOf={unit}",
                "[Service]",
                "Type=oneshot",
                "TimeoutStartSec=infinity",
                f"ExecStart=/bin/sh -c 'until {ready}; do sleep 1; done'",
                *set_again,
                "",
            ]
        ),
    }
