"""Which tests of the roles run: `make roles` runs all of them, `make test` those that change nothing on the hosts."""

from __future__ import annotations

import os
from pathlib import Path

#: They take a role away from its host, and bring it back.
NIGHTLY = {"test_hardening_pam.py", "test_undo.py"}


def pytest_collection_modifyitems(config, items):
    """Leave the nightly tests out. Molecule names every file, and a file that is named is never ignored."""
    if os.environ.get("FLASKHOST_ROLES_EVERYWHERE"):
        return
    left_out = [item for item in items if Path(item.path).name in NIGHTLY]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
