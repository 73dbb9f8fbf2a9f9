"""The phases gate and flip: start a release in the idle slot, switch traffic to it, watch it, and roll it back.

The flip (the switch of traffic) renames one link. Until then, visitors do not notice the release. Afterwards the slot
that was live before still runs, and renaming the link once more switches traffic back to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.deploy import assets, server
from ansible.module_utils.flaskhost.deploy.app import RETURN, App, digest
from ansible.module_utils.flaskhost.deploy.database import rights_hint
from ansible.module_utils.flaskhost.deploy.records import Record
from ansible.module_utils.flaskhost.deploy.slots import is_good, listens, probe
from ansible.module_utils.flaskhost.deploy.watch import AccessLog, Traffic, verdict
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError

#: Seconds between two reads of the access log during the watch.
WATCH_INTERVAL = 0.25
#: Log reads between two health checks, and number of failed checks in a row that fail the watch: one can be chance.
LOOKS_PER_PROBE, BAD_PROBES = 4, 2


class Flip:
    """Switches traffic to a built release.

    Args:
        app: the app.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    def require_listener(self) -> None:
        """Stop before the release command if nginx has no listener for the gate, so that the gate could not pass.

        Raises:
            ReleaseError: nginx does not listen there.
        """
        address = self.app.options["gate_address"]
        if address and not listens(address):
            raise ReleaseError(
                "Check nginx",
                f"nginx does not listen on {address}: it is stopped, or its configuration is from an earlier version "
                "of Flaskhost.",
                f"Run site.yml (with --tags nginx to skip the apps), then the same command again. {self.app.still}",
            )

    def gate(self, record: Record) -> None:
        options, slot = self.app.options, self.app.slots.idle()
        self.app.note("Start the idle slot")
        assets.share(self.app.store, record.id, self.app.slots.release(self.app.slots.live()))
        # A release that was live before has already shown that it stays up for more than a second.
        settle = options["health"].get("settle", 0) if options["verb"] == "deploy" else 0
        settings = self.app.store.path(record.id) / "server.conf.py"
        before, restart = server.read(settings), self.app.is_restart(record)
        if options["schema_after"] and not record.schema_after:
            # The release command ran on another host that shares the database.
            record.schema_before, record.schema_after = options["schema_before"], options["schema_after"]
            self.app.store.write(record)
        try:
            if options["verb"] == "deploy":
                self._take_settings(settings, server.read(options["server_config"]))
                if not restart and self._resize(record):
                    self.app.store.write(record)
            self.app.slots.start(slot, record.id, options["health"]["timeout"], self._command(record))
            self.app.slots.gate(slot, options["host"], options["health"], options["gate_address"], settle)
        except (ReleaseError, OSError) as error:
            self.app.slots.stop(slot)
            if restart:
                # The live slot has the same release, and reads them again if it crashes.
                with suppress(OSError):
                    self._take_settings(settings, before)
            if isinstance(error, ReleaseError):
                error.cure += rights_hint(error.reason)
            raise

    def _take_settings(self, settings: Path, text: str) -> None:
        """Give a release the application server's current settings: its workers follow the host's size."""
        if text and server.read(settings) != text:
            atomic.write(settings, text, mode=0o644)

    def _command(self, record: Record) -> str:
        """Return the command that starts an earlier release; empty for a release that the current unit file fits.

        Since then, the app may have changed to another application server.
        """
        if self.app.options["verb"] == "deploy":
            return ""
        return record.command or server.FIRST_COMMAND.format(slots=self.app.slots.links)

    def _resize(self, record: Record) -> bool:
        """Note in a record the figures and the command with which its release starts. Return whether they differ."""
        new = self.app.size(), self.app.options["memory_mb"], self.app.options["drain"], self.app.command()
        old = record.size, record.memory_mb, record.drain, record.command
        record.size, record.memory_mb, record.drain, record.command = new
        return new != old

    def flip(self, record: Record, gated: bool) -> None:
        self.app.note("Switch traffic to the release")
        options, live, slot = self.app.options, self.app.slots.live(), self.app.slots.idle()
        if self.app.slots.release(slot) != record.id or not self.app.slots.is_active(slot):
            raise ReleaseError(
                "Switch traffic to the release",
                f"the {slot} slot no longer runs {record.id}: another deploy has run in the meantime.",
                "Run the same command again.",
            )
        if not gated:
            # It waited for other hosts since its gate.
            try:
                self.app.slots.gate(slot, options["host"], {**options["health"], "probes": 1})
            except ReleaseError:
                self.app.slots.stop(slot)
                raise
        served, previous = self.app.slots.release(live), self.app.serving()
        # Checked before the history records the change.
        back = options["verb"] == "rollback" and self.app.store.is_back(record.id, served)
        self.app.outcome.previous = served
        restart = self.app.is_restart(record)
        # Both slots run the same release, and the log does not tell their responses apart.
        watching = [] if restart else self._watching(slot, record, served)
        verb = "restart" if restart else options["verb"]
        if restart and options["verb"] == "deploy":
            # Written after the switch, so that a run that is killed before it is repeated.
            self._resize(record)
        self._guarded(
            live,
            slot,
            record,
            [
                lambda: self.app.slots.flip(slot),
                *watching[:1],
                lambda: self._noted(lambda: self.app.store.remember(record.id, served, options["by"], verb)),
                lambda: self.app.switch_units(record),
                *watching[1:],
                lambda: self._noted(lambda: self._confirm(record)),
            ],
        )
        if back and previous:
            # So that the next rollback skips it. A release that is left for a newer one stays a candidate.
            previous.failed = f"rolled back by {options['by'] or 'somebody'}"
            self._noted(lambda: self.app.store.write(previous))

    def _noted(self, write: Callable[[], None]) -> None:
        """Write a record. A rollback only warns if that fails, because it must also work on a full disk."""
        try:
            write()
        except OSError as error:
            if self.app.options["verb"] != "rollback":
                raise
            problem = self.app.os_error(error)
            # Traffic has been switched, so the release that was live before no longer serves.
            cure = problem.cure.replace(STILL, "").strip()
            warning = (
                f"the rollback could not be recorded: {problem.reason} {cure} history.json and status.yml do "
                "not show it until the next rollback or deploy."
            )
            if warning not in self.app.outcome.warnings:
                self.app.outcome.warnings.append(warning)

    def _confirm(self, record: Record) -> None:
        record.healthy, record.failed = True, ""
        # The keys are not part of a release: it was started with the current keys.
        keys = digest(self.app.signing_keys())
        if record.parts and record.parts.get("keys") != keys:
            record.parts["keys"] = keys
            record.identity = digest(record.parts)
        self.app.store.write(record)

    def _watching(self, slot: str, record: Record, served: str) -> list[Callable[[], None]]:
        """Return the steps that watch a release: at the switch, and afterwards. There are none without a watch.

        The traffic of the previous release is read immediately.

        Args:
            slot: the release's slot.
            record: the release.
            served: the release that was live before.
        """
        if not self.app.options["watch"] or self.app.options["verb"] != "deploy":
            return []
        log = AccessLog(Path(self.app.options["access_log"]))
        before, invocation = log.before(served), self.app.slots.invocation(slot)
        # Read the log from the switch on: earlier responses say nothing about the release.
        return [log.begin, lambda: self._watch(slot, record, log, before, invocation)]

    def watch_again(self, other: str, live: str, serving: Record) -> None:
        warm = other if self.app.slots.is_active(other) else ""
        steps = self._watching(live, serving, self.app.slots.release(warm))
        self._guarded(warm, live, serving, [*steps, lambda: self._confirm(serving)])

    def _guarded(self, live: str, slot: str, record: Record, steps: list[Callable[[], Any]]) -> None:
        """Run the steps that begin with the switch. If one fails, switch traffic back to the previous slot.

        Args:
            live: the slot that was live before and still runs; empty if there is none.
            slot: the release's slot.
            record: the release.
            steps: the steps to run.
        """
        try:
            for step in steps:
                step()
        except OSError as error:
            # A full disk is not the release's fault.
            self._take_back(live, slot, record, self.app.os_error(error), at_fault=False)
        except ReleaseError as error:
            self._take_back(live, slot, record, error)
        self.app.still = f"{record.id} serves."

    def _watch(self, slot: str, record: Record, log: AccessLog, before: Traffic, invocation: str) -> None:
        """Watch how the release handles real traffic.

        Raises:
            ReleaseError: too many errors or slow responses, failed health checks, a restart, or a process that exits.
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
                    problem = f"{health['path']} returned {status or 'no response'} {bad} times in a row"
                elif self.app.slots.invocation(slot) != invocation:
                    problem = "its service crashed and was restarted"
                else:
                    problem = problem or "; ".join(self.app.units(record).failures())
            if problem:
                raise ReleaseError("Watch the release", f"{problem}.", "")

    def _take_back(self, live: str, slot: str, record: Record, error: ReleaseError, at_fault: bool = True) -> None:
        """Switch traffic back to the slot that was live before, which still runs.

        Raises:
            ReleaseError: always, with the result of the rollback.
        """
        cure = error.cure or "Correct the release and run the same command again."
        # The sentences below say what serves.
        alone = cure.replace(STILL, "").strip()
        if live and self.app.slots.is_active(live):
            # Switch traffic first; reading the log can wait.
            problems = self.back_to(live, slot, record, error.reason if at_fault else "")
            cure = "\n".join([f"{self.app.slots.release(live)} serves again. {alone}", *problems])
        elif self.app.slots.live() == slot and not live and "flip" in self.app.options["phases"]:
            # On a run with several hosts, the phase return follows on all of them.
            cure = f"No release was live here before, so the app is down until the next deploy. {alone}"
        elif self.app.slots.live() == slot:
            cure = f"It still serves, because no other release runs here that traffic could return to. {alone}"
        else:
            self.app.slots.stop(slot)
        log = self.app.slots.log(slot, int(time.time()) - 60)
        raise ReleaseError(error.step, f"{error.reason}\nThe last log lines:\n{log}", cure)

    def back_to(self, live: str, slot: str, record: Record, reason: str) -> list[str]:
        """Switch traffic back to the slot that was live before, and stop the other one.

        Args:
            live: the slot that was live before.
            slot: the release's slot.
            record: the release.
            reason: why later rollbacks skip the release; empty if they can use it.

        Returns:
            Further problems, none of which affects visitors.
        """
        self.app.slots.flip_back(live)
        name, problems = self.app.slots.release(live), []
        previous = self.app.store.record(name)
        try:
            self.app.store.remember(name, record.id, self.app.options["by"], RETURN)
            # After a restart, both slots have the same release.
            if reason and record.id != name:
                record.failed, record.healthy = reason.partition("\n")[0], False
                self.app.store.write(record)
            if previous and previous.failed:
                previous.failed = ""
                self.app.store.write(previous)
        except OSError as error:
            problems.append(f"In addition, the rollback could not be recorded: {error.strerror or error}.")
        try:
            if previous:
                self.app.switch_units(previous)
        except OSError as error:
            problems.append(f"In addition, the processes of that release were not started: {error.strerror or error}.")
        except ReleaseError as error:
            problems.append(f"In addition, the processes of that release were not started: {error.reason}")
        self.app.slots.drain(slot)
        return problems
