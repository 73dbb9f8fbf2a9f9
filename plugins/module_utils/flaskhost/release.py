"""The state machine that brings a release of one app into service on one host.

lock, resolve, fetch, build, release command, start the idle slot, gate, flip, drain, prune. Every step can be repeated:
a run that was killed leaves at most a release that is not whole, which the next run removes, or one that is whole and
not served, which the next run takes up. Until the flip the slot that serves is not touched.
"""

from __future__ import annotations

import fcntl
import functools
import grp
import hashlib
import itertools
import json
import os
import pwd
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Whole names, here and beside: Mitogen does not find what is imported by a relative one.
import ansible.module_utils.flaskhost.environment as environment  # noqa: PLR0402
import ansible.module_utils.flaskhost.source as source  # noqa: PLR0402
import ansible.module_utils.flaskhost.virtualenv as virtualenv  # noqa: PLR0402
from ansible.module_utils.flaskhost.app_model import SLOTS
from ansible.module_utils.flaskhost.runner import ReleaseError, Run, sandboxed, stop_tasks, tail
from ansible.module_utils.flaskhost.slots import Slots, replace_link

#: The record of a release. Written last: a release without it is not whole.
RECORD = "release.json"


@dataclass
class Record:
    """What is known of a release; ``release.json`` in its folder, which only root reads.

    Attributes:
        id: UTC time and the beginning of the commit or digest.
        identity: digest of all that decides how the release behaves; the same identity is the same release.
        version: what the user asked for: a branch, a tag, a commit, or the folder.
        revision: the commit, or the digest of the folder.
        venv: the name of the environment.
        created: seconds since 1970.
        healthy: whether it has passed the gate at least once.
    """

    id: str
    identity: str
    version: str
    revision: str
    venv: str = ""
    created: float = field(default_factory=time.time)
    healthy: bool = False


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        changed: whether anything on the host changed, or would in check mode.
        release: the release that serves afterwards.
        revision: its commit or digest.
        slot: its slot.
        previous: the release that served before; empty when none.
        needs_source: the folder's archive has to be sent before the run can go on.
        warnings: what the operator should know.
    """

    changed: bool = False
    release: str = ""
    revision: str = ""
    slot: str = ""
    previous: str = ""
    needs_source: bool = False
    warnings: list[str] = field(default_factory=list)


class Deployment:
    """Brings the wanted release of one app into service.

    Args:
        run: runs a command, as ``AnsibleModule.run_command`` does.
        options: the module's options, see plugins/modules/flask_release.py.
        check: only tell what would be done.
        pause: waits some seconds; another one in tests.
    """

    def __init__(
        self, run: Run, options: dict[str, Any], check: bool = False, pause: Callable[[float], None] = time.sleep
    ) -> None:
        # AnsibleModule puts root's own variables in the place of $NAME in an argument, unless told not to.
        self.run = run = functools.partial(run, expand_user_and_vars=False)
        self.options, self.check = options, check
        self.root = Path(options["root"])
        self.releases, self.venvs = self.root / "releases", self.root / "venvs"
        self.data, self.secrets_dir = self.root / "data", Path(options["secrets_dir"])
        self.user = options["user"]
        self.outcome = Outcome()
        self.slots = Slots(
            run,
            unit=options["unit"],
            root=self.root,
            socket_dir=Path(options["socket_dir"]),
            live_socket=Path(options["live_socket"]),
            pause=pause,
        )

    def deploy(self) -> Outcome:
        """Bring the wanted release into service, or do nothing where it is.

        Returns:
            What was done.

        Raises:
            ReleaseError: it cannot be; what served before still serves.
        """
        if self.check:
            return self._deploy()
        # Whatever the one who logged in has: the app and the web server have to get through the folders.
        os.umask(0o022)
        self._folders()
        with self._lock():
            return self._deploy()

    def _deploy(self) -> Outcome:
        live = self.slots.live()
        serving = self.record(self.slots.release(live)) if live else None
        revision = self._revision()
        variables = self._variables()
        identity = self._identity(revision, variables)
        self.outcome.previous = serving.id if serving else ""
        if serving and serving.identity == identity and self._has_environment(serving):
            self._repair(live, serving)
            return self.outcome
        self.outcome.changed = True
        self.outcome.revision = revision
        if self.check:
            return self.outcome
        wanted = self._whole(identity) or self._prepare(identity, revision, variables)
        if not wanted:
            self.outcome.needs_source = True
            return self.outcome
        self._release_command(wanted)
        self._serve(wanted, live)
        return self.outcome

    # -- what is wanted ---------------------------------------------------------------------------------------------

    def _revision(self) -> str:
        if self.options["source_digest"]:
            return self.options["source_digest"]
        git = shutil.which("git")
        if not git and self.check:
            # A bare host: the roles would have installed it by now.
            return self.options["source_version"]
        return source.resolve_commit(
            self.run, self.root / "repository.git", self.options["source_repo"], self.options["source_version"]
        )

    def _variables(self) -> dict[str, str]:
        """The release's variables, but for its own name."""
        variables = {**self.options["environment"], **self.options["secrets"]}
        if "SECRET_KEY" not in variables:
            variables["SECRET_KEY"] = environment.secret_key(self.secrets_dir, create=not self.check)
        return variables

    def _identity(self, revision: str, variables: dict[str, str]) -> str:
        names = "source_subdir wsgi requirements extra_packages server_package python persistent static_path"
        # The interpreter's minor version too: an upgrade of the distribution leaves no environment working.
        parts: list[Any] = [
            *sys.version_info[:2],
            revision,
            environment.render(variables),
            self.options["release_command"],
        ]
        parts += [self.options[name] for name in names.split()]
        parts += [Path(path).read_text() if Path(path).exists() else "" for path in self._config_files()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _config_files(self) -> list[str]:
        return [self.options["server_config"], *self.options["unit_files"]]

    # -- making a release -------------------------------------------------------------------------------------------

    def _folders(self) -> None:
        """Make the app's folders, each with the owner that keeps apps apart."""
        uid, gid = pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.user).gr_gid
        wanted = [
            (self.root, 0, 0, 0o755),
            (self.releases, 0, 0, 0o755),
            (self.venvs, 0, gid, 0o750),
            (self.data, uid, gid, 0o700),
            (self.secrets_dir.parent, 0, 0, 0o755),
            (self.secrets_dir, 0, 0, 0o700),
        ]
        for path, owner, group, mode in wanted:
            if not path.is_dir():
                path.mkdir(parents=True, mode=0o700)
                self.outcome.changed = True
            status = path.stat()
            if (status.st_uid, status.st_gid, status.st_mode & 0o7777) != (owner, group, mode):
                os.chown(path, owner, group)
                path.chmod(mode)
                self.outcome.changed = True

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep a second deploy of the same app out; the kernel lets go of the lock when this process ends."""
        with (self.root / ".lock").open("a+") as stream:
            # Who can open it can hold it.
            os.fchmod(stream.fileno(), 0o600)
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                raise ReleaseError(
                    "Lock the app", f"another deploy holds it: {stream.read().strip()}", "Wait for it, then run again."
                ) from None
            stream.truncate(0)
            stream.write(f"process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
            stream.flush()
            yield

    def _whole(self, identity: str) -> Record | None:
        """A release of this identity that was built before and does not serve: a run was killed, or refused."""
        found = (item for item in self.all_records() if item.identity == identity and self._has_environment(item))
        return next(found, None)

    def _has_environment(self, record: Record) -> bool:
        return bool(record.venv) and virtualenv.is_whole(self.venvs / record.venv)

    def _prepare(self, identity: str, revision: str, variables: dict[str, str]) -> Record | None:
        """Build the release aside from what runs; None when the folder's archive is not here yet."""
        archive = self.options["archive"]
        if self.options["source_digest"] and not archive:
            return None
        stop_tasks(self.run, self.user)
        version = self.options["source_version"] or self.options["source_path"]
        self._remove_partial()
        record = Record(self._new_id(revision), identity, version, revision)
        folder = self.releases / record.id
        code = folder / "src"
        code.mkdir(parents=True, mode=0o755)
        self._fetch(revision, Path(archive) if archive else None, code)
        subdir = self.options["source_subdir"]
        app_dir = code / subdir
        if not app_dir.is_dir():
            raise ReleaseError("Unpack the code", f"it has no folder {subdir!r}.", "Correct source.subdir.")
        group = grp.getgrnam(self.user).gr_gid
        source.seal(code, group)
        self._persist(app_dir)
        replace_link(folder / "app", f"src/{subdir}".rstrip("/"))
        environment_dir = self._build(app_dir, code, group)
        record.venv = environment_dir.name
        replace_link(folder / "venv", f"../../venvs/{record.venv}")
        self._publish_static(app_dir, code, folder / "static")
        if Path(self.options["server_config"]).exists():
            shutil.copy(self.options["server_config"], folder / "server.conf.py")
            (folder / "server.conf.py").chmod(0o644)
        environment.write_private(folder / "env", environment.render({**variables, "FLASKHOST_RELEASE": record.id}))
        # Whatever happens to the power from here on: where the record is, all of the release is.
        os.sync()
        self._write(record)
        return record

    def _new_id(self, revision: str) -> str:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{revision[:7]}"
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(item for item in names if not (self.releases / item).exists())

    def _fetch(self, revision: str, archive: Path | None, code: Path) -> None:
        replaced = [str(Path(self.options["source_subdir"]) / name) for name in self.options["persistent"]]
        if archive:
            source.unpack_archive(self.run, archive, code, replaced)
            return
        repository = self.root / "repository.git"
        repository.mkdir(mode=0o700, exist_ok=True)
        source.fetch_commit(self.run, repository, self.options["source_repo"], revision)
        source.unpack_commit(self.run, repository, revision, code, replaced)

    def _persist(self, app_dir: Path) -> None:
        """Put links to the data folder where the app expects the folders that outlast a release."""
        for name in self.options["persistent"]:
            kept, place = self.data / name, app_dir / name
            if not kept.exists():
                self._make_data(kept, place)
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_link(place, str(kept))

    def _make_data(self, kept: Path, place: Path) -> None:
        """Make a folder of data, with what the code brings along for it; as the app's user, who owns what is there."""
        # Whole or not at all: what is there is never looked at again.
        partial = str(kept.with_name(f"{kept.name}.partial"))
        commands = [["rm", "--recursive", "--force", partial], ["mkdir", "--parents", partial]]
        if place.is_dir() and not place.is_symlink():
            commands.append(["cp", "--recursive", "--no-target-directory", str(place), partial])
        commands.append(["mv", "--no-target-directory", partial, str(kept)])
        for command in commands:
            wrapped = sandboxed(command, user=self.user, directory="/", writable=[str(self.data)])
            status, _out, err = self.run(wrapped)
            if status:
                raise ReleaseError("Make the data folder", tail(err, 5), f"Look at {kept} and at the free disk space.")

    def _build(self, app_dir: Path, code: Path, group: int) -> Path:
        requirements = virtualenv.find_requirements(app_dir, self.options["requirements"], code)
        if not requirements:
            wanted = self.options["requirements"] or ", ".join(virtualenv.CANDIDATES)
            raise ReleaseError(
                "Build the environment",
                f"the source has no file that pins its dependencies; looked for {wanted}.",
                "Add one ('uv lock', or 'pip freeze > requirements.txt'), or name it in requirements.",
            )
        builder = virtualenv.Builder(
            self.run,
            user=self.user,
            group=group,
            folder=self.venvs,
            cache=Path(self.options["cache_dir"]) / self.options["app"],
            uv=self.options["uv"],
            python=self.options["python"],
            index_url=self.options["index_url"],
        )
        built = builder.build(app_dir, requirements, self.options["extra_packages"], self.options["server_package"])
        self.outcome.warnings += builder.warnings
        return built

    def _publish_static(self, app_dir: Path, code: Path, published: Path) -> None:
        """Make the static files readable to the web server, which may not read the code beside them."""
        module = Path(*self.options["wsgi"].partition(":")[0].split("."))
        places = (
            [self.options["static_path"]]
            if self.options["static_path"]
            else [
                module / "static",
                module.parent / "static",
                Path("src") / module / "static",
            ]
        )
        folder = next((app_dir / place for place in places if (app_dir / place).is_dir()), None)
        published.mkdir(mode=0o755)
        # One that is in the data folder (persistent) the app can write: root changes no mode there.
        if not folder or not folder.resolve().is_relative_to(code.resolve()):
            return
        for root, _directories, files in os.walk(folder):
            target = published / Path(root).relative_to(folder)
            target.mkdir(mode=0o755, exist_ok=True)
            target.chmod(0o755)
            for name in files:
                file = Path(root) / name
                if file.is_symlink():
                    continue
                # One copy on the disk: the folders above decide who may come by.
                file.chmod(0o644)
                os.link(file, target / name)

    def _release_command(self, record: Record) -> None:
        command = self.options["release_command"] or self._procfile_release(record)
        if not command:
            return
        stop_tasks(self.run, self.user)
        folder = self.releases / record.id
        path = f"{folder}/venv/bin:/usr/local/bin:/usr/bin:/bin"
        arguments = sandboxed(
            ["/bin/sh", "-c", command],
            user=self.user,
            directory=f"{folder}/app",
            writable=[str(self.data)],
            environment={"PATH": path, "HOME": str(self.data), "PYTHONPATH": f"{folder}/app:{folder}/app/src"},
            environment_file=str(folder / "env"),
        )
        status, out, err = self.run(arguments)
        if status:
            raise ReleaseError(
                "Run the release command",
                f"'{command}' ended with {status}:\n{tail(out + err)}",
                "Correct the release and run the same command again. What served before still serves.",
            )

    def _procfile_release(self, record: Record) -> str:
        procfile = self.releases / record.id / "app" / "Procfile"
        if not procfile.is_file():
            return ""
        found = re.search(r"^release:[ \t]*(\S.*)$", procfile.read_text(encoding="utf-8", errors="replace"), re.M)
        return found.group(1).strip() if found else ""

    # -- bringing it into service -----------------------------------------------------------------------------------

    def _serve(self, record: Record, live: str) -> None:
        slot = self.slots.idle()
        try:
            self.slots.start(slot, record.id)
            self.slots.gate(slot, self.options["host"], self.options["health"])
        except ReleaseError:
            self.slots.stop(slot)
            raise
        record.healthy = True
        self._write(record)
        self.slots.flip(slot)
        if live:
            self.slots.drain(live)
        self._prune()
        self.outcome.release, self.outcome.slot = record.id, slot

    def _repair(self, live: str, serving: Record) -> None:
        """Put right what a run that was killed, or a hand, has left beside a release that should serve."""
        other = next(slot for slot in SLOTS if slot != live)
        todo: list[Callable[[], Any]] = []
        if not self.slots.is_active(live):
            todo += [
                lambda: self.slots.start_again(live),
                lambda: self.slots.gate(live, self.options["host"], self.options["health"]),
            ]
        current = self.slots.current
        followed = current.is_symlink() and current.readlink().name == serving.id
        if not self.slots.is_enabled(live) or not followed:
            todo.append(lambda: self.slots.flip(live))
        if self.slots.is_active(other) or self.slots.is_enabled(other):
            todo.append(lambda: self.slots.drain(other))
        if todo:
            self.outcome.changed = True
            if not self.check:
                for step in todo:
                    step()
        self.outcome.release, self.outcome.slot, self.outcome.revision = serving.id, live, serving.revision

    # -- the releases on the host -----------------------------------------------------------------------------------

    def record(self, release: str) -> Record | None:
        """Read the record of a release; None where it is not whole."""
        try:
            text = (self.releases / release / RECORD).read_text(encoding="utf-8")
            return Record(**json.loads(text))
        except (OSError, ValueError, TypeError):
            return None

    def all_records(self) -> list[Record]:
        """The records of all whole releases, the newest first."""
        if not self.releases.is_dir():
            return []
        found = [self.record(path.name) for path in self.releases.iterdir()]
        return sorted((item for item in found if item), key=lambda item: item.created, reverse=True)

    def _write(self, record: Record) -> None:
        text = json.dumps(asdict(record), indent=2, sort_keys=True) + "\n"
        environment.write_private(self.releases / record.id / RECORD, text)

    def _remove_partial(self) -> None:
        held = {self.slots.release(slot) for slot in SLOTS}
        for path in self.releases.iterdir():
            if path.is_dir() and path.name not in held and not (path / RECORD).exists():
                shutil.rmtree(path)

    def _prune(self) -> None:
        """Remove releases beyond the number to keep, and environments that no release has."""
        held = {self.slots.release(slot) for slot in SLOTS}
        records = self.all_records()
        kept = [item for item in records if item.healthy][: self.options["keep_releases"]]
        kept += [item for item in records if item.id in held and item not in kept]
        for item in records:
            if item not in kept:
                # The record first: what is removed in part is then no release any more.
                (self.releases / item.id / RECORD).unlink()
                shutil.rmtree(self.releases / item.id)
        # Asked of the links, not of the records: a release that serves keeps its environment, whatever its record says.
        used = {link.readlink().name for link in self.releases.glob("*/venv")}
        for path in self.venvs.iterdir():
            if path.is_dir() and path.name not in used:
                virtualenv.remove(path)
