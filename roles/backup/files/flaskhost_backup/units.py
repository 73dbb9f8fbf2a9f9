"""Stop the apps' units while their data is replaced, and always start them again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from flaskhost_backup import tools
from flaskhost_backup.config import BackupError
from flaskhost_backup.state import read_json, write_json

#: For messages: the maximum number of units with a quoted log, of lines for each, and of characters in a line.
LOGS, LINES, WIDTH = 2, 5, 300


@contextlib.contextmanager
def stopped(folder: Path, patterns: list[str], *, start: bool = True) -> Iterator[list[str]]:
    """Keep an app's units stopped while its data is replaced; start them again, also after an error.

    If this process is killed meanwhile, the next run that stops the same app also starts these units.

    Args:
        folder: the folder that records the stopped units.
        patterns: the patterns, as for ``systemctl list-units``.
        start: whether to start the units if there was no error.

    Yields:
        The units that were running.

    Raises:
        BackupError: a unit cannot be stopped, or does not start. The message starts with the error of the block.
    """
    note = folder / "stopped.json"
    noted = _noted(note)
    others = [name for name in noted if not _fits(name, patterns)]
    # The app's units can have changed since then, so start only the enabled ones.
    left = [name for name in noted if _fits(name, patterns) and _is_enabled(name)]
    units = sorted({*running_units(patterns), *left})
    _remember(note, [*others, *units])
    try:
        stop_units(units)
        yield units
    except BaseException as problem:
        start_after(problem, units)
        _remember(note, others)
        raise
    try:
        start_units(units if start else [])
    except BackupError as problem:
        raise BackupError(f"The data was restored. {problem.reason}", problem.cure) from problem
    _remember(note, others)


def start_left(folder: Path, patterns: list[str]) -> None:
    """Start the units that a killed run left stopped, and delete the record of them.

    Args:
        folder: the folder that records the stopped units.
        patterns: the patterns of the units, as for ``systemctl list-units``.

    Raises:
        BackupError: a unit does not start.
    """
    note = folder / "stopped.json"
    noted = _noted(note)
    start_units([name for name in noted if _fits(name, patterns) and _is_enabled(name)])
    _remember(note, [name for name in noted if not _fits(name, patterns)])


def running_units(patterns: list[str]) -> list[str]:
    """List the running units.

    Args:
        patterns: the patterns, as for ``systemctl list-units``.
    """
    if not patterns:
        return []
    listed = tools.run(
        ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,reloading", "--", *patterns]
    )
    return [line.split()[0] for line in listed.out.splitlines() if line.split()]


def stop_units(units: list[str]) -> None:
    """Stop units.

    Raises:
        BackupError: a unit still runs.
    """
    if not units:
        return
    stop = ["systemctl", "stop", "--", *units]
    done = tools.run(stop, timeout=600)
    services = [unit for unit in units if unit.endswith(".service")]
    if done.status and services:
        # An app can extend its stop timeout, and would block the restore of all data.
        tools.run(["systemctl", "kill", "--signal=SIGKILL", "--", *services], timeout=60)
        done = tools.run(stop, timeout=600)
    if done.status:
        raise BackupError(f"An app could not be stopped: {done.last}", "Check it: systemctl status 'flask-*'")


def start_units(units: list[str]) -> None:
    """Start units again, sockets first, so that no connection is refused while the services start.

    Raises:
        BackupError: a unit does not start.
    """
    if not units:
        return
    ordered = sorted(units, key=lambda unit: not unit.endswith(".socket"))
    # systemd limits the starts of a unit within ten seconds. This resets the counter.
    tools.run(["systemctl", "reset-failed", "--", *ordered])
    done = tools.run(["systemctl", "start", "--", *ordered], timeout=600)
    if not done.status:
        return
    states = _states(ordered)
    down = [unit for unit in ordered if states.get(unit, {}).get("ActiveState") != "active"]
    if not down:
        # systemd has restarted it in the meantime.
        return
    # A unit that failed only because of a dependency has no result of its own.
    failed = [unit for unit in down if states.get(unit, {}).get("Result", "") not in ("", "success")] or down
    # The output of systemctl only points to the log, which is quoted here.
    logs = [f"The last lines of {unit}: {_log(unit)}" for unit in failed[:LOGS]]
    raise BackupError(
        " ".join([f"An app is down. These units did not start: {', '.join(down)}.", *logs]),
        f"Start the app again: sudo systemctl start {' '.join(down)}. If its release is newer than the data that was "
        "restored, roll it back: ansible-playbook playbooks/rollback.yml.",
    )


def _states(units: list[str]) -> dict[str, dict[str, str]]:
    shown = tools.run(["systemctl", "show", "--property=Id,ActiveState,Result", "--", *units]).out
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.split("\n\n")]
    return {block["Id"]: block for block in blocks if "Id" in block}


def _log(unit: str) -> str:
    """Return the last log lines of a unit on one line, without control characters that an app may have written."""
    # An app has its own journal, with the prefix of its units as the name. The plus sign includes the host's journal.
    namespace = unit.partition("@")[0].partition("_")[0]
    # An app that writes constantly delays the sync of its journal, and a message can have 10 MB.
    tools.run(["journalctl", f"--namespace={namespace}", "--sync"], timeout=10)
    tools.run(["journalctl", "--sync"], timeout=10)
    command = ["journalctl", "--no-pager", "--output=cat", f"--namespace=+{namespace}", f"--lines={LINES}"]
    command.append(f"--unit={unit}")
    lines = [line.strip() for line in tools.run(command, timeout=30).out.splitlines() if line.strip()][-LINES:]
    text = " | ".join(line[:WIDTH] for line in lines)
    return "".join(char if char.isprintable() else "?" for char in text) or "(none)"


def _fits(unit: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(unit, pattern) for pattern in patterns)


def _is_enabled(unit: str) -> bool:
    return tools.run(["systemctl", "is-enabled", "--", unit]).out.strip() == "enabled"


def _noted(note: Path) -> list[str]:
    found = read_json(note).get("units")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _remember(note: Path, units: list[str]) -> None:
    if units:
        write_json(note, {"units": units})
    else:
        note.unlink(missing_ok=True)


def start_after(problem: BaseException, units: list[str]) -> None:
    """Start units again after a problem.

    Raises:
        BackupError: one does not start; it tells both problems.
    """
    try:
        start_units(units)
    except BackupError as second:
        reason, cure = (problem.reason, problem.cure) if isinstance(problem, BackupError) else (repr(problem), "")
        raise BackupError(f"{reason} {second.reason}", f"{cure} {second.cure}".strip()) from problem
