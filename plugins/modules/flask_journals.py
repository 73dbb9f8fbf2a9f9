#!/usr/bin/python
"""The module flask_journals: apply the apps' journal settings. Code: module_utils/flaskhost/host/journal.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_journals
short_description: Apply the settings of the apps' journals
description:
  - Compares the namespaces of systemd-journald with their files, and so also repairs what a run left behind that was
    killed between the write and the restart. Starts nothing, because systemd starts a journal together with the first
    service that writes to it.
options:
  groups:
    description: For each namespace, the group whose members can write to it. The settings are in
      /etc/systemd/journald@<namespace>.conf.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Apply the settings of a journal
  flask_journals:
    groups: {flask-shop: shop}
"""

RETURN = r"""
steps: {description: "The steps: daemon-reload, sockets, restart.", type: list, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.journal import Journals
from ansible.module_utils.flaskhost.host.runner import ReleaseError

ARGUMENT_SPEC = {"groups": {"type": "dict", "required": True}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    journals = Journals(module.run_command, module.params["groups"])
    try:
        steps = journals.needed()
        if not module.check_mode:
            for step, namespaces in steps.items():
                journals.take(step, namespaces)
    except ReleaseError as error:
        module.fail_json(msg=f"{error} {error.cure}")
    module.exit_json(changed=bool(steps), steps=list(steps))


if __name__ == "__main__":
    main()
