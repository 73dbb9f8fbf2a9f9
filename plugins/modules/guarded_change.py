#!/usr/bin/python
"""The module guarded_change: a change that is reverted unless a new SSH connection confirms it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guarded_change
short_description: Change files that could cut the SSH connection, and revert the change if they do
description:
  - Puts files in place and reloads the service that reads them, under a timer on the host that reverts to the old
    state. The action plugin of the same name then opens a new SSH connection, and only that connection stops the timer.
  - If nothing has to be changed, there is no timer and no connection.
  - If the connection to the host is not SSH (a local or container connection), a new connection proves nothing, and
    none can be cut. The change is confirmed directly, and C(proven) is false.
options:
  name: {description: Name of the guard., type: str, required: true}
  service: {description: "Unit to enable and run, which loads the files with a reload.", type: str,
            required: true}
  socket: {description: "Socket unit that would hold the service's ports, whatever the files say; it is disabled and the
           service enabled.", type: str, default: ""}
  files:
    description: Files to write, owned by root.
    type: list
    elements: dict
    required: true
    suboptions:
      dest: {description: Path of the file., type: path, required: true}
      content: {description: "Content; with behind, the lines of a block in the file.", type: str, required: true}
      behind: {description: "For a file of another package: the content is managed as a block in it, after the first
      line
               that matches this regular expression, else at the beginning.", type: str, default: ""}
      mode: {description: Permissions., type: str, default: "0644"}
      validate: {description: "Command that validates the file first, with %s for its path.", type: list, elements: str,
                 default: []}
  checks:
    description: Expected output of the service about all files together, before it loads them.
    type: list
    elements: dict
    default: []
    suboptions:
      command: {description: The command., type: list, elements: str, required: true}
      lines: {description: "Lines of its output. Case and spaces are ignored; no other line may begin with the same
              word as one of them.", type: list, elements: str, required: true}
      cure: {description: The fix if the output differs., type: str, default: ""}
  live: {description: "Command that prints what the service has loaded. If that differs from what was confirmed, the
         files are loaded again.", type: list, elements: str, default: []}
  port: {description: "Port of the new connection; 0 for that of the inventory.", type: int, default: 0}
  seconds: {description: Seconds that the host waits for the confirmation., type: int, default: 45}
  phase: {description: "Set by the action plugin.", type: str, default: apply, choices: [apply, confirm, returned]}
  nonce: {description: "Set by the action plugin.", type: str, default: ""}
  direct: {description: "Set by the action plugin.", type: bool, default: false}
"""

EXAMPLES = r"""
- name: Change sshd
  guarded_change:
    name: sshd
    service: ssh.service
    socket: ssh.socket
    files:
      - dest: /etc/ssh/sshd_config.d/00-own.conf
        content: |
          PasswordAuthentication no
        mode: "0600"
        validate: [/usr/sbin/sshd, -t, -f, "%s"]
    checks:
      - command: [/usr/sbin/sshd, -T]
        lines: [passwordauthentication no]
"""

RETURN = r"""
reasons: {description: Why a change was needed., type: list, returned: always}
armed: {description: Whether the host waits for a confirmation., type: bool, returned: in the phase apply}
left: {description: Seconds that the host still waits., type: float, returned: when armed}
proven: {description: Whether a new SSH connection has confirmed the change., type: bool, returned: when changed}
old_state: {description: Whether the host is in its previous state., type: bool, returned: on failure}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.guard import Guard
from ansible.module_utils.flaskhost.host.guard_change import Change, GuardError, wanted_files

ARGUMENT_SPEC = {
    "name": {"type": "str", "required": True},
    "service": {"type": "str", "required": True},
    "socket": {"type": "str", "default": ""},
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "dest": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "behind": {"type": "str", "default": ""},
            "mode": {"type": "str", "default": "0644"},
            "validate": {"type": "list", "elements": "str", "default": []},
        },
    },
    "checks": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "command": {"type": "list", "elements": "str", "required": True},
            "lines": {"type": "list", "elements": "str", "required": True},
            "cure": {"type": "str", "default": ""},
        },
    },
    "live": {"type": "list", "elements": "str", "default": []},
    "port": {"type": "int", "default": 0},
    "seconds": {"type": "int", "default": 45},
    "phase": {"type": "str", "default": "apply", "choices": ["apply", "confirm", "returned"]},
    "nonce": {"type": "str", "default": ""},
    "direct": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    phase = {"apply": _apply, "confirm": _confirm, "returned": _returned}[options["phase"]]
    try:
        change = Change(
            name=options["name"],
            files=wanted_files(options["files"]),
            service=options["service"],
            socket=options["socket"],
            checks=tuple(options["checks"]),
            live=tuple(options["live"]),
            seconds=options["seconds"],
        )
        phase(module, Guard(module.run_command, change))
    except GuardError as error:
        module.fail_json(msg=str(error), reasons=[], old_state=error.old_state)


def _apply(module: AnsibleModule, guard: Guard) -> None:
    left = "" if module.check_mode else guard.recover()
    reasons = ([left] if left else []) + guard.reasons()
    if not guard.reasons():
        # Also without changes: a file of another package can have come before ours in the meantime.
        guard.check()
        module.exit_json(changed=bool(left), reasons=reasons, armed=False)
    # The host's programs validate the new files in check mode too.
    guard.validate()
    answer = {"changed": True, "reasons": reasons, "diff": guard.diff()}
    if module.check_mode:
        module.exit_json(armed=False, **answer)
    nonce = module.params["nonce"]
    if not nonce:
        module.fail_json(msg="guarded_change works only with its action plugin, which is missing.", reasons=[])
    guard.apply(nonce)
    module.exit_json(armed=True, left=guard.left, **answer)


def _confirm(module: AnsibleModule, guard: Guard) -> None:
    guard.confirm(module.params["nonce"], os.getpid(), direct=module.params["direct"])
    module.exit_json(changed=True, reasons=[])


def _returned(module: AnsibleModule, guard: Guard) -> None:
    outcome = guard.returned(module.params["nonce"])
    module.exit_json(changed=False, reasons=[], outcome=outcome)


if __name__ == "__main__":
    main()
