"""Take an app host out of the rotation of the web hosts, and back. A file says so; nginx then listens no more.

The file outlasts a reboot and a run of site.yml. Deploys also reach a drained host: its health checks have a listener
of their own.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.apps.names import DRAINED
from ansible.module_utils.flaskhost.host import atomic

FILE = Path(DRAINED)
#: How nginx calls a worker that finishes its requests and accepts no more.
_LEAVING = re.compile(rb"nginx: worker process is shutting down")
#: Seconds between two looks at the workers.
_INTERVAL = 0.5


def read(file: Path = FILE) -> dict[str, Any]:
    """Return who drained the host, and when (``by``, ``at``); empty if it is not drained."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found = None
    known = found if isinstance(found, Mapping) else {}
    at = known.get("at")
    return {"by": str(known.get("by") or "somebody"), "at": float(at) if isinstance(at, int | float) else 0.0}


def put(by: str, now: float, file: Path = FILE) -> None:
    """Mark the host as drained."""
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(file, json.dumps({"by": by, "at": now}) + "\n", mode=0o644)


def lift(file: Path = FILE) -> None:
    """Remove the mark."""
    file.unlink(missing_ok=True)


def releases(roots: Mapping[str, str]) -> dict[str, str]:
    """Return the live release of each app; empty if it has none.

    Args:
        roots: the folder of each app.
    """
    links = {name: Path(root) / "current" for name, root in roots.items()}
    return {name: link.readlink().name if link.is_symlink() else "" for name, link in links.items()}


def leaving(processes: Path = Path("/proc")) -> int:
    """Count nginx's workers that still finish requests."""
    return sum(bool(_LEAVING.match(_command(path))) for path in processes.glob("[0-9]*/cmdline"))


def wait(seconds: float, count: Callable[[], int] = leaving, pause: Callable[[float], None] = time.sleep) -> int:
    """Wait until no worker finishes requests any more; return how many still do at the end.

    Args:
        seconds: how long to wait at the most.
        count: counts the workers; replaced in tests.
        pause: sleeps; replaced in tests.
    """
    for _number in range(int(seconds / _INTERVAL)):
        if not count():
            return 0
        pause(_INTERVAL)
    return count()


def notes(file: Path = FILE, now: float | None = None) -> Iterable[str]:
    """Return the note of status.yml about a drained host."""
    found = read(file)
    if not found:
        return []
    hours = max(0.0, (time.time() if now is None else now) - found["at"]) / 3600
    since = f" for {hours:.0f} h" if found["at"] else ""
    return [f"DRAINED{since} by {found['by']}: no visitors until ansible-playbook playbooks/drain.yml -e drain=off"]


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
