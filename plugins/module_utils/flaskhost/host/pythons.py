"""The Python versions that uv installs for apps, and which of them an app runs with.

The folder of the versions belongs to root. It contains each version in a folder of its own, named by uv, and a link to
it for each version that an app asks for: ``3.12 -> cpython-3.12.16-linux-x86_64-gnu``.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.flaskhost.host import lock
from ansible.module_utils.flaskhost.host.runner import Run

#: The name that uv gives to the folder of a version; only final releases of CPython for glibc.
FOLDER = re.compile(r"cpython-(?P<version>3\.\d+\.\d+)-linux-[a-z0-9_]+-gnu")
#: Written last: a version without this file was interrupted, and is installed again.
MARK = ".complete"
#: The lock file that keeps versions from being removed, in the folder of the versions.
IN_USE = ".in-use.lock"
#: Prints the version of an interpreter, which reads no files but its own.
_ASK = ["-I", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]


class Interpreter(NamedTuple):
    """The Python interpreter of an app.

    Attributes:
        path: its path.
        version: its version with the patch level, if uv has installed it; empty for the distribution's.
    """

    path: str
    version: str = ""


class Unavailable(Exception):
    """An app asks for a version that is not installed on this host."""


def ask_version(run: Run, python: str) -> str:
    """Return the version of an interpreter, such as ``3.11.2``; empty if it does not run.

    Args:
        run: runs a command.
        python: its path.
    """
    status, out, _err = run([python, *_ASK])
    found = re.fullmatch(r"\d+\.\d+\.\d+", out.strip())
    return found.group() if found and not status else ""


def is_provided(wanted: str, distribution: str) -> bool:
    """Check whether the distribution's Python is the version that an app asks for.

    A version with a patch level is never the distribution's, whose patch level changes with its updates.

    Args:
        wanted: the version that the app asks for; empty for the distribution's.
        distribution: the version of the distribution's Python.
    """
    return not wanted or distribution.split(".")[:2] == wanted.split(".")


def executable(folder: Path, name: str) -> str:
    """Return the path of the interpreter of an installed version.

    Args:
        folder: the folder of the versions.
        name: the name of the version's folder.
    """
    version = FOLDER.fullmatch(name)
    minor = version["version"].rpartition(".")[0] if version else "3"
    return str(folder / name / "bin" / f"python{minor}")


@contextlib.contextmanager
def in_use(folder: Path, pause: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Keep all versions while a release is built. Until its environment links to a version, nothing shows its use.

    Args:
        folder: the folder of the versions, which can be missing.
        pause: sleeps for a number of seconds; replaced in tests.
    """
    if not folder.is_dir():
        yield
        return
    with lock.open_file(folder / IN_USE) as stream:
        # A removal takes seconds.
        while not lock.acquire(stream, shared=True):
            pause(lock.PAUSE)
        yield


def choose(run: Run, wanted: str, python: str, folder: Path) -> Interpreter:
    """Return the interpreter of an app.

    Args:
        run: runs a command.
        wanted: the version that the app asks for; empty for the distribution's.
        python: the path of the distribution's Python.
        folder: the folder of the versions.

    Raises:
        Unavailable: the version is not installed.
    """
    if is_provided(wanted, ask_version(run, python) if wanted else ""):
        return Interpreter(python)
    link = folder / wanted
    name = link.readlink().name if link.is_symlink() else ""
    found = FOLDER.fullmatch(name)
    if not found or not (folder / name / MARK).is_file():
        raise Unavailable(f"Python {wanted} is not installed on this host.")
    return Interpreter(executable(folder, name), found["version"])
