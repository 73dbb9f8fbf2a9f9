"""The Python versions of apps: uv installs them from a mirror in a folder, checks them, and what nothing uses goes.

uv is the real one. The versions are scripts that run the Python of the tests, packed as uv wants them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import lock, python_install, pythons
from ansible.module_utils.flaskhost.host.python_install import InstallError, Outcome, Pythons
from fakes import Unit, read_systemd_run, run_command, run_module, unsandboxed
from loading import load_plugin

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
MACHINE = platform.machine()
OWN = ".".join(map(str, sys.version_info[:3]))
#: Where the list of downloads says that the versions are; a mirror stands for it.
ORIGIN = "https://github.com/astral-sh/python-build-standalone/releases/download"
RELEASE = "20260101"
SYSCONFIG = b"# system configuration generated and used by the sysconfig module\nbuild_time_vars = {}\n"


def name_of(version: str) -> str:
    return f"cpython-{version}-linux-{MACHINE}-gnu"


class Shelf:
    """A mirror of versions, and a host that installs them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.versions = folder, folder / "opt/python"
        self.calls: list[Unit] = []
        self.listed: dict[str, dict[str, Any]] = {}
        self.environments = folder / "srv"
        # The Python of the distribution is older than any that an app asks for.
        self.distribution = self.script(folder / "python3", "3.9.2")

    @staticmethod
    def script(path: Path, version: str) -> Path:
        path.write_text(f"#!/bin/sh\necho {version}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def publish(
        self, version: str, runs: str = f'exec {sys.executable} "$@"', digest: str = "", extra: bytes = b""
    ) -> None:
        """Put a version into the mirror and the list of downloads."""
        major, minor, patch = version.split(".")
        place = self.folder / "mirror" / RELEASE / f"cpython-{version}.tar.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(place, "w:gz") as archive:
            for name, text, mode in (
                (f"bin/python{major}.{minor}", f"#!/bin/sh\n{runs}\n".encode(), 0o755),
                (f"lib/python{major}.{minor}/os.py", b"", 0o644),
                (f"lib/python{major}.{minor}/_sysconfigdata__linux_{MACHINE}-linux-gnu.py", SYSCONFIG, 0o644),
                ("lib/large.bin", extra, 0o644),
            ):
                entry = tarfile.TarInfo(f"python/{name}")
                entry.size, entry.mode = len(text), mode
                archive.addfile(entry, io.BytesIO(text))
        self.listed[name_of(version)] = {
            "name": "cpython",
            "arch": {"family": MACHINE, "variant": None},
            "os": "linux",
            "libc": "gnu",
            **dict(zip(("major", "minor", "patch"), map(int, (major, minor, patch)), strict=True)),
            "prerelease": "",
            "url": f"{ORIGIN}/{RELEASE}/{place.name}",
            "sha256": digest or hashlib.sha256(place.read_bytes()).hexdigest(),
            "variant": None,
            "build": RELEASE,
        }
        (self.folder / "downloads.json").write_text(json.dumps(self.listed), encoding="utf-8")

    def installer(self, **options: Any) -> Pythons:
        urls = {"mirror": f"file://{self.folder}/mirror", "downloads": f"file://{self.folder}/downloads.json"}
        values = {"uv": UV, "folder": self.versions, "distribution": str(self.distribution), **urls, **options}
        return Pythons(unsandboxed(self.calls), **values)

    def update(self, *versions: str, check: bool = False, **options: Any) -> Outcome:
        return self.installer(**options).update(versions, f"{self.environments}/*/venvs", check=check)

    def names(self) -> set[str]:
        return {path.name for path in self.versions.iterdir() if path.name[0] != "."}

    def build(self, app: str, version: str) -> Path:
        """Make an environment's link to its interpreter, as uv does."""
        link = self.environments / app / "venvs/1234/bin/python"
        link.parent.mkdir(parents=True)
        link.symlink_to(pythons.executable(self.versions, name_of(version)))
        return link


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    for variable in [name for name in os.environ if name.startswith(("UV_", "PYTHON"))]:
        monkeypatch.delenv(variable)
    return Shelf(tmp_path)


def prints(version: str) -> str:
    """A version that is another one than the Python of the tests, and so cannot compile its library."""
    return f'case "$*" in *version_info*) echo {version};; *) exec {sys.executable} "$@";; esac'


