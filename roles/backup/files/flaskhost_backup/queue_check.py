"""Load the copy of a queue into a Redis that only exists for this, and count its keys.

The app decides what is in its queue, so this Redis runs in a sandbox: as Debian's user redis, which owns nothing else,
without a network, and with nothing of the host in sight but its programs. Its memory and its time are limited.

It is the replica of a server that does not exist, because a replica never removes keys that have expired. So the same
file has the same number of keys at any later time.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.flaskhost.host import command as system
from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.cache_client import Keys, NoAnswer, info_of_redis, keys_of_redis, plain
from ansible.module_utils.flaskhost.host.failures import system_error

from flaskhost_backup import tools
from flaskhost_backup.config import BackupError, Config, Queue
from flaskhost_backup.paths import remove

#: The system user that the package redis-server creates.
USER = "redis"
#: The unit. There is one at a time, because this program holds its lock.
UNIT = "flaskhost-queue-check.service"
#: The server, and its folder as it sees it.
SERVER, INSIDE = "/usr/bin/redis-server", "/var/lib/queue"
#: Seconds to load a queue. An instance gets 300 s to start.
SECONDS = 300.0
#: Seconds between two looks.
PAUSE = 0.1
#: Additional memory in MB: while it loads, Redis needs somewhat more than the instance itself.
MORE_MB = 64
#: The sandbox, as in the role redis.
SANDBOX = (
    "MemorySwapMax=0", "TasksMax=64", "LimitNOFILE=1024", "UMask=0077", "Nice=15", "IOSchedulingClass=idle",
    "ProtectSystem=strict", "ReadOnlyPaths=/run", "InaccessiblePaths=-/srv -/var/backups -/var/log -/etc/flaskhost",
    "TemporaryFileSystem=/var/lib:ro", "NoExecPaths=/", "ExecPaths=/usr", "ProtectHome=yes", "PrivateTmp=yes",
    "PrivateDevices=yes", "DevicePolicy=closed", "PrivateNetwork=yes", "IPAddressDeny=any", "PrivateIPC=yes",
    "PrivateUsers=yes", "ProtectProc=invisible", "ProcSubset=pid", "ProtectClock=yes", "ProtectControlGroups=yes",
    "ProtectHostname=yes", "ProtectKernelLogs=yes", "ProtectKernelModules=yes", "ProtectKernelTunables=yes",
    "NoNewPrivileges=yes", "CapabilityBoundingSet=", "AmbientCapabilities=", "KeyringMode=private",
    "LockPersonality=yes", "MemoryDenyWriteExecute=yes", "RemoveIPC=yes", "RestrictNamespaces=yes",
    "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "RestrictAddressFamilies=AF_UNIX",
    "SystemCallArchitectures=native", "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources", "SystemCallErrorNumber=EPERM",
)  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A queue that was loaded.

    Attributes:
        keys: the numbers of keys by database.
        sizes: the bytes of its files up to the last complete command.
    """

    keys: dict[str, Keys]
    sizes: dict[str, int] = field(default_factory=dict)


def load(config: Config, queue: Queue, copy: Path, *, whole: bool) -> Loaded:
    """Load the copy of a queue, and count its keys. The copy stays unchanged.

    Args:
        config: the configuration.
        queue: the queue.
        copy: the folder of the copy, which belongs to root.
        whole: whether each command in it must be complete. If not, an incomplete last command is dropped.

    Raises:
        BackupError: it cannot be loaded.
    """
    scratch = config.state / "queue-check"
    end(config)
    try:
        entry = pwd.getpwnam(USER)
        data = scratch / "data"
        scratch.mkdir(mode=0o711)
        data.mkdir(mode=0o700)
        parts = data / "appendonlydir"
        shutil.copytree(copy / "appendonlydir", parts, symlinks=True)
        names = [path.name for path in parts.iterdir()]
        for path in (*parts.iterdir(), parts, data):
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
        with _running(queue, data, whole=whole) as process:
            keys = _keys(queue, process, data / "redis.sock", entry.pw_uid)
        return Loaded(keys, _sizes(data, names))
    except KeyError:
        raise BackupError(
            f"The queue of {queue.app} was not loaded: there is no user {USER}.", "Run site.yml."
        ) from None
    except OSError as error:
        raise BackupError(
            f"The queue of {queue.app} was not loaded: {system_error(error)}.", "Check the disk: df -h."
        ) from error
    finally:
        end(config)


