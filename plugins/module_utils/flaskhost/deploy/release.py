"""The state machine that brings a release of one app into service on one host, or goes back to an earlier one.

Its phases are prepare (fetch and build, or find the release to go back to), migrate (the release command), gate (start
the idle slot, and see that it answers), flip (rename the live link, and watch) and finish (drain the slot that served
before, prune). On a single host one run does them all; with several hosts each phase is run on all of them before the
next one begins, and ``return`` takes a host back to what it served, be it nothing.

Every phase can be repeated: a run that was killed leaves at most a release that is not whole, which the next run
removes, or one that is whole and not served, which the next run takes up. Until the flip the slot that serves is not
touched.
"""

from __future__ import annotations

import errno
import functools
import grp
import hashlib
import json
import os
import pwd
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.apps.names import SLOTS

# Whole names, here and beside: Mitogen does not find what is imported by a relative one.
from ansible.module_utils.flaskhost.deploy import assets, environment, processes, source
from ansible.module_utils.flaskhost.deploy.build import Build
from ansible.module_utils.flaskhost.deploy.database import (
    Database,
    Unanswered,
    known_revisions,
    limited,
    rights_hint,
    schema_problem,
)
from ansible.module_utils.flaskhost.deploy.lock import KEEP_SECONDS, Lock, Locked
from ansible.module_utils.flaskhost.deploy.records import Record, Store
from ansible.module_utils.flaskhost.deploy.slots import Slots, is_good, listens, probe
from ansible.module_utils.flaskhost.deploy.watch import AccessLog, Traffic, verdict
from ansible.module_utils.flaskhost.host.journal import require_journal
from ansible.module_utils.flaskhost.host.runner import (
    ReleaseError,
    Run,
    as_owner,
    cure_for,
    sandboxed,
    stop_tasks,
    tail,
)
from ansible.module_utils.flaskhost.operate import freeze