def test_a_version_is_installed_from_a_mirror_and_runs(shelf: Shelf) -> None:
    shelf.publish(OWN)
    minor = OWN.rpartition(".")[0]
    outcome = shelf.update(minor)
    assert outcome == Outcome({minor: name_of(OWN)}, [name_of(OWN)], [], changed=True)
    assert shelf.names() == {minor, name_of(OWN)}
    chosen = pythons.choose(run_command, minor, str(shelf.distribution), shelf.versions)
    assert chosen == (f"{shelf.versions}/{name_of(OWN)}/bin/python{minor}", OWN)
    assert pythons.ask_version(run_command, chosen.path) == OWN
    assert not shelf.update(minor).changed


def test_a_wrong_checksum_is_refused(shelf: Shelf) -> None:
    shelf.publish(OWN, digest="0" * 64)
    with pytest.raises(InstallError, match=r"(?s)Hash mismatch.*is not the one that uv's list") as caught:
        shelf.update(OWN)
    assert "0" * 64 in str(caught.value)
    assert shelf.names() == set()


def test_uv_checks_the_mirror_against_its_own_list(shelf: Shelf) -> None:
    """The list in uv names other checksums than those of our files."""
    listed = json.loads(run_command([UV, "python", "list", "--only-downloads", "--output-format=json", "3.12"])[1])
    item = next(item for item in listed if item["implementation"] == "cpython")
    shelf.publish("3.12.0")
    release, file = item["url"].split("/")[-2:]
    (shelf.folder / "mirror" / release).mkdir()
    source = shelf.folder / "mirror" / RELEASE / "cpython-3.12.0.tar.gz"
    shutil.copy(source, shelf.folder / "mirror" / release / file.replace("%2B", "+"))
    with pytest.raises(InstallError, match="Hash mismatch"):
        shelf.update("3.12", downloads="")


def test_what_apps_can_read_is_roots_alone(shelf: Shelf) -> None:
    shelf.publish(OWN)
    shelf.update(OWN)
    for path in [shelf.versions, *shelf.versions.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert path.is_symlink() or not mode & 0o7022, path
    assert stat.S_IMODE((shelf.versions / ".lock").stat().st_mode) == 0o600


def test_uv_runs_in_a_sandbox_and_reads_no_settings(shelf: Shelf) -> None:
    shelf.publish(OWN)
    shelf.update(OWN)
    listing, installing, asking = shelf.calls
    for unit in (listing, installing):
        assert {"--no-config", "--no-cache", "--managed-python"} <= {*unit.command}
        assert unit.environment["HOME"] == "/nonexistent"
    for unit in shelf.calls:
        assert unit.properties["ProtectSystem"] == ["strict"]
        assert unit.properties["CapabilityBoundingSet"] == [""]
        assert "-/etc/flaskhost" in unit.properties["InaccessiblePaths"]
    # uv compiles nothing here, because the script is no Python of its own.
    assert "--compile-bytecode" in installing.command
    assert installing.properties["ReadWritePaths"] == [str(shelf.versions)]
    assert "ReadWritePaths" not in listing.properties | asking.properties
    assert asking.properties["User"] == ["nobody"]


def test_the_newest_patch_level_is_installed_and_the_old_one_goes_when_nothing_uses_it(shelf: Shelf) -> None:
    shelf.publish("3.12.8", prints("3.12.8"))
    shelf.update("3.12")
    link = shelf.build("shop", "3.12.8")
    shelf.publish("3.12.10", prints("3.12.10"))
    assert shelf.update("3.12", check=True) == Outcome(
        {"3.12": name_of("3.12.10")}, [name_of("3.12.10")], [], changed=True
    )
    assert shelf.names() == {"3.12", name_of("3.12.8")}
    assert shelf.update("3.12").removed == []
    assert (shelf.versions / "3.12").readlink() == Path(name_of("3.12.10"))
    # A release to roll back to uses it.
    assert shelf.names() == {"3.12", name_of("3.12.8"), name_of("3.12.10")}
    link.unlink()
    assert shelf.update("3.12", check=True).removed == [name_of("3.12.8")]
    assert shelf.update("3.12").removed == [name_of("3.12.8")]
    assert shelf.names() == {"3.12", name_of("3.12.10")}


def test_a_patch_level_can_be_chosen_beside_another_one(shelf: Shelf) -> None:
    for version in ("3.12.8", "3.12.10"):
        shelf.publish(version, prints(version))
    shelf.update("3.12.8", "3.12")
    assert {str((shelf.versions / name).readlink()) for name in ("3.12.8", "3.12")} == {
        name_of("3.12.8"),
        name_of("3.12.10"),
    }


def test_versions_that_no_app_asks_for_any_more_go(shelf: Shelf) -> None:
    shelf.publish(OWN)
    shelf.update(OWN)
    shelf.build("gone", OWN)
    assert shelf.update() == Outcome({}, [], [], changed=True)
    assert shelf.names() == {name_of(OWN)}, "an app without an entry still runs with it"
    shutil.rmtree(shelf.environments)
    assert shelf.installer().update([], "", check=False).removed == [], "where environments are unknown, all stay"
    assert shelf.update().removed == [name_of(OWN)]
    assert not shelf.update().changed


@pytest.mark.parametrize("target", ["", "/", "/..", "/../..", "/../elsewhere/x"])
def test_links_of_a_hostile_environment_lead_nowhere(shelf: Shelf, target: str) -> None:
    shelf.publish(OWN)
    shelf.update(OWN)
    link = shelf.environments / "shop/venvs/1/bin/python"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"{shelf.versions}{target}")
    assert shelf.update().removed == [name_of(OWN)]


