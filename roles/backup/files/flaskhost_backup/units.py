"""The apps' units, stopped while their data is replaced."""

from __future__ import annotations

from flaskhost_backup import tools
from flaskhost_backup.config import BackupError


def stop_units(patterns: list[str]) -> list[str]:
    """Stop the units that run.

    Args:
        patterns: as ``systemctl list-units`` understands them.

    Returns:
        Those that ran, for :func:`start_units`.

    Raises:
        BackupError: one goes on running.
    """
    if not patterns:
        return []
    listed = tools.run(
        ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,reloading", "--", *patterns]
    )
    units = [line.split()[0] for line in listed.out.splitlines() if line.split()]
    if units:
        done = tools.run(["systemctl", "stop", "--", *units], timeout=600)
        if done.status:
            raise BackupError(f"An app could not be stopped: {done.last}", "Look at it: systemctl status 'flask-*'")
    return units


def start_units(units: list[str]) -> None:
    """Start units again; sockets first, so that nobody is refused while the services come up.

    Raises:
        BackupError: one does not start.
    """
    if not units:
        return
    ordered = sorted(units, key=lambda unit: not unit.endswith(".socket"))
    done = tools.run(["systemctl", "start", "--", *ordered], timeout=600)
    if done.status:
        raise BackupError(
            f"The data is restored, but an app does not start on it: {done.last}",
            "Is the release newer than the data? playbooks/rollback.yml. "
            "Else look: journalctl --namespace='*' -u 'flask-*' -n 50",
        )
