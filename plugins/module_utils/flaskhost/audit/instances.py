"""The apps' caches and queues: running, in their sandbox, open only to their app, and queues kept and backed up."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.apps.instances import ALL_ENGINES
from ansible.module_utils.flaskhost.audit import exposure
from ansible.module_utils.flaskhost.audit.model import FAILED, PASSED, Finding, Scan
from ansible.module_utils.flaskhost.host.instances import said_of_itself
from ansible.module_utils.flaskhost.host.service_state import UNITS, parse_show
from ansible.module_utils.flaskhost.operate.instances import look

TITLE = "Caches and queues"
#: The highest exposure that the roles leave, see systemd-analyze security.
MOST_EXPOSED = 0.3
#: The modes of an instance's folder in /run and of its socket: its app's group can open it, and nobody else.
FOLDER_MODE, SOCKET_MODE = 0o750, 0o660
_RUN = Path("/run")
_CONFIG = Path("/etc/flaskhost/backup.json")
#: Runs a command; returns its status, output and error output.
Ask = Callable[[Sequence[str]], tuple[int, str, str]]


@dataclass(frozen=True)
class Places:
    """Where things are; tests use other places.

    Attributes:
        units: the folder of the unit files.
        run: the folder of the sockets' folders.
        config: the configuration of the backups.
    """

    units: Path = Path(UNITS)
    run: Path = _RUN
    config: Path = _CONFIG


def scan(ask: Ask, places: Places = Places()) -> Scan:
    """Check all instances of the host. A unit file says by itself that it is one.

    Args:
        ask: runs a command.
        places: where things are.
    """
    found = {path.name: said_of_itself(path) for path in sorted(places.units.glob("*.service"))}
    instances = {unit: said for unit, said in found.items() if said.get("Engine") in ALL_ENGINES}
    if not instances:
        return Scan("instances", TITLE, score_text="none", notes=["The host has no caches and queues."])
    status, out, _errors = ask(["systemd-analyze", "security", "--no-pager", "--json=short"])
    try:
        exposed = exposure.read(out) if not status else {}
    except (ValueError, KeyError, TypeError):
        exposed = {}
    saved = _backed_up(places.config)
    findings: list[Finding] = []
    for unit, said in instances.items():
        findings += _of_one(ask, unit, said, places, exposed=exposed.get(unit), saved=saved)
    bad = sum(finding.status == FAILED for finding in findings)
    return Scan("instances", TITLE, score=float(bad), score_text=f"{len(instances)}, {bad} findings", findings=findings)


def _of_one(
    ask: Ask, unit: str, said: Mapping[str, str], places: Places, *, exposed: float | None, saved: frozenset[str]
) -> Iterator[Finding]:
    state, user = said.get("State") or "", said.get("User") or ""
    _status, out, _errors = ask(["systemctl", "show", "--property=User,RuntimeDirectory,ActiveState", unit])
    shown = parse_show(out)
    folder = places.run / (shown.get("RuntimeDirectory") or "-")
    sockets = sorted(path for path in folder.glob("*") if stat.S_ISSOCK(path.lstat().st_mode))
    instance = {
        "kind": "queue" if state else "cache", "engine": said["Engine"], "unit": unit, "user": user,
        "socket": str(sockets[0] if sockets else folder / "-"),
    }  # fmt: skip
    told = look(lambda words, **_options: ask(words), instance)
    detail = told.problem or told.text
    yield _judged(
        unit, "running", "runs and answers", well=told.answers, detail=detail, advice=f"systemctl status {unit}"
    )
    boxed = exposed is not None and exposed <= MOST_EXPOSED and shown.get("User") not in ("", "root", None)
    detail = f"User {shown.get('User') or 'root'}, exposure {'unknown' if exposed is None else exposed}."
    advice = f"It should be at most {MOST_EXPOSED}: systemd-analyze security {unit}"
    yield _judged(unit, "sandbox", "is in its sandbox", well=boxed, detail=detail, advice=advice)
    wrong = _modes(folder, sockets)
    detail = wrong or f"{sockets[0]}, mode {SOCKET_MODE:o}."
    what = "can be opened only by its app"
    yield _judged(unit, "socket", what, well=not wrong, detail=detail, advice=f"ls -la {folder}")
    if state:
        detail = "Each command is appended to its file." if told.saves else told.problem or "It does not answer."
        what, advice = "keeps its data on the disk", f"systemctl status {unit}"
        yield _judged(unit, "persistence", what, well=told.saves, detail=detail, advice=advice)
        detail = "It is backed up with the files." if unit in saved else "Its data is in no backup."
        advice = "Set backup.passphrase, and run site.yml."
        yield _judged(unit, "backup", "is backed up", well=unit in saved, detail=detail, advice=advice)


def _judged(unit: str, name: str, what: str, *, well: bool, detail: str, advice: str) -> Finding:
    return Finding(
        f"{unit}/{name}", f"{unit} {what}", PASSED if well else FAILED, "info" if well else "high", detail,
        "" if well else advice,
    )  # fmt: skip


def _modes(folder: Path, sockets: Sequence[Path]) -> str:
    """Describe the modes of a folder and its socket, if others than the app can open it."""
    if not folder.is_dir() or not sockets:
        return f"{folder} has no socket."
    wrong = [
        f"{path} has the mode {mode:o} instead of {wanted:o}."
        for path, wanted in ((folder, FOLDER_MODE), *((path, SOCKET_MODE) for path in sockets))
        if (mode := stat.S_IMODE(path.lstat().st_mode)) != wanted
    ]
    return " ".join(wrong)


def _backed_up(path: Path) -> frozenset[str]:
    """Return the units of the queues that the host's backups contain."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return frozenset(str(queue["unit"]) for queue in found["queues"] if found["enabled"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