def test_the_distributions_own_version_is_not_installed(shelf: Shelf) -> None:
    assert shelf.update("3.9") == Outcome({}, [], [], changed=False)
    assert shelf.calls == []
    assert not shelf.versions.exists()
    assert pythons.choose(run_command, "3.9", str(shelf.distribution), shelf.versions) == (str(shelf.distribution), "")


def test_a_patch_level_is_not_the_distributions(shelf: Shelf) -> None:
    shelf.publish("3.9.2", prints("3.9.2"))
    assert shelf.update("3.9.2").installed == [name_of("3.9.2")]


def test_an_interrupted_installation_is_repeated(shelf: Shelf) -> None:
    shelf.publish(OWN)
    shelf.update(OWN)
    (shelf.versions / name_of(OWN) / pythons.MARK).unlink()
    python = Path(pythons.executable(shelf.versions, name_of(OWN)))
    python.write_text("half", encoding="utf-8")
    with pytest.raises(pythons.Unavailable):
        pythons.choose(run_command, OWN, str(shelf.distribution), shelf.versions)
    assert shelf.update(OWN).installed == [name_of(OWN)]
    assert pythons.ask_version(run_command, str(python)) == OWN


@pytest.mark.parametrize("runs", ["exit 1", "echo 3.12.7", "echo nothing"])
def test_a_version_that_does_not_run_is_no_version(shelf: Shelf, runs: str) -> None:
    shelf.publish("3.12.8", f'case "$*" in *version_info*) {runs};; *) exec {sys.executable} "$@";; esac')
    with pytest.raises(InstallError, match="does not run on this host, or is another version"):
        shelf.update("3.12")
    assert not list(shelf.versions.glob(f"*/{pythons.MARK}"))
    assert not (shelf.versions / "3.12").exists()


@pytest.mark.parametrize("version", ["3.77", "3.1", "3.12.99"])
def test_a_version_that_uv_does_not_know(shelf: Shelf, version: str) -> None:
    shelf.publish("3.12.8")
    with pytest.raises(InstallError, match=f"no final release of Python {version} "):
        shelf.update(version)


def test_an_unreachable_mirror_is_said(shelf: Shelf) -> None:
    shelf.publish("3.12.8")
    with pytest.raises(InstallError, match=r"(?s)uv python install failed.*set python_mirror"):
        shelf.update("3.12", mirror=f"file://{shelf.folder}/nowhere")


def test_check_mode_on_a_bare_host(shelf: Shelf) -> None:
    assert shelf.update("3.12", check=True, uv="/nonexistent/uv") == Outcome({}, ["3.12"], [], changed=True)
    assert not shelf.versions.exists()


