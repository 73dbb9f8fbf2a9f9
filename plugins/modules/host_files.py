#!/usr/bin/python
"""The module host_files: many small files in one run. Its logic is in module_utils/flaskhost/host/files.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Many small files, lines and permissions in one run
description:
  - Writes whole files, keeps lines in files of others, takes permissions away, and removes files.
  - A run of a module costs half a second, so a role with dozens of drop-ins hands them all to this one.
options:
  files:
    description: Whole files, each put in place by a rename.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The file; its folder is made., type: path, required: true}
      content: {description: Its text., type: str, required: true}
      owner: {description: Who owns it., type: str, default: root}
      group: {description: Whose group it has., type: str, default: root}
      mode: {description: "Its permissions, octal.", type: str, default: "0644"}
      validate: {description: "A command that judges the text, with %s for the file.", type: list, elements: str,
                 default: []}
  lines:
    description: Lines of files that are somebody else's. A file that is not there is left out.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The file., type: path, required: true}
      pattern: {description: What the line in question is found by; only one such line stays., type: str,
                required: true}
      line: {description: The line; when empty it goes., type: str, default: ""}
      after: {description: Where no line is found, it goes behind the first that matches this., type: str, default: ""}
  modes:
    description: The most that is allowed on files and folders that are there.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: "The file or folder, or a pattern of the shell's.", type: path, required: true}
      owner: {description: Who owns it; when empty it stays with its owner and group., type: str, default: root}
      group: {description: Whose group it has., type: str, default: root}
      mode: {description: "The most that is allowed, octal.", type: str, required: true}
  absent: {description: Files that go., type: list, elements: path, default: []}
"""

EXAMPLES = r"""
- name: Dump no cores, and let nobody but root read the crontab
  host_files:
    files:
      - path: /etc/security/limits.d/60-flaskhost.conf
        content: |
          * hard core 0
    modes:
      - {path: /etc/crontab, mode: "0600"}
"""

RETURN = r"""
paths: {description: "What is not, or was not, as it should be.", type: list, returned: always}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import files as host_files

ARGUMENT_SPEC = {
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
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options, done = module.params, []
    # Folders that are made for files are for everybody to pass through, whatever the umask of who came in is.
    os.umask(0o022)
    # One after the other: what a file gets is seen by the plan of the lines and modes.
    steps = (
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
    except host_files.HostFilesError as error:
        module.fail_json(msg=str(error), paths=[change.path for change in done])
    module.exit_json(
        changed=bool(done),
        paths=[change.path for change in done],
        diff=[host_files.diff(change) for change in done],
    )


if __name__ == "__main__":
    main()
