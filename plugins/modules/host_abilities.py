#!/usr/bin/python
"""The module host_abilities: detect what a host's kernel allows, and which special accounts the host has.

The code is in module_utils/flaskhost/host/abilities.py and program_accounts.py.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_abilities
short_description: Detect what a host's kernel and privileges allow
description:
  - Only reads, and changes nothing.
options:
  kernel_arguments: {description: Flaskhost's file with kernel arguments; GRUB may not have read it yet., type: path,
                     default: /etc/default/grub.d/60-flaskhost.cfg}
  record: {description: File with the role hardening's records for a later downgrade; empty for none.,
           type: path, default: ""}
  programs:
    description: Patterns of programs' accounts to find.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: "Pattern of the name, such as C(*_build).", type: str, default: "*"}
      home: {description: "Pattern of the home, such as C(/srv/*/data); any if empty.", type: str, default: ""}
"""

EXAMPLES = r"""
- name: Detect what the kernel allows
  host_abilities: {}
  register: __example_can
"""

RETURN = r"""
can: {description: "own_kernel, audit, apparmor, modules, mounts, resolver, time, boot_loader, boot_loader_is_stale.",
      type: dict, returned: always}
now: {description: "dpkg_interrupted, whether an installation of packages was interrupted; timezone; groups, the names
      of the local groups.", type: dict, returned: always}
record: {description: "The record: the level of the last run, and the packages that it installed.", type: dict,
         returned: always}
accounts: {description: "programs, the accounts without a login shell that match a pattern, and administrators, the
           accounts that can become root.", type: dict, returned: always}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.abilities import abilities, present, recorded
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
    module.exit_json(changed=False, can=can, now=present(), record=record, accounts=accounts)


if __name__ == "__main__":
    main()
