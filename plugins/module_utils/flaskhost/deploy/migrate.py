"""The phase migrate: the setup command, once in the life of the data, and the release command, for each release.

Both run under the database's lock. Before the release command, a recovery point is recorded.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.flaskhost.apps import placeholders
from ansible.module_utils.flaskhost.deploy import drivers
from ansible.module_utils.flaskhost.deploy.app import SERVER_PART, App
from ansible.module_utils.flaskhost.deploy.database import Database, Unanswered, limited, rights_hint
from ansible.module_utils.flaskhost.deploy.hints import hint
from ansible.module_utils.flaskhost.deploy.records import Record
from ansible.module_utils.flaskhost.deploy.setup import BEGUN, DONE, FOUND, Setup
from ansible.module_utils.flaskhost.host.redact import redact
from ansible.module_utils.flaskhost.host.runner import (
    STILL,
    ReleaseError,
    as_owner,
    cure_for,
    how_ended,
    sandboxed,
    stop_tasks,
    tail,
)

#: The program that creates a recovery point in the WAL before a migration. A host without backups has none.
BACKUPS = Path("/usr/local/sbin/flaskhost-backup")
#: Its exit status on a host where the operator has not configured backups.
NO_BACKUPS = 3


def is_same_but_for_server(known: dict[str, str], parts: dict[str, str]) -> bool:
    """Check whether two releases differ at most in the application server's settings and in the generated keys.

    Args:
        known: the digest of each part of the one; see :meth:`Preparation.parts`.
        parts: those of the other.
    """
    rest = (known.keys() | parts.keys()) - {SERVER_PART, "keys"}
    return all(known.get(name) == parts.get(name) for name in rest)


class Migration:
    """Runs the setup command of an app and the release command of a release.

    Args:
        app: the app.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.setup = Setup(app)

    def run(self, record: Record) -> None:
        command = "" if self._has_run(record) else record.release_command
        setup = self.setup.is_open()
        if not command and not setup:
            return
        self.app.note("Run the setup command" if setup else "Run the release command")
        options, database = self.app.options, self.app.database(self.app.variables())
        if database.variables and not database.command:
            self.app.outcome.warnings.append(
                "psql is not installed: the commands of the release run without the database lock."
            )
        stop_tasks(self.app.run, self.app.user)
        wait, limit = options["release_lock_timeout"], options["release_timeout"]
        with database.lock(f"deploy of {options['by'] or options['app']}", wait):
            if setup:
                self._set_up(record, database)
            if not command:
                return
            self.app.note("Run the release command")
            before = self._schema(database)
            if database.meant:
                self._point(record, database)
            self._run("release", command, record, limited(command, wait, limit))
            after = self._schema(database)
        record.schema_before, record.schema_after = before, after
        self.app.outcome.schema_before, self.app.outcome.schema_after = before, after
        self.app.store.write(record)

    def _set_up(self, record: Record, database: Database) -> None:
        """Run the setup command, unless the app has data already."""
        command = self.app.options["setup_command"]
        if why := self.setup.existing_data(database):
            # If the app is at its disk limit, the next run says the same again.
            with suppress(OSError):
                self.setup.note(FOUND, record)
            self.app.outcome.warnings.append(
                f"the setup command '{redact(command)}' was not run, because the app has data: {why}. To run it in "
                f"spite of that: ansible-playbook playbooks/setup.yml -e app={self.app.options['app']}"
            )
            return
        self.setup.note(BEGUN, record, database)
        wait, limit = self.app.options["release_lock_timeout"], self.app.options["release_timeout"]
        self._run("setup", command, record, limited(command, wait, limit))
        self.setup.note(DONE, record)

    def _has_run(self, record: Record) -> bool:
        """Check whether the command has run already, for the live release: it, or one that differs in no data of its.

        In some apps, the command deletes data if it runs again, such as one that creates all tables.
        """
        serving = self.app.serving()
        if not serving or not serving.parts:
            return False
        if not is_same_but_for_server(serving.parts, record.parts):
            return False
        if serving.id != record.id:
            record.schema_before = record.schema_after = serving.schema_after
            self.app.store.write(record)
        self.app.outcome.schema_before = self.app.outcome.schema_after = serving.schema_after
        return True

    def _point(self, record: Record, database: Database) -> None:
        """Record the recovery point before this migration. If that fails, the deploy continues with a warning."""
        served = self.app.slots.release(self.app.slots.live()) or ""
        problem = ""
        if not self.app.options.get("database_per_host"):
            # Replace the time of an earlier attempt: the previous release has written data since.
            record.restore_time, record.migrates_from = "", served
            try:
                record.restore_time = database.time()
            except Unanswered as reason:
                problem = str(reason)
            # Before the command, because a command that fails half-way must be recoverable too.
            self.app.store.write(record)
        elif BACKUPS.exists():
            arguments = ["point", "--app", self.app.options["app"], "--release", record.id, "--previous", served]
            status, out, err = self.app.run([str(BACKUPS), *arguments])
            if not status:
                record.restore_point = f"{self.app.options['app']}@{record.id}"
            elif status != NO_BACKUPS:
                problem = tail(err or out, 1)
        if problem:
            self.app.outcome.warnings.append(
                f"the recovery point before this migration could not be recorded: {problem}"
            )

    def _schema(self, database: Database) -> str:
        """Read the schema's revision for the record. If that fails, the deploy continues with a warning."""
        try:
            return database.revision()
        except Unanswered as reason:
            warning = f"the revision of the database schema could not be read and is not recorded: {reason}."
            if warning not in self.app.outcome.warnings:
                self.app.outcome.warnings.append(warning)
            return ""

    def _check_names(self, owner_file: str, step: str) -> None:
        """Require the owner's login under each name that the variables have for the database."""
        text = "\n" + Path(owner_file).read_text(encoding="utf-8") if owner_file else ""
        for name, value in sorted(self.app.given().items() if text else ()):
            if placeholders.used(value) & {*placeholders.DATABASE} and f"\n{name}=" not in text:
                reason = f"{name} names the database, but {owner_file} does not have the owner's login under this name."
                raise ReleaseError(step, reason, "Run site.yml first: ansible-playbook site.yml --tags postgres")

    def _run(self, kind: str, text: str, record: Record, command: list[str]) -> None:
        """Run a command with the code and the variables of a release, in the app's sandbox.

        Args:
            kind: ``setup`` or ``release``, for messages.
            text: the command as the user has written it.
            record: the release.
            command: the program and its arguments.

        Raises:
            ReleaseError: it failed, or took too long.
        """
        step = f"Run the {kind} command"
        folder, owner_file = self.app.store.path(record.id), self.app.options["owner_file"]
        group = as_owner(self.app.run, owner_file, step) if owner_file else ""
        self._check_names(owner_file, step)
        with drivers.owner_login(owner_file, record.driver) as login:
            arguments = sandboxed(
                command,
                user=self.app.user,
                root=str(self.app.root),
                directory=f"{folder}/app",
                writable=[str(self.app.data)],
                environment={
                    "PATH": f"{folder}/venv/bin:/usr/local/bin:/usr/bin:/bin",
                    "HOME": str(self.app.data),
                    "PYTHONPATH": f"{folder}/app:{folder}/app/src",
                },
                # The owner's variables come last: the owner creates and changes the tables.
                environment_files=[
                    f"-{self.app.keys.variables_file}",
                    f"{folder}/env",
                    *([login] if login else []),
                ],
                properties=drivers.removal([login]),
                timeout=self.app.options["release_timeout"],
                outbound=self.app.options["outbound"],
                group=group,
            )
            began = time.monotonic()
            status, out, err = self.app.run(arguments)
        if status:
            limit = self.app.options["release_timeout"]
            how = how_ended(status, time.monotonic() - began, limit, "release_timeout")
            hints = rights_hint(out + err) or hint(out + err, drivers.packages(folder / "venv"))
            cure = f"Correct the release and run the same command again. {STILL}{hints}"
            raise ReleaseError(
                step,
                f"'{redact(text)}' {how}:\n{tail(out + err)}",
                cure_for(out + err, cure),
            )
