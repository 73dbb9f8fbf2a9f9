#!/usr/bin/env python3
"""Run a command next to a PostgreSQL and a Redis of its own, which end with it.

Both listen on a socket in a new folder, so nothing that this machine runs is touched. The command gets their addresses
in TEST_DATABASE_URI and TEST_REDIS_URL. What is missing is installed with apt-get; --browser adds Chromium and npm.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import Problem, apt_install, attempt, guarded, run

#: Debian's and Ubuntu's folder of PostgreSQL's programs; the newest version counts.
PROGRAMS = Path("/usr/lib/postgresql")
SECONDS = 30
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, and install what is missing."""
    found = sorted(PROGRAMS.glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name))
    missing = [*([] if found else ["postgresql"]), *([] if shutil.which("redis-server") else ["redis-server"])]
    if missing:
        apt_install(missing, "the tests of the sample app run on them")
        return programs()
    return found[-1].parent


def find_browser() -> None:
    """Install a browser, with letters to show, and npm, if they are missing."""
    missing = [] if any(map(shutil.which, BROWSERS)) else ["chromium", "fonts-dejavu-core"]
    missing += [] if shutil.which("npm") else ["npm"]
    if missing:
        apt_install(missing, "the browser tests of the sample app need them")


def wait(what: str, ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a service responds."""
    deadline = time.monotonic() + SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Problem(f"{what} did not start.", detail=log.read_text(errors="replace")[-2000:])
        time.sleep(0.05)


def start(folder: Path, account: str) -> list[subprocess.Popen[bytes]]:
    """Start both services in a folder, as an account other than root."""
    tools = programs()
    # PostgreSQL refuses to run as root.
    user = account if os.geteuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    data = folder / "postgres"
    subprocess.run(
        [tools / "initdb", "--pgdata", data, "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8"],
        cwd=folder, check=True, stdout=subprocess.DEVNULL, user=user,
    )  # fmt: skip
    # Nothing of it has to outlive a power cut.
    settings = [f"unix_socket_directories={folder}", "listen_addresses=", "fsync=off", "full_page_writes=off"]
    commands: dict[str, list[str | Path]] = {
        "postgres": [tools / "postgres", "-D", data, *(word for setting in settings for word in ("-c", setting))],
        "redis": ["redis-server", "--port", "0", "--unixsocket", folder / "redis.sock", "--save", "", "--dir", folder],
    }
    running = []
    for name, command in commands.items():
        with (folder / f"{name}.log").open("wb") as log:
            running.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, user=user))
    ask: list[str | Path] = [tools / "psql", "--host", folder, "--username=postgres", "--dbname=postgres", "--command"]
    wait("PostgreSQL", lambda: attempt(*ask, "SELECT 1").returncode == 0, running[0], folder / "postgres.log")
    wait("Redis", (folder / "redis.sock").is_socket, running[1], folder / "redis.log")
    run(*ask, "CREATE DATABASE guestbook")
    return running


def main() -> int:
    """Run the command of the command line."""
    command = sys.argv[1:]
    if command[0] == "--browser":
        find_browser()
        del command[0]
    folder, running = Path(tempfile.mkdtemp(prefix="guestbook-")), []
    try:
        running = start(folder, "postgres")
        variables = {
            "TEST_DATABASE_URI": f"postgresql+psycopg://postgres@/guestbook?host={folder}",
            "TEST_REDIS_URL": f"unix://{folder}/redis.sock",
        }
        return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
