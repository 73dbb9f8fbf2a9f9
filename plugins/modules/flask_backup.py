#!/usr/bin/python
"""The module flask_backup: install the program flaskhost-backup, enable its timers, and run it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_backup
short_description: Back up a host, and restore it
description:
  - Installs the program flaskhost-backup with its configuration, pgBackRest's configuration, and its units in one run.
  - Creates the repositories and enables the timers.
  - Runs a command of the program and returns its result.
options:
  state:
    description:
      - configured, before PostgreSQL starts, installs the program and all configuration.
      - started, once PostgreSQL runs, creates the repositories, enables the timers, and starts the first backup.
      - ran runs a command of the program.
    type: str
    choices: [configured, started, ran]
    required: true
  program:
    description: Files of the program as texts by path; only with configured. Not secret, but kept out of logs.
    type: dict
    default: {}
  units: {description: "systemd units as texts by path.", type: dict, default: {}}
  config: {description: "Contents of backup.json, without secrets.", type: dict, default: {}}
  passphrase: {description: Passphrase that encrypts the backups; if empty there are none., type: str, default: ""}
  repository: {description: Second repository., type: str, default: ""}
  known_hosts: {description: Host keys of its server., type: str, default: ""}
  ssh_key: {description: Private key that can log in to its server., type: str, default: ""}
  environment: {description: Environment variables that restic needs for it., type: dict, default: {}}
  pgbackrest: {description: Configuration of pgBackRest; @PASSPHRASE@ is replaced., type: str, default: ""}
  path: {description: Folder of the local repositories., type: path, default: /var/backups/flaskhost}
  cluster: {description: Whether the host has PostgreSQL., type: bool, default: false}
  timers: {description: "Timers to enable, by the command that they run.", type: list, elements: str, default: []}
  arguments: {description: "Command to run with its options; only with ran.", type: list, elements: str, default: []}
  host: {description: "Name of the host, for warnings.", type: str, default: ""}
"""

EXAMPLES = r"""
- name: Create a full backup now
  flask_backup:
    state: ran
    arguments: [full]
"""

RETURN = r"""
lines: {description: "The actions, one line each.", type: list, returned: success}
restore: {description: "The restored data, and the place of the previous data.", type: dict,
          returned: after a restore}
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import failures, service_state
from ansible.module_utils.flaskhost.host.runner import tail
from ansible.module_utils.flaskhost.host.wanted import missing
from ansible.module_utils.flaskhost.programs import backup

ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["configured", "started", "ran"], "required": True},
    "program": {"type": "dict", "default": {}, "no_log": True},
    "units": {"type": "dict", "default": {}},
    "config": {"type": "dict", "default": {}},
    "passphrase": {"type": "str", "default": "", "no_log": True},
    # Separate options, because Ansible masks every value of a secret mapping wherever the value appears.
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
#: Commands that change nothing, and so also run in check mode.
LOOKING = ("status", "list", "check")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    # Override the umask of the login: other users need access to the folders that are created here.
    os.umask(0o022)
    do = {"configured": configure, "started": start, "ran": run_verb}[module.params["state"]]
    try:
        result = do(module)
    except backup.Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"A file operation failed: {failures.system_error(error)}. Check the disk: df -h")
    where = f" on {module.params['host']}" if module.params["host"] else ""
    for warning in result.pop("warnings"):
        module.warn(f"Backups{where}: {warning}")
    module.exit_json(**result)


def configure(module: AnsibleModule) -> dict[str, Any]:
    """Install the program and all configuration."""
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


def start(module: AnsibleModule) -> dict[str, Any]:
    """Create the repositories, enable the timers, and start the first backup."""
    options = module.params
    run, passphrase = module.run_command, options["passphrase"]
    warnings = backup.shortcomings(passphrase, options["repository"])
    if not passphrase or (module.check_mode and not backup.is_enabled()):
        # No need to run the program; in check mode, it is not installed yet, or has no passphrase.
        answer: dict[str, Any] = {"changed": bool(passphrase), "first": bool(passphrase)}
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
            # Do not let the play wait for the backup; the status shows its result.
            run(["systemctl", "start", "--no-block", "flaskhost-backup@full.service"])
            lines.append("The first backup is running: sudo journalctl -fu flaskhost-backup@full")
    elif answer.get("first"):
        lines.append("The first backup would be started.")
    changed = bool(answer.get("changed") or steps)
    return {"changed": changed, "lines": lines, "warnings": [*(answer.get("problems") or []), *warnings]}


def run_verb(module: AnsibleModule) -> dict[str, Any]:
    """Run a command of the program."""
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
        # An earlier version of the program without --check: nothing prevents the restore.
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
