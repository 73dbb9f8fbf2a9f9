"""What a run that was killed, or a hand, has left beside a release that should serve, and how it is put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.deploy.app import App
from ansible.module_utils.flaskhost.deploy.flip import Flip
from ansible.module_utils.flaskhost.deploy.records import Record


class Repair:
    """Looks at what serves, and puts it right.

    Args:
        app: the app.
        flip: watches a release again whose watch was killed.
    """

    def __init__(self, app: App, flip: Flip) -> None:
        self.app, self._flip = app, flip

    def repair(self, live: str, serving: Record) -> None:
        """Put right what a run that was killed, or a hand, has left beside a release that should serve."""
        other = next(slot for slot in SLOTS if slot != live)
        # Only a plan can find it: a run has restored it by now.
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
            # The run ended right after the rename.
            came_from = str(last[0].get("release", "")) if last else ""
            todo.append(
                lambda: self.app.store.remember(serving.id, came_from, self.app.options["by"], self.app.options["verb"])
            )
        if not serving.healthy:
            # The run ended while it was watched, so that it is not known yet how it does.
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
        """Remove what was refused, of which nobody wants anything any more: what is wanted serves."""
        if self.app.slots.release(other) in refused:
            (self.app.slots.links / other).unlink()
        self.app.store.prune(self.app.options["keep_releases"])
