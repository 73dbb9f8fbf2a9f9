"""What a host's kernel and its privileges allow. A host that shares its kernel with others cannot change all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: The inode of the initial PID namespace, PROC_PID_INIT_INO in linux/proc_ns.h. auditd works only there.
_FIRST_PROCESSES = "pid:[4026531836]"
_SYS_ADMIN, _SYS_MODULE, _SYS_TIME = 21, 16, 25


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def capabilities(root: Path) -> int:
    """Return the bounding set of process 1's capabilities as a bit mask."""
    for line in _read(root / "proc/1/status").splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0


def boot_loader_is_stale(root: Path, fragment: str) -> bool:
    """Check whether GRUB's configuration is older than our kernel arguments, and so does not contain them."""
    listed, ours = root / "boot/grub/grub.cfg", root / fragment.lstrip("/")
    if not listed.exists() or not (root / "usr/sbin/update-grub").exists():
        return False
    return ours.exists() and ours.stat().st_ctime > listed.stat().st_mtime


def abilities(root: Path = Path("/"), fragment: str = "/etc/default/grub.d/60-flaskhost.cfg") -> dict[str, bool]:
    """Detect what this host supports.

    Args:
        root: the host's root folder.
        fragment: our file with kernel arguments.
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


def present(root: Path = Path("/")) -> dict[str, Any]:
    """Read what tasks would otherwise ask the host for one by one, each with a module run.

    Args:
        root: the host's root folder.

    Returns:
        ``dpkg_interrupted``, whether an installation of packages was interrupted; ``timezone``, as systemd has it;
        ``groups``, the names of the local groups.
    """
    try:
        timezone = str((root / "etc/localtime").readlink()).partition("/zoneinfo/")[2]
    except OSError:
        timezone = ""
    return {
        "dpkg_interrupted": any((root / "var/lib/dpkg/updates").glob("[0-9]*")),
        "timezone": timezone,
        "groups": [line.partition(":")[0] for line in _read(root / "etc/group").splitlines() if line],
    }


def recorded(path: Path) -> dict[str, Any]:
    """Read what the role hardening recorded in its earlier runs.

    Args:
        path: the file. If it is missing or damaged, the host was never on the level strict.

    Returns:
        ``level``, the level of the last run, and ``packages``, the packages that it installed for an option.
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