def end(config: Config) -> None:
    """End a check, also one that a killed run left behind, and remove its files."""
    scratch = config.state / "queue-check"
    if os.path.lexists(scratch):
        tools.run(["systemctl", "kill", "--signal=SIGKILL", UNIT], timeout=60)
        tools.run(["systemctl", "stop", UNIT], timeout=60)
        remove(scratch)


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    said: bytearray

    @property
    def reason(self) -> str:
        """The last line that Redis has written, without its process, its role and its time."""
        lines = [line for line in self.said.decode("utf-8", "replace").splitlines() if line.strip()]
        # "10514:S 27 Nov 2026 09:12:57.638 # Bad file format reading the append only file ..."
        told = [line.partition(" # ")[2] for line in lines if " # " in line] or lines
        return plain(told[-1] if told else "it ended and printed nothing", 300)


@contextlib.contextmanager
def _running(queue: Queue, data: Path, *, whole: bool) -> Iterator[_Process]:
    """Run a Redis on a folder during a block."""
    limits = (f"User={USER}", f"Group={USER}", f"BindPaths={data}:{INSIDE}",
              f"MemoryMax={queue.memory_mb + MORE_MB}M", f"RuntimeMaxSec={SECONDS + 60:g}")  # fmt: skip
    given = {
        "port": "0", "unixsocket": f"{INSIDE}/redis.sock", "unixsocketperm": "600", "dir": INSIDE, "daemonize": "no",
        "appendonly": "yes", "save": "", "auto-aof-rewrite-percentage": "0", "maxclients": "32",
        "aof-load-truncated": "no" if whole else "yes", "replicaof": "127.0.0.1 1",
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", *(value.split() or [""]))]
    said = bytearray()
    # A unit of a run that was killed has ended; this removes its record.
    tools.run(["systemctl", "reset-failed", UNIT], timeout=60)
    command = [
        *tools.TOGETHER, "systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--service-type=exec",
        f"--unit={UNIT}", "--description=Load the backup of a queue",
        *(f"--property={item}" for item in (*limits, *SANDBOX)), "--", SERVER, *words,
    ]  # fmt: skip
    with (
        system.end_of(said) as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=tools.environment(""),
        ) as process,
    ):
        try:
            yield _Process(process, said)
        finally:
            tools.run(["systemctl", "stop", UNIT], timeout=120)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def _keys(queue: Queue, running: _Process, socket: Path, user: int) -> dict[str, Keys]:
    last = time.monotonic() + SECONDS
    said = ""
    while time.monotonic() < last:
        if running.process.poll() is not None:
            # Its last lines are read by another thread.
            time.sleep(PAUSE)
            raise BackupError(
                f"The queue of {queue.app} cannot be loaded: {running.reason}.",
                "If the queue itself is damaged too, restore an older backup: sudo flaskhost-backup list",
            )
        try:
            return keys_of_redis(info_of_redis(socket, user, max(PAUSE, last - time.monotonic())))
        except NoAnswer as error:
            said = str(error)
        time.sleep(PAUSE)
    raise BackupError(
        f"The queue of {queue.app} was not loaded within {SECONDS:g} s: {said}.",
        "It executes its commands again while it loads. Find out which of them are slow: docs/caches.md.",
    )


def _sizes(data: Path, names: list[str]) -> dict[str, int]:
    """Return the sizes of the files. The server that has just run could have replaced them."""
    sizes = {}
    with tree.folder(data, "appendonlydir") as above:
        for name in names:
            with tree.regular_file(name, above) as descriptor:
                sizes[name] = os.fstat(descriptor).st_size
    return sizes
