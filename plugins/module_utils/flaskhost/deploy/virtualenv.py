"""The virtual environment of a release: one for each lock file, built by uv, and never changed afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.deploy.hints import hint
from ansible.module_utils.flaskhost.deploy.sources.archives import file_digest, read_text
from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.runner import BUILD_TEMPORARY, ReleaseError, Run, cure_for, sandboxed, tail

#: Written last: an environment without this file was interrupted, and is rebuilt.
MARK = ".complete"
#: The hash of a package in a requirements file, and in uv.lock.
_HASHED = re.compile(r"--hash=|\bhash = \"")
#: The files that can pin the dependencies, most exact first.
CANDIDATES = ("uv.lock", "requirements.txt", "pyproject.toml")
#: Maximum bytes of a file that pins dependencies, and of a project's settings: root reads both into memory.
_LONGEST_LOCK, _LONGEST_SETTINGS = 16 * 1024**2, 1024**2
#: Maximum depth of nested folders in an environment: some of Python's own functions recurse once for each.
_DEEPEST = 100
#: Patterns, by the file's name, of entries that install code from the source itself (`-e .`, `./library`, a path
#: source). The project itself in its own lock does not count.
_LOCAL_CODE = {
    "uv.lock": re.compile(r'source = \{ (?:editable|directory|path) = "(?!\.")'),
    "pyproject.toml": re.compile(r"[{,]\s*(?:path|workspace)\s*=|@\s*file:"),
    "": re.compile(
        r"^[ \t]*(?:-e|--editable|(?:[\w.,\[\]-]+\s*@\s*)?(?:file:|\.{0,2}/|\.\s*(?:[\[;#]|$))|[\w.-]+/)", re.MULTILINE
    ),
}


def find_requirements(folder: Path, named: str = "", top: Path | None = None) -> Path | None:
    """Find the file that pins the dependencies.

    Args:
        folder: the app's folder.
        named: the file that the user's options name, relative to ``folder`` or to ``top``.
        top: the folder of the whole source, searched second.

    Returns:
        The file, or None. A pyproject.toml without dependencies (only tool settings) does not count.
    """
    for place in [folder, top] if top and top != folder else [folder]:
        for name in [named] if named else CANDIDATES:
            path = place / name
            if path.is_file() and (path.name != "pyproject.toml" or named or _has_dependencies(path)):
                return path
    return None


def _has_dependencies(path: Path) -> bool:
    try:
        return bool(tomllib.loads(_read(path, _LONGEST_SETTINGS)).get("project", {}).get("dependencies"))
    except tomllib.TOMLDecodeError:
        return False


def _read(path: Path, longest: int = _LONGEST_LOCK) -> str:
    return read_text(path, longest, "Build the virtual environment")


def find_wheelhouse(folder: Path, named: str, top: Path | None = None) -> Path | None:
    """Find the folder of packages from which an environment is built offline.

    Args:
        folder: the app's folder.
        named: the folder that the user's options name, relative to ``folder`` or to ``top``; empty for none.
        top: the folder of the whole source, searched second.

    Returns:
        The folder; None if none is named.

    Raises:
        ReleaseError: the folder does not exist, or contains no packages.
    """
    if not named:
        return None
    found = next((place / named for place in (folder, top or folder) if (place / named).is_dir()), None)
    if found and packages_in(found):
        return found
    problem = "has no package (.whl, .tar.gz, .zip)" if found else "is not in the source"
    raise ReleaseError(
        "Build the virtual environment",
        f"the wheelhouse {named} {problem}.",
        "Correct wheelhouse, or add the packages to that folder ('pip download --dest', 'pip wheel --wheel-dir') and "
        "commit it.",
    )


def packages_in(wheelhouse: Path) -> list[Path]:
    """Return the packages in a wheelhouse, sorted by name: wheels, and source archives to build wheels from."""
    return sorted(path for path in wheelhouse.iterdir() if path.name.endswith((".whl", ".tar.gz", ".zip")))


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: 27.0.1 as (27, 0, 1)."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


def installed_version(environment: Path, package: str) -> str:
    """Return the version of a package in an environment; empty if it is not installed."""
    pattern = re.compile(rf"{re.escape(package)}-([^-]+)\.dist-info", re.IGNORECASE)
    for folder in environment.glob("lib/python*/site-packages/*.dist-info"):
        if found := pattern.fullmatch(folder.name):
            return found.group(1)
    return ""


def is_whole(environment: Path) -> bool:
    """Check whether an environment is complete: it has the mark, and both belong to root, so the mark is not forged."""
    try:
        mark = (environment / MARK).stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(mark.st_mode) and mark.st_uid == 0 and environment.stat().st_uid == 0


def remove(environment: Path) -> None:
    """Remove an environment, the mark first, so that a partly removed one does not count as complete."""
    with contextlib.suppress(IsADirectoryError):
        (environment / MARK).unlink(missing_ok=True)
    with tree.folder(environment.parent) as above:
        tree.remove(environment.name, above)


def build_account(user: str) -> str:
    """Return the build account of an app. App names have no underscore, so no user or database role has its name.

    Args:
        user: the app's system user.
    """
    name = f"{user}_build"
    # useradd(8): the limit is 32 characters.
    return name if len(name) <= 32 else f"{user[:15]}_{hashlib.sha256(user.encode()).hexdigest()[:10]}_build"


class Builder:
    """Builds the virtual environments of one app.

    Args:
        run: runs a command.
        user: the app's system user. Build scripts of packages run neither as root nor as this user, but as an account
            without data and without a database: see :func:`build_account`.
        code: the code of the release, the only part of the app that a build can read.
        folder: the folder of the environments.
        cache: uv's cache, separate for each app, so that no app can plant a package in another one's environment.
        uv: the path of uv.
        python: the path of the Python interpreter.
        index_url: the package index; empty for uv's default and the host's uv.toml.
        wheelhouse: a folder with all packages, which is then the only source of packages.
        top: the folder of the whole source; files outside of it are not included. If None, the folder of the lock file.
        server_lock: the application server and its dependencies, pinned, with their hashes.
    """

    def __init__(
        self,
        run: Run,
        *,
        user: str,
        code: Path,
        folder: Path,
        cache: Path,
        uv: str,
        python: str,
        index_url: str = "",
        wheelhouse: Path | None = None,
        top: Path | None = None,
        server_lock: str = "",
    ) -> None:
        self.run, self.user, self.code, self.folder, self.cache = run, user, code, folder, cache
        self.account = build_account(user)
        self.uv, self.python, self.index_url = uv, python, index_url
        self.wheelhouse, self.top, self.server_lock = wheelhouse, top, server_lock
        self.warnings: list[str] = []

    def key(
        self, requirements: Path, extra_packages: list[str], server_package: str, app_dir: Path | None = None
    ) -> str:
        """Return the name of the environment: a digest of everything that decides its contents.

        The arguments are those of :meth:`build`; ``app_dir`` defaults to the folder of ``requirements``.
        """
        # Without the patch level: an environment keeps working after the distribution's security updates of Python.
        question = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_platform())"
        status, version, err = self.run([self.python, "-c", question])
        if status:
            raise ReleaseError("Build the virtual environment", f"{self.python} failed: {tail(err, 3)}", "Install it.")
        parts = [version, requirements.name, *sorted(extra_packages), server_package, self.server_lock]
        parts += _uv_settings(requirements, app_dir or requirements.parent)
        if self.wheelhouse:
            # Names and sizes are not enough: a rebuilt wheel has the same name, and often the same size. The digests
            # take a second for a gigabyte, and only when a release is built.
            parts += ["wheelhouse", *(f"{path.name} {file_digest(path)}" for path in packages_in(self.wheelhouse))]
        texts = {path: _read(path) for path in [requirements, *_included(requirements, self.top)]}
        local = _LOCAL_CODE.get(requirements.name, _LOCAL_CODE[""])
        if any(local.search(text) for text in texts.values()):
            # The environment contains this release's code, so no other release can use it.
            parts.append(str(requirements))
        digest = hashlib.sha256("\0".join(parts).encode())
        for path in texts:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def build(self, app_dir: Path, requirements: Path, extra_packages: list[str], server_package: str) -> Path:
        """Build the virtual environment, unless a complete one exists.

        Args:
            app_dir: the app's folder in the new release.
            requirements: the file that pins the dependencies.
            extra_packages: additional pinned packages. If all have hashes, nothing without a hash is installed.
            server_package: the application server, pinned; an equal or newer version in the lock is kept.

        Returns:
            The environment's path.

        Raises:
            ReleaseError: the dependencies cannot be resolved, downloaded or built.
        """
        if not self.wheelhouse and server_package not in re.findall(r"^\S+", self.server_lock, re.MULTILINE):
            raise ReleaseError(
                "Build the virtual environment",
                f"{server_package} has no hashes to verify it with.",
                "In the role app, pin the same version in files/server.txt and in server_package.",
            )
        target = self.folder / self.key(requirements, extra_packages, server_package, app_dir)
        if is_whole(target):
            return target
        if target.exists():
            remove(target)
        extra_file, server_file = target / "extra-packages.txt", target / "server.txt"
        target.mkdir(parents=True)
        # While the folder still belongs to root.
        for path, lines in ((extra_file, map(_one_line, extra_packages)), (server_file, [self.server_lock])):
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            path.chmod(0o644)
        self._make_room(target)
        # uv clears a folder that it cannot remove; --allow-existing uses the folder as it is.
        self._uv("venv", "--quiet", "--allow-existing", "--python", self.python, str(target), directory=app_dir)
        locked = requirements
        if requirements.name == "uv.lock":
            locked = target / "requirements.txt"
            export = ["--frozen", "--no-dev", "--no-emit-project", "--quiet", "--output-file", str(locked)]
            self._uv("export", "--format", "requirements-txt", *export, directory=requirements.parent, target=target)
        install = ["pip", "install", "--quiet", "--compile-bytecode", "--python", str(target)]
        if self.wheelhouse:
            install += ["--no-index", "--find-links", str(self.wheelhouse)]
        self._uv(*install, "-r", str(locked), directory=app_dir, target=target)
        if extra_packages:
            options = self._extra_options(requirements, locked, extra_packages)
            self._uv(*install, "-r", str(extra_file), *options, directory=app_dir, target=target)
        name, _, wanted = server_package.partition("==")
        present = installed_version(target, name)
        if version_tuple(present) < version_tuple(wanted):
            if present:
                self.warnings.append(
                    f"{requirements.name} pins {name} {present}; this release runs {wanted}, the oldest supported "
                    "version."
                )
            # A wheelhouse is part of the app's code, and can contain a server that the app's owner has built.
            server = [server_package] if self.wheelhouse else ["--require-hashes", "-r", str(server_file)]
            self._uv(*install, *server, directory=app_dir, target=target)
        self._seal(target)
        with tree.folder(self.folder.parent, Path(BUILD_TEMPORARY).parent) as above:
            tree.remove(Path(BUILD_TEMPORARY).name, above)
        return target

    def _extra_options(self, requirements: Path, locked: Path, extra_packages: list[str]) -> list[str]:
        """Return the options with which uv verifies the extra packages. Warn if only the lock has hashes."""
        # Read the release's own files: the build account can write the folder with uv's export.
        files = [requirements, *_included(requirements)]
        lock_has_hashes = any(_HASHED.search(path.read_text(encoding="utf-8", errors="replace")) for path in files)
        bare = [entry.strip() for entry in extra_packages if not _HASHED.search(entry)]
        if not bare:
            # The lock's hashes apply to the dependencies of the extra packages.
            return ["--require-hashes", *(["--constraint", str(locked)] if lock_has_hashes else [])]
        if lock_has_hashes or len(bare) < len(extra_packages):
            lines = "\\n".join(bare)
            self.warnings.append(
                f"extra_packages without hashes are installed unverified: {', '.join(bare)}. "
                f"{requirements.name if lock_has_hashes else 'Another extra package'} has hashes. Add these packages "
                f"to the app's lock, or replace their entries with the output of: printf '{lines}' | uv pip compile "
                "--generate-hashes --no-header --no-annotate --python-version "
                f"{sys.version_info[0]}.{sys.version_info[1]} -"
            )
        return []

    def _make_room(self, target: Path) -> None:
        """Create the build account, and the folders that it can write."""
        try:
            account = pwd.getpwnam(self.account)
        except KeyError:
            options = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
            status, out, err = self.run(["useradd", "--system", "--user-group", *options, self.account])
            if status:
                raise ReleaseError(
                    "Build the virtual environment",
                    f"the build account {self.account} could not be created: {tail(out + err, 3)}",
                    "Fix the error of useradd, then run the same command again.",
                ) from None
            account = pwd.getpwnam(self.account)
        if self.cache.exists() and self.cache.stat().st_uid not in (0, account.pw_uid):
            # From an earlier version of Flaskhost, in which the app's own user built.
            shutil.rmtree(self.cache)
        for path, mode in ((target, 0o755), (self.cache, 0o700)):
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, account.pw_uid, account.pw_gid)
            path.chmod(mode)
        with tree.folder(self.folder.parent, Path(BUILD_TEMPORARY).parent, make=True) as above:
            # The app's user must not get in, nor must the build account reach temporary files of the app's units.
            os.fchmod(above, 0o700)
            # Remove the leftovers of other builds.
            name = Path(BUILD_TEMPORARY).name
            tree.remove(name, above)
            os.mkdir(name, 0o700, dir_fd=above)
            os.chown(name, account.pw_uid, account.pw_gid, dir_fd=above)

    def _reach(self, target: Path) -> list[str]:
        """Return what a build sees of the apps' folders: its code, the new environment and the cache."""
        empty = dict.fromkeys((str(self.folder.parent.parent), str(self.cache.parent), "/run"))
        resolver = Path("/etc/resolv.conf").resolve().parent
        return [
            *(f"TemporaryFileSystem={path}:ro" for path in empty),
            f"BindReadOnlyPaths={self.code}",
            *(f"BindPaths={path}" for path in (target, self.cache)),
            *([f"BindReadOnlyPaths=-{resolver}"] if resolver.is_relative_to("/run") else []),
            *(f"InaccessiblePaths=-{path}" for path in ("/etc/flaskhost", "/var/backups", "/var/lib/postgresql")),
        ]

    def _uv(self, *arguments: str, directory: Path, target: Path | None = None) -> None:
        target = target or Path(arguments[-1])
        environment = {
            "UV_CACHE_DIR": str(self.cache),
            "UV_PYTHON_DOWNLOADS": "never",
            # No hard links: the cache stays the builder's, and the environment must not.
            "UV_LINK_MODE": "copy",
            # The host's own CA certificates, as for every other program on it.
            "UV_SYSTEM_CERTS": "1",
            "HOME": "/nonexistent",
        }
        if self.wheelhouse:
            environment["UV_OFFLINE"] = "1"
        elif self.index_url:
            environment["UV_DEFAULT_INDEX"] = self.index_url
        command = sandboxed(
            [self.uv, *arguments],
            user=self.user,
            root=str(self.folder.parent),
            directory=str(directory),
            writable=[str(target), str(self.cache)],
            environment=environment,
            # A wheelhouse contains everything that is needed.
            outbound=not self.wheelhouse,
            builder=self.account,
            properties=self._reach(target),
        )
        status, out, err = self.run(command)
        if status:
            cure = (
                "Correct the lock or requirements file. 'uv pip compile' or 'uv lock' shows the same error on your "
                "machine."
            )
            if self.wheelhouse:
                cure = (
                    "Put every package, including the application server, into the wheelhouse "
                    f"{self.wheelhouse.name}, as wheels for this host's {Path(self.python).name}: 'pip download "
                    "--only-binary=:all: --dest'."
                )
            said = tail(out + err)
            raise ReleaseError(
                "Build the virtual environment",
                f"uv {arguments[0]} failed with status {status}:\n{said}",
                cure_for(out + err, cure + hint(out + err)),
            )

    def _seal(self, target: Path) -> None:
        """Give the whole environment to root, make it read-only for everyone else, and mark it as complete.

        systemd has ended all processes of the build by then. Even so, no link is followed here.
        """
        builder = target.stat().st_uid
        # Top-down: a folder belongs to root before it is read, so that nobody can replace its contents meanwhile.
        os.chown(target, 0, 0)
        # A package can have put a file or a link there, and root's ownership together with the mark means complete.
        (target / MARK).unlink(missing_ok=True)
        for folder, directories, files, descriptor in os.fwalk(target):
            if len(Path(folder).relative_to(target).parts) > _DEEPEST:
                raise ReleaseError(
                    "Build the virtual environment",
                    f"its folders are nested more than {_DEEPEST} levels deep.",
                    "Remove the package that creates them from the dependencies.",
                )
            for name in directories + files:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if status.st_uid not in (builder, 0) or (status.st_nlink > 1 and stat.S_ISREG(status.st_mode)):
                    # uv copies files, so this is another name of a foreign file, which chown would give to root too.
                    raise ReleaseError(
                        "Build the virtual environment",
                        f"{name} is a hard link, or belongs to another user.",
                        "Remove the package whose build creates it from the dependencies.",
                    )
                os.chown(name, 0, 0, dir_fd=descriptor, follow_symlinks=False)
                mode = status.st_mode
                if not stat.S_ISLNK(mode) and mode & 0o7022:
                    os.chmod(name, mode & 0o755, dir_fd=descriptor)
        (target / MARK).touch(mode=0o644, exist_ok=False)


