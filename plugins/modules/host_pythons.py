#!/usr/bin/python
"""The module host_pythons: install the Python versions that apps ask for. The code is in host/python_install.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_pythons
short_description: Install the Python versions that apps ask for
description:
  - Installs each version with uv, in its newest patch level, unless the distribution's Python is that version.
  - uv verifies the SHA-256 checksum of each download, and runs in a sandbox.
  - Removes versions that no app asks for and no virtual environment uses.
options:
  versions: {description: "Versions, such as 3.12 or 3.12.8.", type: list, elements: str, default: []}
  uv: {description: Path of uv., type: path, required: true}
  folder: {description: Folder of the versions. It belongs to root., type: path, required: true}
  distribution: {description: Path of the distribution's Python., type: path, default: /usr/bin/python3}
  mirror: {description: URL of a mirror of python-build-standalone., type: str, default: ""}
  downloads: {description: URL of a list of downloads instead of the one in uv., type: str, default: ""}
  environments:
    description: Pattern of the folders of virtual environments. If empty, no version is removed.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Install Python 3.12
  host_pythons:
    versions: ["3.12"]
    uv: /opt/uv/bin/uv
    folder: /opt/pythons
"""

RETURN = r"""
versions: {description: "Folder of each version, by the version that apps ask for.", type: dict, returned: success}
installed: {description: Versions that were installed., type: list, returned: success}
removed: {description: Versions that were removed., type: list, returned: success}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.python_install import InstallError, Pythons

ARGUMENT_SPEC = {
    "versions": {"type": "list", "elements": "str", "default": []},
    "uv": {"type": "path", "required": True},
    "folder": {"type": "path", "required": True},
    "distribution": {"type": "path", "default": "/usr/bin/python3"},
    "mirror": {"type": "str", "default": ""},
    "downloads": {"type": "str", "default": ""},
    "environments": {"type": "str", "default": ""},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    # Independent of the umask of the login, because apps run the interpreters.
    os.umask(0o022)
    installer = Pythons(
        module.run_command,
        uv=options["uv"],
        folder=Path(options["folder"]),
        distribution=options["distribution"],
        mirror=options["mirror"],
        downloads=options["downloads"],
    )
    try:
        outcome = installer.update(options["versions"], options["environments"], check=module.check_mode)
    except InstallError as error:
        module.fail_json(msg=f"A version of Python was not installed. {error}")
    lines = [f"install {name}" for name in outcome.installed] + [f"remove {name}" for name in outcome.removed]
    diff = {"before": "", "after": "".join(f"{line}\n" for line in lines), "after_header": options["folder"]}
    module.exit_json(
        changed=outcome.changed,
        versions=outcome.links,
        installed=outcome.installed,
        removed=outcome.removed,
        **({"diff": diff} if lines else {}),
    )


if __name__ == "__main__":
    main()
