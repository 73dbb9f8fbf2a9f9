"""The state machine that makes a release of one app live on one host, or rolls back to an earlier one.

The phases are prepare (fetch and build, or find the release to roll back to), migrate (the release command), gate
(start the idle slot and check its health), flip (rename the live link, and watch) and finish (drain the previous slot,
remove old releases). On a single host, one run executes all phases. With several hosts, each phase runs on all of them
before the next one begins. The phase ``return`` restores the previous state of a host, even if nothing was live there.

Every phase can be repeated. A killed run leaves at most an incomplete release, which the next run removes, or a
complete one that is not live, which the next run uses. Until the flip, the live slot is not touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.flaskhost.deploy import protected
from ansible.module_utils.flaskhost.deploy.app import RETURN, App, Outcome, digest
from ansible.module_utils.flaskhost.deploy.flip import Flip
from ansible.module_utils.flaskhost.deploy.lock import KEEP_SECONDS, Lock, Locked
from ansible.module_utils.flaskhost.deploy.migrate import Migration, is_same_but_for_server
from ansible.module_utils.flaskhost.deploy.prepare import Preparation
from ansible.module_utils.flaskhost.deploy.records import Record
from ansible.module_utils.flaskhost.deploy.repair import Repair
from ansible.module_utils.flaskhost.deploy.rollback import Return, Rollback
from ansible.module_utils.flaskhost.host.redact import redact
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError, Run

#: All phases in their order.
PHASES = ("prepare", "migrate", "gate", "flip", "finish")
#: Why the live release restarts in the other slot, although it is the requested one.
RESIZED = "restart it with its new share of the host's memory and cores, without its release command"
#: Seconds for which the lock is held beyond the time limit of another host's release command.
LOCK_MARGIN = 60


class Deployment:
    """Makes the requested release of one app live.

    Args:
        run: runs a command, with the interface of ``AnsibleModule.run_command``.
        options: the module's options, see plugins/modules/flask_release.py.
        check: whether only to report what would be done.
        pause: sleeps for a number of seconds; replaced in tests.
    """

    def __init__(
        self, run: Run, options: dict[str, Any], check: bool = False, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.app = App(run, options, check, pause)
        self.flip = Flip(self.app)
        self.repair = Repair(self.app, self.flip)
        self.preparation, self.rollback = Preparation(self.app, self.repair), Rollback(self.app, self.repair)
        self.migration, self.returning = Migration(self.app), Return(self.app, self.flip)

    def go(self) -> Outcome:
        """Run the requested phases.

        Returns:
            The outcome.

        Raises:
            ReleaseError: a phase failed; the previous release is still live.
        """
        phases = self.app.options["phases"] or list(PHASES)
        try:
            if self.app.check:
                return self._plan()
            # Override the umask of the login: the app and the web server need access to the folders.
            os.umask(0o022)
            self.preparation.folders()
            return self._locked(phases)
        except OSError as error:
            raise self._told(self.app.os_error(error)) from error
        except ReleaseError as error:
            self._told(error)
            raise

    def _told(self, error: ReleaseError) -> ReleaseError:
        """Say in an error what serves."""
        if STILL in error.cure:
            error.cure = error.cure.replace(STILL, self.app.serves())
        return error

    def _locked(self, phases: list[str]) -> Outcome:
        options = self.app.options
        lock = Lock(
            self.app.root / ".lock",
            deploy=options["deploy"],
            by=options["by"],
            controller=options["controller"],
            takeover=options["takeover"],
            pause=self.app.pause,
        )
        try:
            lock.acquire()
        except Locked:
            # Another run holds the lock, so this run changed nothing that could be rolled back.
            if phases == [RETURN]:
                return self.app.outcome
            raise
        keep = False
        try:
            self._run_phases(phases)
            keep = self.app.outcome.pending
        finally:
            # The remaining phases run later, and find the lock held for them.
            if keep:
                lock.keep(max(KEEP_SECONDS, options["release_timeout"] + LOCK_MARGIN))
            else:
                lock.release()
        return self.app.outcome

    def _run_phases(self, phases: list[str]) -> None:
        # A run that was killed at the gate left it open.
        self.app.slots.close_gate()
        self._restore_link()
        if phases == [RETURN]:
            self.returning.run(self.app.options["release"], self.app.options["previous"])
            return
        record: Record | None = None
        if phases[0] == "prepare":
            find = {
                "deploy": self.preparation.find,
                "rollback": self.rollback.find,
                "restart": self.preparation.serving_release,
            }[self.app.options["verb"]]
            record = find()
            if self.app.outcome.needs_source:
                return
            if self.app.options["verb"] == "deploy":
                # Not before a rollback, which must work whatever the app has made of its data.
                self.app.note(protected.STEP)
                self.app.outcome.changed |= protected.settle(self.app)
            if not record:
                return
            self.flip.require_listener()
        else:
            record = self.preparation.named(self.app.options["release"])
        self.app.outcome.changed = True
        self.app.outcome.release, self.app.outcome.revision = record.id, record.revision
        self.app.outcome.slot = self.app.slots.idle()
        if "migrate" in phases and self.app.options["verb"] == "deploy":
            self.migration.run(record)
        if "gate" in phases:
            self.flip.gate(record)
        if "flip" in phases:
            if self.app.options["verb"] == "deploy" and self.app.is_restart(record):
                self.app.outcome.plan = [RESIZED]
            self.flip.flip(record, gated="gate" in phases)
        if "finish" in phases:
            self._finish(record)
        self.app.outcome.pending = "finish" not in phases

    def _restore_link(self) -> None:
        if not self.app.slots.is_lost():
            return
        live = self.app.slots.live()
        self.app.slots.restore()
        self.app.outcome.changed = True
        self.app.outcome.warnings.append(
            f"{self.app.slots.live_socket} was missing, so visitors got 502. The link has been restored and leads to "
            f"the {live} slot with {self.app.slots.release(live)}. Flaskhost never removes this link."
        )

    def _plan(self) -> Outcome:
        """Report what would be done without changing anything."""
        options, outcome = self.app.options, self.app.outcome
        serving = self.app.serving()
        outcome.previous = serving.id if serving else ""
        outcome.slot = self.app.slots.idle()
        later = [
            f"start it in the {outcome.slot} slot",
            f"check its health at {options['health']['path']}",
            "switch traffic to it",
        ]
        restarting = list(later)
        if options["watch"] and options["verb"] == "deploy":
            later.append(f"watch it for {options['watch']} s")
        if options["verb"] == "restart":
            outcome.changed, outcome.plan = bool(serving), later
            return outcome
        if options["verb"] == "rollback":
            target = self.rollback.target(serving)
            if target:
                outcome.changed, outcome.release, outcome.revision = True, target.id, target.revision
                outcome.plan = [f"roll back to {target.id}", *later]
            return outcome
        revision = self.preparation.revision()
        parts = self.preparation.parts(revision)
        identity = digest(parts)
        outcome.revision = revision
        outcome.changed |= protected.settle(self.app)
        if serving and serving.identity == identity and self.app.store.has_environment(serving):
            self.repair.repair(self.app.slots.live(), serving)
            if not self.app.is_sized(serving):
                outcome.changed, outcome.plan = True, [RESIZED, *restarting]
            return outcome
        outcome.changed = True
        known = serving.parts if serving else {}
        other = [name for name, part in parts.items() if known.get(name) != part] if known else []
        begin = [f"a new release of {revision[:12]}" + (f", with changes in: {', '.join(other)}" if other else "")]
        built = self.preparation.whole(identity)
        begin.append(f"use {built.id}, which is already built" if built else "fetch and build it")
        command = options["release_command"] or "the release line of its Procfile, if there is one"
        if self.migration.setup.is_open() and not serving:
            begin.append(f"run its setup command: {redact(options['setup_command'])}")
        if not is_same_but_for_server(known, parts):
            begin.append(f"run its release command: {redact(command)}")
        outcome.plan = [*begin, *later]
        return outcome

    def _finish(self, record: Record) -> None:
        self.app.note("Drain the previous slot")
        live, other = self.app.slots.live(), self.app.slots.idle()
        if self.app.slots.release(live) != record.id:
            raise ReleaseError(
                "Drain the previous slot",
                f"{record.id} is not live: another deploy has run in the meantime.",
                "Check the status (ansible-playbook playbooks/status.yml), then run the same command again.",
            )
        self.app.still = f"{record.id} serves."
        if self.app.slots.is_active(other) or self.app.slots.is_enabled(other):
            self.app.slots.drain(other)
        self.app.outcome.slot = live
        self.app.store.prune(self.app.options["keep_releases"])
