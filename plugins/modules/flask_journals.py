#!/usr/bin/python
"""The module flask_journals: apply the apps' journal settings. Code: module_utils/flaskhost/host/journal.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_journals
short_description: Write the apps' units, and apply the settings of their journals
description:
  - Compares the namespaces of systemd-journald with their files, and so also repairs what a run left behind that was
    killed between the write and the restart. Starts nothing, because systemd starts a journal together with the first
    service that writes to it.
options:
  files: {description: "Files to write before, for root and readable by all, as texts by path.", type: dict,
          default: {}}
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

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import files as host_files
from ansible.module_utils.flaskhost.host.journal import Journals
from ansible.module_utils.flaskhost.host.runner import ReleaseError

ARGUMENT_SPEC = {"files": {"type": "dict", "default": {}}, "groups": {"type": "dict", "required": True}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    journals = Journals(module.run_command, module.params["groups"])
    # Override the umask of the login: all users need access to folders that are created for files.
    os.umask(0o022)
    usual = {"owner": "root", "group": "root", "mode": "0644"}
    try:
        wanted = [{"path": path, "content": text, **usual} for path, text in module.params["files"].items()]
        files = host_files.plan_files(wanted)
        if not module.check_mode:
            host_files.apply(files, module.run_command)
        steps = journals.needed()
        if not module.check_mode:
            for step, namespaces in steps.items():
                journals.take(step, namespaces)
    except host_files.HostFilesError as error:
        module.fail_json(msg=str(error))
    except ReleaseError as error:
        module.fail_json(msg=f"{error} {error.cure}")
    diff = [host_files.diff(file) for file in files]
    module.exit_json(changed=bool(files or steps), steps=list(steps), diff=diff)


if __name__ == "__main__":
    main()
