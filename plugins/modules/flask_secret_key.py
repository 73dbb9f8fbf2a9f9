#!/usr/bin/python
"""The module flask_secret_key: manage the keys that sign an app's sessions. The code is in module_utils/flaskhost."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_secret_key
short_description: Read, share and rotate the keys that sign a Flask app's sessions
description:
  - The first key signs, and all are accepted. A new key is first announced, so that every process accepts it, and signs
    only after that. No user is logged out.
  - Set no_log on the task, because its result contains the keys.
options:
  folder: {description: "Folder of the app's secrets, readable only for root.", type: path, required: true}
  state:
    description:
      - With C(read), nothing is changed, and the keys are returned.
      - With C(shared), the host gets the keys of all hosts.
      - With C(announced), the candidate is accepted from now on.
      - With C(rotated), the key that was announced last signs, and the one that signed before is still accepted.
      - With C(finished), the rotation ends. Until then, the candidate of C(read) is the announced key.
    type: str
    choices: [read, shared, announced, rotated, finished]
    default: read
  by_host: {description: The keys of each host in a fixed order., type: list, elements: list, default: []}
  candidate: {description: A new key., type: str, default: ""}
"""

EXAMPLES = r"""
- name: Read the keys
  flask_secret_key:
    folder: /etc/flaskhost/shop
  register: found
  no_log: true
"""

RETURN = r"""
secret_keys: {description: "The keys on the host, starting with the one that signs.", type: list, returned: success}
candidate: {description: "A new key, or the key of the unfinished rotation.", type: str, returned: success}
pending: {description: Whether a rotation is unfinished., type: bool, returned: success}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.deploy import environment
from ansible.module_utils.flaskhost.host import atomic

ARGUMENT_SPEC = {
    "folder": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["read", "shared", "announced", "rotated", "finished"], "default": "read"},
    "by_host": {"type": "list", "elements": "list", "default": [], "no_log": False},
    "candidate": {"type": "str", "default": "", "no_log": False},
}


def main() -> None:
    """Run the module."""
    # No no_log on the options, which would mask the keys in the result too: the task sets no_log.
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    # Override the umask of the login: other users need access to the folders that are created here.
    os.umask(0o022)
    folder, state, candidate = Path(module.params["folder"]), module.params["state"], module.params["candidate"]
    keys = environment.SecretKeys(folder)
    present, pending = keys.read(), keys.pending()
    wanted = {
        "read": lambda: present,
        "shared": lambda: environment.shared_keys(module.params["by_host"], candidate),
        "announced": lambda: environment.announced_keys(present, candidate),
        "rotated": lambda: environment.rotated_keys(present, pending),
        "finished": lambda: present,
    }[state]()
    changed = state != "read" and wanted != present
    if state != "read" and not module.check_mode:
        folder.parent.mkdir(mode=0o755, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if state == "announced":
            # Written first, so that a run after a killed one knows which rotation has begun.
            atomic.write(keys.new_file, f"{candidate}\n")
        changed = keys.write(wanted) or changed
        if state == "finished":
            keys.new_file.unlink(missing_ok=True)
    module.exit_json(
        changed=changed,
        secret_keys=wanted,
        candidate=pending or environment.new_secret_key(),
        pending=bool(pending),
    )


if __name__ == "__main__":
    main()
