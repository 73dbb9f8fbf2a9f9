"""Virtual environments that the tests build, with the real uv and wheels made on the spot."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import virtualenv
from ansible.module_utils.flaskhost.deploy.selection import Selection
from ansible.module_utils.flaskhost.host.pythons import Interpreter
from fakes import USER, Unit, fake_owners, run_command, unsandboxed

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
SERVER = "gunicorn==27.0.1"
PYPROJECT = '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'


def write(folder: Path, **files: str) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


class Workshop:
    """A builder with real uv, a package index in a folder, and a release's code."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.owners = fake_owners(monkeypatch)
        self.calls: list[Unit] = []
        self.server_lock = ""
        self.code = folder / "releases/1/src"
        self.code.mkdir(parents=True)
        for variable in [name for name in os.environ if name.startswith(("UV_", "PIP_", "VIRTUAL_ENV"))]:
            monkeypatch.delenv(variable)

    def builder(
        self,
        python: str = sys.executable,
        uv: str = UV,
        wheelhouse: Path | None = None,
        selection: Selection | None = None,
        version: str = "",
    ) -> virtualenv.Builder:
        return virtualenv.Builder(
            unsandboxed(self.calls),
            user=USER,
            code=self.code,
            folder=self.folder / "venvs",
            cache=self.folder / "cache/shop",
            uv=uv,
            interpreter=Interpreter(python, version),
            index_url=f"file://{self.folder}/index",
            wheelhouse=wheelhouse,
            server_lock=self.server_lock or self.pinned("gunicorn", "27.0.1"),
            selection=selection,
        )

    def pinned(self, name: str, version: str) -> str:
        """A package as a lock has it: with the hash of its file in the index, or of nothing if there is none."""
        wheel = self.folder / f"index/{name}/{name}-{version}-py3-none-any.whl"
        digest = hashlib.sha256(wheel.read_bytes() if wheel.exists() else b"").hexdigest()
        return f"{name}=={version} --hash=sha256:{digest}"

    def publish(self, name: str, version: str, needs: str = "") -> None:
        """Put a package into the index: a module of its name that knows its version."""
        shelf = self.folder / "index" / name
        self.wheel(shelf, name, version, needs=needs)
        links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(shelf.glob("*.whl")))
        (shelf / "index.html").write_text(links, encoding="utf-8")

    def wheel(self, folder: Path, name: str, version: str, build: str = "", needs: str = "") -> Path:
        """Make a package: a module of its name that knows its version and, if it has one, its build."""
        folder.mkdir(parents=True, exist_ok=True)
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += f"Requires-Dist: {needs}\n" if needs else ""
        wheel = folder / f"{name}-{version}-py3-none-any.whl"
        members = {
            f"{name}/__init__.py": f"version = {version + build!r}\n",
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": f"{name}/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            for member, text in members.items():
                # A ZipInfo says 1980, a bare name says now: a package made twice has to have one hash.
                archive.writestr(zipfile.ZipInfo(member), text)
        return wheel

    def sign(self) -> None:
        """Have the index say the hash of each of its files, as the indexes on the network do."""
        for page in self.folder.glob("index/*/index.html"):
            links = [f"{path.name}#{self.digest(path).replace(':', '=')}" for path in sorted(page.parent.glob("*.whl"))]
            page.write_text("".join(f'<a href="{link}">{link.split("#")[0]}</a>\n' for link in links))

    @staticmethod
    def digest(path: Path) -> str:
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"

    def lock(self, project: str, folder: str = ".") -> Path:
        """Write a pyproject.toml and lock it with the real uv."""
        self.sign()
        self.requirements(project, f"{folder}/pyproject.toml")
        cache = {"UV_CACHE_DIR": str(self.folder / "cache/lock"), "UV_PYTHON": sys.executable}
        lock = [UV, "lock", "--quiet", "--default-index", f"file://{self.folder}/index"]
        run_command(lock, check_rc=True, cwd=str(self.code / folder), environ_update=cache)
        return self.code / folder / "uv.lock"

    def requirements(self, text: str, name: str = "requirements.txt") -> Path:
        path = self.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def build(
        self, requirements: Path, extra: list[str] | None = None, builder: virtualenv.Builder | None = None
    ) -> Path:
        return (builder or self.builder()).build(self.code, requirements, extra or [], SERVER)

    def forge(self, name: str, version: str) -> None:
        """Exchange a package in the index for another one of the same name and version."""
        self.wheel(self.folder / "index" / name, name, version, build="-forged")

    def key(self, requirements: Path, extra: list[str] | None = None, server: str = SERVER) -> str:
        return self.builder().key(requirements, extra or [], server)


def installed(environment: Path) -> dict[str, str]:
    """The packages of an environment and their versions, without the server."""
    folders = [path.name.split("-") for path in environment.glob("lib/python3*/site-packages/*.dist-info")]
    return {name: version.removesuffix(".dist") for name, version, *_ in folders if name != "gunicorn"}


def version_of(environment: Path, package: str) -> str:
    command = [f"{environment}/bin/python", "-I", "-c", f"import {package}; print({package}.version)"]
    return run_command(command, check_rc=True)[1].strip()
