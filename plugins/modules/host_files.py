#!/usr/bin/python
"""The module host_files: manage many small files in one run. The code is in module_utils/flaskhost/host/files.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Manage many small files, lines and permissions in one run, and the services that read them
description:
  - Creates folders, writes whole files, manages lines in other packages' files, restricts permissions, and removes
    files. Then runs services with these files, as the module configured_service does.
  - A module run costs half a second, so a role with dozens of drop-ins passes all of them to this one.
options:
  folders:
    description: Folders to create, with exactly these permissions.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The folder., type: path, required: true}
      owner: {description: Owner., type: str, default: root}
      group: {description: Group., type: str, default: root}
      mode: {description: "Permissions, octal.", type: str, default: "0755"}
  files:
    description: Whole files, each put in place with a rename.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The file; its folder is created., type: path, required: true}
      content: {description: Content., type: str, required: true}
      owner: {description: Owner., type: str, default: root}
      group: {description: Group., type: str, default: root}
      mode: {description: "Permissions, octal.", type: str, default: "0644"}
      validate: {description: "Command that validates the text, with %s for the file.", type: list, elements: str,
                 default: []}
      unless: {description: "While this other file exists, the file is removed instead.", type: path, default: ""}
  lines:
    description: Lines in other packages' files. Missing files are skipped.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The file., type: path, required: true}
      pattern: {description: Regular expression that finds the line; exactly one matching line remains., type: str,
                required: true}
      line: {description: The line; empty to remove it., type: str, default: ""}
      after: {description: If no line matches pattern the line goes after the first match of this., type: str,
              default: ""}
  modes:
    description: Maximum permissions of existing files and folders.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: "File, folder, or shell pattern.", type: path, required: true}
      owner: {description: Owner; if empty owner and group stay unchanged., type: str, default: root}
      group: {description: Group., type: str, default: root}
      mode: {description: "Maximum permissions, octal.", type: str, required: true}
  absent: {description: Files to remove., type: list, elements: path, default: []}
  services: {default: []}
extends_documentation_fragment: [flaskhost_service.services]
"""

EXAMPLES = r"""
- name: Disable core dumps, and make the crontab readable only for root
  host_files:
    files:
      - path: /etc/security/limits.d/60-flaskhost.conf
        content: |
          * hard core 0
    modes:
      - {path: /etc/crontab, mode: "0600"}
"""

RETURN = r"""
paths: {description: "Files that differ, or differed, from the requested state.", type: list, returned: always}
steps: {description: "Actions on the services, as configured_service returns them.", type: list, returned: always}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import files as host_files
from ansible.module_utils.flaskhost.host import services

ARGUMENT_SPEC = {
    "folders": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0755"},
        },
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0644"},
            "validate": {"type": "list", "elements": "str", "default": []},
            "unless": {"type": "path", "default": ""},
        },
    },
    "lines": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "pattern": {"type": "str", "required": True},
            "line": {"type": "str", "default": ""},
            "after": {"type": "str", "default": ""},
        },
    },
    "modes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "required": True},
        },
    },
    "absent": {"type": "list", "elements": "path", "default": []},
    "services": {"type": "list", "elements": "dict", "default": [], "options": services.OPTIONS},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    done: list[host_files.Change] = []
    taken: list[str] = []
    # Override the umask of the login: all users need access to folders that are created for files.
    os.umask(0o022)
    # In this order, because the plans of lines and modes must see the contents of the new files.
    steps = (
        (host_files.plan_folders, options["folders"]),
        (host_files.plan_files, options["files"]),
        (host_files.plan_lines, options["lines"]),
        (host_files.plan_absent, options["absent"]),
        (host_files.plan_modes, options["modes"]),
    )
    try:
        for plan, wanted in steps:
            changes = plan(wanted)
            if not module.check_mode:
                host_files.apply(changes, module.run_command)
            done += changes
        services.bring_up(options["services"], module.run_command, module.check_mode, taken)
    except (host_files.HostFilesError, services.ServiceError) as error:
        module.fail_json(msg=str(error), paths=[change.path for change in done], steps=taken)
    module.exit_json(
        changed=bool(done or taken),
        paths=[change.path for change in done],
        steps=taken,
        diff=[host_files.diff(change) for change in done],
    )


if __name__ == "__main__":
    main()
