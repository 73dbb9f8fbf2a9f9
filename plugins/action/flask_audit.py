"""The part of flask_audit on the control node: the scanners that look from outside, and the report."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[2]
UTILS = str(PROJECT / "plugins" / "module_utils")
if UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(UTILS)

from ansible.module_utils.flaskhost.audit import (
    gixy,
    outside,
    page,
    ports,
    report,
    testssl,
)
from ansible.module_utils.flaskhost.audit.model import Scan, from_dict, not_run

Answer = dict[str, Any]
#: The module's options by name, with the module's defaults.
DEFAULTS: dict[str, Any] = {
    "scanner": "",
    "scanners": list(report.TITLES),
    "scans": [],
    "waivers": [],
    "own_waivers": [],
    "names": [],
    "most_names": 3,
    "ports": [],
    "programs": {},
    "ssh_port": 0,
    "https_port": 443,
    "rate": 1000,
    "address": "",
    "authority": "",
    "own": {},
    "system": "",
    "reports": "reports",
}


class ActionModule(ActionBase):
    """Runs the steps outside and report here, and all other steps on the host."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> Answer:
        """Run a step.

        Args:
            tmp: unused; part of Ansible's signature.
            task_vars: the task's variables.

        Returns:
            The step's result, in the form of a module's result.
        """
        result = super().run(tmp, task_vars)
        arguments = {**DEFAULTS, **self._task.args}
        step = arguments.get("step")
        if step == "outside":
            started = time.monotonic()
            scans = self._scan(arguments, task_vars)
            if len(scans) == 1:
                scans[0].seconds = round(time.monotonic() - started)
            return {**result, "changed": False, "scans": [scan.as_dict() for scan in scans]}
        if step == "report":
            return {**result, "changed": False, **write(arguments, datetime.datetime.now(datetime.UTC))}
        answer = self._execute_module(module_args=dict(self._task.args), task_vars=task_vars)
        if step == "inside" and answer.get("failed") and not answer.get("unreachable"):
            # A scanner that breaks must not affect the others.
            name = str(arguments["scanner"])
            scan = not_run(
                name, report.TITLES.get(name, name), f"{answer.get('msg')} {answer.get('module_stderr', '')}"
            )
            answer = {"changed": False, "scans": [scan.as_dict()]}
        return {**result, **answer}

    def _scan(self, arguments: Answer, task_vars: dict[str, Any] | None) -> list[Scan]:
        name, programs, address = arguments["scanner"], arguments["programs"], str(arguments["address"])
        ssh_port = int(arguments["ssh_port"]) or self._own_port()
        try:
            if name == "gixy":
                return [self._gixy(arguments, programs.get("gixy", ""), task_vars)]
            if name == "ssh_audit":
                # A published port also leads to the host's own sshd.
                return [outside.scan_ssh(address, ssh_port, programs.get("ssh_audit", ""))]
            place = outside.Place(address, ssh_port)
            if not self._is_local():
                place = outside.place(address, ssh_port, arguments["own"] or {})
            if name == "ports":
                if not place.address:
                    return [not_run("ports", ports.TITLE, place.why_not)]
                wanted = {*map(int, arguments["ports"]), place.ssh_port}
                # If there is a note, sshd has just presented its key at this address and port.
                known = {place.ssh_port} if place.note else set()
                scan = ports.scan(place.address, wanted, int(arguments["rate"]), known=known)
                scan.notes += [place.note] if place.note else []
                return [scan]
            return self._tls(arguments, place, task_vars)
        except OSError as error:
            return [not_run(name, name, str(error))]

    def _is_local(self) -> bool:
        """Check whether the host is the control node itself."""
        return str(getattr(self._connection, "transport", "")) == "local"

    def _own_port(self) -> int:
        """Return the port that Ansible connects to; SSH's default for other kinds of connections."""
        try:
            return int(self._connection.get_option("port") or 22)
        except (AttributeError, KeyError, TypeError, ValueError):
            return 22

    def _gixy(self, arguments: Answer, requirement: str, task_vars: dict[str, Any] | None) -> Scan:
        answer = self._on_host({"step": "inside", "scanner": "nginx", "folder": arguments.get("folder")}, task_vars)
        if not answer.get("settings"):
            return not_run("gixy", gixy.TITLE, str(answer.get("why_not") or answer.get("msg") or ""))
        return outside.scan_nginx(str(answer["settings"]), requirement)

    def _tls(self, arguments: Answer, place: outside.Place, task_vars: dict[str, Any] | None) -> list[Scan]:
        """Check some domains from here or, if testssl.sh is not installed here, on the host itself."""
        most = int(arguments["most_names"])
        names, others = list(arguments["names"])[:most], list(arguments["names"])[most:]
        if not names:
            return [not_run("testssl", "testssl.sh", "No name is served over HTTPS here (audit_tls_names).")]
        named = str(arguments["programs"].get("testssl", ""))
        program = outside.find_testssl(named)
        if named and not program:
            return [not_run("testssl", "testssl.sh", f"{named} is not a program on the control node (audit_testssl).")]
        if program and (place.address or int(arguments["https_port"]) != 443):
            where = place.address or str(arguments["address"]), int(arguments["https_port"])
            scans = [outside.scan_tls(program, name, *where, str(arguments["authority"])) for name in names]
        else:
            asked = {"step": "inside", "scanner": "testssl", "names": names, "folder": arguments.get("folder")}
            if arguments["authority"]:
                asked["authority_pem"] = Path(str(arguments["authority"])).read_text(encoding="utf-8")
            answer = self._on_host(asked, task_vars)
            scans = [from_dict(scan) for scan in answer.get("scans") or []]
            scans = scans or [not_run("testssl", "testssl.sh", str(answer.get("msg") or "The host did not respond."))]
        reason = f"Only {most} names are checked (audit_tls_most); all of them share one policy."
        return scans + [not_run(testssl.scanner_name(name), f"testssl.sh {name}", reason) for name in others]

    def _on_host(self, arguments: Answer, task_vars: dict[str, Any] | None) -> Answer:
        execute: Callable[..., Answer] = self._execute_module
        return execute(module_args={key: value for key, value in arguments.items() if value}, task_vars=task_vars)


def write(arguments: Answer, now: datetime.datetime) -> Answer:
    """Write the report's two files, readable only for the user, because they list weaknesses.

    Args:
        arguments: the options of the module.
        now: the current time.
    """
    folder = PROJECT / Path(str(arguments["reports"])).expanduser()
    host = str(arguments["host"])
    scans = [from_dict(scan) for scan in arguments["scans"]] + report.left_out(arguments["scanners"])
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = report.build(
            host,
            now,
            scans,
            arguments["waivers"],
            own=arguments["own_waivers"],
            previous=report.last(folder, host),
            system=str(arguments["system"]),
        )
        path = folder / f"{report.file_name(host)}-{found['when']}"
        _put(path.with_name(f"{path.name}.json"), json.dumps(found, indent=1, sort_keys=True) + "\n")
        _put(path.with_name(f"{path.name}.html"), page.render(found))
    except OSError as error:
        return {
            "failed": True,
            "msg": f"The report could not be written: {error}. Set audit_reports to a writable folder.",
        }
    left = report.failures(found)
    return {"page": f"{path}.html", "json": f"{path}.json", "summary": report.summary(found), "left": left}


def _put(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    beside.rename(path)
