"""Run commands of a release as the app's user in a systemd sandbox, never in a root shell."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

#: Runs a command and returns its status, output and error output, like ``AnsibleModule.run_command``.
Run = Callable[..., tuple[int, str, str]]


#: What still serves, for every error message: the operator wants to know that first. A deploy replaces this sentence by
#: one that names the release.
STILL = "The previous release, if any, still serves."


#: Maximum number of bytes that are kept of the output of a command of an app; see :mod:`host.output`.
LONGEST_OUTPUT = 4 * 1024**2
#: Maximum number of characters of a line in a message.
_LONGEST_LINE = 1000
#: Maximum number of characters of a warning.
_LONGEST_WARNING = 10_000
#: What programs print to colour a text or to move the cursor.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")


def legible(line: str) -> str:
    """Return a line without control characters, which could steer a terminal. A long line loses its middle."""
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
    return _without_controls(line)


def _without_controls(line: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in _ESCAPES.sub("", line))


def harmless(text: str) -> str:
    """Return a warning without control characters. It can contain a long command, so only its end is cut off."""
    return "\n".join(map(_without_controls, text[:_LONGEST_WARNING].split("\n")))


class ReleaseError(Exception):
    """A release cannot continue.

    Args:
        step: the step that failed, as shown to the operator ("Build the virtual environment").
        reason: what went wrong, with the last lines of the output.
        cure: what to do next.
    """

    def __init__(self, step: str, reason: str, cure: str) -> None:
        # Both can contain names and texts of the app's source.
        reason, cure = ("\n".join(map(legible, text.split("\n"))) for text in (reason, cure))
        super().__init__(f"{step}: {reason}")
        self.step, self.reason, self.cure = step, reason, cure


def tail(text: str, lines: int = 15) -> str:
    """Return the last lines of an output, legible and without empty lines."""
    return "\n".join(map(legible, [line for line in text.splitlines() if line.strip()][-lines:]))


def excerpt(text: str, first: int = 5, last: int = 15) -> str:
    """Return the first and the last lines of an output, legible and without empty lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    left_out = [f"... ({len(lines) - first - last} lines left out)"] if len(lines) > first + last else []
    end = lines[-last:] if left_out else lines[first:]
    return "\n".join([*map(legible, lines[:first]), *left_out, *map(legible, end)])


def how_ended(status: int, seconds: float, limit: int, option: str) -> str:
    """Say how a command failed.

    Args:
        status: its exit status.
        seconds: how long it took.
        limit: its time limit in seconds.
        option: the option that sets the limit.
    """
    return f"was stopped after {limit} s ({option})" if seconds >= limit else f"failed with status {status}"


#: The errors of programs when a disk is full, or when an app has reached its disk limit.
_FULL = ("No space left on device", "Disk quota exceeded")


def cure_for(said: str, otherwise: str) -> str:
    """Return the fix for a failed command. A full disk takes precedence over any other fix.

    Args:
        said: the command's output.
        otherwise: the fix if the disk is not full.
    """
    if any(words.lower() in said.lower() for words in _FULL):
        return (
            "Free space on the disk, then run the same command again. df -h shows which disk is full; if none is, the "
            "app has reached its limits.disk."
        )
    return otherwise


#: The sandbox for all commands of an app: slots, processes, timers, builds, release commands and run.yml. For its
#: options, see ``man systemd.exec``. roles/slots/templates/slot.service.j2 has the same list for the slots; a unit
#: test compares them.
SANDBOX = (
    "NoNewPrivileges=yes",
    "TemporaryFileSystem=/dev/shm:mode=1777,nosuid,nodev,noexec",
    "PrivateDevices=yes",
    "PrivateUsers=yes",
    "ProtectSystem=strict",
    # ProtectProc leaves /run writable, even with ProtectSystem.
    "ReadOnlyPaths=/run",
    "ProtectHome=yes",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectControlGroups=yes",
    "RestrictSUIDSGID=yes",
    "RemoveIPC=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "LockPersonality=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    "SystemCallErrorNumber=EPERM",
    "TasksMax=512",
    "LimitNOFILE=8192",
    # Limits the lines in the journal; journald multiplies the limit by 3 to 6 if the disk has space. Further lines are
    # dropped and counted. LogNamespace, which contains the app's name, is added separately and limits the bytes.
    "LogRateLimitIntervalSec=30s",
    "LogRateLimitBurst=1000",
)

