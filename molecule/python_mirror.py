#!/usr/bin/env python3
"""Make a mirror of Python versions on a host, with one version: the distribution's own, packed as uv expects it.

It stands for the mirror that an operator has of python-build-standalone, which the tests cannot reach. Prints the
version.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tarfile
from pathlib import Path

#: Where the list of downloads says that the version is; python_mirror stands for it.
ORIGIN = "https://github.com/astral-sh/python-build-standalone/releases/download"
RELEASE = "20260101"


def packed(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what uv rejects (links out of the archive), and what is made anew or is the distribution's alone."""
    name = Path(item.name).name
    if name in ("__pycache__", "EXTERNALLY-MANAGED") or (item.issym() and item.linkname.startswith("/")):
        return None
    return item


def main() -> None:
    """Write the archive and the list into the folder that the command names."""
    folder = Path(sys.argv[1])
    version, minor = ".".join(map(str, sys.version_info[:3])), f"python3.{sys.version_info[1]}"
    archive = folder / RELEASE / f"cpython-{version}.tar.gz"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(Path(f"/usr/bin/{minor}").resolve(), f"python/bin/{minor}")
        tar.add(f"/usr/lib/{minor}", f"python/lib/{minor}", filter=packed)
    entry = {
        "name": "cpython",
        "arch": {"family": platform.machine(), "variant": None},
        "os": "linux",
        "libc": "gnu",
        **dict(zip(("major", "minor", "patch"), sys.version_info[:3], strict=True)),
        "prerelease": "",
        "url": f"{ORIGIN}/{RELEASE}/{archive.name}",
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": RELEASE,
    }
    listed = {f"cpython-{version}-linux-{platform.machine()}-gnu": entry}
    # The right file under a wrong checksum.
    forged = {**entry, "minor": 98, "patch": 1, "sha256": "0" * 64}
    listed[f"cpython-3.98.1-linux-{platform.machine()}-gnu"] = forged
    (folder / "downloads.json").write_text(json.dumps(listed), encoding="utf-8")
    print(version)


if __name__ == "__main__":
    main()
