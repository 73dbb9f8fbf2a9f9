"""One app on this host, as a run sees it: its folders, slots, units and records, and what is said at the end."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Whole names, here and beside: Mitogen does not find what is imported by a relative one.
from ansible.module_utils.flaskhost.deploy import environment, processes
from ansible.module_utils.flaskhost.deploy.database import Database
from ansible.module_utils.flaskhost.deploy.records import Record, Store
from ansible.module_utils.flaskhost.deploy.slots import Slots
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run

#: What the operator wants to know first.
STILL = "What served before still serves."
#: What takes a host back when another one has failed; its name in the history, too.
RETURN = "return"


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


class App:
    """One app on this host.

    Args:
        run: runs a command, as ``AnsibleModule.run_command`` does.
        options: the module's options, see plugins/modules/flask_release.py.
        check: only tell what would be done.
        pause: waits some seconds; another one in tests.

    Attributes:
        outcome: what the run has done.
        step: what is being done, for an error.
        still: what serves, for an error.
    """

    def __init__(self, run: Run, options: dict[str, Any], check: bool, pause: Callable[[float], None]) -> None:
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

    def units(self, record: Record) -> processes.Units:
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

    def switch_units(self, record: Record) -> None:
        self.units(record).switch(record.processes, record.timers)

    def os_error(self, error: OSError) -> ReleaseError:
        """Say what the system refuses; a full disk is the most likely, and has its own cure."""
        place = f": {error.filename}" if error.filename else ""
        cure = f"Look at the host: df -h, and sudo journalctl -p err -n 20. {self.still}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = f"Make room on the disk of {self.root} (df -h), or lower keep_releases. {self.still}"
        return ReleaseError(self.step or "Work on the disk", f"{error.strerror or error}{place}.", cure)

    def note(self, step: str) -> None:
        self.step = step or self.step

    def serving(self) -> Record | None:
        live = self.slots.live()
        return self.store.record(self.slots.release(live)) if live else None

    def variables(self) -> dict[str, str]:
        """The release's variables, but for its own name and for the keys that are made here."""
        return {**self.options["environment"], **self.options["secrets"]}

    def signing_keys(self) -> list[str]:
        """The keys that sign sessions; none where the user gives the app one."""
        if "SECRET_KEY" in self.variables():
            return []
        return self.keys.read() if self.check else self.keys.ensure()

    def database(self, variables: dict[str, str]) -> Database:
        return Database(variables.get("DATABASE_URL", ""), self.user, self.options["app"])


def digest(value: Any) -> str:
    """A digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
