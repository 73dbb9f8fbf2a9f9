"""The phases gate and flip: start a release in the idle slot, switch traffic to it, watch it, and take it back.

The flip is the rename of one link. Until then visitors do not notice the release; after it the slot that served before
is still warm, and one more rename lets it serve again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.deploy import assets
from ansible.module_utils.flaskhost.deploy.app import RETURN, App, digest
from ansible.module_utils.flaskhost.deploy.database import rights_hint
from ansible.module_utils.flaskhost.deploy.records import Record
from ansible.module_utils.flaskhost.deploy.slots import is_good, listens, probe
from ansible.module_utils.flaskhost.deploy.watch import AccessLog, Traffic, verdict
from ansible.module_utils.flaskhost.host.runner import ReleaseError

#: Seconds between two looks at the log while a new release is watched.
WATCH_INTERVAL = 0.25
#: Looks between two questions for the health, and how many of them in a row may fail: one can be chance.
LOOKS_PER_PROBE, BAD_PROBES = 4, 2


class Flip:
    """Brings a release that is built into service.

    Args:
        app: the app.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    def require_listener(self) -> None:
        """Stop before the release command where the gate could not pass: nginx has no listener for it.

        Raises:
            ReleaseError: it has none.
        """
        address = self.app.options["gate_address"]
        if address and not listens(address):
            raise ReleaseError(
                "Look for nginx",
                f"nginx does not listen on {address}: it is stopped, or its settings are an earlier version's.",
                "Run site.yml (with --tags nginx to leave the apps as they are), then the same command. "
                f"{self.app.still}",
            )

    def gate(self, record: Record) -> None:
        options, slot = self.app.options, self.app.slots.idle()
        self.app.note("Start the idle slot")
        assets.share(self.app.store, record.id, self.app.slots.release(self.app.slots.live()))
        # A release that has served has shown that it does not end after a second.
        settle = options["health"].get("settle", 0) if options["verb"] == "deploy" else 0
        if options["schema_after"] and not record.schema_after:
            # The command was run on another host of the same fleet.
            record.schema_before, record.schema_after = options["schema_before"], options["schema_after"]
            self.app.store.write(record)
        try:
            self.app.slots.start(slot, record.id, options["health"]["timeout"])
            self.app.slots.gate(slot, options["host"], options["health"], options["gate_address"], settle)
        except (ReleaseError, OSError) as error:
            self.app.slots.stop(slot)
            if isinstance(error, ReleaseError):
                error.cure += rights_hint(error.reason)
            raise

    def flip(self, record: Record, gated: bool) -> None:
        self.app.note("Let the release serve")
        options, live, slot = self.app.options, self.app.slots.live(), self.app.slots.idle()
        if self.app.slots.release(slot) != record.id or not self.app.slots.is_active(slot):
            raise ReleaseError(
                "Let the release serve",
                f"the {slot} slot no longer runs {record.id}: another deploy has come in between.",
                "Run the same command again.",
            )
        if not gated:
            # It has waited for other hosts since.
            try:
                self.app.slots.gate(slot, options["host"], {**options["health"], "probes": 1})
            except ReleaseError:
                self.app.slots.stop(slot)
                raise
        served, previous = self.app.slots.release(live), self.app.serving()
        # Asked before the history says that it has been left.
        back = options["verb"] == "rollback" and self.app.store.is_back(record.id, served)
        self.app.outcome.previous = served
        watching = self._watching(slot, record, served)
        self._guarded(
            live,
            slot,
            record,
            [
                lambda: self.app.slots.flip(slot),
                *watching[:1],
                lambda: self._noted(lambda: self.app.store.remember(record.id, served, options["by"], options["verb"])),
                lambda: self.app.switch_units(record),
                *watching[1:],
                lambda: self._noted(lambda: self._confirm(record)),
            ],
        )
        if back and previous:
            # So that the next one does not come back to it. What is left for a newer release has nothing against it.
            previous.failed = f"gone back from by {options['by'] or 'somebody'}"
            self._noted(lambda: self.app.store.write(previous))

    def _noted(self, write: Callable[[], None]) -> None:
        """Write something down. A rollback that cannot do so warns: it has to work on a full disk, too."""
        try:
            write()
        except OSError as error:
            if self.app.options["verb"] != "rollback":
                raise
            problem = self.app.os_error(error)
            warning = (
                f"the rollback could not be noted: {problem.reason} {problem.cure} Until the next rollback or deploy, "
                "history.json and status.yml do not know of it."
            )
            if warning not in self.app.outcome.warnings:
                self.app.outcome.warnings.append(warning)

    def _confirm(self, record: Record) -> None:
        record.healthy, record.failed = True, ""
        # The keys are no part of a release: it was started with those that there are now.
        keys = digest(self.app.signing_keys())
        if record.parts and record.parts.get("keys") != keys:
            record.parts["keys"] = keys
            record.identity = digest(record.parts)
        self.app.store.write(record)

    def _watching(self, slot: str, record: Record, served: str) -> list[Callable[[], None]]:
        """The steps that watch a release: when it has begun to serve, and later; none where it is not to be watched.

        What was before is read at once.

        Args:
            slot: the slot of the release.
            record: the release.
            served: the one that served before.
        """
        if not self.app.options["watch"] or self.app.options["verb"] != "deploy":
            return []
        log = AccessLog(Path(self.app.options["access_log"]))
        before, invocation = log.before(served), self.app.slots.invocation(slot)
        # From the rename on: what was answered before it says nothing about the release.
        return [log.begin, lambda: self._watch(slot, record, log, before, invocation)]

    def watch_again(self, other: str, live: str, serving: Record) -> None:
        warm = other if self.app.slots.is_active(other) else ""
        steps = self._watching(live, serving, self.app.slots.release(warm))
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
            self._take_back(live, slot, record, self.app.os_error(error), at_fault=False)
        except ReleaseError as error:
            self._take_back(live, slot, record, error)
        self.app.still = f"{record.id} serves."

    def _watch(self, slot: str, record: Record, log: AccessLog, before: Traffic, invocation: str) -> None:
        """See how the release does with visitors.

        Raises:
            ReleaseError: too many errors or slow answers, no health, a restart, or a process that does not stay up.
        """
        now, bad, health = Traffic(record.id, others=True), 0, self.app.options["health"]
        for number in range(1, int(self.app.options["watch"] / WATCH_INTERVAL) + 1):
            self.app.pause(WATCH_INTERVAL)
            now.add(log.new_lines())
            problem = verdict(before, now)
            if number % LOOKS_PER_PROBE == 0:
                status, body = probe(self.app.slots.socket(slot), health["path"], self.app.options["host"])
                bad = 0 if is_good(status, body, health) else bad + 1
                if bad >= BAD_PROBES:
                    problem = f"{health['path']} answered {status or 'nothing'} {bad} times in a row"
                elif self.app.slots.invocation(slot) != invocation:
                    problem = "its service has crashed and was started again"
                else:
                    problem = problem or "; ".join(self.app.units(record).failures())
            if problem:
                raise ReleaseError("Watch the release", f"{problem}.", "")

    def _take_back(self, live: str, slot: str, record: Record, error: ReleaseError, at_fault: bool = True) -> None:
        """Let the slot serve again that served before; it is still warm.

        Raises:
            ReleaseError: always, with what was done about it.
        """
        cure = error.cure or "Correct the release and run the same command again."
        if live and self.app.slots.is_active(live):
            # First of all what visitors get; the log can wait.
            problems = self.back_to(live, slot, record, error.reason if at_fault else "")
            cure = "\n".join([f"{self.app.slots.release(live)} serves again. {cure}", *problems])
        elif self.app.slots.live() == slot and not live and "flip" in self.app.options["phases"]:
            # With others the return comes next, on all of them.
            cure = f"Nothing served here before, so that nothing serves until the next deploy. {cure}"
        elif self.app.slots.live() == slot:
            cure = f"Nothing else runs here to go back to: it goes on serving. {cure}"
        else:
            self.app.slots.stop(slot)
        log = self.app.slots.log(slot, int(time.time()) - 60)
        raise ReleaseError(error.step, f"{error.reason}\nIts last log lines:\n{log}", cure)

    def back_to(self, live: str, slot: str, record: Record, reason: str) -> list[str]:
        """Let the slot serve again that served before, and stop the other one.

        Args:
            live: the slot that served before.
            slot: the slot of the release.
            record: the release.
            reason: why it is not to be gone back to; empty when it may be.

        Returns:
            What else did not go well. It keeps nobody from being served.
        """
        self.app.slots.flip_back(live)
        name, problems = self.app.slots.release(live), []
        previous = self.app.store.record(name)
        try:
            self.app.store.remember(name, record.id, self.app.options["by"], RETURN)
            # A restart has the same release in both slots.
            if reason and record.id != name:
                record.failed, record.healthy = reason.partition("\n")[0], False
                self.app.store.write(record)
            if previous and previous.failed:
                previous.failed = ""
                self.app.store.write(previous)
        except OSError as error:
            problems.append(f"Besides, it could not be noted: {error.strerror or error}.")
        try:
            if previous:
                self.app.switch_units(previous)
        except OSError as error:
            problems.append(f"Besides, its processes were not started: {error.strerror or error}.")
        except ReleaseError as error:
            problems.append(f"Besides, its processes were not started: {error.reason}")
        self.app.slots.drain(slot)
        return problems
