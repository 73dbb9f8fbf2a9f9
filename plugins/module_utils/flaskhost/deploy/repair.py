"""Repair what a killed run, or an administrator's manual change, left next to a release that should be live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.deploy.app import App
from ansible.module_utils.flaskhost.deploy.flip import Flip
from ansible.module_utils.flaskhost.deploy.records import Record


class Repair:
    """Checks and repairs the live release.

    Args:
        app: the app.
        flip: repeats the watch of a release whose watch was killed.
    """

    def __init__(self, app: App, flip: Flip) -> None:
        self.app, self._flip = app, flip

    def repair(self, live: str, serving: Record) -> None:
        """Repair what a killed run or a manual change left next to a release that should be live."""
        other = next(slot for slot in SLOTS if slot != live)
        # Only in check mode: a real run has restored the link before.
        todo: list[Callable[[], Any]] = [self.app.slots.restore] if self.app.slots.is_lost() else []
        if not self.app.slots.is_active(live):
            todo += [
                lambda: self.app.slots.start_again(live, self.app.options["health"]["timeout"]),
                lambda: self.app.slots.gate(live, self.app.options["host"], self.app.options["health"]),
            ]
        current = self.app.slots.current
        followed = current.is_symlink() and current.readlink().name == serving.id
        if not self.app.slots.is_enabled(live) or not followed:
            todo.append(lambda: self.app.slots.flip(live))
        if not self.app.units(serving).in_order(serving.processes, serving.timers):
            todo.append(lambda: self.app.switch_units(serving))
        last = self.app.store.history()[-1:]
        if not last or last[0].get("release") != serving.id:
            # The run was killed right after the switch.
            came_from = str(last[0].get("release", "")) if last else ""
            todo.append(
                lambda: self.app.store.remember(serving.id, came_from, self.app.options["by"], self.app.options["verb"])
            )
        if not serving.healthy:
            # The run was killed during the watch, so the release is not known to be healthy.
            todo.append(lambda: self._flip.watch_again(other, live, serving))
        if self.app.slots.is_active(other) or self.app.slots.is_enabled(other):
            todo.append(lambda: self.app.slots.drain(other))
        if refused := self.app.store.refused(serving.id):
            todo.append(lambda: self._remove_refused(other, refused))
        if todo:
            self.app.outcome.changed = True
            if not self.app.check:
                for step in todo:
                    step()
        self.app.outcome.release, self.app.outcome.slot, self.app.outcome.revision = serving.id, live, serving.revision

    def _remove_refused(self, other: str, refused: set[str]) -> None:
        """Remove rejected releases. Nobody needs them, because the requested release is live."""
        if self.app.slots.release(other) in refused:
            (self.app.slots.links / other).unlink()
        self.app.store.prune(self.app.options["keep_releases"])
