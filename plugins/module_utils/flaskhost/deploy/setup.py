"""Whether an app's setup command has run: it runs once in the life of the app's data.

A note in the data folder says so. It is backed up and restored with the data. The app can delete or forge it, and then
only affects its own data.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ansible.module_utils.flaskhost.deploy.app import App
from ansible.module_utils.flaskhost.deploy.database import Database, Unanswered
from ansible.module_utils.flaskhost.deploy.records import Record
from ansible.module_utils.flaskhost.host import atomic, tree
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError

#: The note in the data folder.
NOTE = ".flaskhost-setup.json"
#: Its states: the command is running, or was killed or failed; it has ended well; it was not needed.
BEGUN, DONE, FOUND = "begun", "done", "found"
Answer = TypeVar("Answer")
#: Maximum number of bytes that are read from the note, which the app can replace.
_LONGEST = 4096


class Setup:
    """Decides whether the setup command runs, and notes it.

    Args:
        app: the app.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self._path = app.data / NOTE

    def state(self) -> str:
        """Return the state in the note; empty if there is none, or if the app has damaged it."""
        return str(self._read().get("state") or "")

    def _read(self) -> dict[str, Any]:
        try:
            with tree.parent(self._path) as above, tree.regular_file(NOTE, above) as file:
                found = json.loads(os.read(file, _LONGEST))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def is_open(self) -> bool:
        """Check whether there is a command about which nothing is settled yet."""
        return bool(self.app.options["setup_command"]) and self.state() not in (DONE, FOUND)

    def existing_data(self, database: Database) -> str:
        """Say why the app has data that the command could delete; empty if it has none.

        Args:
            database: the app's database.

        Raises:
            ReleaseError: the database does not say whether it has tables; or it has, and it is not certain that they
                are those of a setup command that was killed or failed.
        """
        if self.app.serving() or self.app.store.history():
            return "a release of it has been live here"
        tables = _answer(database.has_tables)
        if self.state() != BEGUN:
            return "its database has tables" if tables else ""
        if tables and not self._is_own(database):
            raise ReleaseError(
                "Run the setup command",
                "it began here once and did not end, and the database has tables that may hold data: a restore or "
                "another host may have filled them since.",
                f"If the data is needed, remove {self._path}, and the release is deployed without the setup command. "
                f"If not, empty the database. Then run the same command again. {STILL}",
            )
        return ""

    def _is_own(self, database: Database) -> bool:
        """Check whether only the command itself can have created the tables: no restore, and no other host."""
        own = self._read().get("database")
        return bool(self.app.options["database_per_host"]) and own == _answer(database.identity)

    def note(self, state: str, record: Record, database: Database | None = None) -> None:
        """Note the state.

        Args:
            state: one of the states above.
            record: the release with which the command runs.
            database: the app's database, before the command begins.

        Raises:
            ReleaseError: the database does not respond.
        """
        entry: dict[str, Any] = {
            "state": state,
            "command": self.app.options["setup_command"],
            "release": record.id,
            "database": _answer(database.identity) if database else "",
            "at": time.time(),
        }
        atomic.write(self._path, json.dumps(entry) + "\n", mode=0o644)


def _answer(ask: Callable[[], Answer]) -> Answer:
    """Return a database's answer to a question.

    Raises:
        ReleaseError: it does not answer.
    """
    try:
        return ask()
    except Unanswered as reason:
        raise ReleaseError(
            "Run the setup command",
            f"it runs only if the app's database is empty, and whether it is could not be determined: {reason}.",
            f"Check that the database runs and accepts the app's login. {STILL}",
        ) from None
