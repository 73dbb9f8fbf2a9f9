"""The virtual environment of a release: one for each lock file, built by uv, and never changed afterwards."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ansible.module_utils.flaskhost.deploy import (
    build_errors,
    drivers,
    lockfiles,
    ownership,
    pins,
    python_range,
    resolution,
    source_files,
)
from ansible.module_utils.flaskhost.deploy.build_room import Room
from ansible.module_utils.flaskhost.deploy.hints import hint
from ansible.module_utils.flaskhost.deploy.selection import (
    LONGEST_LOCK,
    Selection,
    check_project,
    find_fault,
    project_folder,
    read_project,
)
from ansible.module_utils.flaskhost.deploy.sources import archives
from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.pythons import Interpreter
from ansible.module_utils.flaskhost.host.runner import (
    ReleaseError,
    Run,
    cure_for,
    sandboxed,
    tail,
)

#: Written last: an environment without this file was interrupted, and is rebuilt.
MARK = ".complete"
#: The hash of a package in a requirements file.
_HASHED = re.compile(r"--hash=")
#: Maximum number of nested folders and of entries in an environment. Large ones have some 100,000 entries.
_DEEPEST, _MOST_FILES = 100, 1_000_000
#: Time limit in seconds for a question to the package index that only improves a message.
_QUESTION = 30
#: The minor versions of Python for which a message names wheels.
_PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: 27.0.1 as (27, 0, 1)."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


def installed_version(environment: Path, package: str) -> str:
    """Return the version of a package in an environment; empty if it is not installed."""
    return drivers.packages(environment).get(pins.normalized(package), "")


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


class Builder(Room):
    """Builds the virtual environments of one app.

    Args:
        run, user, code, folder, cache: see :class:`build_room.Room`.
        uv: the path of uv.
        interpreter: the Python interpreter.
        index_url: the package index; empty for uv's default and the host's uv.toml.
        wheelhouse: a folder with all packages, which is then the only source of packages.
        top: the folder of the whole source; files outside of it are not included. If None, the folder of the lock file.
        server_lock: the application server and its dependencies, pinned, with their hashes.
        selection: the extras, the groups and the project to install.
        timeout: time limit for each step of a build, in seconds.
        build_packages: the Debian packages for builds that the app names, for messages.
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
        interpreter: Interpreter,
        index_url: str = "",
        wheelhouse: Path | None = None,
        top: Path | None = None,
        server_lock: str = "",
        selection: Selection | None = None,
        timeout: int = 900,
        build_packages: Iterable[str] = (),
    ) -> None:
        super().__init__(run, user=user, code=code, folder=folder, cache=cache)
        self.timeout, self.build_packages = timeout, [*build_packages]
        self.uv, self.python, self.index_url = uv, interpreter.path, index_url
        self.python_version, self._distribution = interpreter.version, ""
        self.wheelhouse, self.top, self.server_lock = wheelhouse, top, server_lock
        self.selection = selection or Selection()
        self.warnings: list[str] = []

    def key(
        self, requirements: Path, extra_packages: list[str], server_package: str, app_dir: Path | None = None
    ) -> str:
        """Return the name of the environment: a digest of everything that decides its contents.

        The arguments are those of :meth:`build`; ``app_dir`` defaults to the folder of ``requirements``.
        """
        parts, texts = self._inputs(requirements, app_dir or requirements.parent)
        # In the place that they always had: another name would build each environment anew.
        parts[2:2] = [*sorted(extra_packages), server_package, self.server_lock]
        if self.python_version:
            # The environment's links lead to this very version. The versions that are kept outlast it: see _kept.
            parts.append(f"python {self.python_version}")
        local = source_files.LOCAL_CODE.get(requirements.name, source_files.LOCAL_CODE[""])
        if lockfiles.kind(requirements.name) in ("", "uv.lock"):
            has_local = any(local.search(text) for text in texts.values())
        else:
            has_local = any(pin.local for pin in self._converted(requirements))
        if self.selection.project or has_local:
            # The environment contains this release's code, so no other release can use it.
            parts.append(str(requirements))
        return _digest(parts, texts)

    def _inputs(self, requirements: Path, app_dir: Path) -> tuple[list[str], dict[Path, str]]:
        """Return what decides which versions of the app's own packages are installed, and the files' contents."""
        # Without the patch level: an environment keeps working after the distribution's security updates of Python.
        question = "import sys, sysconfig; print(sys.version_info[:2], sysconfig.get_platform())"
        status, version, err = self.run([self.python, "-c", question])
        if status:
            raise ReleaseError("Build the virtual environment", f"{self.python} failed: {tail(err, 3)}", "Install it.")
        self._distribution = ".".join(re.findall(r"\d+", version)[:2])
        parts = [version, requirements.name, *source_files.uv_settings(requirements, app_dir)]
        if self.wheelhouse:
            # Names and sizes are not enough: a rebuilt wheel has the same name, and often the same size. The digests
            # take a second for a gigabyte, and only when a release is built.
            parts += ["wheelhouse", *_digests(source_files.packages_in(self.wheelhouse))]
        if lockfiles.kind(requirements.name):
            # Earlier versions of Flaskhost resolved the packages of a lock file anew.
            parts += ["as locked", *self._member(requirements, app_dir)]
        if self.selection:
            parts.append(repr(self.selection))
        return parts, source_files.read_all(requirements, self.top)

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
                "In the role of the application server, run make lock after a change of files/server.in.",
            )
        target = self.folder / self.key(requirements, extra_packages, server_package, app_dir)
        if is_whole(target):
            return target
        if target.exists():
            remove(target)
        check_project(requirements)
        self._check_python(requirements, app_dir)
        if self.selection and (fault := find_fault(self.selection, requirements, app_dir)):
            raise ReleaseError(pins.STEP, f"install.{fault.option}: {fault.problem}", fault.cure)
        target.mkdir(parents=True)
        self.make_room()
        locked = self._locked(requirements, app_dir, target)
        name, _, wanted = server_package.partition("==")
        kept = self._kept(requirements, app_dir)
        lists = _write_lists(target, {
            "extra-packages": [_one_line(entry) for entry in extra_packages],
            "server": [self.server_lock],
            "locked": [pin.line for pin in locked],
            "kept": resolution.read(kept) if kept else [],
            "constraints": [pin.line for pin in locked if pin.version],
            "constraints-server": [pin.line for pin in locked if pin.version and pin.name != pins.normalized(name)],
        })  # fmt: skip
        account = pwd.getpwnam(self.account)
        os.chown(target, account.pw_uid, account.pw_gid)
        target.chmod(0o755)
        # uv clears a folder that it cannot remove; --allow-existing uses the folder as it is.
        self._uv("venv", "--quiet", "--allow-existing", "--python", self.python, str(target), directory=app_dir)
        extra: list[str] = []
        if extra_packages:
            # This reads the code, so it comes before a package can have changed it.
            constraints = lists["constraints"] if locked else None
            extra = self._extra_options(requirements, locked, extra_packages, constraints)
        with self._writable(requirements, locked, target) as place:
            if lockfiles.kind(requirements.name):
                # Paths in the file start at the lock file's folder.
                hashes = ["--require-hashes"] if all(pin.hashed and pin.version for pin in locked) else []
                install = ["--no-deps", *hashes, "-r", str(lists["locked"])]
                self._pip(*install, directory=place(requirements.parent), target=target)
            else:
                self._resolve(requirements, app_dir, target, kept=kept, constraints=lists["kept"], place=place)
        if extra_packages:
            with self._explained("extra_packages", requirements, locked, lists["extra-packages"], target):
                self._pip("-r", str(lists["extra-packages"]), *extra, directory=app_dir, target=target)
        present = installed_version(target, name)
        if version_tuple(present) < version_tuple(wanted):
            if present:
                self.warnings.append(
                    f"{requirements.name} pins {name} {present}; this release runs {wanted}, the oldest supported "
                    "version."
                )
            # A wheelhouse is part of the app's code, and can contain a server that the app's owner has built.
            server = [server_package] if self.wheelhouse else ["--require-hashes", "-r", str(lists["server"])]
            others = [pin for pin in locked if pin.name != pins.normalized(name)]
            server += ["--constraint", str(lists["constraints-server"])] if others else []
            with self._explained(server_package, requirements, others, lists["server"], target):
                self._pip(*server, directory=app_dir, target=target)
        if self.selection.project:
            self._install_project(project_folder(requirements, app_dir), target)
        # uv makes the lock files in its cache writable for everyone. Their folder is closed to others, but scanners
        # report them.
        narrow = ["find", str(self.cache), "-type", "f", "-perm", "/o=w", "-exec", "chmod", "o-w", "{}", "+"]
        self._sandboxed(narrow, directory=target, target=target, explain=False)
        self._seal(target)
        self.remove_room()
        return target

    def _locked(self, requirements: Path, app_dir: Path, target: Path) -> list[pins.Pin]:
        """Return what a lock file pins; nothing for a requirements file. Warn about packages without hashes."""
        name, folder = requirements.name, requirements.parent
        if not lockfiles.kind(name):
            return []
        if name != "uv.lock":
            found = self._converted(requirements)
        else:
            groups = [f"--group={group}" for group in self.selection.groups]
            choices = [
                *([] if "dev" in self.selection.groups else ["--no-dev"]),
                *(f"--extra={extra}" for extra in self.selection.extras),
                *groups,
                *self._member(requirements, app_dir),
            ]
            export = ["export", "--frozen", "--no-emit-project", "--no-header", "--no-annotate", "--quiet"]
            export += ["--format", "requirements-txt", "--python", self.python, *choices]
            lines = pins.logical_lines(self._uv(*export, directory=folder, target=target)[0])
            found = pins.read(lines, name, folder, self.top or folder)
        bare = [pin.line.partition(" ;")[0] for pin in found if not pin.hashed]
        if bare:
            self.warnings.append(
                f"{name} has no hashes for {', '.join(bare[:5])}{' and others' if bare[5:] else ''}: installed "
                "unverified. Lock again from an index that publishes hashes."
            )
        return found

    def _converted(self, requirements: Path) -> list[pins.Pin]:
        lines = lockfiles.lines(requirements.name, source_files.read_lock(requirements), self.selection)
        return pins.read(lines, requirements.name, requirements.parent, self.top or requirements.parent)

    def _member(self, requirements: Path, app_dir: Path) -> list[str]:
        """Return uv's option for an app that is a member of a workspace, whose lock file is at the workspace's top."""
        if requirements.name != "uv.lock" or app_dir == requirements.parent:
            return []
        project = read_project(app_dir).get("project")
        name = project.get("name") if isinstance(project, dict) else None
        manifest = source_files.read_toml(requirements, LONGEST_LOCK).get("manifest")
        members = manifest.get("members") if isinstance(manifest, dict) else None
        return [f"--package={name}"] if isinstance(name, str) and name in (members or ()) else []

    def _kept(self, requirements: Path, app_dir: Path) -> Path | None:
        """Return the file that keeps the versions of a requirements file's packages; None if nothing has to be kept."""
        if self.wheelhouse or lockfiles.kind(requirements.name):
            return None
        return self.folder.parent / "resolved" / f"{_digest(*self._inputs(requirements, app_dir))}.txt"

    @contextlib.contextmanager
    def _writable(self, requirements: Path, locked: list[pins.Pin], target: Path) -> Iterator[Callable[[Path], Path]]:
        """Provide the code to build packages from, as a function that finds a path of the code there.

        Build backends write into the folder that they build, and the code is read-only, so they get a copy. Editable
        packages run from the folder in which they were built. For them, the code belongs to the build account until
        they are installed.
        """
        if lockfiles.kind(requirements.name):
            local = any(pin.local for pin in locked)
            editable = any(pin.line.startswith("-e ") for pin in locked)
        else:
            text = "\n".join(source_files.read_all(requirements, self.top).values())
            pattern = source_files.LOCAL_CODE.get(requirements.name, source_files.LOCAL_CODE[""])
            local, editable = bool(pattern.search(text)), bool(source_files.EDITABLE.search(text))
        if not local:
            yield lambda path: path
            return
        if editable:
            self.lend_code()
            yield lambda path: path
            self.take_back_code(grp.getgrnam(self.user).gr_gid, "Build the virtual environment", "an editable package")
            return
        copy, code = target / "code", os.path.realpath(self.code)
        arguments = ["cp", "--recursive", "--no-target-directory", str(self.code), str(copy)]
        self._sandboxed(arguments, directory=target, target=target)
        yield lambda path: copy / Path(os.path.realpath(path)).relative_to(code)
        with tree.folder(target) as inside:
            tree.remove(copy.name, inside)

    def _resolve(
        self,
        requirements: Path,
        app_dir: Path,
        target: Path,
        *,
        kept: Path | None,
        constraints: Path,
        place: Callable[[Path], Path],
    ) -> None:
        """Install the packages of a requirements file, in the versions of the last time if they were kept."""
        # Before a package is built, which may be able to write the code.
        named = resolution.direct_requirements(source_files.read_all(requirements, self.top), self.selection)
        file, directory = place(requirements), place(app_dir)
        arguments, known = ["-r", str(file), *self._choices(file)], bool(kept and kept.exists())
        constrained = ["--constraint", str(constraints)] if known else []
        try:
            self._pip(*arguments, *constrained, directory=directory, target=target)
        except ReleaseError:
            if not known:
                raise
            self.warnings.append(f"The versions in {kept} can no longer be installed, so newer ones were.")
            self._pip(*arguments, directory=directory, target=target)
        found = drivers.packages(target, from_index=True)
        if not kept or not found:
            return
        packages = resolution.unpinned(named)
        # A dependency that no file names is not pinned either, but that alone is not worth a warning.
        if packages or found.keys() - resolution.names(named):
            resolution.write(kept, found)
        if packages:
            self.warnings.append(resolution.warning(requirements.name, packages, kept))

    def _choices(self, requirements: Path) -> list[str]:
        """Return uv's options for the extras and groups of a pyproject.toml without a lock file."""
        groups = [item for group in self.selection.groups for item in ("--group", f"{requirements}:{group}")]
        return [*(f"--extra={extra}" for extra in self.selection.extras), *groups]

    @contextlib.contextmanager
    def _explained(
        self, wanted_by: str, requirements: Path, locked: list[pins.Pin], wanted: Path, target: Path
    ) -> Iterator[None]:
        """Explain a failed installation by the locked packages that it would need in another version."""
        try:
            yield
        except ReleaseError:
            names = {pin.name for pin in locked if pin.version}
            conflicts = [item for item in self._would_change(wanted, target) if item[0] in names] if names else []
            if not conflicts:
                raise
            name, _, version = conflicts[0]
            need = ", ".join(f"{name} {new}" for name, _, new in conflicts)
            have = ", ".join(f"{name} {old}" for name, old, _ in conflicts)
            raise ReleaseError(
                pins.STEP,
                f"{wanted_by} needs {need}, but {requirements.name} pins {have}.",
                f"{lockfiles.change(requirements.name, name, version)}, or choose versions in extra_packages that work "
                f"with {have}.",
            ) from None

    def _would_change(self, wanted: Path, target: Path) -> list[tuple[str, str, str]]:
        """Return the packages that uv would replace if nothing were locked, with their old and new versions.

        Nothing is installed, nor built.
        """
        install = ["pip", "install", "--dry-run", "--no-build", "--color=never", "--python", str(target)]
        try:
            said = "".join(self._uv(*install, *self._sources(), "-r", str(wanted), directory=target, target=target))
        except ReleaseError:
            return []
        lines = re.findall(r"(?m)^ ([+-]) ([\w.-]+)==(\S+)$", said)
        old = {pins.normalized(name): version for sign, name, version in lines if sign == "-"}
        new = {pins.normalized(name): version for sign, name, version in lines if sign == "+"}
        return [(name, version, new[name]) for name, version in sorted(old.items()) if name in new]

    def _install_project(self, folder: Path, target: Path) -> None:
        """Build the project, and install it without its dependencies. Build backends write into a copy of the code."""
        copy = target / "project"
        arguments = ["cp", "--recursive", "--no-target-directory", str(folder), str(copy)]
        self._sandboxed(arguments, directory=target, target=target)
        self._pip("--no-deps", str(copy), directory=folder, target=target)
        with tree.folder(target) as inside:
            tree.remove(copy.name, inside)

    def _extra_options(
        self, requirements: Path, locked: list[pins.Pin], extra_packages: list[str], constraints: Path | None
    ) -> list[str]:
        """Return the options with which uv verifies the extra packages. Warn if only the lock has hashes."""
        files = [] if locked else [requirements, *source_files.included(requirements)]
        lock_has_hashes = any(pin.hashed and pin.version for pin in locked)
        lock_has_hashes |= any(_HASHED.search(path.read_text(encoding="utf-8", errors="replace")) for path in files)
        bare = [entry.strip() for entry in extra_packages if not _HASHED.search(entry)]
        if not bare:
            # The lock's hashes apply to the dependencies of the extra packages.
            constraints = constraints or (requirements if lock_has_hashes else None)
            return ["--require-hashes", *(["--constraint", str(constraints)] if constraints else [])]
        if lock_has_hashes or len(bare) < len(extra_packages):
            lines = "\\n".join(bare)
            self.warnings.append(
                f"extra_packages without hashes are installed unverified: {', '.join(bare)}. "
                f"{requirements.name if lock_has_hashes else 'Another extra package'} has hashes. Add these packages "
                f"to the app's lock, or replace their entries with the output of: printf '{lines}' | uv pip compile "
                f"--generate-hashes --no-header --no-annotate --python-version {self._minor()} -"
            )
        return ["--constraint", str(constraints)] if constraints else []

    def _minor(self) -> str:
        """Return the minor version of the interpreter, such as 3.12."""
        return self.python_version.rpartition(".")[0] or self._distribution

    def _check_python(self, requirements: Path, app_dir: Path) -> None:
        """Check that the project supports the interpreter.

        Raises:
            ReleaseError: it does not.
        """
        version = self.python_version or self._distribution
        fault = python_range.find_fault(requirements, app_dir, version, chosen=bool(self.python_version))
        if fault:
            cure = f"Change the range in the source to one that contains {version}."
            if fault.better:
                cure = (
                    f'Set the app\'s option python: "{fault.better}". Then run site.yml, which installs that version.'
                )
            raise ReleaseError(pins.STEP, fault.problem, cure)

    def _pip(self, *arguments: str, directory: Path, target: Path) -> None:
        install = ["pip", "install", "--quiet", "--compile-bytecode", "--python", str(target), *self._sources()]
        self._uv(*install, *arguments, directory=directory, target=target)

    def _sources(self) -> list[str]:
        return ["--no-index", "--find-links", str(self.wheelhouse)] if self.wheelhouse else []

    def _uv(self, *arguments: str, directory: Path, target: Path | None = None) -> tuple[str, str]:
        return self._sandboxed([self.uv, *arguments], directory=directory, target=target or Path(arguments[-1]))

    def _sandboxed(
        self, arguments: list[str], *, directory: Path, target: Path, explain: bool = True, timeout: int = 0
    ) -> tuple[str, str]:
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
        writable = [target, self.cache, *([self.code] if self.code_lent else [])]
        command = sandboxed(
            arguments,
            user=self.user,
            root=str(self.folder.parent),
            directory=str(directory),
            writable=[str(path) for path in writable],
            environment=environment,
            # A wheelhouse contains everything that is needed.
            outbound=not self.wheelhouse,
            builder=self.account,
            timeout=timeout or self.timeout,
            properties=self.reach([] if self.code_lent else [self.code], writable),
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
            said = out + err
            reason = f"{Path(arguments[0]).name} {arguments[1]} failed with status {status}:\n{tail(said)}"
            why = self._explain(said, directory, target) if explain else None
            if why:
                reason, cure = why.reason, why.cure if not self.wheelhouse else f"{why.cure} {cure}"
            else:
                cure += hint(said)
            raise ReleaseError("Build the virtual environment", reason, cure_for(said, cure))
        return out, err

    def _explain(self, said: str, directory: Path, target: Path) -> build_errors.Explanation | None:
        """Explain why uv failed, if a package could not be built or has no wheel for this Python."""
        own = self._minor()

        def wheels_for(pin: str) -> list[str]:
            others = [version for version in _PYTHONS if version != own]
            return [version for version in others if self._has_wheel(pin, version, directory, target)]

        return build_errors.explain(said, own, present=self.build_packages, wheels_for=wheels_for)

    def _has_wheel(self, pin: str, python: str, directory: Path, target: Path) -> bool:
        """Check whether a pinned package has a wheel for another Python. Nothing is installed, nor built."""
        install = ["pip", "install", "--quiet", "--dry-run", "--no-deps", "--no-build", "--reinstall"]
        command = [self.uv, *install, "--python", str(target), "--python-version", python, *self._sources(), pin]
        try:
            self._sandboxed(command, directory=directory, target=target, explain=False, timeout=_QUESTION)
        except ReleaseError:
            return False
        return True

    def _seal(self, target: Path) -> None:
        """Give the whole environment to root, make it read-only for everyone else, and mark it as complete."""
        builder = target.stat().st_uid
        os.chown(target, 0, 0)
        # A package can have put a file or a link there, and root's ownership together with the mark means complete.
        (target / MARK).unlink(missing_ok=True)
        try:
            # uv copies files, so a hard link is another name of a foreign file.
            ownership.reclaim(target, builder, 0, lambda mode: mode & 0o755, deepest=_DEEPEST, most=_MOST_FILES)
        except ownership.Unfit as error:
            cure = "Remove the package whose build creates it from the dependencies."
            raise ReleaseError("Build the virtual environment", str(error), cure) from None
        (target / MARK).touch(mode=0o644, exist_ok=False)


def _digests(packages: list[Path]) -> Iterator[str]:
    """Yield each file's name and digest. A file with many names, which can be large, is read once."""
    known: dict[tuple[int, int], str] = {}
    for path in packages:
        status = path.stat()
        file = status.st_dev, status.st_ino
        if file not in known:
            known[file] = archives.file_digest(path)
        yield f"{path.name} {known[file]}"


def _digest(parts: list[str], texts: dict[Path, str]) -> str:
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in texts:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _write_lists(target: Path, lists: dict[str, list[str]]) -> dict[str, Path]:
    """Write the requirements files of an environment, which must still belong to root."""
    paths = {name: target / f"{name}.txt" for name in lists}
    for name, path in paths.items():
        path.write_text("".join(f"{line}\n" for line in lists[name]), encoding="utf-8")
        path.chmod(0o644)
    return paths


def _one_line(entry: str) -> str:
    """Join a requirement and its hashes into one line."""
    return " ".join(entry.replace("\\", " ").split())