#: Limits for one-off commands: builds, release commands and run.yml. Half of the host's memory, because a build can
#: compile and a migration can need more than a slot. If memory runs out, such a command is killed before any live slot,
#: and visitors have priority if processors and disks are busy.
ONCE = (
    "MemoryMax=50%",
    "MemorySwapMax=50%",
    "OOMPolicy=stop",
    "OOMScoreAdjust=500",
    "CPUWeight=50",
    "IOWeight=50",
    "UMask=0022",
)


def network(*, outbound: bool) -> tuple[str, ...]:
    """Return the properties of a unit whose app must not connect to anything but this host's own Unix sockets.

    In its own network namespace, which has only a loopback interface, it cannot reach this host's ports either.

    Args:
        outbound: whether outbound connections are allowed.
    """
    return () if outbound else ("PrivateNetwork=yes",)


#: The group of commands whose variables include an owner's password. A process can inspect another process of the same
#: user only if the groups are the same too (ptrace(2), access mode checking), so the app's own processes cannot.
OWNERS_GROUP = "flaskhost-owner"


#: The folder for temporary files of an app's builds, in the app's folder. virtualenv.py creates it, because the unit of
#: a build sees another /srv, in which no command of the unit could.
BUILD_TEMPORARY = "tmp/build"


def temporary(root: str, name: str, user: str) -> tuple[str, ...]:
    """Return properties that give a unit its own ``/tmp`` and ``/var/tmp``, which count toward the app's disk limit.

    ``PrivateTmp=`` would put them into the host's ``/tmp``, without a limit. As with ``PrivateTmp=``, the folder is
    empty at each start and removed at the end. ``rm`` runs as root and follows no link. The mount is optional, for the
    commands that run before the folder is created: they also get the unit's mounts. Only root can enter the parent
    folder, because all units of an app run as the same user: a slot must not read a release command's ``/tmp``.

    Args:
        root: the app's folder, which belongs to root.
        name: the unit's name; ``%N`` in a unit file.
        user: the user who writes there.
    """
    above = f"{root}/tmp"  # noqa: S108  # in a folder that belongs to root
    folder = f"{above}/{name}"
    remove = f"/bin/rm --recursive --force --one-file-system {folder}"
    return (
        f"ExecStartPre=+{remove}",
        f"ExecStartPre=+/usr/bin/install -d -m 0700 {above}",
        f"ExecStartPre=+/usr/bin/install -d -o {user} -g {user} -m 0700 {folder}",
        *_bind(f"-{folder}"),
        f"ExecStopPost=+{remove}",
    )


def _bind(folder: str) -> tuple[str, str]:
    return f"BindPaths={folder}:/tmp", f"BindPaths={folder}:/var/tmp"


def _task(user: str) -> str:
    # No hyphen before the last part: flask-shop-task-1 could belong to an app named shop-task.
    return f"flask-{user}_task"


def apparmor(profile: str) -> tuple[str, ...]:
    """Return properties that confine a command with its app's AppArmor profile, without effect if the kernel has none.

    Args:
        profile: its name. It is loaded first, because an app's first command runs before its first slot.
    """
    load = f"/usr/sbin/apparmor_parser --quiet --replace /etc/apparmor.d/{profile.partition('_')[0]}"
    return (
        f"ExecStartPre=-+/bin/sh -c '! [ -d /sys/kernel/security/apparmor ] || {load} >/dev/null 2>&1'",
        f"AppArmorProfile=-{profile}",
    )


def stop_tasks(run: Run, user: str) -> None:
    """Stop the commands of an app that a killed run left behind, such as a migration or a build.

    Args:
        run: runs a command.
        user: the app's system user.
    """
    run(["systemctl", "stop", f"{_task(user)}-*.service"])


