#!/usr/bin/env python3
"""Print what is on a host, as JSON: its files, users and groups. It runs on the host.

Each path has its type, mode and owner, a link its target, and a file of /etc its checksum; whether a package of
Debian's brings it comes last. What every host changes by itself is left out.
"""

import hashlib
import json
import os
import stat
from pathlib import Path

#: What lives in memory, what programs log, cache and note about themselves, and what Ansible and Python leave.
LEFT_OUT = {
    "/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/cache", "/var/lib/apt", "/var/lib/dpkg",  # noqa: S108 - nothing is written there
    "/var/lib/systemd", "/var/lib/ucf", "/root/.ansible", "/root/.cache", "/home/debian/.ansible", "__pycache__",
}  # fmt: skip


def of_packages():
    """The paths that packages bring, without the links by which Debian has merged /bin, /lib and /sbin into /usr."""
    return {
        merged(line)
        for path in Path("/var/lib/dpkg/info").glob("*.list")
        for line in path.read_text(encoding="utf-8").splitlines()
    }


def merged(path):
    """A path below /usr."""
    return f"/usr{path}" if path.startswith(("/bin/", "/lib/", "/lib64/", "/sbin/")) else path


def about(path):
    """What a path is."""
    if path.is_symlink():
        return str(path.readlink())
    found = path.stat()
    words = [stat.filemode(found.st_mode), f"{found.st_uid}:{found.st_gid}"]
    if path.is_file() and path.is_relative_to("/etc"):
        words.append(hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    return " ".join(words)


def listing():
    """Everything that is there."""
    packaged = of_packages()
    there = {}
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if not {name, str(Path(folder, name))} & LEFT_OUT]
        for path in (Path(folder, name) for name in [*folders, *files]):
            there[str(path)] = about(path) + (" packaged" if merged(str(path)) in packaged else "")
    for kind in ("passwd", "group"):
        for line in Path(f"/etc/{kind}").read_text(encoding="utf-8").splitlines():
            name, _password, rest = line.split(":", 2)
            there[f"{kind}:{name}"] = rest
    return there


if __name__ == "__main__":
    print(json.dumps(listing()))
