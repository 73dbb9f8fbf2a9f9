#!/usr/bin/python
"""The module configured_service: run a service with the configuration on the disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: configured_service
short_description: Run a service with the configuration on the disk
description:
  - Starts and enables the service, and reloads or restarts it if one of its files is newer than its last state change.
    Unlike with a handler, this also works after a run that was killed between the write and the reload.
options:
  name: {description: Name of the unit., type: str, required: true}
  enabled: {description: Whether it starts at boot., type: bool, default: true}
  reload_files: {description: Files and folders that a reload applies., type: list, elements: path, default: []}
  restart_files: {description: Files and folders that only a restart applies., type: list, elements: path, default: []}
  test: {description: "Command with its arguments that must succeed before anything is done.", type: list,
         elements: str, default: []}
"""

EXAMPLES = r"""
- name: Run nginx with its current configuration
  configured_service:
    name: nginx.service
    reload_files: [/etc/nginx]
    test: [/usr/sbin/nginx, -t]
"""

RETURN = r"""
steps: {description: "The steps: daemon-reload, enable, start, restart, reload.", type: list, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.runner import tail
from ansible.module_utils.flaskhost.host.service_state import PROPERTIES, make_younger, parse_show, settle, steps

ARGUMENT_SPEC = {
    "name": {"type": "str", "required": True},
    "enabled": {"type": "bool", "default": True},
    "reload_files": {"type": "list", "elements": "path", "default": []},
    "restart_files": {"type": "list", "elements": "path", "default": []},
    "test": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    name = options["name"]
    show = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", name]
    properties = parse_show(module.run_command(show, check_rc=True)[1])
    needed = steps(properties, options["enabled"], options["reload_files"], options["restart_files"])
    if not needed or module.check_mode:
        module.exit_json(changed=bool(needed), steps=needed)
    if options["test"]:
        status, out, err = module.run_command(options["test"])
        if status:
            module.fail_json(
                msg=f"{name} was not changed, because {' '.join(options['test'])} failed:\n{tail(out + err)}", steps=[]
            )
    settle(options["reload_files"] + options["restart_files"])
    for step in needed:
        status, out, err = module.run_command(["systemctl", step, *([] if step == "daemon-reload" else [name])])
        if status:
            # A failed reload also counts as a state change, so make the files newer: the next run must repeat it.
            make_younger(options["reload_files"] + options["restart_files"])
            _status, log, _err = module.run_command(
                ["journalctl", "--no-pager", "--output=cat", "--lines=15", f"--unit={name}"]
            )
            module.fail_json(
                msg=f"systemctl {step} {name} failed: {tail(out + err, 3)}\nIts last log lines:\n{tail(log)}",
                steps=needed,
            )
    module.exit_json(changed=True, steps=needed)


if __name__ == "__main__":
    main()