#: All phases in their order.
PHASES = ("prepare", "migrate", "gate", "flip", "finish")
#: What takes a host back when another one has failed.
RETURN = "return"
#: What puts a point into the database's log before a migration; a host without backups has none.
BACKUPS = Path("/usr/local/sbin/flaskhost-backup")
#: What the operator wants to know first.
STILL = "What served before still serves."
#: Seconds between two looks at the log while a new release is watched.
WATCH_INTERVAL = 0.25
#: Seconds that the lock is kept for longer than the release command of another host may take.
LOCK_MARGIN = 60
#: Looks between two questions for the health, and how many of them in a row may fail: one can be chance.
LOOKS_PER_PROBE, BAD_PROBES = 4, 2


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        changed: whether anything on the host changed, or would in check mode.
        pending: whether the release has yet to go through the later phases.
        release: the release that serves afterwards, or that the later phases are about.
        revision: its commit or digest.
        slot: its slot.
        previous: the release that served before; empty when none.
        needs_source: the code's archive has to be sent before the run can go on.
        schema_before: the revision of the database's schema before the release command.
        schema_after: the revision after it.
        plan: what would be done, a line each; in check mode.
        warnings: what the operator should know.
    """

    changed: bool = False
    pending: bool = False
    release: str = ""
    revision: str = ""
    slot: str = ""
    previous: str = ""
    needs_source: bool = False
    schema_before: str = ""
    schema_after: str = ""
    plan: list[str] = field(default_factory=list)
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
        self.options, self.check, self.pause = options, check, pause
        self.root, self.user = Path(options["root"]), options["user"]
        self.data, self.secrets_dir = self.root / "data", Path(options["secrets_dir"])
        self.store = Store(self.root)
        self.keys = environment.SecretKeys(self.secrets_dir)
        self.outcome = Outcome()
        self.step, self.still = "", STILL
        self.slots = Slots(
            run,
            unit=options["unit"],
            root=self.root,
            socket_dir=Path(options["socket_dir"]),
            live_socket=Path(options["live_socket"]),
            template=next((Path(path) for path in options["unit_files"] if path.endswith("@.service")), None),
            pause=pause,
        )

    def _units(self, record: Record) -> processes.Units:
        """The units of a release's processes and timers."""
        return processes.Units(
            self.run,
            unit=self.options["unit"],
            user=self.user,
            root=self.root,
            data=self.data,
            secret_env=self.keys.variables_file,
            memory_mb=record.memory_mb,
            drain=record.drain,
            outbound=self.options["outbound"],
            folder=Path(self.options["units_dir"]),
        )

    def _switch_units(self, record: Record) -> None:
        self._units(record).switch(record.processes, record.timers)

    def go(self) -> Outcome:
        """Run the phases that are asked for.

        Returns:
            What was done.

        Raises:
            ReleaseError: it cannot be; what served before still serves.
        """
        phases = self.options["phases"] or list(PHASES)
        try:
            if self.check:
                return self._plan()
            # Whatever the one who logged in has: the app and the web server have to get through the folders.
            os.umask(0o022)
            self._folders()
            return self._locked(phases)
        except OSError as error:
            raise self._os_error(error) from error

    def _locked(self, phases: list[str]) -> Outcome:
        options = self.options
        lock = Lock(
            self.root / ".lock",
            deploy=options["deploy"],
            by=options["by"],
            controller=options["controller"],
            takeover=options["takeover"],
            pause=self.pause,
        )
        try:
            lock.acquire()
        except Locked:
            # Of another run, which this one has nothing to take back from.
            if phases == [RETURN]:
                return self.outcome
            raise
        keep = False
        try:
            self._run_phases(phases)
            keep = self.outcome.pending
        finally:
            # What is not done in this run of the module is done by a later one, which finds the lock kept for it.
            if keep:
                lock.keep(max(KEEP_SECONDS, options["release_timeout"] + LOCK_MARGIN))
            else:
                lock.release()
        return self.outcome

    def _run_phases(self, phases: list[str]) -> None:
        # A run that was killed at the gate has left it open.
        self.slots.close_gate()
        self._restore_link()
        if phases == [RETURN]:
            self._return_from(self.options["release"], self.options["previous"])
            return
        record: Record | None = None
        if phases[0] == "prepare":
            find = {"deploy": self._prepare, "rollback": self._go_back, "restart": self._again}[self.options["verb"]]
            record = find()
            if not record:
                return
            self._see_listener()
        else:
            record = self._named(self.options["release"])
        self.outcome.changed = True
        self.outcome.release, self.outcome.revision = record.id, record.revision
        self.outcome.slot = self.slots.idle()
        if "migrate" in phases and self.options["verb"] == "deploy":
            self._migrate(record)
        if "gate" in phases:
            self._gate(record)
        if "flip" in phases:
            self._flip(record, gated="gate" in phases)
        if "finish" in phases:
            self._finish(record)
        self.outcome.pending = "finish" not in phases

    def _restore_link(self) -> None:
        if not self.slots.is_lost():
            return
        live = self.slots.live()
        self.slots.restore()
        self.outcome.changed = True
        self.outcome.warnings.append(
            f"{self.slots.live_socket} was missing, so that visitors got 502. It leads to the {live} slot again, which "
            f"holds {self.slots.release(live)}. No program of Flaskhost's removes it."
        )

    def _os_error(self, error: OSError) -> ReleaseError:
        """Say what the system refuses; a full disk is the most likely, and has its own cure."""
        place = f": {error.filename}" if error.filename else ""
        cure = f"Look at the host: df -h, and sudo journalctl -p err -n 20. {self.still}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = f"Make room on the disk of {self.root} (df -h), or lower keep_releases. {self.still}"
        return ReleaseError(self.step or "Work on the disk", f"{error.strerror or error}{place}.", cure)

    def _note(self, step: str) -> None:
        self.step = step or self.step

    # -- what is wanted -----------------------------------------------------------------------------------------------

    def _serving(self) -> Record | None:
        live = self.slots.live()
        return self.store.record(self.slots.release(live)) if live else None

    def _revision(self) -> str:
        options = self.options
        if options["source_digest"]:
            return options["source_digest"]
        if options["source_archive"]:
            return source.checksum_digest(options["source_checksum"])
        if not shutil.which("git") and self.check:
            # A bare host: the roles would have installed it by now.
            return options["source_version"]
        with source.git_access(
            self.secrets_dir, options["source_key"], options["source_known_hosts"], check=self.check
        ) as access:
            return source.resolve_commit(
                self.run, self.root / "repository.git", options["source_repo"], options["source_version"], access
            )

    def _variables(self) -> dict[str, str]:
        """The release's variables, but for its own name and for the keys that are made here."""
        return {**self.options["environment"], **self.options["secrets"]}

    def _keys(self) -> list[str]:
        """The keys that sign sessions; none where the user gives the app one."""
        if "SECRET_KEY" in self._variables():
            return []
        return self.keys.read() if self.check else self.keys.ensure()

    def _parts(self, revision: str) -> dict[str, str]:
        """A digest of each thing that decides how the release behaves, by the name that the operator knows it by."""
        options = self.options
        files = [options["server_config"], *options["unit_files"]]
        parts: dict[str, Any] = {
            "code": [revision, options["source_subdir"]],
            "variables": environment.render(self._variables()),
            "keys": self._keys(),
            # The interpreter's minor version too: an upgrade of the distribution leaves no environment working.
            "packages": [
                *sys.version_info[:2],
                *(options[name] for name in ("requirements", "extra_packages", "server_package", "python")),
                options["wheelhouse"],
            ],
            "application server": [Path(path).read_text() if Path(path).exists() else "" for path in files],
            "settings": [options[name] for name in ("wsgi", "persistent", "static_path")],
            "commands": [options[name] for name in ("release_command", "processes", "timers")],
        }
        return {name: _digest(value) for name, value in parts.items()}

    def _plan(self) -> Outcome:
        """Tell what would be done, and do nothing."""
        options, outcome = self.options, self.outcome
        serving = self._serving()
        outcome.previous = serving.id if serving else ""
        outcome.slot = self.slots.idle()
        later = [f"start it in the {outcome.slot} slot", f"ask it for {options['health']['path']}", "let it serve"]
        if options["watch"] and options["verb"] == "deploy":
            later.append(f"watch it for {options['watch']} s")
        if options["verb"] == "restart":
            outcome.changed, outcome.plan = bool(serving), later
            return outcome
        if options["verb"] == "rollback":
            target = self._target(serving)
            if target:
                outcome.changed, outcome.release, outcome.revision = True, target.id, target.revision
                outcome.plan = [f"go back to {target.id}", *later]
            return outcome
        revision = self._revision()
        parts = self._parts(revision)
        identity = _digest(parts)
        outcome.revision = revision
        if serving and serving.identity == identity and self.store.has_environment(serving):
            self._repair(self.slots.live(), serving)
            return outcome
        outcome.changed = True
        known = serving.parts if serving else {}
        other = [name for name, digest in parts.items() if known.get(name) != digest] if known else []
        begin = [f"a new release of {revision[:12]}" + (f", which differs in: {', '.join(other)}" if other else "")]
        built = self._whole(identity)
        begin.append(f"take up {built.id}, which is built" if built else "fetch and build it")
        command = options["release_command"] or "the release line of its Procfile, where there is one"
        outcome.plan = [*begin, f"run its release command: {command}", *later]
        return outcome

    # -- prepare ------------------------------------------------------------------------------------------------------

    def _folders(self) -> None:
        """Make the app's folders, each with the owner that keeps apps apart."""
        try:
            uid, gid = pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.user).gr_gid
        except KeyError:
            raise ReleaseError(
                "Look for the app",
                f"this host has no user {self.user!r}: the app has not been set up here.",
                "Run site.yml first: ansible-playbook site.yml",
            ) from None
        if self.options["verb"] == "deploy":
            require_journal(self.options["unit"], "Look for the app")
        wanted = [
            (self.root, 0, 0, 0o755),
            (self.store.releases, 0, 0, 0o755),
            (self.store.venvs, 0, gid, 0o750),
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

    def _prepare(self) -> Record | None:
        """Find or build the wanted release; None where it serves already, or its code is not here yet."""
        self._note("Find the release")
        live, serving = self.slots.live(), self._serving()
        revision = self._revision()
        parts = self._parts(revision)
        identity = _digest(parts)
        # Of the link, not of the record: what serves can be returned to whatever its record says.
        self.outcome.previous = self.slots.release(live)
        if serving and serving.identity == identity and self.store.has_environment(serving):
            self._repair(live, serving)
            return None
        freeze.check(self.options["app"])
        processes.check_timers(self.run, self.options["timers"], self.options["app"])
        built = self._whole(identity)
        if built:
            return built
        if self.options["source_digest"] and not self.options["archive"]:
            self.outcome.changed = self.outcome.needs_source = True
            self.outcome.revision = revision
            return None
        build = Build(self.run, self.options, self.store, self._note)
        record = build.make(identity, parts, revision, self._variables())
        self.outcome.warnings += build.warnings
        return record

    def _whole(self, identity: str) -> Record | None:
        """A release of this identity that was built before and does not serve: a run was killed, or refused."""
        found = (
            item for item in self.store.all_records() if item.identity == identity and self.store.has_environment(item)
        )
        return next(found, None)

    def _named(self, release: str) -> Record:
        record = self.store.record(release)
        if not record or not self.store.has_environment(record):
            raise ReleaseError(
                "Find the release", f"{release or 'it'} is no longer on this host.", "Run the same command again."
            )
        return record

    def _repair(self, live: str, serving: Record) -> None:
        """Put right what a run that was killed, or a hand, has left beside a release that should serve."""
        other = next(slot for slot in SLOTS if slot != live)
        # Only a plan can find it: a run has restored it by now.
        todo: list[Callable[[], Any]] = [self.slots.restore] if self.slots.is_lost() else []
        if not self.slots.is_active(live):
            todo += [
                lambda: self.slots.start_again(live, self.options["health"]["timeout"]),
                lambda: self.slots.gate(live, self.options["host"], self.options["health"]),
            ]
        current = self.slots.current
        followed = current.is_symlink() and current.readlink().name == serving.id
        if not self.slots.is_enabled(live) or not followed:
            todo.append(lambda: self.slots.flip(live))
        if not self._units(serving).in_order(serving.processes, serving.timers):
            todo.append(lambda: self._switch_units(serving))
        last = self.store.history()[-1:]
        if not last or last[0].get("release") != serving.id:
            # The run ended right after the rename.
            came_from = str(last[0].get("release", "")) if last else ""
            todo.append(lambda: self.store.remember(serving.id, came_from, self.options["by"], self.options["verb"]))
        if not serving.healthy:
            # The run ended while it was watched, so that it is not known yet how it does.
            todo.append(lambda: self._watch_again(other, live, serving))
        if self.slots.is_active(other) or self.slots.is_enabled(other):
            todo.append(lambda: self.slots.drain(other))
        if refused := self.store.refused(serving.id):
            todo.append(lambda: self._remove_refused(other, refused))
        if todo:
            self.outcome.changed = True
            if not self.check:
                for step in todo:
                    step()
        self.outcome.release, self.outcome.slot, self.outcome.revision = serving.id, live, serving.revision

    def _remove_refused(self, other: str, refused: set[str]) -> None:
        """Remove what was refused, of which nobody wants anything any more: what is wanted serves."""
        if self.slots.release(other) in refused:
            (self.slots.links / other).unlink()
        self.store.prune(self.options["keep_releases"])

    # -- going back ---------------------------------------------------------------------------------------------------

    def _go_back(self) -> Record | None:
        self._note("Find the release")
        live, serving = self.slots.live(), self._serving()
        target = self._target(serving)
        if not target:
            if serving:
                self._repair(live, serving)
            return None
        if not self.options["passes_freeze"]:
            freeze.check(self.options["app"])
        return target

    def _target(self, serving: Record | None) -> Record | None:
        """The release to go back to; None when it serves already.

        Raises:
            ReleaseError: there is none, it is not here, or the database's schema is one that it does not know.
        """
        self.outcome.previous = self.slots.release(self.slots.live())
        name = self.options["release"] or self.store.previous_healthy(self.outcome.previous)
        there = ", ".join(item.id for item in self.store.all_records() if self.store.has_environment(item)) or "none"
        if not name:
            raise ReleaseError(
                "Find the release",
                f"no other release has served well here. On this host: {there}.",
                "Name one with -e release=..., or deploy a version: "
                "ansible-playbook playbooks/deploy.yml -e version=...",
            )
        record = self.store.record(name)
        if not record or not self.store.has_environment(record):
            raise ReleaseError(
                "Find the release",
                f"there is no release {name} on this host. There are: {there}.",
                "Name one of them with -e release=..., or deploy its version: "
                "ansible-playbook playbooks/deploy.yml -e version=...",
            )
        if serving and record.id == serving.id:
            return None
        self._check_schema(record)
        return record

    def _check_schema(self, record: Record) -> None:
        # The present variables name the database as well as the release's own would.
        database = self._database(self._variables())
        known = known_revisions(self.store.path(record.id) / "app")
        noted = record.schema_after
        if not known and not noted:
            return
        cure = (
            "Take the migration back first (ansible-playbook playbooks/run.yml -e owner=true "
            "-e \"command='flask db downgrade ...'\"), or, where the older code works with the newer schema,"
        )
        try:
            problem = schema_problem(database.revision(), known, noted)
        except Unanswered as reason:
            # Not to know is not to know that all is well.
            problem = f"the database could not be asked for the revision of its schema: {reason}."
            cure = "See that the database runs and lets the app in, or, where the code works with the schema for sure,"
        if not problem:
            return
        if self.options["force"]:
            self.outcome.warnings.append(f"{record.id}: {problem} It is gone back to all the same (force).")
            return
        raise ReleaseError(
            "Compare the schema",
            f"{record.id}: {problem}",
            f"{cure} add -e force=true. {STILL}",
        )

    def _database(self, variables: dict[str, str]) -> Database:
        return Database(variables.get("DATABASE_URL", ""), self.user, self.options["app"])

    def _again(self) -> Record:
        """The release that serves, to be started once more in the other slot.

        Raises:
            ReleaseError: none does.
        """
        serving = self._serving()
        if not serving:
            raise ReleaseError(
                "Find the release", "no release serves here.", "Deploy one: ansible-playbook playbooks/deploy.yml"
            )
        freeze.check(self.options["app"])
        self.outcome.previous = serving.id
        return serving

    # -- migrate ------------------------------------------------------------------------------------------------------

    def _migrate(self, record: Record) -> None:
        command = record.release_command
        if not command:
            return
        self._note("Run the release command")
        options, database = self.options, self._database(self._variables())
        if database.variables and not database.command:
            self.outcome.warnings.append("psql is not installed: the release command runs without the database's lock.")
        stop_tasks(self.run, self.user)
        wait, limit = options["release_lock_timeout"], options["release_timeout"]
        with database.lock(f"deploy of {options['by'] or options['app']}", wait):
            before = self._schema(database)
            if database.meant:
                self._point(record, database)
            self._run_release_command(record, limited(command, wait, limit))
            after = self._schema(database)
        record.schema_before, record.schema_after = before, after
        self.outcome.schema_before, self.outcome.schema_after = before, after
        self.store.write(record)

    def _point(self, record: Record, database: Database) -> None:
        """Note where the database could go back to before this migration; a deploy goes on without it."""
        served = self.slots.release(self.slots.live()) or ""
        problem = ""
        if not self.options.get("database_per_host"):
            # What an earlier try has noted holds no more: the former release has gone on writing since.
            record.restore_time, record.migrates_from = "", served
            try:
                record.restore_time = database.time()
            except Unanswered as reason:
                problem = str(reason)
            # Before the command: one that breaks off half-way has to be gone back behind, too.
            self.store.write(record)
        elif BACKUPS.exists():
            arguments = ["point", "--app", self.options["app"], "--release", record.id, "--previous", served]
            status, out, err = self.run([str(BACKUPS), *arguments])
            if not status:
                record.restore_point = f"{self.options['app']}@{record.id}"
            elif "backup.passphrase is not set" not in err:
                problem = tail(err or out, 1)
        if problem:
            self.outcome.warnings.append(
                f"no point was noted that the database could go back to before this migration: {problem}"
            )

    def _schema(self, database: Database) -> str:
        """The schema's revision, for the record; a deploy goes on without it."""
        try:
            return database.revision()
        except Unanswered as reason:
            warning = f"the database could not be asked for the revision of its schema, which is not noted: {reason}."
            if warning not in self.outcome.warnings:
                self.outcome.warnings.append(warning)
            return ""

    def _run_release_command(self, record: Record, command: list[str]) -> None:
        folder, owner_file = self.store.path(record.id), self.options["owner_file"]
        group = as_owner(self.run, owner_file, "Run the release command") if owner_file else ""
        arguments = sandboxed(
            command,
            user=self.user,
            root=str(self.root),
            directory=f"{folder}/app",
            writable=[str(self.data)],
            environment={
                "PATH": f"{folder}/venv/bin:/usr/local/bin:/usr/bin:/bin",
                "HOME": str(self.data),
                "PYTHONPATH": f"{folder}/app:{folder}/app/src",
            },
            # The owner's last: with them it makes and changes the tables.
            environment_files=[
                f"-{self.keys.variables_file}",
                f"{folder}/env",
                *([owner_file] if owner_file else []),
            ],
            timeout=self.options["release_timeout"],
            outbound=self.options["outbound"],
            group=group,
        )
        began = time.monotonic()
        status, out, err = self.run(arguments)
        if status:
            limit = self.options["release_timeout"]
            late = time.monotonic() - began >= limit
            how = f"was ended after {limit} s (release_timeout)" if late else f"ended with {status}"
            cure = f"Correct the release and run the same command again. {STILL}{rights_hint(out + err)}"
            raise ReleaseError(
                "Run the release command",
                f"'{record.release_command}' {how}:\n{tail(out + err)}",
                cure_for(out + err, cure),
            )

    def _see_listener(self) -> None:
        """Stop before the release command where the gate could not pass: nginx has no listener for it.

        Raises:
            ReleaseError: it has none.
        """
        address = self.options["gate_address"]
        if address and not listens(address):
            raise ReleaseError(
                "Look for nginx",
                f"nginx does not listen on {address}: it is stopped, or its settings are an earlier version's.",
                f"Run site.yml (with --tags nginx to leave the apps as they are), then the same command. {self.still}",
            )

    # -- gate ---------------------------------------------------------------------------------------------------------

    def _gate(self, record: Record) -> None:
        options, slot = self.options, self.slots.idle()
        self._note("Start the idle slot")
        assets.share(self.store, record.id, self.slots.release(self.slots.live()))
        # A release that has served has shown that it does not end after a second.
        settle = options["health"].get("settle", 0) if options["verb"] == "deploy" else 0
        if options["schema_after"] and not record.schema_after:
            # The command was run on another host of the same fleet.
            record.schema_before, record.schema_after = options["schema_before"], options["schema_after"]
            self.store.write(record)
        try:
            self.slots.start(slot, record.id, options["health"]["timeout"])
            self.slots.gate(slot, options["host"], options["health"], options["gate_address"], settle)
        except (ReleaseError, OSError) as error:
            self.slots.stop(slot)
            if isinstance(error, ReleaseError):
                error.cure += rights_hint(error.reason)
            raise

    # -- flip ---------------------------------------------------------------------------------------------------------

    def _flip(self, record: Record, gated: bool) -> None:
        self._note("Let the release serve")
        options, live, slot = self.options, self.slots.live(), self.slots.idle()
        if self.slots.release(slot) != record.id or not self.slots.is_active(slot):
            raise ReleaseError(
                "Let the release serve",
                f"the {slot} slot no longer runs {record.id}: another deploy has come in between.",
                "Run the same command again.",
            )
        if not gated:
            # It has waited for other hosts since.
            try:
                self.slots.gate(slot, options["host"], {**options["health"], "probes": 1})
            except ReleaseError:
                self.slots.stop(slot)
                raise
        served, previous = self.slots.release(live), self._serving()
        # Asked before the history says that it has been left.
        back = options["verb"] == "rollback" and self.store.is_back(record.id, served)
        self.outcome.previous = served
        watching = self._watching(slot, record, served)
        self._guarded(
            live,
            slot,
            record,
            [
                lambda: self.slots.flip(slot),
                *watching[:1],
                lambda: self._noted(lambda: self.store.remember(record.id, served, options["by"], options["verb"])),
                lambda: self._switch_units(record),
                *watching[1:],
                lambda: self._noted(lambda: self._confirm(record)),
            ],
        )
        if back and previous:
            # So that the next one does not come back to it. What is left for a newer release has nothing against it.
            previous.failed = f"gone back from by {options['by'] or 'somebody'}"
            self._noted(lambda: self.store.write(previous))

    def _noted(self, write: Callable[[], None]) -> None:
        """Write something down. A rollback that cannot do so warns: it has to work on a full disk, too."""
        try:
            write()
        except OSError as error:
            if self.options["verb"] != "rollback":
                raise
            problem = self._os_error(error)
            warning = (
                f"the rollback could not be noted: {problem.reason} {problem.cure} Until the next rollback or deploy, "
                "history.json and status.yml do not know of it."
            )
            if warning not in self.outcome.warnings:
                self.outcome.warnings.append(warning)

    def _confirm(self, record: Record) -> None:
        record.healthy, record.failed = True, ""
        # The keys are no part of a release: it was started with those that there are now.
        keys = _digest(self._keys())
        if record.parts and record.parts.get("keys") != keys:
            record.parts["keys"] = keys
            record.identity = _digest(record.parts)
        self.store.write(record)

    def _watching(self, slot: str, record: Record, served: str) -> list[Callable[[], None]]:
        """The steps that watch a release: when it has begun to serve, and later; none where it is not to be watched.

        What was before is read at once.

        Args:
            slot: the slot of the release.
            record: the release.
            served: the one that served before.
        """
        if not self.options["watch"] or self.options["verb"] != "deploy":
            return []
        log = AccessLog(Path(self.options["access_log"]))
        before, invocation = log.before(served), self.slots.invocation(slot)
        # From the rename on: what was answered before it says nothing about the release.
        return [log.begin, lambda: self._watch(slot, record, log, before, invocation)]

    def _watch_again(self, other: str, live: str, serving: Record) -> None:
        warm = other if self.slots.is_active(other) else ""
        steps = self._watching(live, serving, self.slots.release(warm))
        self._guarded(warm, live, serving, [*steps, lambda: self._confirm(serving)])

    def _guarded(self, live: str, slot: str, record: Record, steps: list[Callable[[], Any]]) -> None:
        """Do what begins with the rename; where it goes wrong, let the slot serve again that served before.

        Args:
            live: the slot that served before, and is warm; empty when none.
            slot: the slot of the release.
            record: the release.
            steps: what to do.
        """
        try:
            for step in steps:
                step()
        except OSError as error:
            # That the disk is full says nothing about the release.
            self._take_back(live, slot, record, self._os_error(error), at_fault=False)
        except ReleaseError as error:
            self._take_back(live, slot, record, error)
        self.still = f"{record.id} serves."

    def _watch(self, slot: str, record: Record, log: AccessLog, before: Traffic, invocation: str) -> None:
        """See how the release does with visitors.

        Raises:
            ReleaseError: too many errors or slow answers, no health, a restart, or a process that does not stay up.
        """
        now, bad, health = Traffic(record.id, others=True), 0, self.options["health"]
        for number in range(1, int(self.options["watch"] / WATCH_INTERVAL) + 1):
            self.pause(WATCH_INTERVAL)
            now.add(log.new_lines())
            problem = verdict(before, now)
            if number % LOOKS_PER_PROBE == 0:
                status, body = probe(self.slots.socket(slot), health["path"], self.options["host"])
                bad = 0 if is_good(status, body, health) else bad + 1
                if bad >= BAD_PROBES:
                    problem = f"{health['path']} answered {status or 'nothing'} {bad} times in a row"
                elif self.slots.invocation(slot) != invocation:
                    problem = "its service has crashed and was started again"
                else:
                    problem = problem or "; ".join(self._units(record).failures())
            if problem:
                raise ReleaseError("Watch the release", f"{problem}.", "")

    def _take_back(self, live: str, slot: str, record: Record, error: ReleaseError, at_fault: bool = True) -> None:
        """Let the slot serve again that served before; it is still warm.

        Raises:
            ReleaseError: always, with what was done about it.
        """
        cure = error.cure or "Correct the release and run the same command again."
        if live and self.slots.is_active(live):
            # First of all what visitors get; the log can wait.
            problems = self._back_to(live, slot, record, error.reason if at_fault else "")
            cure = "\n".join([f"{self.slots.release(live)} serves again. {cure}", *problems])
        elif self.slots.live() == slot and not live and "flip" in self.options["phases"]:
            # With others the return comes next, on all of them.
            cure = f"Nothing served here before, so that nothing serves until the next deploy. {cure}"
        elif self.slots.live() == slot:
            cure = f"Nothing else runs here to go back to: it goes on serving. {cure}"
        else:
            self.slots.stop(slot)
        log = self.slots.log(slot, int(time.time()) - 60)
        raise ReleaseError(error.step, f"{error.reason}\nIts last log lines:\n{log}", cure)

    def _back_to(self, live: str, slot: str, record: Record, reason: str) -> list[str]:
        """Let the slot serve again that served before, and stop the other one.

        Args:
            live: the slot that served before.
            slot: the slot of the release.
            record: the release.
            reason: why it is not to be gone back to; empty when it may be.

        Returns:
            What else did not go well. It keeps nobody from being served.
        """
        self.slots.flip_back(live)
        name, problems = self.slots.release(live), []
        previous = self.store.record(name)
        try:
            self.store.remember(name, record.id, self.options["by"], RETURN)
            # A restart has the same release in both slots.
            if reason and record.id != name:
                record.failed, record.healthy = reason.partition("\n")[0], False
                self.store.write(record)
            if previous and previous.failed:
                previous.failed = ""
                self.store.write(previous)
        except OSError as error:
            problems.append(f"Besides, it could not be noted: {error.strerror or error}.")
        try:
            if previous:
                self._switch_units(previous)
        except OSError as error:
            problems.append(f"Besides, its processes were not started: {error.strerror or error}.")
        except ReleaseError as error:
            problems.append(f"Besides, its processes were not started: {error.reason}")
        self.slots.drain(slot)
        return problems

    def _return_from(self, release: str, previous: str) -> None:
        """Take this host back to what it served, since the release was refused on at least one host."""
        live, idle = self.slots.live(), self.slots.idle()
        record, held = self.store.record(release), self.slots.release(idle)
        if record and self._began_with(record.id, previous) and self.slots.release(live) == record.id:
            self._back_to_nothing(live, record)
            self.outcome.changed = True
        elif record and held in (release, previous) and self.slots.is_active(idle):
            if held == release:
                # It does not serve yet; or, at a restart, both slots run it, and the one that serves was gated.
                self.slots.drain(idle)
                self.outcome.changed = True
            elif self.slots.release(live) == release:
                self.outcome.warnings += self._back_to(idle, live, record, "refused on another host")
                self.outcome.changed = True
        self.outcome.release = self.slots.release(self.slots.live())

    def _began_with(self, release: str, previous: str) -> bool:
        """Whether nothing served here before a release, by what the caller says and by what the host has noted."""
        last = (self.store.history() or [{}])[-1]
        return not previous and not (last.get("release") == release and last.get("from"))

    def _back_to_nothing(self, live: str, record: Record) -> None:
        """Stop the first release of this host: all hosts are to be alike, and on some it has never served."""
        self._note("Stop the release")
        self.still = "Nothing serves here until the next deploy."
        self.slots.withdraw(live)
        self._units(record).remove()
        self.store.remember("", record.id, self.options["by"], RETURN)
        record.failed, record.healthy = record.failed or "refused on at least one host", False
        self.store.write(record)
        self.outcome.warnings.append(
            f"{record.id} was refused on at least one host, and nothing served here before it. {self.still}"
        )

    # -- finish -------------------------------------------------------------------------------------------------------

    def _finish(self, record: Record) -> None:
        self._note("Drain the slot that served before")
        live, other = self.slots.live(), self.slots.idle()
        if self.slots.release(live) != record.id:
            raise ReleaseError(
                "Drain the slot that served before",
                f"{record.id} does not serve: another deploy has come in between.",
                "Look at it (ansible-playbook playbooks/status.yml), then run the same command again.",
            )
        self.still = f"{record.id} serves."
        if self.slots.is_active(other) or self.slots.is_enabled(other):
            self.slots.drain(other)
        self.outcome.slot = live
        self.store.prune(self.options["keep_releases"])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