def test_the_module(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.publish(OWN)
    module = load_plugin("plugins/modules/host_pythons.py")
    options = {
        "versions": [OWN],
        "uv": UV,
        "folder": str(shelf.versions),
        "distribution": str(shelf.distribution),
        "mirror": f"file://{shelf.folder}/mirror",
        "downloads": f"file://{shelf.folder}/downloads.json",
    }
    before = os.umask(0o077)
    result = run_module(monkeypatch, module, unsandboxed(shelf.calls), **options)
    os.umask(before)
    assert (result["changed"], result["versions"]) == (True, {OWN: name_of(OWN)})
    assert f"install {name_of(OWN)}" in result["diff"]["after"]
    assert stat.S_IMODE(shelf.versions.stat().st_mode) == 0o755
    result = run_module(monkeypatch, module, unsandboxed(shelf.calls), **options)
    assert (result["changed"], "diff" in result) == (False, False)
    result = run_module(monkeypatch, module, unsandboxed(shelf.calls), **{**options, "versions": ["3.77"]})
    assert result["msg"].startswith("A version of Python was not installed. uv knows no final release")


# -- several runs, and runs that are killed ---------------------------------------------------------------------------


def test_a_version_stays_while_a_release_is_built_with_it(shelf: Shelf) -> None:
    """Until the environment links to the version, nothing else shows that it is used."""
    shelf.publish(OWN)
    shelf.update(OWN)
    with pythons.in_use(shelf.versions):
        with pythons.in_use(shelf.versions):
            assert shelf.update().removed == []
        assert shelf.update().removed == []
        shelf.build("other", OWN)
    assert shelf.update().removed == [], "the app that was removed had the same version as another one"
    shutil.rmtree(shelf.environments)
    assert shelf.update().removed == [name_of(OWN)]
    with pythons.in_use(shelf.folder / "missing"):
        assert not (shelf.folder / "missing").exists()


def test_a_build_waits_for_a_removal(shelf: Shelf) -> None:
    shelf.versions.mkdir(parents=True)
    waited: list[float] = []
    with lock.open_file(shelf.versions / pythons.IN_USE) as stream:
        assert lock.acquire(stream)

        def pause(seconds: float) -> None:
            waited.append(seconds)
            stream.close()

        with pythons.in_use(shelf.versions, pause):
            assert len(waited) == 1


def test_of_two_runs_at_once_one_installs(shelf: Shelf) -> None:
    shelf.publish(OWN)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _number: shelf.update(OWN), range(2)))
    assert sorted(outcome.installed for outcome in outcomes) == [[], [name_of(OWN)]]
    assert pythons.choose(run_command, OWN, str(shelf.distribution), shelf.versions).version == OWN


def test_a_run_that_waits_too_long_says_for_whom(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_install, "_PATIENCE", 0)
    shelf.publish(OWN)
    shelf.versions.mkdir(parents=True)
    with (
        lock.hold(shelf.versions / ".update.lock", "install Python versions", 0),
        pytest.raises(InstallError, match=r"Another run installs versions on this host \(install .*, process \d+"),
    ):
        shelf.update(OWN)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_a_killed_uv_leaves_nothing_that_the_next_run_keeps(shelf: Shelf, after: float) -> None:
    shelf.publish(OWN)
    (shelf.versions / ".temp/half").mkdir(parents=True)
    real = shelf.installer().run

    def killed(args: Any, **options: Any) -> tuple[int, str, str]:
        if "install" not in args:
            return real(args, **options)
        unit = read_systemd_run(args)
        with subprocess.Popen(unit.command, env={**os.environ, **unit.environment}) as process:
            time.sleep(after)
            process.kill()
        return 137, "", "killed"

    installer = shelf.installer()
    installer.run = killed
    with pytest.raises(InstallError, match="uv python install failed"):
        installer.update([OWN], "", check=False)
    with pytest.raises(pythons.Unavailable):
        pythons.choose(run_command, OWN, str(shelf.distribution), shelf.versions)
    assert shelf.update(OWN).installed == [name_of(OWN)]
    assert pythons.choose(run_command, OWN, str(shelf.distribution), shelf.versions).version == OWN
    assert not list((shelf.versions / ".temp").glob("*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_said_and_the_next_run_installs(shelf: Shelf) -> None:
    shelf.publish(OWN, extra=random.Random(1).randbytes(2_000_000))
    shelf.versions.mkdir(parents=True)
    if run_command(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(shelf.versions)])[0]:
        pytest.skip("no right to mount")
    try:
        with pytest.raises(InstallError, match=r"(?s)uv python install failed.*No space left.*Free"):
            shelf.update(OWN)
        with pytest.raises(pythons.Unavailable):
            pythons.choose(run_command, OWN, str(shelf.distribution), shelf.versions)
        run_command(["mount", "-o", "remount,size=64M", str(shelf.versions)], check_rc=True)
        assert shelf.update(OWN).installed == [name_of(OWN)]
    finally:
        run_command(["umount", str(shelf.versions)], check_rc=True)
