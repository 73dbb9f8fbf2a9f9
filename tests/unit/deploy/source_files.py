"""Code to release, for the tests of its sources: folders, archives and git repositories."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path

from ansible.module_utils.flaskhost.deploy.sources import git
from fakes import run_command

FILES = {"app.py": "app", "pkg/__init__.py": "", "pkg/static/site.css": "body {}", "bin/run": "#!/bin/sh\n"}


def make(folder: Path, files: dict[str, str] | None = None) -> Path:
    for name, content in (FILES if files is None else files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def archive_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    made.size = 1 if kind == tarfile.REGTYPE else 0
    return made


class Repository:
    """A real repository, and the bare one that a host would have of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bare = folder / "upstream", folder / "repository.git"
        self.url = f"file://{self.folder}"
        self.folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]
        environment = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        command = ["git", *who, "-C", str(self.folder), *arguments]
        return run_command(command, check_rc=True, environ_update=environment)[1].strip()

    def commit(self, content: str) -> str:
        make(self.folder, {"app.py": content})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", content)
        return self.git("rev-parse", "HEAD")

    def resolve(self, version: str) -> str:
        return git.resolve_commit(run_command, self.bare, self.url, version)

    def fetch(self, commit: str) -> None:
        git.fetch_commit(run_command, self.bare, self.url, commit)
