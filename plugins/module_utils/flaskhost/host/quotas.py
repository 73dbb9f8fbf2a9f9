"""Disk limits for apps: project quotas of ext4 and XFS.

Each app is a project (quota(1), chattr(1) -p). Its folders belong to the project, and so does everything created in
them, by any user. A process of an app cannot leave its project: the kernel does not let anyone change a project from
inside a user namespace, which ``PrivateUsers=`` of the sandbox creates (fs/ioctl.c, ``fileattr_set_prepare``).
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

#: ioctl(2) numbers from <linux/fs.h>, and the flag that makes new files inherit a folder's project.
_GET, _SET, _INHERIT = 0x801C581F, 0x401C5820, 0x00000200
#: Positions of flags and project in struct fsxattr of <linux/fs.h> (28 bytes), in words of 4 bytes.
_FLAGS, _PROJECT, _WORDS = 0, 3, 7
_UNITS = {"M": 1024**2, "G": 1024**3, "T": 1024**4}
#: Errors that mean that a file's file system does not support projects, or that there is no file to open.
_NOT_HERE = (
    *(errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO),
)
#: Flags to open files that an app can replace: links are not followed, and pipes do not block.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: Maximum depth of nested folders; each of them stays open while its contents are processed.
_DEEPEST = 20_000


class QuotaError(Exception):
    """A quota cannot be set; the message contains the reason and the fix."""


@dataclass(frozen=True)
class FileSystem:
    """A mounted file system.

    Attributes:
        mount: the mount point.
        device: the device.
        kind: the type, such as ``ext4``.
        options: the mount options, including the file system's own.
    """

    mount: str
    device: str
    kind: str
    options: tuple[str, ...] = ()

    @property
    def has_quotas(self) -> bool:
        """Whether it enforces project quotas."""
        return self.kind in ("ext4", "xfs") and bool({"prjquota", "pquota"} & {*self.options})


@dataclass(frozen=True)
class Bound:
    """A project's quota on a file system, and its usage.

    Attributes:
        blocks: the limit in KiB; 0 for no limit.
        files: the maximum number of files and folders; 0 for no limit.
        used: current usage in KiB.
    """

    blocks: int
    files: int
    used: int = 0


def file_system(path: Path, table: str = "") -> FileSystem:
    """Return the file system that a path is on, or would be on.

    Args:
        path: the path, which does not need to exist.
        table: the text of proc_pid_mountinfo(5); read for this process if empty.
    """
    place = Path(os.path.realpath(path))
    found = FileSystem("/", "", "")
    for line in (table or Path("/proc/self/mountinfo").read_text(encoding="utf-8")).splitlines():
        before, _, after = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        kind, device, options = after.split()[:3]
        # Later mounts hide earlier ones.
        if place.is_relative_to(mount) and len(mount) >= len(found.mount):
            found = FileSystem(mount, device, kind, (*before.split()[5].split(","), *options.split(",")))
    return found


def size(limit: str, total: int) -> int:
    """Convert a limit to bytes.

    Args:
        limit: ``10G``, ``500M``, ``2T``, or a share of the file system such as ``50%``.
        total: the file system's size in bytes.
    """
    number, unit = int(limit[:-1]), limit[-1]
    return total * number // 100 if unit == "%" else number * _UNITS[unit]


def project_of(name: str) -> int:
    """Return an app's project ID: the same on every host, and in a range that administrators do not use by hand.

    Args:
        name: the app's name.
    """
    return 1 << 30 | zlib.crc32(name.encode()) & (1 << 30) - 1


def wanted(limit: str, mount: str) -> Bound:
    """Return a project's quota on a file system: the same share of its inodes as of its bytes.

    Args:
        limit: as in :func:`size`.
        mount: the mount point.
    """
    there = os.statvfs(mount)
    total = there.f_blocks * there.f_frsize
    most = size(limit, total)
    return Bound(most // 1024, there.f_files * most // total if total else 0)


def adopt(top: Path, project: int, change: bool = True) -> bool:
    """Assign a folder and everything in it to a project, so that new files in it belong to the project too.

    Links are not followed, and other file systems are not entered: a malicious app can replace its files meanwhile.
    Each folder is assigned before it is listed. New files in it then belong to the project automatically, and nothing
    from another project can be moved into it.

    Args:
        top: the folder, which can be missing.
        project: the project ID; 0 for none.
        change: whether to make the change; if false, only the folder itself is checked.

    Returns:
        Whether something was changed, or would be.

    Raises:
        QuotaError: the folders are nested too deep.
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
        # The top folder is assigned last, so that a killed run starts over.
        if _belongs(descriptor, project):
            return False
        if not change:
            return True
        with _open_files(_DEEPEST + 100):
            _adopt_below(descriptor, project, top)
            _give(descriptor, project)
            # The top folder was listed before it was assigned: an app can have written to it in between.
            _adopt_below(descriptor, project, top, known=True)
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def _open_files(number: int) -> Iterator[None]:
    """Raise this process's limit of open files: each folder stays open while its contents are processed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        most = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _adopt_below(top: int, project: int, name: Path, known: bool = False) -> None:
    """Assign the contents of a folder to a project.

    Not with os.fwalk(), which lists a folder before it can be assigned, and fails at a depth of a thousand folders.

    Args:
        top: the folder's descriptor.
        project: the project ID.
        name: the folder, for the message.
        known: whether to skip folders that belong to the project, because their contents do too.
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
                    f"{name} has more than {_DEEPEST} nested folders, so limits.disk cannot be set.\n"
                    f"Stop the app, find the folders, and remove them: find {name} -mindepth {_DEEPEST} | head -n 1"
                )
    finally:
        for here, _names in stack:
            os.close(here)


