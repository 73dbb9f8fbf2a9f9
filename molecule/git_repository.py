#!/usr/bin/env python3
"""Make the git repository that the scenarios deploy from: the app hello in a subfolder, in good and in bad versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

APP = Path(__file__).resolve().parents[1] / "tests" / "apps" / "hello"
MAIN = (APP / "app.py").read_text(encoding="utf-8")

#: How many versions there are that differ from main in nothing but a text of the code: n1, n2, ...
NUMBERED = 24
#: What the health gate calls itself; some bad versions answer nobody else.
GATE = "flaskhost-gate"

#: A file's text or bytes in a version; None where the version does not have the file.
Files = Mapping[str, str | bytes | None]

ALWAYS_ANSWERS = "import flask\n\napp = flask.Flask('app')\napp.add_url_rule('/', 'index', lambda: {answer})\n"

NOT_FOR_VISITORS = f"""

@app.before_request
def not_for_visitors() -> None:
    if request.headers.get("User-Agent") != "{GATE}":
        {{what}}
"""

# The count is in memory that all workers share: they are forked after the import, and each gets some of the questions.
CRASH_LATER = f"""

import mmap
import signal
import threading

good_answers = mmap.mmap(-1, 1)


@app.after_request
def crash_later(response: Response) -> Response:
    if request.headers.get("User-Agent") == "{GATE}" and good_answers[0] < 3:
        good_answers[0] += 1
        if good_answers[0] == 3:
            threading.Timer(1.0, os.kill, (os.getppid(), signal.SIGKILL)).start()
    return response
"""

# Bounded, for a machine on which the limit of the unit does not work.
MEMORY_HOG = """import time

eaten = [bytes([number % 255 + 1]) * 10_000_000 for number in range(200)]
time.sleep(60)
"""

HEARTBEAT = '''"""Write the name of the release into a file in the data folder, five times a second."""

import os
import sys
import time
from pathlib import Path

place = Path(os.environ["HOME"]) / sys.argv[1]
while True:
    partial = place.with_suffix(".partial")
    partial.write_text(os.environ["FLASKHOST_RELEASE"])
    partial.replace(place)
    time.sleep(0.2)
'''

#: Versions that must never serve, or not for long.
BAD_VERSIONS: dict[str, Files] = {
    # It does not start.
    "bad-import": {"app.py": "import a_module_that_nobody_has\n"},
    "bad-name": {"app.py": "from flask import a_name_that_flask_has_not\n"},
    "bad-object": {"app.py": "application = None\n"},
    "missing-module": {"app.py": None},
    "slow-start": {"app.py": f"import time\n\ntime.sleep(60)\n{MAIN}"},
    "memory-hog": {"app.py": MEMORY_HOG},
    # It starts and does not answer as it should.
    "bad-answer": {"app.py": ALWAYS_ANSWERS.format(answer="('out of order', 500)")},
    "bad-redirect": {"app.py": ALWAYS_ANSWERS.format(answer="flask.redirect('/elsewhere', 301)")},
    # It pleases the gate.
    "crash-later": {"app.py": MAIN + CRASH_LATER},
    "errors-under-traffic": {"app.py": MAIN + NOT_FOR_VISITORS.format(what="abort(500)")},
    "slow-under-traffic": {"app.py": MAIN + NOT_FOR_VISITORS.format(what="time.sleep(3)")},
    # It cannot be made.
    "bad-lock": {"requirements.txt": "flask==999.0\n"},
    "bad-release-command": {"Procfile": "release: echo the table is locked; exit 3\n"},
    "no-lock": {"requirements.txt": None},
    # Zeros: nothing in the repository, and all of it on the host's disk.
    "big": {"big.bin": bytes(64 * 1024 * 1024)},
}

#: Versions that work.
GOOD_VERSIONS: dict[str, Files] = {
    **{f"n{number}": {"app.py": MAIN.replace('"main"', f'"n{number}"')} for number in range(1, NUMBERED + 1)},
    # A build tool's assets: the name is made of the content, and the old one is gone.
    "old-assets-1": {"static/app.1f0c2a7b.css": "p { color: navy }\n"},
    "old-assets-2": {"static/app.9d3e6b54.css": "p { color: teal }\n"},
    "with-worker": {
        "worker.py": HEARTBEAT,
        "Procfile": "worker: python worker.py worker-heartbeat\nclock: python worker.py clock-heartbeat\n",
    },
}


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder, with a name and a time that are always the same."""
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.test", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def lock_with_uv(app: Path) -> None:
    """Pin the app's dependencies in a uv.lock, with a gunicorn from years ago among them."""
    (app / "requirements.txt").unlink()
    (app / "pyproject.toml").write_text(
        '[project]\nname = "hello"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
        'dependencies = ["flask==3.1.3", "gunicorn==23.0.0"]\n'
    )
    subprocess.run([Path(sys.executable).with_name("uv"), "lock", "--quiet"], cwd=app, check=True)


def write(app: Path, files: Files) -> None:
    """Make the app's folder another version."""
    for name, content in files.items():
        if content is None:
            (app / name).unlink()
        else:
            (app / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def main(archive: Path) -> None:
    """Write ``hello.git``, a bare repository with main and a tag for each other version, into a tar archive."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name) / "work"
        app = work / "apps" / "hello"
        shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
        git(work, "init", "--quiet")
        git(work, "add", ".")
        git(work, "commit", "--quiet", "--message", "One")
        git(work, "checkout", "--quiet", "-b", "next")
        (app / "static" / "hello.txt").write_text("Hello from the second version.\n")
        git(work, "commit", "--quiet", "--all", "--message", "Two")
        git(work, "tag", "--annotate", "--message", "Two", "v2")
        git(work, "checkout", "--quiet", "main")
        git(work, "checkout", "--quiet", "--detach", "main")
        lock_with_uv(app)
        git(work, "add", "--all")
        git(work, "commit", "--quiet", "--message", "Lock with uv")
        git(work, "tag", "uv-lock")
        for tag, files in {**BAD_VERSIONS, **GOOD_VERSIONS}.items():
            git(work, "checkout", "--quiet", "--detach", "main")
            write(app, files)
            git(work, "add", "--all")
            git(work, "commit", "--quiet", "--message", tag)
            git(work, "tag", tag)
        git(work, "checkout", "--quiet", "main")
        git(Path(name), "clone", "--quiet", "--bare", "work", "hello.git")
        with tarfile.open(archive, "w") as tar:
            tar.add(Path(name) / "hello.git", "hello.git")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
