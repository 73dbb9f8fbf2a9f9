"""One app on this host during a run: its folders, slots, units and records, and the outcome of the run."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Absolute imports, here and in the modules around: Mitogen does not find relative ones.
from ansible.module_utils.flaskhost.apps import placeholders
from ansible.module_utils.flaskhost.deploy import environment, processes, server
from ansible.module_utils.flaskhost.deploy.database import Database
from ansible.module_utils.flaskhost.deploy.records import Record, Store
from ansible.module_utils.flaskhost.deploy.slots import Slots
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError, Run

#: The part of a release's identity that the application server's settings and units decide. It changes no data.
SERVER_PART = "application server"
#: The phase that takes a host back to the previous release if another host failed; also its name in the history.
RETURN = "return"


@dataclass
class Outcome:
    """The outcome of a run.

    Attributes:
        changed: whether anything on the host changed, or would change in check mode.
        pending: whether later phases still have to process the release.
        release: the release that is live after the run, or that the later phases process.
        revision: its commit or digest.
        slot: its slot.
        previous: the release that was live before; empty if there was none.
        needs_source: whether the code's archive must be uploaded before the run can continue.
        schema_before: the revision of the database schema before the release command.
        schema_after: the revision after it.
        new_folders: the data folders that the run has created, with the files that the code has for them.
        plan: what the run would do in check mode, one line for each step.
        warnings: warnings for the operator.
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
    new_folders: list[str] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class App:
    """One app on this host.

    Args:
        run: runs a command, with the interface of ``AnsibleModule.run_command``.
        options: the module's options, see plugins/modules/flask_release.py.
        check: whether only to report what would be done.
        pause: sleeps for a number of seconds; replaced in tests.

    Attributes:
        outcome: the outcome of the run so far.
        step: the current step, for error messages.
        still: which release still serves, for error messages.
    """

    def __init__(self, run: Run, options: dict[str, Any], check: bool, pause: Callable[[float], None]) -> None:
        # By default, AnsibleModule expands $NAME in arguments with root's own environment variables.
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

    def units(self, record: Record) -> processes.Units:
        """Return the units of a release's processes and timers."""
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

    def switch_units(self, record: Record) -> None:
        self.units(record).switch(record.processes, record.timers)

    def os_error(self, error: OSError) -> ReleaseError:
        """Convert an OSError to a message. A full disk is the most likely cause and has a fix of its own."""
        place = f": {error.filename}" if error.filename else ""
        cure = f"Check the host: df -h, and sudo journalctl -p err -n 20. {self.still}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = f"Free space on the disk of {self.root} (df -h), or lower keep_releases. {self.still}"
        return ReleaseError(self.step or "Write to the disk", f"{error.strerror or error}{place}.", cure)

    def note(self, step: str) -> None:
        self.step = step or self.step

    def serving(self) -> Record | None:
        live = self.slots.live()
        return self.store.record(self.slots.release(live)) if live else None

    def is_restart(self, record: Record) -> bool:
        """Check whether a run restarts the live release in the other slot, instead of switching to another release."""
        return self.options["verb"] == "restart" or record.id == self.slots.release(self.slots.live())

    def server_files(self) -> list[str]:
        """Return the paths of the application server's settings and of the slots' units."""
        return [self.options["server_config"], *self.options["unit_files"]]

    def size(self) -> str:
        """Return a digest of the figures in the application server's settings, such as its workers."""
        return digest(server.figures(self.options["server_config"]))

    def command(self) -> str:
        """Return the start command in the current unit file of the slots."""
        return server.command(server.read(self.slots.template)) if self.slots.template else ""

    def is_sized(self, record: Record) -> bool:
        """Check whether a release runs with its current share of the host's memory and cores."""
        old, new = record.memory_mb, self.options["memory_mb"]
        return record.size == self.size() and server.is_enough(old, new, self.options["memory_follows_host"])

    def serves(self) -> str:
        """Say in one sentence which release serves visitors; nothing did before the first deploy."""
        live = self.slots.live()
        release = self.slots.release(live)
        if not release:
            return "No release has been live here yet, so visitors get an error page."
        if not self.slots.is_active(live):
            return f"{release} is live, but its slot does not run, so visitors get an error page."
        return f"{release} still serves."

    def given(self) -> dict[str, str]:
        """Return the variables as the user's options give them, with placeholders."""
        return {**self.options["environment"], **self.options["secrets"]}

    def variables(self) -> dict[str, str]:
        """Return the release's variables, without its name and folder and without the generated signing keys."""
        return placeholders.fill_variables(
            self.given(), placeholders.places(self.options["root"], self.options["host"])
        )

    def signing_keys(self) -> list[str]:
        """Return the keys that sign sessions; none if the user sets the app's ``SECRET_KEY``.

        Further names of the key stay until no release that uses them is left, so that rollbacks find them.
        """
        given = self.given()
        if "SECRET_KEY" in given:
            return []
        if self.check:
            return self.keys.read()
        kept = {name for record in self.store.all_records() for name in record.key_names}
        return self.keys.ensure(kept.union(placeholders.key_names(given)))

    def database(self, variables: dict[str, str]) -> Database:
        return Database(variables.get("DATABASE_URL", ""), self.user, self.options["app"])


def digest(value: Any) -> str:
    """Return a digest of any JSON-serializable value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