def _adopt_item(name: str, folder: int, project: int, device: int, known: bool) -> int | None:
    """Assign a file or folder to a project. Return the folder's descriptor if its contents have to follow."""
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
    """Return the quotas of a file system by project ID.

    Args:
        run: runs a command.
        mount: the mount point.

    Raises:
        QuotaError: repquota failed.
    """
    # Without -v, -P omits projects without any usage, which can still have a quota.
    status, out, err = run(["repquota", "-P", "-n", "-v", "-O", "csv", mount])
    if status:
        raise QuotaError(f"repquota -P {mount} failed: {tail(err or out, 3)}\nCheck: quotaon -p -P {mount}")
    found = {}
    for row in csv.DictReader(io.StringIO(out)):
        number = (row.get("Project") or row.get("User") or "").lstrip("#")
        if number.isdigit():
            columns = (int(row[name]) for name in ("BlockHardLimit", "FileHardLimit", "BlockUsed"))
            found[int(number)] = Bound(*columns)
    return found


def hold(run: Run, mount: str, limits: Iterable[tuple[str, int, str]], change: bool = True) -> list[str]:
    """Set the projects' quotas.

    Args:
        run: runs a command.
        mount: the mount point.
        limits: for each project its name, its ID and its limit, as in :func:`size`.
        change: whether to set the quotas, or only report what would change.

    Returns:
        The changes, one line each.

    Raises:
        QuotaError: a project already uses more than its limit, or the quota cannot be set.
    """
    have, done = bounds(run, mount), []
    for name, number, limit in limits:
        want, now = wanted(limit, mount), have.get(number, Bound(0, 0))
        if (want.blocks, want.files) == (now.blocks, now.files):
            continue
        if now.used > want.blocks:
            raise QuotaError(
                f"{name} uses {now.used // 1024} MB on {mount}; its limits.disk is {limit}, {want.blocks // 1024} MB.\n"
                f"Raise flask_apps.{name}.limits.disk, or delete data that the app does not need: du -xh /srv/{name}"
            )
        if change:
            numbers = ("0", str(want.blocks), "0", str(want.files), mount)
            status, out, err = run(["setquota", "-P", str(number), *numbers])
            if status:
                raise QuotaError(f"setquota -P {number} {mount} failed with exit code {status}: {tail(err or out, 3)}")
        done.append(f"{name}: {limit} of {mount}")
    return done


def start_units(unit: str, ready: str, mount: str, limits: Mapping[int, Bound]) -> dict[str, str]:
    """Return the unit files that lift the quotas before a service starts, and set them again once it is ready.

    Args:
        unit: the service's unit.
        ready: a command that succeeds when the service is ready.
        mount: the mount point of the file system.
        limits: the quotas by project ID.

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
                "# Written by Flaskhost: the disk limits of the apps must not stop a recovery.",
                "[Unit]",
                f"Wants={bounds_unit}",
                "[Service]",
                *lift,
                "# After the crash of a connection, it recovers within the limits. The next start lifts them.",
                "Restart=on-failure",
                "RestartSec=2",
                "",
            ]
        ),
        f"{folder}/{bounds_unit}": "\n".join(
            [
                f"# Written by Flaskhost: sets the disk limits again once {unit} has recovered.",
                "[Unit]",
                f"Description=Limit the apps' disk use on {mount} after {unit} is ready",
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
