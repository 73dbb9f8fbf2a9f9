"""Shared code of the setup scripts: clear messages, running commands, installing Debian packages.

Uses only the standard library, and no syntax that an old Python 3 cannot parse: these scripts run before .venv exists,
and one of them has to report that Python is too old.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
#: The Debian packages that these scripts have installed, one on a line.
INSTALLED = CACHE / "installed-packages"


class Problem(Exception):
    """An error for the user with its fix, shown without a stack trace."""

    def __init__(self, what: str, cure: str = "", detail: str = "") -> None:
        """Store the error, its fix, and the last lines of the failed program's output."""
        super().__init__(what)
        self.what, self.cure, self.detail = what, cure, detail


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"==> {text}", flush=True)


def note(text: str) -> None:
    """Print a line that belongs to the progress line above."""
    print(f"    {text}", flush=True)


def guarded(main: Callable[[], int]) -> NoReturn:
    """Run a script's main function, and turn errors into one message and an exit status.

    SIGTERM, from `timeout` or CI, is handled like Ctrl-C: the script cleans up what it has started.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = main()
    except Problem as problem:
        print(f"\nERROR: {problem.what}", file=sys.stderr)
        if problem.detail:
            print("\n".join(f"    | {line}" for line in problem.detail.splitlines()), file=sys.stderr)
        if problem.cure:
            print(f"  Cure: {problem.cure}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command can simply be run again.", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output has ended, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def run(*command: str | Path, text: str | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command quietly and return its output. A failure raises a Problem with the command's own output."""
    result = attempt(*command, text=text, env=env)
    if result.returncode != 0:
        words = " ".join(shlex.quote(str(part)) for part in command)
        raise Problem(f"This command failed: {words}", detail=tail(result.stderr or result.stdout))
    return result.stdout


def attempt(
    *command: str | Path, text: str | None = None, env: dict[str, str] | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command quietly and return its result, even if it fails. A missing program has status 127."""
    words = [str(part) for part in command]
    try:
        return subprocess.run(
            words, input=text, env=env, timeout=timeout, capture_output=True, text=True, check=False, errors="replace"
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: command not found")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"{words[0]}: no answer within {timeout} s")


def follow(command: Sequence[str], show: Callable[[str], bool], env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a long command, print its output lines that show progress, and return its status and last lines."""
    started = time.monotonic()
    last: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        list(command), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None  # noqa: S101  # for the type checker: we asked for a pipe
        try:
            for raw in process.stdout:
                line = raw.rstrip()
                if line:
                    last.append(line)
                    if show(line):
                        note(f"{time.monotonic() - started:5.0f} s  {line[:110]}")
        except KeyboardInterrupt:
            process.terminate()
            raise
    return process.returncode, "\n".join(last)


def tail(text: str, lines: int = 15) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.strip().splitlines()[-lines:])


def as_root(*command: str) -> list[str]:
    """Return the command that runs a command as root."""
    if os.geteuid() == 0:
        return list(command)
    if shutil.which("sudo"):
        return ["sudo", *command]
    words = " ".join(shlex.quote(part) for part in command)
    raise Problem(
        "This needs root, and there is no sudo here.",
        f"as root, run `{words}`, then repeat what you did.",
    )


def find_program(name: str) -> str | None:
    """Return the path of a program, also if it is only in root's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")


def apt_install(packages: Sequence[str], why: str, recommended: bool = False) -> None:
    """Install Debian packages and report it. Without apt, report what to install instead."""
    names = " ".join(packages)
    if not find_program("apt-get"):
        raise Problem(
            f"{names} is missing ({why}), and this system has no apt-get to install it with.",
            f"install what is called {names} on Debian with this system's own package manager.",
        )
    say(f"Installing {names} with apt-get: {why}")
    new = [name for name in packages if not is_installed(name)]
    CACHE.mkdir(parents=True, exist_ok=True)
    with INSTALLED.open("a", encoding="utf-8") as record:
        record.writelines(f"{name}\n" for name in new)
    # `env`, because sudo does not pass environment variables on.
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q"]
    status, words = follow(as_root(*apt, "update"), lambda line: line.startswith(("Err:", "E:", "W:")))
    if status != 0:
        raise Problem("`apt-get update` failed.", "repair the network or the APT sources, then repeat.", words)
    if not recommended:
        apt.append("--no-install-recommends")
    shown = ("E:", "Need to get", *(f"Setting up {name}" for name in packages))
    status, words = follow(as_root(*apt, "install", *packages), lambda line: line.startswith(shown))
    if status != 0:
        raise Problem(f"`apt-get install {names}` failed.", f"install {names} by hand, then repeat.", words)


def is_installed(package: str) -> bool:
    """Check whether a Debian package is installed."""
    return attempt("dpkg-query", "--show", "--showformat=${db:Status-Status}", package).stdout.strip() == "installed"


def installed_by_us() -> list[str]:
    """Return the Debian packages that this checkout's scripts have installed. Forget them once they are all removed."""
    names = INSTALLED.read_text(encoding="utf-8").splitlines() if INSTALLED.exists() else []
    found = [name for name in dict.fromkeys(names) if is_installed(name)]
    if not found:
        INSTALLED.unlink(missing_ok=True)
    return found
