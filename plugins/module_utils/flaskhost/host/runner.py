"""How a release runs commands: as the app's user, in a sandbox that systemd makes, never in a shell of root's."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

#: Runs a command and returns its status, its output and its errors; ``AnsibleModule.run_command`` is one.
Run = Callable[..., tuple[int, str, str]]


class ReleaseError(Exception):
    """A release that cannot go on.

    Args:
        step: the step that failed, as a reader knows it ("Build the environment").
        reason: what went wrong, with the last lines of the output.
        cure: what to do next.
    """

    def __init__(self, step: str, reason: str, cure: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step, self.reason, self.cure = step, reason, cure


def tail(text: str, lines: int = 15) -> str:
    """The last lines of an output, without the empty ones."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


#: How programs say that a disk is full, or that an app holds as much of it as it may.
_FULL = ("No space left on device", "Disk quota exceeded")


def cure_for(said: str, otherwise: str) -> str:
    """What to do about a command that failed: where a disk is full, nothing else counts.

    Args:
        said: the command's output.
        otherwise: what to do where it is not.
    """
    if any(words.lower() in said.lower() for words in _FULL):
        return (
            "Make room, then run the same command again. df -h shows which disk is full; if none is, the app holds as "
            "much as limits.disk allows."
        )
    return otherwise


#: What every command of an app is held to: slots, processes, timers, builds, release commands and run.yml. Read with
#: ``man systemd.exec``. roles/gunicorn/templates/slot.service.j2 says the same of the slots; a unit test compares them.
SANDBOX = (
    "NoNewPrivileges=yes",
    "TemporaryFileSystem=/dev/shm:mode=1777,nosuid,nodev,noexec",
    "PrivateDevices=yes",
    "PrivateUsers=yes",
    "ProtectSystem=strict",
    # ProtectProc leaves it to be written otherwise, also under ProtectSystem.
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
    # Lines of the journal; journald multiplies them by 3 to 6 where the disk has room. The rest is dropped and counted.
    # LogNamespace, which names the app, is added beside this list: it bounds the bytes.
    "LogRateLimitIntervalSec=30s",
    "LogRateLimitBurst=1000",
)

#: What a command that is run once may take: builds, release commands and run.yml. Half of the host's memory, since a
#: build may compile and a migration may need more than a slot; if memory runs out, such a command is ended before
#: anything that serves, and visitors come first where processors and disks are busy.
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
    """What a unit of an app has where the app may not connect to anything beyond this host's own sockets of files.

    With a network of its own, in which there is only a loopback interface, it does not reach this host's ports either.

    Args:
        outbound: whether it may.
    """
    return () if outbound else ("PrivateNetwork=yes",)


#: The group of commands that have an owner's password among their variables. A process may look into another one of its
#: user's only where the groups are the same too (ptrace(2), access mode checking): the app's own may not then.
OWNERS_GROUP = "flaskhost-owner"


#: Where the temporary files of an app's builds are, in its folder. virtualenv.py creates it: the unit of a build has
#: another /srv, in which no command of the unit could.
BUILD_TEMPORARY = "tmp/build"


def temporary(root: str, name: str, user: str) -> tuple[str, ...]:
    """Give a unit a ``/tmp`` and a ``/var/tmp`` of its own, which count toward what its app holds of the disk.

    ``PrivateTmp=`` would put them into the host's ``/tmp``, where nothing bounds them. As there, the folder is empty at
    each start and removed at the end. ``rm`` runs as root and follows no link. The folder may be missing, for the
    commands that come before it is created: they too have the unit's mounts. The folder above it is root's alone, since
    the units of an app run as the same user: a slot must not read what a release command has in its ``/tmp``.

    Args:
        root: the app's folder, which is root's.
        name: the unit's name; ``%N`` in a unit file.
        user: who writes there.
    """
    above = f"{root}/tmp"  # noqa: S108  # below a folder of root's
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
    # Not a hyphen before the last part: flask-shop-task-1 could be of an app named shop-task.
    return f"flask-{user}_task"


def apparmor(profile: str) -> tuple[str, ...]:
    """What puts a command under the profile of its app; nothing where the kernel has no AppArmor.

    Args:
        profile: its name. It is loaded first: the first command of an app runs before the first slot.
    """
    load = f"/usr/sbin/apparmor_parser --quiet --replace /etc/apparmor.d/{profile.partition('_')[0]}"
    return (
        f"ExecStartPre=-+/bin/sh -c '! [ -d /sys/kernel/security/apparmor ] || {load} >/dev/null 2>&1'",
        f"AppArmorProfile=-{profile}",
    )


def stop_tasks(run: Run, user: str) -> None:
    """Stop what a run that was killed has left running for an app: a migration, a build.

    Args:
        run: runs a command.
        user: the app's system user.
    """
    run(["systemctl", "stop", f"{_task(user)}-*.service"])


def as_owner(run: Run, owner_file: str, what: str) -> str:
    """Get ready to run a command as the owner of an app's database.

    Args:
        run: runs a command.
        owner_file: the file of variables by which it logs in.
        what: the step, as a reader knows it.

    Returns:
        The group that it has to run with; see :data:`OWNERS_GROUP`.

    Raises:
        ReleaseError: the owner has not been made on this host.
    """
    if not Path(owner_file).is_file():
        raise ReleaseError(
            what,
            f"the owner of the app's tables has not been made here: there is no {owner_file}.",
            "Run site.yml first: ansible-playbook site.yml --tags postgres",
        )
    status, out, err = run(["groupadd", "--system", "--force", OWNERS_GROUP])
    if status:
        raise ReleaseError(what, f"the group {OWNERS_GROUP} cannot be made: {tail(out + err, 3)}", "See getent group.")
    return OWNERS_GROUP


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
    """Wrap a command so that systemd runs it in the sandbox, as the app's user or as the one who builds for it.

    Args:
        command: the program and its arguments; no shell reads them.
        user: the app's system user.
        root: the app's folder, where its temporary files are.
        directory: the working directory.
        writable: the folders that it may write.
        environment: variables that are no secret: they can be seen in the process list.
        environment_files: files of variables, secrets among them, the later one wins; systemd reads them as root. One
            that begins with ``-`` may be missing.
        timeout: seconds until it is ended.
        outbound: whether it may connect to other hosts.
        group: the group that it runs with, and the app's beside it; the app's own when empty.
        builder: the account that it runs as, with the app's group beside its own; the app's user when empty.
        properties: more of the unit's properties.

    Returns:
        The arguments of a ``systemd-run`` that waits and passes output and exit status through.
    """
    group = group or builder
    # A name to find it by when this process is killed and the command goes on: see stop_tasks.
    unit = f"{_task(user)}-{secrets.token_hex(4)}"
    together = [
        # For a build /run is empty, and systemd does one thing with a path.
        *(item for item in SANDBOX if not builder or item != "ReadOnlyPaths=/run"),
        *ONCE,
        *(_bind(f"{root}/{BUILD_TEMPORARY}") if builder else temporary(root, unit, user)),
        *apparmor(f"flask-{user}_build" if builder else f"flask-{user}"),
        # Its output goes elsewhere, but the sockets of the journal are in reach; none is in a build's empty /run.
        *([] if builder else [f"LogNamespace=flask-{user}"]),
        *network(outbound=outbound),
        *([f"SupplementaryGroups={user}"] if group else []),
        f"WorkingDirectory={directory}",
        f"RuntimeMaxSec={timeout}",
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
        # systemd puts variables in the place of $NAME, as in ExecStart=; that is for the command itself to do.
        *(item.replace("$", "$$") for item in command),
    ]
