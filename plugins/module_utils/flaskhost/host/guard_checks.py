"""Test the files of a guarded change: before they are installed, and together with all that the service reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ansible.module_utils.flaskhost.host.guard_change import Change, GuardError
from ansible.module_utils.flaskhost.host.runner import Run, tail
from ansible.module_utils.flaskhost.host.service_state import parse_show

#: Where systemd creates runtime folders.
RUN = Path("/run")


def validate(run: Run, change: Change) -> None:
    """Test the new files beside the old ones, before anything is changed.

    Raises:
        GuardError: a program rejects a file.
    """
    _make_runtime_folders(run, change.service)
    for file in change.files:
        if not file.validate:
            continue
        with tempfile.TemporaryDirectory(prefix="flaskhost-guard-") as folder:
            path = Path(folder) / file.path.name
            path.write_text(file.text, encoding="utf-8")
            status, out, err = run([word.replace("%s", str(path)) for word in file.validate])
        if status:
            raise GuardError(f"{file.validate[0]} rejects {file.path}: {tail(out + err)}", old_state=True)


def check(run: Run, change: Change) -> None:
    """Test the installed files, together with all others that the service reads.

    Raises:
        GuardError: a file that the service reads first overrides them.
    """
    _make_runtime_folders(run, change.service)
    for item in change.checks:
        command = list(item["command"])
        status, out, err = run(command)
        if status:
            raise GuardError(f"{' '.join(command)} failed: {tail(err or out)}", old_state=True)
        lines = [" ".join(line.lower().split()) for line in out.splitlines()]
        wanted = [" ".join(line.lower().split()) for line in item["lines"]]
        for line in wanted:
            key = line.partition(" ")[0]
            # If a key may occur several times (Port), only the wanted values may occur.
            really = [other for other in lines if other.partition(" ")[0] == key]
            extra = [other for other in really if other not in wanted]
            if line not in lines or extra:
                says = "; ".join(extra or really) or f"nothing about {key}"
                cure = f"\n{item['cure']}" if item.get("cure") else ""
                raise GuardError(f"{' '.join(command)} reports {says}, not {line}{cure}", old_state=True)


def _make_runtime_folders(run: Run, service: str) -> None:
    """Create the runtime folders that systemd creates when it starts the service.

    Without its runtime folder, sshd does not test its files. If a socket unit holds its port, the folder does not exist
    before the first connection.
    """
    shown = run(["systemctl", "show", "--property=RuntimeDirectory", service])[1]
    for name in parse_show(shown).get("RuntimeDirectory", "").split():
        (RUN / name).mkdir(mode=0o755, parents=True, exist_ok=True)