def _uv_settings(requirements: Path, app_dir: Path) -> list[str]:
    """Return uv's inputs besides the lock: settings in the code tree and, for a uv.lock, the project's groups.

    uv reads uv.toml or [tool.uv] in pyproject.toml from the folder where it runs, or the nearest parent that has one.
    All of them count here: one that uv ignores costs an extra environment, but a missed one would give a wrong one.
    """
    found: list[str] = []
    for start in dict.fromkeys((requirements.parent, app_dir)):
        for place in (start, *start.parents):
            project = _toml(place / "pyproject.toml")
            groups = project.get("dependency-groups") if requirements.name == "uv.lock" else None
            tool = project.get("tool")
            settings = [_toml(place / "uv.toml"), tool.get("uv") if isinstance(tool, dict) else None, groups]
            # Without the folder's name, which differs in each release.
            found += [json.dumps(item, sort_keys=True, default=str) for item in settings if item]
    return found


def _one_line(entry: str) -> str:
    """Join a requirement and its hashes into one line."""
    return " ".join(entry.replace("\\", " ").split())


def _toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; return the text of a damaged one, and an empty mapping if the file does not exist."""
    try:
        text = _read(path, _LONGEST_SETTINGS)
    except OSError:
        return {}
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {"damaged": text}


def _included(requirements: Path, top: Path | None = None) -> list[Path]:
    """Return the files that a requirements file includes with -r or -c, recursively and without duplicates.

    Raises:
        ReleaseError: a file is outside of the source, where root could read what the app cannot.
    """
    found: list[Path] = []
    inside = (top or requirements.parent).resolve()
    queue = [] if requirements.suffix in (".lock", ".toml") else [requirements]
    while queue:
        here = queue.pop()
        for line in _read(here).splitlines():
            match = re.match(r"\s*(?:-[rc][\s=]*|--(?:requirement|constraint)[\s=]+)(\S+)", line)
            if not match or "://" in match.group(1):
                continue
            path = Path(os.path.realpath(here.parent / match.group(1)))
            if not path.is_relative_to(inside):
                raise ReleaseError(
                    "Build the virtual environment",
                    f"{here.name} includes {match.group(1)}, which is outside the source.",
                    "Add that file to the source, and include it by its path there.",
                )
            if path.is_file() and path not in found and path != requirements.resolve():
                found.append(path)
                queue.append(path)
    return sorted(found)
