"""What a host's kernel and its rights allow. A host that shares its kernel with others may not change all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: The number of the first process namespace, PROC_PID_INIT_INO in linux/proc_ns.h: only there auditd may work.
_FIRST_PROCESSES = "pid:[4026531836]"
_SYS_ADMIN, _SYS_MODULE, _SYS_TIME = 21, 16, 25


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def capabilities(root: Path) -> int:
    """The capabilities that the first process may have, as a mask."""
    for line in _read(root / "proc/1/status").splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0


def boot_loader_is_stale(root: Path, fragment: str) -> bool:
    """Whether GRUB's list of kernels was made before our arguments for the kernel were written, or without them."""
    listed, ours = root / "boot/grub/grub.cfg", root / fragment.lstrip("/")
    if not listed.exists() or not (root / "usr/sbin/update-grub").exists():
        return False
    return ours.exists() and ours.stat().st_ctime > listed.stat().st_mtime


def abilities(root: Path = Path("/"), fragment: str = "/etc/default/grub.d/60-flaskhost.cfg") -> dict[str, bool]:
    """Say what this host can do.

    Args:
        root: the host's root folder.
        fragment: our file with arguments for the kernel.
    """
    mask = capabilities(root)
    try:
        own_kernel = str((root / "proc/1/ns/pid").readlink()) == _FIRST_PROCESSES
    except OSError:
        own_kernel = False
    arguments = _read(root / "proc/cmdline").split()
    audit = (root / "proc/self/loginuid").exists() and not {"audit=0", "audit=off"} & set(arguments)
    return {
        "own_kernel": own_kernel,
        "audit": own_kernel and audit,
        "apparmor": own_kernel and _read(root / "sys/module/apparmor/parameters/enabled") == "Y",
        "modules": own_kernel and bool(mask >> _SYS_MODULE & 1),
        "mounts": own_kernel and bool(mask >> _SYS_ADMIN & 1),
        "resolver": any((root / "etc/systemd/system").glob("*.wants/systemd-resolved.service")),
        "time": bool(mask >> _SYS_TIME & 1),
        "boot_loader": own_kernel and (root / "boot/grub/grub.cfg").exists(),
        "boot_loader_is_stale": own_kernel and boot_loader_is_stale(root, fragment),
    }


def recorded(path: Path) -> dict[str, Any]:
    """Read what the role hardening has noted of its earlier runs.

    Args:
        path: the file; one that is not there, or is broken, is of a host that was never strict.

    Returns:
        ``level``, that of the last run, and ``packages``, those that it has installed for an option.
    """
    try:
        found = json.loads(_read(path) or "{}")
    except ValueError:
        found = {}
    found = found if isinstance(found, dict) else {}
    packages = found.get("packages")
    return {
        "level": "strict" if found.get("level") == "strict" else "standard",
        "packages": [str(name) for name in packages] if isinstance(packages, list) else [],
    }
