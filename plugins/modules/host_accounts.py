#!/usr/bin/python
"""The module host_accounts: who has these names on a host. Its logic is in module_utils/flaskhost/accounts.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_accounts
short_description: The users and groups that a host has under given names
description:
  - Reads, and changes nothing. Names that a directory service has are found, too.
options:
  names: {description: The names., type: list, elements: str, required: true}
"""

EXAMPLES = r"""
- name: See who is called shop
  host_accounts:
    names: [shop]
  register: __example_accounts
"""

RETURN = r"""
accounts:
  description: "For each name that is taken: home, the home of the user, and group, whether a group has it that is not
    that user's own."
  type: dict
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule  # noqa: E402 - Ansible wants the documentation first
from ansible.module_utils.flaskhost.accounts import accounts  # noqa: E402

ARGUMENT_SPEC = {"names": {"type": "list", "elements": "str", "required": True}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(changed=False, accounts=accounts(module.params["names"]))


if __name__ == "__main__":
    main()
