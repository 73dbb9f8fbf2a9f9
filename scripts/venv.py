#!/usr/bin/env python3
"""Create a virtual environment that contains exactly what a lock file pins, fast and reproducibly.

A file in the environment, written last, records the lock and the interpreter that it was created from. If both are
unchanged, nothing is done; after an interrupted run, the next run repairs the environment. Uses only the standard
library.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
import time
from pathlib import Path

from common import ROOT, Problem, apt_install, attempt, follow, guarded, note, say

MINIMUM = (3, 11)
STAMP = "flaskhost-lock"


def interpreter() -> str:
    """Return a Python that is new enough: this one, or another one in PATH."""
    if sys.version_info >= MINIMUM:
        # Not the Python of a virtual environment, such as a developer's, which can disappear.
        return getattr(sys, "_base_executable", None) or sys.executable
    for minor in range(15, MINIMUM[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            note(f"python3 is {sys.version.split()[0]}: taking {found}")
            return found
    wanted = ".".join(map(str, MINIMUM))
    raise Problem(
        f"Python {wanted} or later is needed on this machine, and python3 is {sys.version.split()[0]}.",
        f"install one (Debian 12 and later have it) or name it: `make PYTHON=/path/to/python{wanted} ...`",
    )


def environment() -> dict[str, str]:
    """Return the environment variables for uv: it trusts the machine's CAs, and uses pip's index."""
    settings = {"UV_SYSTEM_CERTS": "1", "UV_NO_PROGRESS": "1", "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    if os.environ.get("PIP_INDEX_URL") and not os.environ.get("UV_DEFAULT_INDEX"):
        settings["UV_DEFAULT_INDEX"] = os.environ["PIP_INDEX_URL"]
    return {**os.environ, **settings}


def runs(program: str | Path) -> bool:
    """Check whether a program exists and runs."""
    return attempt(program, "--version").returncode == 0


def create(target: Path, python: str) -> None:
    """Create an empty environment. On Debian, the module for that is a package of its own."""
    command = (python, "-m", "venv", "--clear", target)
    result = attempt(*command)
    if result.returncode != 0 and "ensurepip" in result.stdout + result.stderr:
        version = attempt(python, "-c", "import sys; print('python%d.%d-venv' % sys.version_info[:2])").stdout.strip()
        apt_install([version], "python3 cannot make virtual environments without it")
        result = attempt(*command)
    if result.returncode != 0:
        raise Problem(f"`{python} -m venv {target}` failed.", detail=(result.stdout + result.stderr).strip())


def bootstrap_uv(target: Path, lock: Path) -> str:
    """Install the lock's own uv with pip, because uv installs the rest eight times as fast."""
    entry = re.search(r"^uv==\S+(?: \\\n +--hash=\S+)+$", lock.read_text(), re.MULTILINE)
    if not entry:
        raise Problem(f"{lock.relative_to(ROOT)} does not name uv with its hashes.", "`make lock` writes it anew.")
    wanted = target / "uv.txt"
    wanted.write_text(entry.group() + "\n")
    python = str(target / "bin/python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--require-hashes", "-r", str(wanted)]
    status, words = follow(pip, lambda line: line.startswith("ERROR"))
    wanted.unlink()
    if status != 0:
        raise Problem("pip could not install uv.", "repair the network, or set PIP_INDEX_URL to your mirror.", words)
    return str(target / "bin/uv")


def fill(target: Path, lock: Path, uv: str, hashes: bool) -> None:
    """Install exactly what the lock pins into the environment, and remove everything else."""
    command = [uv, "pip", "sync", "--python", str(target / "bin/python"), str(lock)]
    if hashes:
        command.append("--require-hashes")
    shown = ("Resolved", "Prepared", "Installed", "Uninstalled", "error", "  ")
    status, words = follow(command, lambda line: line.startswith(shown), environment())
    if status != 0:
        raise Problem(
            f"uv could not install {lock.relative_to(ROOT)}.",
            "repair the network, or set UV_DEFAULT_INDEX to your mirror; then repeat, as what was fetched is kept.",
            words,
        )


def identity(lock: Path, python: str) -> str:
    """Return the lock's digest and the interpreter of an environment in one line."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    return f"{digest} {Path(python).resolve()}\n"


def main() -> int:
    """Create the environment from the command line."""
    parser = argparse.ArgumentParser(description="Make a virtual environment hold exactly what a lock file names.")
    parser.add_argument("target", type=Path, help="the environment's folder")
    parser.add_argument("lock", type=Path, help="the lock file: requirements with versions")
    parser.add_argument("--uv", help="the uv to install with; without it, the lock's own")
    parser.add_argument("--require-hashes", action="store_true", help="refuse a package whose hash the lock lacks")
    wanted = parser.parse_args()
    target, lock = Path(os.path.abspath(wanted.target)), Path(os.path.abspath(wanted.lock))  # noqa: PTH100
    if not lock.is_file():
        raise Problem(f"There is no {lock}.")
    python = interpreter()
    stamp = target / STAMP
    made_from = identity(lock, python)
    if stamp.is_file() and stamp.read_text() == made_from and (target / "bin/python").exists():
        return 0
    started = time.monotonic()
    name = target.relative_to(ROOT)
    say(f"Making {name} from {lock.relative_to(ROOT)} (the first time it takes a minute)")
    uv = wanted.uv or str(target / "bin/uv")
    # Without its stamp, the environment is incomplete and is recreated. With another lock, only the difference is
    # applied.
    complete = stamp.is_file() and stamp.read_text().split(maxsplit=1)[1:] == made_from.split(maxsplit=1)[1:]
    usable = complete and runs(target / "bin/python") and runs(uv)
    stamp.unlink(missing_ok=True)
    if not usable:
        create(target, python)
        uv = wanted.uv or bootstrap_uv(target, lock)
    fill(target, lock, uv, wanted.require_hashes)
    stamp.write_text(made_from)
    say(f"{name} is ready ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
