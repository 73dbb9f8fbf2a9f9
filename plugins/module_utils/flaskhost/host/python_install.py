"""Install the Python versions that apps ask for, keep them up to date, and remove those that nothing uses.

uv downloads them from python-build-standalone, and checks each against the SHA-256 checksum that uv itself contains. It
runs as root in a sandbox, in which it can write only to the folder of the versions.
"""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.flaskhost.host import atomic, lock, pythons
from ansible.module_utils.flaskhost.host.runner import SANDBOX, Run, cure_for, tail

#: Seconds for one version: a download of some 30 MB, and the compilation of the standard library.
_TIMEOUT = 900
#: Seconds to wait for another run that installs versions.
_PATIENCE = 1800
#: uv's folder for downloads, inside of the folder of the versions. A killed uv leaves up to 150 MB there.
_SCRATCH = ".temp"


class InstallError(Exception):
    """A version cannot be installed.

    Args:
        reason: what went wrong.
        cure: what to do next.
    """

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}\n{cure}")


class Outcome(NamedTuple):
    """The outcome of a run: the versions that are in use, were installed and were removed, by their folders' names."""

    links: dict[str, str]
    installed: list[str]
    removed: list[str]
    changed: bool


class Pythons:
    """The Python versions of this host.

    Args:
        run: runs a command.
        uv: the path of uv.
        folder: the folder of the versions.
        distribution: the path of the distribution's Python.
        mirror: the URL of a mirror of python-build-standalone; empty for uv's own.
        downloads: the URL of a list of downloads to use instead of the one in uv; empty for that.
    """

    def __init__(
        self, run: Run, *, uv: str, folder: Path, distribution: str, mirror: str = "", downloads: str = ""
    ) -> None:
        self.run, self.uv, self.folder, self.distribution = run, uv, folder, distribution
        self.mirror, self.downloads = mirror, downloads

    def update(self, versions: Iterable[str], environments: str, *, check: bool) -> Outcome:
        """Install the versions in their newest patch level, and remove those that nothing uses.

        Args:
            versions: the versions that apps ask for.
            environments: a pattern for the folders of virtual environments, whose versions are kept. If empty, nothing
                is removed.
            check: whether only to report what would be done.

        Raises:
            InstallError: a version cannot be installed. Versions that are in use are not changed.
        """
        own = pythons.ask_version(self.run, self.distribution)
        wanted = sorted({version for version in versions if not pythons.is_provided(version, own)})
        if not wanted and not self.folder.is_dir():
            return Outcome({}, [], [], changed=False)
        if check and not Path(self.uv).exists():
            # In check mode on a bare host, the role has not installed uv.
            return Outcome({}, wanted, [], changed=bool(wanted))
        links = {version: self._newest(version) for version in wanted}
        missing = self._missing(links)
        stale = {path.name for path in self._links()} - links.keys()
        moved = {version for version, name in links.items() if self._target(version) != name}
        if check:
            removed = self._unused(links, environments)
            return Outcome(links, missing, removed, changed=bool(missing or stale or moved or removed))
        self._make_folder()
        try:
            with lock.hold(self.folder / ".update.lock", "install Python versions", _PATIENCE):
                # Again: another run can have installed them meanwhile.
                missing = self._missing(links)
                shutil.rmtree(self.folder / _SCRATCH, ignore_errors=True)
                for name in missing:
                    self._install(name)
                for version, name in links.items():
                    atomic.link(self.folder / version, name)
                for version in stale:
                    (self.folder / version).unlink(missing_ok=True)
                removed = self._remove_unused(links, environments)
                self._remove_links_of_uv()
        except lock.Busy as busy:
            reason = f"Another run installs versions on this host ({busy.holder})."
            raise InstallError(reason, "Run the same command again when it has ended.") from None
        return Outcome(links, missing, removed, changed=bool(missing or stale or moved or removed))

    def _missing(self, links: dict[str, str]) -> list[str]:
        return [name for name in dict.fromkeys(links.values()) if not (self.folder / name / pythons.MARK).is_file()]

    def _remove_unused(self, links: dict[str, str], environments: str) -> list[str]:
        """Remove the versions that nothing uses; all stay while a release is built, until the next run."""
        with lock.open_file(self.folder / pythons.IN_USE) as stream:
            if not lock.acquire(stream):
                return []
            removed = self._unused(links, environments)
            for name in removed:
                # The mark first: a partly removed version is not complete.
                (self.folder / name / pythons.MARK).unlink(missing_ok=True)
                shutil.rmtree(self.folder / name)
        return removed

    # -- what there is ------------------------------------------------------------------------------------------------

    def _target(self, version: str) -> str:
        link = self.folder / version
        return str(link.readlink()) if link.is_symlink() else ""

    def _links(self) -> list[Path]:
        """Return our own links, which have the name of a version."""
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if path.is_symlink() and re.fullmatch(r"[\d.]+", path.name)]

    def _unused(self, links: dict[str, str], environments: str) -> list[str]:
        """Return the installed versions that no app asks for and no virtual environment is made of."""
        if not environments or not self.folder.is_dir():
            return []
        installed = {path.name for path in self.folder.iterdir() if pythons.FOLDER.fullmatch(path.name)}
        return sorted(installed - set(links.values()) - self._used(environments))

    def _used(self, environments: str) -> set[str]:
        """Return the versions that virtual environments are made of, also those of apps without an entry any more.

        An app's builds write the environments. Only the target of the interpreter's link is read. So an app can at most
        keep a version on the host.
        """
        used: set[str] = set()
        for link in glob.iglob(f"{environments}/*/bin/python"):  # noqa: PTH207 - a pattern
            try:
                target = Path(os.readlink(link))  # noqa: PTH115 - Path.readlink is the same
            except OSError:
                continue
            if self.folder in target.parents:
                used.add(target.relative_to(self.folder).parts[0])
        return used

    # -- what uv does -------------------------------------------------------------------------------------------------

    def _newest(self, version: str) -> str:
        """Return the folder's name of the newest patch level that uv knows.

        Raises:
            InstallError: uv knows no such version for this host.
        """
        listed = ["python", "list", "--only-downloads", "--output-format", "json"]
        out = self._uv([*listed, *(["--all-versions"] if version.count(".") > 1 else []), version], writable=False)
        try:
            names = [str(item["key"]) for item in json.loads(out)]
        except (ValueError, TypeError, KeyError):
            names = []
        found = [match for match in map(pythons.FOLDER.fullmatch, names) if match]
        found = [match for match in found if f"{match['version']}.".startswith(f"{version}.")]
        if not found:
            raise InstallError(
                f"uv knows no final release of Python {version} for this host.",
                "Correct the option python of the app. 'uv python list --only-downloads' shows the versions.",
            )
        return max(found, key=lambda match: tuple(map(int, match["version"].split("."))))[0]

    def _install(self, name: str) -> None:
        """Install a version, check that apps can run it, and mark it as complete.

        Raises:
            InstallError: it cannot be downloaded, its checksum is wrong, or it does not run.
        """
        partial = (self.folder / name).exists()
        # Without bytecode, each start of an app would compile the standard library again, because it is read-only.
        options = ["--no-bin", "--compile-bytecode", *(["--reinstall"] if partial else [])]
        self._uv(["python", "install", *options, "--install-dir", str(self.folder), name], writable=True)
        found = pythons.FOLDER.fullmatch(name)
        python = pythons.executable(self.folder, name)
        # As a user without rights: apps must be able to read and run it.
        version = pythons.ask_version(lambda command: self._sandboxed(command, ["User=nobody"]), python)
        if not found or version != found["version"]:
            raise InstallError(
                f"{python} does not run on this host, or is another version.",
                "Run the same command again. If it fails again, change the option python of the app.",
            )
        atomic.write(self.folder / name / pythons.MARK, "", mode=0o644)

    def _make_folder(self) -> None:
        """Create the folder of the versions, and uv's lock file in it, which uv would make writable for everyone."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        descriptor = os.open(self.folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)

    def _remove_links_of_uv(self) -> None:
        """Remove the links that uv makes from minor versions to their newest patch level. Nothing uses them."""
        for path in self.folder.iterdir():
            if path.is_symlink() and path.name.startswith("cpython-"):
                path.unlink()

    def _uv(self, arguments: list[str], *, writable: bool) -> str:
        """Run uv and return its output.

        Raises:
            InstallError: it failed.
        """
        options = ["--no-config", "--no-cache", "--no-progress", "--color=never", "--managed-python"]
        if self.downloads:
            options.append(f"--python-downloads-json-url={self.downloads}")
        if self.mirror and writable:
            options.append(f"--mirror={self.mirror}")
        command = [self.uv, *arguments, *options]
        status, out, err = self._sandboxed(command, [f"ReadWritePaths={self.folder}"] if writable else [])
        if status:
            said = err + out
            cure = (
                "Check that the host reaches releases.astral.sh and github.com, or set python_mirror to a mirror that "
                "it reaches. Then run the same command again."
            )
            if "Hash mismatch" in said:
                cure = (
                    "The file is not the one that uv's list of downloads names. Check python_mirror: it must serve the "
                    "unchanged files of python-build-standalone."
                )
            raise InstallError(f"uv {' '.join(arguments[:2])} failed:\n{tail(said)}", cure_for(said, cure))
        return out

    def _sandboxed(self, command: list[str], properties: list[str]) -> tuple[int, str, str]:
        """Run a command in systemd's sandbox, without the variables and the folders of root's session."""
        environment = {"HOME": "/nonexistent", "UV_SYSTEM_CERTS": "1", "UV_PYTHON_DOWNLOADS": "manual"}
        together = [
            *SANDBOX,
            "PrivateTmp=yes",
            "UMask=0022",
            "MemoryMax=50%",
            "WorkingDirectory=/",
            f"RuntimeMaxSec={_TIMEOUT}",
            *(f"InaccessiblePaths=-{path}" for path in ("/etc/flaskhost", "/var/backups", "/var/lib/postgresql")),
            *properties,
        ]
        wrapped = [
            "systemd-run",
            f"--unit=flaskhost-python-{secrets.token_hex(4)}",
            "--quiet",
            "--pipe",
            "--wait",
            "--collect",
            *(f"--property={item}" for item in together),
            *(f"--setenv={key}={value}" for key, value in environment.items()),
            "--",
            # systemd expands $NAME, as in ExecStart=.
            *(item.replace("$", "$$") for item in command),
        ]
        return self.run(wrapped, expand_user_and_vars=False)
