"""Build a release without touching the live one: code, virtual environment, variables, settings and static files."""

from __future__ import annotations

import grp
import itertools
import os
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.apps import placeholders
from ansible.module_utils.flaskhost.deploy import (
    assets,
    build_command,
    drivers,
    environment,
    procfile,
    source_files,
    virtualenv,
)
from ansible.module_utils.flaskhost.deploy.compress import compress
from ansible.module_utils.flaskhost.deploy.records import Record, Store
from ansible.module_utils.flaskhost.deploy.selection import Selection, missing_lock_cure
from ansible.module_utils.flaskhost.deploy.sources import archives, git
from ansible.module_utils.flaskhost.host import atomic, tree
from ansible.module_utils.flaskhost.host.pythons import Interpreter
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, sandboxed, stop_tasks, tail

#: Maximum number of bytes that are read from a Procfile.
_LONGEST_PROCFILE = 64 * 1024


class Build:
    """Builds one release of an app.

    Args:
        run: runs a command.
        options: the module's options, see plugins/modules/flask_release.py.
        store: the app's releases.
        note: receives the name of each step as it begins.
        interpreter: the Python interpreter of the release; None for the distribution's.
    """

    def __init__(
        self,
        run: Run,
        options: dict[str, Any],
        store: Store,
        note: Callable[[str], None],
        interpreter: Interpreter | None = None,
    ) -> None:
        self.run, self.options, self.store, self.note = run, options, store, note
        self.interpreter = interpreter
        self.user, self.data = options["user"], store.root / "data"
        self.warnings: list[str] = []
        #: The data folders that this build has created.
        self.new_folders: list[str] = []

    def make(self, identity: str, parts: dict[str, str], revision: str, variables: dict[str, str]) -> Record:
        """Build a release.

        Args:
            identity: the identity for its record.
            parts: the digests for its record.
            revision: the commit, or the digest of the folder or archive.
            variables: its variables, including secrets, with placeholders.

        Returns:
            Its record, already written: the release is complete.

        Raises:
            ReleaseError: the release cannot be built. The incomplete release is removed.
            OSError: the same, if the disk is full, for example.
        """
        stop_tasks(self.run, self.user)
        self.store.remove_partial()
        options = self.options
        version = options["source_version"] or options["source_path"] or options["source_archive"]
        record = Record(self._new_id(revision), identity, version, revision, by=options["by"], parts=parts)
        try:
            self._make(record, variables)
        except (ReleaseError, OSError):
            self.note("")
            self.store.remove_partial()
            self.store.remove_unused_environments()
            raise
        return record

    def _make(self, record: Record, variables: dict[str, str]) -> None:
        folder, subdir = self.store.path(record.id), self.options["source_subdir"]
        code = folder / "src"
        self.note("Fetch the code")
        # Closed to all other users until the modes and owners in it are set: an archive brings its own.
        folder.mkdir(parents=True, mode=0o700)
        code.mkdir(mode=0o755)
        self._fetch(record.revision, code)
        # Resolve links from the source: links to the app's data folders replace some of these folders later.
        app_dir, top = Path(os.path.realpath(code / subdir)), Path(os.path.realpath(code))
        if not app_dir.is_dir() or not app_dir.is_relative_to(top):
            raise ReleaseError("Unpack the code", f"the source has no folder {subdir!r}.", "Correct source.subdir.")
        self._check_persistent(app_dir)
        group = grp.getgrnam(self.user).gr_gid
        archives.seal(code, group)
        folder.chmod(0o755)
        inside = app_dir.relative_to(top)
        atomic.link(folder / "app", str("src" / inside))
        places = placeholders.places(str(self.store.root), self.options["host"], record.id)
        self.note("Build the virtual environment")
        record.venv = self._build(app_dir, top).name
        if self.builder.code_changed:
            self._check_folders("Build the virtual environment", "an editable package", app_dir)
        atomic.link(folder / "venv", f"../../venvs/{record.venv}")
        record.driver = self._driver(record.venv)
        self._run_build_command(app_dir, record, places, group)
        # Root reads the code before the data folders are linked in: behind those links, the app can replace files while
        # root reads them.
        static = assets.find_folder(app_dir, top, self.options["wsgi"], self.options["static_path"])
        self.note("Complete the release")
        self._commands(record, app_dir, folder)
        self._persist(app_dir)
        (folder / "static").mkdir(mode=0o755)
        if static and assets.publish(static, folder / "static", top):
            record.static = str("src" / static.relative_to(top))
            compress(folder / "static")
        if Path(self.options["server_config"]).exists():
            shutil.copy(self.options["server_config"], folder / "server.conf.py")
            (folder / "server.conf.py").chmod(0o644)
        self._write_files(app_dir, static, group, places)
        record.key_names = placeholders.key_names(variables)
        own = {"FLASKHOST_RELEASE": record.id, "FLASKHOST_RELEASE_DIR": places["release_dir"]}
        text = environment.render(
            {**placeholders.fill_variables(drivers.with_variable(variables, record.driver), places), **own}
        )
        atomic.write(folder / "env", text)
        # Survive a power failure from here on: if the record exists, the release is complete.
        os.sync()
        self.store.write(record)

    def _new_id(self, revision: str) -> str:
        # The time at which the run began on the control node, so that a release has the same name on all hosts.
        when = datetime.fromtimestamp(self.options["stamp"] or time.time(), UTC)
        name = f"{when:%Y%m%dT%H%M%SZ}-{revision[:7]}"
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(item for item in names if not self.store.path(item).exists())

    def _fetch(self, revision: str, code: Path) -> None:
        options = self.options
        replaced = [str(Path(options["source_subdir"]) / name) for name in options["persistent"]]
        if options["source_repo"]:
            self._fetch_commit(revision, code, replaced)
            return
        # Remove the deploy key of a repository that the app came from earlier.
        (Path(options["secrets_dir"]) / "deploy_key").unlink(missing_ok=True)
        archive, named = Path(options["archive"]), options["source_archive"]
        if archives.is_url(named):
            archive = code.with_name("source.archive")
            archives.download(named, options["source_checksum"], archive)
        elif named:
            archives.verify(archive, options["source_checksum"])
        archives.unpack(self.run, archive, code, replaced, strip=bool(named))
        if archives.is_url(named):
            archive.unlink()

    def _fetch_commit(self, revision: str, code: Path, replaced: list[str]) -> None:
        options, repository = self.options, self.store.root / "repository.git"
        repository.mkdir(mode=0o700, exist_ok=True)
        secrets_dir = Path(options["secrets_dir"])
        access = git.environment(secrets_dir, options["source_key"], options["source_known_hosts"])
        git.fetch_commit(self.run, repository, options["source_repo"], revision, access)
        warning = git.submodule_warning(self.run, repository, revision)
        self.warnings += [warning] if warning else []
        git.unpack_commit(self.run, repository, revision, code, replaced)

    def _run_build_command(self, app_dir: Path, record: Record, places: dict[str, str], group: int) -> None:
        """Run the build command before the data folders are linked in, so that it cannot write the app's data."""
        if not self.options["build_command"]:
            return
        self.note(build_command.STEP)
        folder = self.store.path(record.id)
        build_command.run(
            self.builder,
            self.options["build_command"],
            app_dir=app_dir,
            venv=self.store.venvs / record.venv,
            variables=build_command.variables(
                self.options["environment"],
                {*self.options["secrets"]},
                {**places, "release_dir": str(app_dir)},
                record.id,
            ),
            environment_file=folder / "build.env",
            group=group,
            timeout=self.options["build_timeout"],
        )
        self._check_folders(build_command.STEP, "the build command", app_dir)

    def _check_folders(self, step: str, who: str, app_dir: Path) -> None:
        """Check that what could write the code has not replaced the app's folder, or one above a persistent one."""
        if not app_dir.is_dir() or Path(os.path.realpath(app_dir)) != app_dir:
            raise ReleaseError(
                step,
                f"{who} replaced or removed the app's folder {self.options['source_subdir']!r}.",
                f"Change {who} so that the folder stays.",
            )
        self._check_persistent(app_dir)

    def _check_persistent(self, app_dir: Path) -> None:
        """Reject persistent folders behind a link: it can lead into another one of them, where the app can write."""
        for name in map(Path, self.options["persistent"]):
            for above in [path for path in reversed(name.parents) if (app_dir / path).is_symlink()]:
                raise ReleaseError(
                    "Unpack the code",
                    f"persistent names {name}, but {above} is a link to {(app_dir / above).readlink()} in the source.",
                    "Use the folder's real path in persistent, or replace the link by a folder.",
                )
            # The data folder replaces this link anyway. It is the only link that can lead out of the code.
            if (app_dir / name).is_symlink():
                (app_dir / name).unlink()

    def _persist(self, app_dir: Path) -> None:
        """Replace the persistent folders in the code with links to the data folder."""
        for name in map(Path, self.options["persistent"]):
            kept = self.data / name
            if not self._has_data(name):
                self._make_data(kept, app_dir / name)
                self.new_folders.append(str(name))
            with tree.folder(app_dir, name.parent, make=True) as parent:
                tree.remove(name.name, parent)
                os.symlink(kept, name.name, dir_fd=parent)

    def _write_files(self, app_dir: Path, static: Path | None, group: int, places: dict[str, str]) -> None:
        """Write the user's own files into the code, readable for root and the app only. Nothing is built after this.

        Args:
            app_dir: the app's folder, without links in its path.
            static: the folder of static files, which are published.
            group: the app's group.
            places: the values of the placeholders.

        Raises:
            ReleaseError: a file would be published, or its place is taken by something other than a file.
        """
        step = "Write the files"
        for name, content in sorted(self.options["files"].items()):
            path = Path(name)
            if static and (app_dir / path).is_relative_to(static):
                reason = f"files names {name}, but the web server publishes its folder {static.name}."
                raise ReleaseError(step, reason, "Choose a path outside of the static files.")
            try:
                with tree.folder(app_dir, path.parent, make=True) as parent:
                    with suppress(FileNotFoundError):
                        if not stat.S_ISREG(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
                            raise NotADirectoryError
                    here = Path(f"/proc/self/fd/{parent}") / path.name
                    atomic.write(here, placeholders.fill(content, places), mode=0o640, owner=(0, group))
            except (NotADirectoryError, IsADirectoryError):
                reason = f"files names {name}, but a link, a folder or another kind of file is in its path."
                raise ReleaseError(step, reason, "Choose another path, or remove it from the source.") from None
            except ValueError:
                # Without the error's own text, which contains the content.
                reason = f"files names {name!r}, whose path or content is not valid UTF-8."
                raise ReleaseError(step, reason, "Encode binary content as base64.") from None

    def _has_data(self, name: Path) -> bool:
        """Check whether a data folder exists. A link of the app or the operator counts and is not followed."""
        try:
            # The operator can have moved the whole data folder to another disk.
            with tree.folder(Path(os.path.realpath(self.data)), name.parent) as parent:
                os.stat(name.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            # Behind a link: check with the permissions of the app's user.
            test = ["test", "-e", str(self.data / name)]
            return self.run(sandboxed(test, user=self.user, root=str(self.data.parent), directory="/"))[0] == 0
        return True

    def _make_data(self, kept: Path, place: Path) -> None:
        """Create a data folder with the files that the code ships for it, as the app's user, who owns the data."""
        # Atomic, because an existing folder is never completed later.
        partial = str(kept.with_name(f"{kept.name}.partial"))
        commands = [["rm", "--recursive", "--force", partial], ["mkdir", "--parents", partial]]
        if place.is_dir() and not place.is_symlink():
            commands.append(["cp", "--recursive", "--no-target-directory", str(place), partial])
        commands.append(["mv", "--no-target-directory", partial, str(kept)])
        for command in commands:
            wrapped = sandboxed(
                command, user=self.user, root=str(self.data.parent), directory="/", writable=[str(self.data)]
            )
            status, _out, err = self.run(wrapped)
            if status:
                raise ReleaseError("Create the data folder", tail(err, 5), f"Check {kept} and the free disk space.")

    def _build(self, app_dir: Path, code: Path) -> Path:
        options = self.options
        requirements = source_files.find_requirements(app_dir, options["requirements"], code)
        if not requirements:
            wanted = options["requirements"] or ", ".join(source_files.CANDIDATES)
            raise ReleaseError(
                "Build the virtual environment",
                f"the source has no file that pins its dependencies. Supported: {wanted}.",
                missing_lock_cure(app_dir),
            )
        self.builder = builder = virtualenv.Builder(
            self.run,
            user=self.user,
            code=code,
            folder=self.store.venvs,
            cache=Path(options["cache_dir"]) / options["app"],
            uv=options["uv"],
            interpreter=self.interpreter or Interpreter(options["python"]),
            index_url=options["index_url"],
            wheelhouse=source_files.find_wheelhouse(app_dir, options["wheelhouse"], code),
            top=code,
            server_lock=options["server_lock"],
            selection=Selection.from_options(options["install"]),
            timeout=options["build_timeout"],
            build_packages=options["build_packages"],
        )
        built = builder.build(app_dir, requirements, options["extra_packages"], options["server_package"])
        self.warnings += builder.warnings
        return built

    def _driver(self, venv: str) -> str:
        """Return the driver for the database; empty if the app has a URL of its own, or no driver.

        Raises:
            ReleaseError: SQLAlchemy could not connect, and the live release does not have the same fault.
        """
        named = self.options.get("database_driver", "")
        if not named:
            return ""
        there = drivers.packages(self.store.venvs / venv)
        self.note(drivers.STEP)
        warning = drivers.check(there, drivers.packages(self.store.root / "current" / "venv"), named)
        self.warnings += [warning] if warning else []
        return drivers.choose(there, named)

    def _commands(self, record: Record, app_dir: Path, folder: Path) -> None:
        """Record the other commands of the release: its processes, its timers, its release command."""
        path = app_dir / "Procfile"
        lines = {}
        if path.is_file() and not path.is_symlink():
            text = archives.read_text(path, _LONGEST_PROCFILE, "Read the processes")
            lines = procfile.read_procfile(text)
        record.processes = procfile.wanted(self.options["processes"], lines)
        record.timers = {name: dict(timer) for name, timer in self.options["timers"].items()}
        record.memory_mb, record.drain = self.options["memory_mb"], self.options["drain"]
        record.release_command = self.options["release_command"] or lines.get("release", "")
        scripts = folder / "processes"
        scripts.mkdir(mode=0o755)
        for name, text in procfile.scripts(record.processes, record.timers).items():
            (scripts / name).write_text(text, encoding="utf-8")
            (scripts / name).chmod(0o644)
