#!/usr/bin/env python3
"""Make the git repository that the scenarios deploy from: the app hello in a subfolder, in good and in bad versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

APP = Path(__file__).resolve().parents[1] / "tests" / "apps" / "hello"

#: Versions that must never serve: the tag, the file of the app that is written, and what is written into it.
BAD_VERSIONS = {
    "bad-import": ("app.py", "import a_module_that_nobody_has\n"),
    "bad-object": ("app.py", "application = None\n"),
    "bad-answer": (
        "app.py",
        "import flask\n\napp = flask.Flask('app')\napp.add_url_rule('/', 'index', lambda: ('out of order', 500))\n",
    ),
    "bad-lock": ("requirements.txt", "flask==999.0\n"),
    "bad-release-command": ("Procfile", "release: echo the table is locked; exit 3\n"),
    "no-lock": ("requirements.txt", None),
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
        for tag, (file, text) in BAD_VERSIONS.items():
            git(work, "checkout", "--quiet", "--detach", "main")
            if text is None:
                (app / file).unlink()
            else:
                (app / file).write_text(text)
            git(work, "add", "--all")
            git(work, "commit", "--quiet", "--message", tag)
            git(work, "tag", tag)
        git(work, "checkout", "--quiet", "main")
        git(Path(name), "clone", "--quiet", "--bare", "work", "hello.git")
        with tarfile.open(archive, "w") as tar:
            tar.add(Path(name) / "hello.git", "hello.git")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
