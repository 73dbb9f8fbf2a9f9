"""Run services with the configuration on the disk. Several modules do so, each in the run that writes the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Absolute imports: Mitogen does not find relative ones.
from ansible.module_utils.flaskhost.host.runner import tail
from ansible.module_utils.flaskhost.host.service_state import PROPERTIES, make_younger, parse_show, settle, steps

#: Runs a command and returns its status, output and error output.
Run = Callable[..., tuple[int, str, str]]

#: The options of a service, for the argument specifications of modules.
OPTIONS = {
    "name": {"type": "str", "required": True},
    "enabled": {"type": "bool", "default": True},
    "reload_files": {"type": "list", "elements": "path", "default": []},
    "restart_files": {"type": "list", "elements": "path", "default": []},
    "test": {"type": "list", "elements": "str", "default": []},
}


class ServiceError(Exception):
    """A service does not run with its files."""


@dataclass(frozen=True)
class Service:
    """A service that should run.

    Attributes:
        name: the name of its unit.
        enabled: whether it starts at boot.
        reload_files: files and folders that a reload loads.
        restart_files: files and folders that only a restart loads.
        test: a command that must succeed before anything is done; empty for none.
    """

    name: str
    enabled: bool = True
    reload_files: tuple[str, ...] = ()
    restart_files: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """All its files and folders."""
        return [*self.reload_files, *self.restart_files]

    def needed(self, run: Run) -> list[str]:
        """Return the steps of systemctl after which it runs with its files.

        Raises:
            ServiceError: systemctl failed.
        """
        show = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", self.name]
        status, out, err = run(show)
        if status:
            raise ServiceError(f"{' '.join(show)} failed: {tail(err or out, 3)}")
        return steps(parse_show(out), self.enabled, self.reload_files, self.restart_files)

    def take(self, needed: Iterable[str], run: Run) -> None:
        """Execute the steps of :meth:`needed`.

        Raises:
            ServiceError: the test or a step failed.
        """
        if self.test:
            status, out, err = run(list(self.test))
            if status:
                raise ServiceError(
                    f"{self.name} was not changed, because {' '.join(self.test)} failed:\n{tail(out + err)}"
                )
        settle(self.files)
        for step in needed:
            status, out, err = run(["systemctl", step, *([] if step == "daemon-reload" else [self.name])])
            if status:
                # A failed reload also counts as a state change, so make the files newer: the next run must repeat it.
                make_younger(self.files)
                log = run(["journalctl", "--no-pager", "--output=cat", "--lines=15", f"--unit={self.name}"])[1]
                raise ServiceError(
                    f"systemctl {step} {self.name} failed: {tail(out + err, 3)}\nIts last log lines:\n{tail(log)}"
                )


def bring_up(services: Iterable[Mapping[str, Any]], run: Run, check: bool, done: list[str]) -> None:
    """Run services with their files, one after the other.

    Args:
        services: their options, see :data:`OPTIONS`.
        run: runs a command.
        check: whether only to find out what would be done.
        done: gets each step with the service's name, before it is executed.

    Raises:
        ServiceError: a service does not run with its files. Those before it do.
    """
    for options in services:
        lists = {name: tuple(options[name] or ()) for name in ("reload_files", "restart_files", "test")}
        service = Service(options["name"], options["enabled"], **lists)
        needed = service.needed(run)
        done += [f"{step} {service.name}" for step in needed]
        if needed and not check:
            service.take(needed, run)
