"""The kernel's settings (sysctl): the file for the next boot, and the current values.

Both are checked: the file does not show a value that somebody has changed since, and a value does not show what the
next boot sets. A setting that the kernel does not have is written with a minus sign, so that the boot reports no error.
A setting that this host cannot change, because its kernel is shared, is written but not applied.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

#: The folders of systemd-sysctl; a file hides a file with the same name in a later folder.
FOLDERS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")
#: Flag of a route that was learnt from a router advertisement (RTF_ADDRCONF in linux/ipv6_route.h).
_ADVERTISED = 0x00040000
_FORWARDING = re.compile(r"net\.ipv[46]\.(ip_forward|conf\.(all|default)\.forwarding)")
_ADVERTISEMENTS = re.compile(
    r"net\.ipv6\.conf\.(all|default)\.(accept_ra\w*|autoconf|max_addresses|router_solicitations)"
)


@dataclass
class Result:
    """The result of the comparison with the host.

    Attributes:
        differing: settings with another current value, and that value.
        missing: settings that this kernel does not have.
        unwritable: settings with another value that this host cannot change.
        overruled: settings that a later file sets to another value, and that file.
        left: settings that would cut off this host, or the networks that it routes for, and the reason.
    """

    differing: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unwritable: list[str] = field(default_factory=list)
    overruled: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def words(value: str) -> str:
    """Normalize a value for comparison: 32768<tab>65535 becomes 32768 65535."""
    return " ".join(str(value).split())


def place(root: Path, key: str) -> Path:
    """Return the file of a setting below /proc/sys. Parts of a name with slashes can contain dots (eth0.10)."""
    return root / "proc/sys" / (key if "/" in key else key.replace(".", "/"))


def parse(text: str) -> dict[str, str]:
    """Parse a file of sysctl.d into settings by name, with dots."""
    found = {}
    for line in text.splitlines():
        name, sign, value = line.strip().partition("=")
        if sign and not name.startswith(("#", ";")):
            found[name.strip().lstrip("-").replace("/", ".")] = words(value)
    return found


def expanded(settings: Mapping[str, str], root: Path = Path("/")) -> dict[str, str]:
    """Expand asterisks to the existing settings. A setting that is also listed by its own name keeps that value.

    Expanded names have slashes, because an interface's name can contain dots.
    """
    found = {key: value for key, value in settings.items() if "*" not in key}
    for key, value in settings.items():
        if "*" in key:
            for path in sorted((root / "proc/sys").glob(key.replace(".", "/"))):
                name = path.relative_to(root / "proc/sys").as_posix()
                if name.replace("/", ".") not in found:
                    found[name] = value
    return found


def later_files(root: Path, own: str) -> list[Path]:
    """Return the files that systemd-sysctl reads after ours, in its order."""
    names: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in (root / folder).glob("*.conf"):
            names.setdefault(path.name, path)
    return [names[name] for name in sorted(names) if name > own]


def learns_routes(root: Path) -> bool:
    """Check whether the kernel has IPv6 routes from router advertisements, without which it would be cut off."""
    try:
        lines = (root / "proc/net/ipv6_route").read_text().splitlines()
    except OSError:
        return False
    return any(int(parts[8], 16) & _ADVERTISED for parts in map(str.split, lines) if len(parts) == 10)


def carries_others(root: Path) -> bool:
    """Check whether the host forwards for other networks (bridges, tunnels), whose programs have enabled forwarding."""
    try:
        on = (root / "proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    except OSError:
        return False
    own = {"lo", *uplinks(root)}
    virtual = (path.name for path in (root / "sys/devices/virtual/net").glob("*"))
    return on and any(name not in own and not name.startswith("dummy") for name in virtual)


def uplinks(root: Path) -> set[str]:
    """Return the default routes' interfaces. In a container or with a bond, they are virtual and carry nobody else."""
    found = set()
    for name, pattern in (
        ("route", re.compile(r"(\S+)\t00000000\t\S+\t(?:\S+\t){4}00000000\b")),
        ("ipv6_route", re.compile(r"0{32} 00 0{32} 00 .* (\S+)\s*")),
    ):
        with suppress(OSError):
            lines = (root / "proc/net" / name).read_text().splitlines()
            found |= {match[1] for match in map(pattern.match, lines) if match}
    return found


def examine(settings: Mapping[str, str], own: str, root: Path = Path("/")) -> Result:
    """Compare the requested settings with the host.

    Args:
        settings: the requested values by name.
        own: the name of our file in /etc/sysctl.d.
        root: the host's root folder.
    """
    result = Result()
    advertised, forwards = learns_routes(root), carries_others(root)
    overruling: dict[str, tuple[str, Path]] = {}
    for path in later_files(root, own):
        overruling |= {key: (value, path) for key, value in parse(path.read_text(errors="replace")).items()}
    for key, value in expanded(settings, root).items():
        if advertised and _ADVERTISEMENTS.fullmatch(key):
            result.left[key] = "this host gets its IPv6 routes from router advertisements"
            continue
        if forwards and _FORWARDING.fullmatch(key):
            result.left[key] = "this host forwards packets for the networks of other programs"
            continue
        other, by = overruling.get(key.replace("/", "."), ("", Path()))
        if other and other != words(value):
            result.overruled[key] = f"/{by.relative_to(root)}"
            continue
        path = place(root, key)
        try:
            now = words(path.read_text())
        except OSError:
            # Some settings are write-only (net.ipv4.route.flush); none of them is used here.
            result.missing.append(key)
            continue
        if now != words(value):
            if os.access(path, os.W_OK):
                result.differing[key] = now
            else:
                result.unwritable.append(key)
    return result


def render(settings: Mapping[str, str], result: Result, header: str) -> str:
    """Return the text of the file for the next boot.

    Args:
        settings: the requested values.
        result: the result of :func:`examine`; settings in ``left`` or ``overruled`` are omitted.
        header: the comment at the top.
    """
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    for key in settings:
        if key in result.left or key in result.overruled:
            continue
        lines.append(f"{'-' if key in result.missing else ''}{key} = {words(settings[key])}")
    return "\n".join(lines) + "\n"


def set_now(settings: Mapping[str, str], keys: Iterable[str], root: Path = Path("/")) -> dict[str, str]:
    """Set values in the running kernel.

    Args:
        settings: the requested values.
        keys: the settings to set.
        root: the host's root folder.

    Returns:
        The settings that the kernel rejected, each with its error.
    """
    refused = {}
    for key in keys:
        try:
            place(root, key).write_text(f"{settings[key]}\n")
        except OSError as error:
            refused[key] = error.strerror or str(error)
    return refused