def as_owner(run: Run, owner_file: str, what: str) -> str:
    """Prepare to run a command as the owner of an app's database.

    Args:
        run: runs a command.
        owner_file: the environment file with the owner's login.
        what: the step, as shown to the operator.

    Returns:
        The group that the command has to run with; see :data:`OWNERS_GROUP`.

    Raises:
        ReleaseError: the owner does not exist on this host yet.
    """
    if not Path(owner_file).is_file():
        raise ReleaseError(
            what,
            f"the owner of the app's tables does not exist on this host: {owner_file} is missing.",
            "Run site.yml first: ansible-playbook site.yml --tags postgres",
        )
    status, out, err = run(["groupadd", "--system", "--force", OWNERS_GROUP])
    if status:
        reason = f"the group {OWNERS_GROUP} could not be created: {tail(out + err, 3)}"
        raise ReleaseError(what, reason, "See getent group.")
    return OWNERS_GROUP


#: What must not be in a path that is a property of a unit: see :func:`_folder`.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")


def _folder(path: str) -> str:
    """Return the path of a working directory, which can contain names from the app's source.

    systemd writes this property to the unit's file without any escaping, and reads the file again at the next
    daemon-reload. A line break would add a line that root executes, such as ``ExecStopPost=+``. A backslash at the end
    would remove the next line. D-Bus takes no bytes that are not UTF-8.

    Raises:
        ReleaseError: the path contains such a character.
    """
    if _UNSAFE.search(path):
        raise ReleaseError(
            "Run a command of the app",
            f"the name of a folder has a control character, a backslash or invalid UTF-8: {path!r}.",
            "Rename the folder in the source.",
        )
    return path


def sandboxed(
    command: list[str],
    *,
    user: str,
    root: str,
    directory: str,
    writable: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    environment_files: Iterable[str] = (),
    timeout: int = 900,
    outbound: bool = True,
    group: str = "",
    builder: str = "",
    properties: Iterable[str] = (),
) -> list[str]:
    """Wrap a command so that systemd runs it in the sandbox, as the app's user or as its build account.

    Args:
        command: the program and its arguments, not parsed by a shell.
        user: the app's system user.
        root: the app's folder, which contains its temporary files.
        directory: the working directory.
        writable: the folders that the command can write.
        environment: variables without secrets: they are visible in the process list.
        environment_files: environment files, which can contain secrets; later files take precedence. systemd reads them
            as root. A file with the prefix ``-`` is optional.
        timeout: time limit in seconds.
        outbound: whether the command can connect to other hosts.
        group: the group that it runs with, in addition to the app's group; only the app's group if empty.
        builder: the account that it runs as, with the app's group in addition to its own; the app's user if empty.
        properties: additional properties of the unit.

    Returns:
        The arguments of a ``systemd-run`` command that waits, and passes output and exit status through.

    Raises:
        ReleaseError: the working directory has a name that no unit may contain.
    """
    group = group or builder
    # A name by which stop_tasks finds the command if this process is killed and the command continues.
    unit = f"{_task(user)}-{secrets.token_hex(4)}"
    together = [
        # A build has an empty /run, and systemd accepts only one option for a path.
        *(item for item in SANDBOX if not builder or item != "ReadOnlyPaths=/run"),
        *ONCE,
        *(_bind(f"{root}/{BUILD_TEMPORARY}") if builder else temporary(root, unit, user)),
        *apparmor(f"flask-{user}_build" if builder else f"flask-{user}"),
        # The output goes elsewhere, but the command can reach the journal's sockets; a build has none in its empty
        # /run.
        *([] if builder else [f"LogNamespace=flask-{user}"]),
        *network(outbound=outbound),
        *([f"SupplementaryGroups={user}"] if group else []),
        f"WorkingDirectory={_folder(directory)}",
        f"RuntimeMaxSec={timeout}",
        # A build has nothing to finish. A process that it leaves behind could ignore its end for 90 s at each step.
        *(["TimeoutStopSec=10"] if builder else []),
        *(f"ReadWritePaths={path}" for path in writable),
        *(f"EnvironmentFile={path}" for path in environment_files),
        *properties,
    ]
    return [
        "systemd-run",
        f"--unit={unit}",
        "--quiet",
        "--pipe",
        "--wait",
        "--collect",
        f"--uid={builder or user}",
        f"--gid={group or user}",
        *(f"--property={item}" for item in together),
        *(f"--setenv={key}={value}" for key, value in (environment or {}).items()),
        "--",
        # systemd expands $NAME, as in ExecStart=; only the command itself should do that.
        *(item.replace("$", "$$") for item in command),
    ]
