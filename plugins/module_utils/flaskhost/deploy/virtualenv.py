"""The virtual environment of a release: one for each lock, built aside by uv, and never changed once it is whole."""

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

from ansible.module_utils.flaskhost.deploy.sources.archives import file_digest, read_text
from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.runner import BUILD_TEMPORARY, ReleaseError, Run, cure_for, sandboxed, tail

#: Written last: an environment without it was interrupted, and is built anew.
MARK = ".complete"
#: What a package that is verified has in a requirements file, and in uv.lock.
_HASHED = re.compile(r"--hash=|\bhash = \"")
#: The files that may pin the dependencies, the most exact one first.
CANDIDATES = ("uv.lock", "requirements.txt", "pyproject.toml")
#: Bytes of a file that pins dependencies, and of one with a project's settings: what root reads has to fit into memory.
_LONGEST_LOCK, _LONGEST_SETTINGS = 16 * 1024**2, 1024**2
#: Folders of an environment in each other: some of Python's own functions call themselves once for each.
_DEEPEST = 100
#: What in such a file takes in code that lies beside it (`-e .`, `./library`, a path source), by the file's name; the
#: project itself in its own lock does not.
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
        named: the file that the user names, relative to ``folder`` or to ``top``.
        top: the folder of the whole source, looked at second.

    Returns:
        The file, or None. A pyproject.toml without dependencies (a tool's settings) is not one.
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
    return read_text(path, longest, "Build the environment")


def find_wheelhouse(folder: Path, named: str, top: Path | None = None) -> Path | None:
    """Find the folder of packages that an environment is built from, without any network.

    Args:
        folder: the app's folder.
        named: the folder that the user names, relative to ``folder`` or to ``top``; empty for none.
        top: the folder of the whole source, looked at second.

    Returns:
        The folder; None where none is named.

    Raises:
        ReleaseError: it is not there, or there is no package in it.
    """
    if not named:
        return None
    found = next((place / named for place in (folder, top or folder) if (place / named).is_dir()), None)
    if found and packages_in(found):
        return found
    problem = "holds no package (.whl, .tar.gz, .zip)" if found else "is not in the source"
    raise ReleaseError(
        "Build the environment",
        f"the wheelhouse {named} {problem}.",
        "Correct wheelhouse, or fill that folder ('pip download --dest', 'pip wheel --wheel-dir') and commit it.",
    )


def packages_in(wheelhouse: Path) -> list[Path]:
    """The packages in a wheelhouse, sorted by name: wheels, and sources to build one from."""
    return sorted(path for path in wheelhouse.iterdir() if path.name.endswith((".whl", ".tar.gz", ".zip")))


def version_tuple(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: 27.0.1 as (27, 0, 1)."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


def installed_version(environment: Path, package: str) -> str:
    """The version of a package in an environment; empty when it is not there."""
    pattern = re.compile(rf"{re.escape(package)}-([^-]+)\.dist-info", re.IGNORECASE)
    for folder in environment.glob("lib/python*/site-packages/*.dist-info"):
        if found := pattern.fullmatch(folder.name):
            return found.group(1)
    return ""


def is_whole(environment: Path) -> bool:
    """Whether an environment was built to its end: it has the mark, and both are root's, so that nobody else set it."""
    try:
        mark = (environment / MARK).stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(mark.st_mode) and mark.st_uid == 0 and environment.stat().st_uid == 0


def remove(environment: Path) -> None:
    """Remove an environment; one that is removed in part is not taken for a whole one."""
    with contextlib.suppress(IsADirectoryError):
        (environment / MARK).unlink(missing_ok=True)
    with tree.folder(environment.parent) as above:
        tree.remove(environment.name, above)


def build_account(user: str) -> str:
    """The account that builds for an app. No app's name has an underscore, so it is nobody's user and no database's.

    Args:
        user: the app's system user.
    """
    name = f"{user}_build"
    # useradd(8): 32 characters at most.
    return name if len(name) <= 32 else f"{user[:15]}_{hashlib.sha256(user.encode()).hexdigest()[:10]}_build"


class Builder:
    """Builds the environments of one app.

    Args:
        run: runs a command.
        user: the app's system user. What a package runs while it is built is run neither as root nor as that user, but
            as an account that has no data and no database: see :func:`build_account`.
        code: the code of the release, all that a build may read of the app's.
        folder: where the environments are.
        cache: uv's cache, of this app alone, so that no app can plant a package in another one's.
        uv: the path of uv.
        python: the path of the interpreter.
        index_url: the package index; empty for uv's own default and the host's uv.toml.
        wheelhouse: a folder with all packages, which are then taken from there and from nowhere else.
        top: the folder of the whole source; a file that lies elsewhere is not taken in. The lock's when left out.
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
        """The name of the environment: a digest of everything that decides what is in it.

        The arguments are those of :meth:`build`; without ``app_dir`` it is the folder of ``requirements``.
        """
        # Not the patch level: the distribution's security updates of Python keep an environment working.
        question = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_platform())"
        status, version, err = self.run([self.python, "-c", question])
        if status:
            raise ReleaseError("Build the environment", f"{self.python} does not run: {tail(err, 3)}", "Install it.")
        parts = [version, requirements.name, *sorted(extra_packages), server_package, self.server_lock]
        parts += _uv_settings(requirements, app_dir or requirements.parent)
        if self.wheelhouse:
            # Not names and sizes: a wheel that is built again has the name of the first, and often its size. The
            # digests cost a second for a gigabyte, and only when there is a release to build.
            parts += ["wheelhouse", *(f"{path.name} {file_digest(path)}" for path in packages_in(self.wheelhouse))]
        texts = {path: _read(path) for path in [requirements, *_included(requirements, self.top)]}
        local = _LOCAL_CODE.get(requirements.name, _LOCAL_CODE[""])
        if any(local.search(text) for text in texts.values()):
            # The code of this release is in the environment, which thus is of no use to another one.
            parts.append(str(requirements))
        digest = hashlib.sha256("\0".join(parts).encode())
        for path in texts:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def build(self, app_dir: Path, requirements: Path, extra_packages: list[str], server_package: str) -> Path:
        """Build the environment, unless a whole one is there.

        Args:
            app_dir: the app's folder in the new release.
            requirements: the file that pins the dependencies.
            extra_packages: pinned packages to put on top. If all have hashes, nothing without one is installed.
            server_package: the application server, pinned; an equal or newer one in the lock is kept.

        Returns:
            The environment's path.

        Raises:
            ReleaseError: the dependencies cannot be resolved, downloaded or built.
        """
        if not self.wheelhouse and server_package not in re.findall(r"^\S+", self.server_lock, re.MULTILINE):
            raise ReleaseError(
                "Build the environment",
                f"{server_package} has no hashes to verify it by.",
                "In the role app, pin the same version in files/server.txt and in server_package.",
            )
        target = self.folder / self.key(requirements, extra_packages, server_package, app_dir)
        if is_whole(target):
            return target
        if target.exists():
            remove(target)
        extra_file, server_file = target / "extra-packages.txt", target / "server.txt"
        target.mkdir(parents=True)
        # While the folder is still root's.
        for path, lines in ((extra_file, map(_one_line, extra_packages)), (server_file, [self.server_lock])):
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            path.chmod(0o644)
        self._make_room(target)
        # uv clears a folder that it may not remove: --allow-existing takes it as it is.
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
                    f"{requirements.name} pins {name} {present}; this release runs {wanted}, the oldest that is served."
                )
            # A wheelhouse is part of the app's code, and may hold a server that its owner has built.
            server = [server_package] if self.wheelhouse else ["--require-hashes", "-r", str(server_file)]
            self._uv(*install, *server, directory=app_dir, target=target)
        self._seal(target)
        with tree.folder(self.folder.parent, Path(BUILD_TEMPORARY).parent) as above:
            tree.remove(Path(BUILD_TEMPORARY).name, above)
        return target

    def _extra_options(self, requirements: Path, locked: Path, extra_packages: list[str]) -> list[str]:
        """What makes uv verify the extra packages; warn if they have no hashes and the lock has."""
        # The release's own files: what uv has exported lies in a folder that the app's user can write.
        files = [requirements, *_included(requirements)]
        lock_has_hashes = any(_HASHED.search(path.read_text(encoding="utf-8", errors="replace")) for path in files)
        bare = [entry.strip() for entry in extra_packages if not _HASHED.search(entry)]
        if not bare:
            # The lock's hashes count for what the extra packages depend on.
            return ["--require-hashes", *(["--constraint", str(locked)] if lock_has_hashes else [])]
        if lock_has_hashes or len(bare) < len(extra_packages):
            lines = "\\n".join(bare)
            self.warnings.append(
                f"extra_packages without hashes are installed unverified: {', '.join(bare)}. "
                f"{requirements.name if lock_has_hashes else 'Another of them'} has hashes. Add these packages to the "
                f"app's lock, or replace their entries with the output of: printf '{lines}' | uv pip compile "
                "--generate-hashes --no-header --no-annotate "
                f"--python-version {sys.version_info[0]}.{sys.version_info[1]} -"
            )
        return []

    def _make_room(self, target: Path) -> None:
        """Make the account that builds, and the two folders that it may write."""
        try:
            account = pwd.getpwnam(self.account)
        except KeyError:
            options = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
            status, out, err = self.run(["useradd", "--system", "--user-group", *options, self.account])
            if status:
                raise ReleaseError(
                    "Build the environment",
                    f"the account {self.account}, which builds, cannot be created: {tail(out + err, 3)}",
                    "Correct what useradd says, and run the same command again.",
                ) from None
            account = pwd.getpwnam(self.account)
        if self.cache.exists() and self.cache.stat().st_uid not in (0, account.pw_uid):
            # Of an earlier version of Flaskhost, where the app's own user built.
            shutil.rmtree(self.cache)
        for path, mode in ((target, 0o755), (self.cache, 0o700)):
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, account.pw_uid, account.pw_gid)
            path.chmod(mode)
        with tree.folder(self.folder.parent, Path(BUILD_TEMPORARY).parent, make=True) as above:
            # The app's user must not get there, nor this account to the temporary files of the app's units.
            os.fchmod(above, 0o700)
            # What another build has left there is none of this one's.
            name = Path(BUILD_TEMPORARY).name
            tree.remove(name, above)
            os.mkdir(name, 0o700, dir_fd=above)
            os.chown(name, account.pw_uid, account.pw_gid, dir_fd=above)

    def _reach(self, target: Path) -> list[str]:
        """What a build sees of the places where apps have theirs: its code, the new environment and the cache."""
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
            # No hard links: the cache stays the builder's, and what is in the environment may not.
            "UV_LINK_MODE": "copy",
            # The host's own certificate authorities, like every other program on it.
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
            # A wheelhouse holds all that is needed.
            outbound=not self.wheelhouse,
            builder=self.account,
            properties=self._reach(target),
        )
        status, out, err = self.run(command)
        if status:
            cure = (
                "Correct the lock or requirements file; 'uv pip compile' or 'uv lock' shows the same on your machine."
            )
            if self.wheelhouse:
                cure = (
                    f"Put every package, the application server too, into the wheelhouse {self.wheelhouse.name}, as "
                    f"wheels for this host's {Path(self.python).name}: 'pip download --only-binary=:all: --dest'."
                )
            said = tail(out + err)
            raise ReleaseError(
                "Build the environment", f"uv {arguments[0]} ended with {status}:\n{said}", cure_for(out + err, cure)
            )

    def _seal(self, target: Path) -> None:
        """Give the whole environment to root, writable to nobody else, and mark it.

        systemd has ended every process of the build by then. All the same nothing here follows a link.
        """
        builder = target.stat().st_uid
        # From the top down: a folder is root's before it is read, so that nobody exchanges what is in it meanwhile.
        os.chown(target, 0, 0)
        # A package may have put a file or a link there; an environment that is root's and has the mark is whole.
        (target / MARK).unlink(missing_ok=True)
        for folder, directories, files, descriptor in os.fwalk(target):
            if len(Path(folder).relative_to(target).parts) > _DEEPEST:
                raise ReleaseError(
                    "Build the environment",
                    f"its folders lie more than {_DEEPEST} deep in each other.",
                    "Take the package that makes them out of the dependencies.",
                )
            for name in directories + files:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if status.st_uid not in (builder, 0) or (status.st_nlink > 1 and stat.S_ISREG(status.st_mode)):
                    # uv copies: a second name of a file somewhere else would be given to root there, too.
                    raise ReleaseError(
                        "Build the environment",
                        f"{name} is a hard link, or somebody else's file.",
                        "Take the package that makes it while it is built out of the dependencies.",
                    )
                os.chown(name, 0, 0, dir_fd=descriptor, follow_symlinks=False)
                mode = status.st_mode
                if not stat.S_ISLNK(mode) and mode & 0o7022:
                    os.chmod(name, mode & 0o755, dir_fd=descriptor)
        (target / MARK).touch(mode=0o644, exist_ok=False)


def _uv_settings(requirements: Path, app_dir: Path) -> list[str]:
    """What uv goes by besides the lock: its settings in the code tree, and of a uv.lock the groups of the project.

    uv reads uv.toml or [tool.uv] of pyproject.toml from the folder where it runs, or the nearest above that has one.
    Here all of them count: one that uv passes over costs an environment too many, and one that is missed a wrong one.
    """
    found: list[str] = []
    for start in dict.fromkeys((requirements.parent, app_dir)):
        for place in (start, *start.parents):
            project = _toml(place / "pyproject.toml")
            groups = project.get("dependency-groups") if requirements.name == "uv.lock" else None
            tool = project.get("tool")
            settings = [_toml(place / "uv.toml"), tool.get("uv") if isinstance(tool, dict) else None, groups]
            # Not the folder's name, which is another one in each release.
            found += [json.dumps(item, sort_keys=True, default=str) for item in settings if item]
    return found


def _one_line(entry: str) -> str:
    """A requirement with its hashes as one line, whatever the lines that it was written in."""
    return " ".join(entry.replace("\\", " ").split())


def _toml(path: Path) -> dict[str, Any]:
    """A TOML file's content; of one that is damaged its text, and of one that is not there nothing."""
    try:
        text = _read(path, _LONGEST_SETTINGS)
    except OSError:
        return {}
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {"damaged": text}


def _included(requirements: Path, top: Path | None = None) -> list[Path]:
    """The files that a requirements file takes in with -r or -c, and theirs, each once.

    Raises:
        ReleaseError: one of them lies outside of the source, where root would read what the app may not.
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
                    "Build the environment",
                    f"{here.name} takes in {match.group(1)}, which is outside of the source.",
                    "Put that file into the source, and name it by its path there.",
                )
            if path.is_file() and path not in found and path != requirements.resolve():
                found.append(path)
                queue.append(path)
    return sorted(found)
