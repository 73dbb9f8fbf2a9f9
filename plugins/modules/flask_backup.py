#!/usr/bin/python
"""The module flask_backup: installs the program flaskhost-backup, lets its timers run, and runs it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_backup
short_description: See that a host is backed up, and restore it
description:
  - Installs the program flaskhost-backup with its settings, those of pgBackRest, and its units, all in one run.
  - Makes the repositories and lets the timers run.
  - Runs one of the program's verbs and says what it has done.
options:
  state:
    description:
      - configured, before PostgreSQL starts, brings the program and all settings.
      - started, when it runs, makes the repositories, lets the timers run, and begins the first backup.
      - ran runs a verb of the program.
    type: str
    choices: [configured, started, ran]
    required: true
  program:
    description: The files of the program, path to text; only with configured. No secret, but nothing for a log either.
    type: dict
    default: {}
  units: {description: "systemd's units, path to text.", type: dict, default: {}}
  config: {description: "What becomes backup.json; no secret.", type: dict, default: {}}
  passphrase: {description: What the backups are encrypted with; without it there are none., type: str, default: ""}
  repository: {description: The second repository., type: str, default: ""}
  known_hosts: {description: The keys of its host., type: str, default: ""}
  ssh_key: {description: The private key that its host lets in., type: str, default: ""}
  environment: {description: The variables that restic wants for it., type: dict, default: {}}
  pgbackrest: {description: pgBackRest's settings; @PASSPHRASE@ stands for it., type: str, default: ""}
  path: {description: The folder of the local repositories., type: path, default: /var/backups/flaskhost}
  cluster: {description: Whether the host has a PostgreSQL., type: bool, default: false}
  timers: {description: "The timers that are to run, by their verbs.", type: list, elements: str, default: []}
  arguments: {description: "The verb to run, and its options; only with ran.", type: list, elements: str, default: []}
  host: {description: "What the operator calls the host, for warnings.", type: str, default: ""}
"""

EXAMPLES = r"""
- name: Make a full backup now
  flask_backup:
    state: ran
    arguments: [full]
"""

RETURN = r"""
lines: {description: "What was done, a line each.", type: list, returned: success}
restore: {description: "What was restored, and where the data is that was there before.", type: dict,
          returned: after a restore}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import service_state
from ansible.module_utils.flaskhost.host.runner import tail
from ansible.module_utils.flaskhost.host.wanted import missing
from ansible.module_utils.flaskhost.programs import backup

ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["configured", "started", "ran"], "required": True},
    "program": {"type": "dict", "default": {}, "no_log": True},
    "units": {"type": "dict", "default": {}},
    "config": {"type": "dict", "default": {}},
    "passphrase": {"type": "str", "default": "", "no_log": True},
    # One by one: of a mapping that is secret Ansible blanks out every value, wherever it shows up.
    "repository": {"type": "str", "default": ""},
    "known_hosts": {"type": "str", "default": ""},
    "ssh_key": {"type": "str", "default": "", "no_log": True},
    "environment": {"type": "dict", "default": {}, "no_log": True},
    "pgbackrest": {"type": "str", "default": ""},
    "path": {"type": "path", "default": "/var/backups/flaskhost"},
    "cluster": {"type": "bool", "default": False},
    "timers": {"type": "list", "elements": "str", "default": []},
    "arguments": {"type": "list", "elements": "str", "default": []},
    "host": {"type": "str", "default": ""},
}
#: Verbs that change nothing, and so run in check mode too.
LOOKING = ("status", "list", "check")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    # Whatever the one who logged in has: others have to get through the folders that are made here.
    os.umask(0o022)
    do = {"configured": configure, "started": start, "ran": run_verb}[module.params["state"]]
    try:
        result = do(module)
    except backup.Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The disk refused: {error.strerror or error}: {error.filename or ''}. Look at it: df -h")
    where = f" on {module.params['host']}" if module.params["host"] else ""
    for warning in result.pop("warnings"):
        module.warn(f"Backups{where}: {warning}")
    module.exit_json(**result)


def configure(module: AnsibleModule) -> dict[str, object]:
    """Bring the program and all settings."""
    options = module.params
    second = {name: options[name] for name in ("repository", "known_hosts", "ssh_key", "environment")}
    files = backup.program_files(options["program"], options["units"]) + backup.settings_files(
        {**options, "second": second}
    )
    folders = missing(backup.folders(options["path"], cluster=options["cluster"])) if options["passphrase"] else []
    wanted = missing(files)
    diff = [file.diff() for file in wanted]
    if not module.check_mode:
        for folder in folders:
            folder.make()
        for file in wanted:
            file.write()
        if any(file.path.match("/etc/systemd/system/*") for file in wanted):
            module.run_command(["systemctl", "daemon-reload"], check_rc=True)
    paths = [str(item.path) for item in [*folders, *wanted]]
    return {"changed": bool(paths), "lines": [], "files": paths, "warnings": [], "diff": diff}


def start(module: AnsibleModule) -> dict[str, object]:
    """Make the repositories, let the timers run, and begin the first backup."""
    options = module.params
    run, passphrase = module.run_command, options["passphrase"]
    warnings = backup.shortcomings(passphrase, options["repository"])
    if not passphrase or (module.check_mode and not backup.is_enabled()):
        # Nothing to ask the program; in check mode it is not there yet, or knows no passphrase.
        answer = {"changed": bool(passphrase), "first": bool(passphrase)}
    else:
        answer = backup.ask(run, ["prepare", *(["--check"] if module.check_mode else [])])
    timers = {f"flaskhost-backup-{name}.timer": name in options["timers"] for name in backup.TIMERS}
    steps = backup.timer_steps(run, timers)
    lines = list(answer.get("lines") or [])
    if not module.check_mode:
        if steps:
            service_state.settle(f"/etc/systemd/system/{name}" for name in timers)
        for command in steps:
            status, out, err = run(command)
            if status:
                raise backup.Refused(f"{' '.join(command)} failed: {tail(out + err, 3)}")
        if answer.get("first"):
            # Whoever waits for the play does not wait for it; status tells how it went.
            run(["systemctl", "start", "--no-block", "flaskhost-backup@full.service"])
            lines.append("The first backup is being made: sudo journalctl -fu flaskhost-backup@full")
    elif answer.get("first"):
        lines.append("The first backup would be made.")
    changed = bool(answer.get("changed") or steps)
    return {"changed": changed, "lines": lines, "warnings": [*(answer.get("problems") or []), *warnings]}


def run_verb(module: AnsibleModule) -> dict[str, object]:
    """Run a verb of the program."""
    arguments = module.params["arguments"]
    if not Path(backup.PROGRAM).exists():
        if module.check_mode:
            return {"changed": True, "lines": [], "warnings": []}
        raise backup.Refused("Backups are not set up on this host. Run site.yml.")
    looks = arguments[0] in LOOKING or "--check" in arguments
    if module.check_mode and not looks:
        return {"changed": True, "lines": [f"flaskhost-backup {' '.join(arguments)} would be run."], "warnings": []}
    try:
        answer = backup.ask(module.run_command, arguments, backup.apart(arguments, os.getpid()))
    except backup.Refused as error:
        # A program of an earlier version: nothing keeps the data from coming back.
        if "unrecognized arguments: --check" not in str(error):
            raise backup.Refused(backup.why_off(str(error), module.params["passphrase"])) from error
        answer = {}
    return {
        "changed": bool(answer.get("changed")),
        "lines": answer.get("lines") or [],
        "restore": answer.get("restore") or {},
        "warnings": [],
    }


if __name__ == "__main__":
    main()
