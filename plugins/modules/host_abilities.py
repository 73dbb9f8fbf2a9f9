#!/usr/bin/python
"""The module host_abilities: what a host's kernel allows, and who is on it.

Its logic is in module_utils/flaskhost/host/abilities.py and program_accounts.py.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_abilities
short_description: What a host's kernel and rights allow
description:
  - Reads, and changes nothing.
options:
  kernel_arguments: {description: Our file with arguments for the kernel; GRUB may not have read it yet., type: path,
                     default: /etc/default/grub.d/60-flaskhost.cfg}
  record: {description: The file in which the role hardening notes what going back needs to know; empty for none.,
           type: path, default: ""}
  programs:
    description: Accounts of programs to look for.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: "A pattern of the name, such as C(*_build).", type: str, default: "*"}
      home: {description: "A pattern of the home, such as C(/srv/*/data); any when empty.", type: str, default: ""}
"""

EXAMPLES = r"""
- name: See what the kernel can do
  host_abilities: {}
  register: __example_can
"""

RETURN = r"""
can: {description: "own_kernel, audit, apparmor, modules, mounts, resolver, time, boot_loader, boot_loader_is_stale.",
      type: dict, returned: always}
record: {description: "What is noted: the level of the last run, and the packages that it installed.", type: dict,
         returned: always}
accounts: {description: "programs, the accounts without a shell that fit a pattern, and administrators, those that may
           become root.", type: dict, returned: always}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.abilities import abilities, recorded
from ansible.module_utils.flaskhost.host.program_accounts import administrators, matching

ARGUMENT_SPEC = {
    "kernel_arguments": {"type": "path", "default": "/etc/default/grub.d/60-flaskhost.cfg"},
    "record": {"type": "path", "default": ""},
    "programs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str", "default": "*"}, "home": {"type": "str", "default": ""}},
    },
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    can = abilities(Path("/"), options["kernel_arguments"])
    accounts = {"programs": matching(options["programs"]), "administrators": administrators()}
    record = recorded(Path(options["record"] or "/nonexistent"))
    module.exit_json(changed=False, can=can, record=record, accounts=accounts)


if __name__ == "__main__":
    main()
