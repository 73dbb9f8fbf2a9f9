"""Small JSON files in which a program remembers something from one run to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Absolute imports: Mitogen does not find relative ones.
from ansible.module_utils.flaskhost.host import atomic


def read(path: Path) -> dict[str, Any]:
    """Read an object. A file that does not exist, or cannot be read, counts as empty."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, value: Any) -> None:
    """Write a value atomically, readable only by its owner. A missing folder is created with mode 0700."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic.write(path, json.dumps(value, indent=2, sort_keys=True) + "\n", mode=0o600)
