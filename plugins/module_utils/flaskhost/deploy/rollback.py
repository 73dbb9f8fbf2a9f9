"""Roll back: to an earlier release on request, or to the previous one after a release was rejected."""

from __future__ import annotations

from ansible.module_utils.flaskhost.deploy import freeze
from ansible.module_utils.flaskhost.deploy.app import RETURN, App
from ansible.module_utils.flaskhost.deploy.database import Unanswered, known_revisions, schema_problem
from ansible.module_utils.flaskhost.deploy.flip import Flip
from ansible.module_utils.flaskhost.deploy.records import Record
from ansible.module_utils.flaskhost.deploy.repair import Repair
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError


class Rollback:
    """Finds the release to roll back to.

    Args:
        app: the app.
        repair: repairs the live release.
    """

    def __init__(self, app: App, repair: Repair) -> None:
        self.app, self._repair = app, repair

    def find(self) -> Record | None:
        self.app.note("Find the release")
        live, serving = self.app.slots.live(), self.app.serving()
        target = self.target(serving)
        if not target:
            if serving:
                self._repair.repair(live, serving)
            return None
        if not self.app.options["passes_freeze"]:
            freeze.check(self.app.options["app"])
        return target

    def target(self, serving: Record | None) -> Record | None:
        """Return the release to roll back to; None if it is already live.

        Raises:
            ReleaseError: there is none, it is not on this host, or it does not know the database's schema revision.
        """
        self.app.outcome.previous = self.app.slots.release(self.app.slots.live())
        name = self.app.options["release"] or self.app.store.previous_healthy(self.app.outcome.previous)
        there = (
            ", ".join(item.id for item in self.app.store.all_records() if self.app.store.has_environment(item))
            or "none"
        )
        if not name:
            raise ReleaseError(
                "Find the release",
                f"this host has no other healthy release. Available: {there}.",
                "Name one with -e release=..., or deploy a version: "
                "ansible-playbook playbooks/deploy.yml -e version=...",
            )
        record = self.app.store.record(name)
        if not record or not self.app.store.has_environment(record):
            raise ReleaseError(
                "Find the release",
                f"there is no release {name} on this host. Available: {there}.",
                "Name one of them with -e release=..., or deploy its version: "
                "ansible-playbook playbooks/deploy.yml -e version=...",
            )
        if serving and record.id == serving.id:
            return None
        self._check_schema(record)
        return record

    def _check_schema(self, record: Record) -> None:
        # The current variables name the same database as the release's own.
        database = self.app.database(self.app.variables())
        known = known_revisions(self.app.store.path(record.id) / "app")
        noted = record.schema_after
        if not known and not noted:
            return
        cure = (
            "Downgrade the migration first (ansible-playbook playbooks/run.yml -e owner=true -e \"command='flask db "
            "downgrade ...'\"), or, if the older code works with the newer schema,"
        )
        try:
            problem = schema_problem(database.revision(), known, noted)
        except Unanswered as reason:
            # An unknown revision is treated as a mismatch.
            problem = f"the revision of the database schema could not be read: {reason}."
            cure = (
                "Check that the database runs and accepts the app's login, or, if the code certainly works with "
                "the schema,"
            )
        if not problem:
            return
        if self.app.options["force"]:
            self.app.outcome.warnings.append(f"{record.id}: {problem} Rolled back to it anyway (force).")
            return
        raise ReleaseError(
            "Compare the schema",
            f"{record.id}: {problem}",
            f"{cure} add -e force=true. {STILL}",
        )


class Return:
    """Restores what was live on this host before a release that was rejected on at least one host.

    Args:
        app: the app.
        flip: switches traffic back to the previous slot.
    """

    def __init__(self, app: App, flip: Flip) -> None:
        self.app, self._flip = app, flip

    def run(self, release: str, previous: str) -> None:
        """Restore what was live on this host before the release that at least one host rejected."""
        live, idle = self.app.slots.live(), self.app.slots.idle()
        record, held = self.app.store.record(release), self.app.slots.release(idle)
        if record and self._began_with(record.id, previous) and self.app.slots.release(live) == record.id:
            self._back_to_nothing(live, record)
            self.app.outcome.changed = True
        elif record and held in (release, previous) and self.app.slots.is_active(idle):
            if held == release:
                # The release is not live yet; or, in a restart, both slots run it and the live one is healthy.
                self.app.slots.drain(idle)
                self.app.outcome.changed = True
            elif self.app.slots.release(live) == release:
                self.app.outcome.warnings += self._flip.back_to(idle, live, record, "rejected on another host")
                self.app.outcome.changed = True
        self.app.outcome.release = self.app.slots.release(self.app.slots.live())

    def _began_with(self, release: str, previous: str) -> bool:
        """Check whether nothing was live here before a release, according to the caller and to the host's history."""
        last = (self.app.store.history() or [{}])[-1]
        return not previous and not (last.get("release") == release and last.get("from"))

    def _back_to_nothing(self, live: str, record: Record) -> None:
        """Stop the first release of this host, so that all hosts are alike: on some of them it never went live."""
        self.app.note("Stop the release")
        self.app.still = "The app is down on this host until the next deploy."
        self.app.slots.withdraw(live)
        self.app.units(record).remove()
        self.app.store.remember("", record.id, self.app.options["by"], RETURN)
        record.failed, record.healthy = record.failed or "rejected on at least one host", False
        self.app.store.write(record)
        self.app.outcome.warnings.append(
            f"{record.id} was rejected on at least one host, and no release was live here before. {self.app.still}"
        )
