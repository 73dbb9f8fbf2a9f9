"""Whether an app's setup command has run: it runs once in the life of the app's data.

A note in the data folder says so. It is backed up and restored with the data. The app can delete or forge it, and then
only affects its own data.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.module_utils.flaskhost.deploy.app import App
from ansible.module_utils.flaskhost.deploy.database import Database, Unanswered
from ansible.module_utils.flaskhost.deploy.records import Record
from ansible.module_utils.flaskhost.host import atomic, tree
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError

#: The note in the data folder.
NOTE = ".flaskhost-setup.json"
#: Its states: the command is running, or was killed or failed; it has ended well; it was not needed.
BEGUN, DONE, FOUND = "begun", "done", "found"
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
        try:
            with tree.parent(self._path) as above, tree.regular_file(NOTE, above) as file:
                return str(json.loads(os.read(file, _LONGEST)).get("state") or "")
        except (OSError, ValueError, AttributeError):
            return ""

    def is_open(self) -> bool:
        """Check whether there is a command about which nothing is settled yet."""
        return bool(self.app.options["setup_command"]) and self.state() not in (DONE, FOUND)

    def existing_data(self, database: Database) -> str:
        """Say why the app has data that the command could delete; empty if it has none.

        A command that was killed or failed leaves data that no release has used yet: it runs again.

        Args:
            database: the app's database.

        Raises:
            ReleaseError: the database does not say whether it has tables.
        """
        if self.app.serving() or self.app.store.history():
            return "a release of it has been live here"
        if self.state() == BEGUN:
            return ""
        try:
            tables = database.has_tables()
        except Unanswered as reason:
            raise ReleaseError(
                "Run the setup command",
                f"it runs only if the app's database is empty, and whether it is could not be determined: {reason}.",
                f"Check that the database runs and accepts the app's login. {STILL}",
            ) from None
        return "its database has tables" if tables else ""

    def note(self, state: str, record: Record) -> None:
        """Note the state.

        Args:
            state: one of the states above.
            record: the release with which the command runs.
        """
        entry: dict[str, Any] = {
            "state": state,
            "command": self.app.options["setup_command"],
            "release": record.id,
            "at": time.time(),
        }
        atomic.write(self._path, json.dumps(entry) + "\n", mode=0o644)
