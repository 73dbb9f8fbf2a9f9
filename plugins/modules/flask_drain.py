#!/usr/bin/python
"""The module flask_drain: mark an app host as drained, or wait until it is. The code is in module_utils/flaskhost."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_drain
short_description: Mark an app host as out of the rotation, or back in it
description:
  - Writes or removes a file. The role nginx stops or begins to listen for the web hosts according to this file.
options:
  state:
    description: Whether the host is drained. With C(read), nothing is changed. With C(waited), the module waits until
      nginx has finished the requests that it had.
    type: str
    choices: [present, absent, read, waited]
    default: read
  apps: {description: "Folder of each app, by name, to report its live release.", type: dict, default: {}}
  by: {description: "User and control node, as user@host.", type: str, default: ""}
  seconds: {description: "With C(waited), how long to wait at the most.", type: float, default: 60}
  path: {description: File of the mark., type: path, default: /etc/flaskhost/drained}
"""

EXAMPLES = r"""
- name: Drain the host
  flask_drain:
    state: present
    by: ada@laptop
"""

RETURN = r"""
drained: {description: "Whether the host was drained before.", type: bool, returned: success}
releases: {description: "The live release of each app; empty if it has none.", type: dict, returned: success}
open: {description: "With C(waited), number of nginx's workers that still have requests.", type: int,
       returned: success}
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.operate import drain

ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["present", "absent", "read", "waited"], "default": "read"},
    "apps": {"type": "dict", "default": {}},
    "by": {"type": "str", "default": ""},
    "seconds": {"type": "float", "default": 60},
    "path": {"type": "path", "default": "/etc/flaskhost/drained"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    os.umask(0o022)
    options, path = module.params, Path(module.params["path"])
    state, drained, left = options["state"], bool(drain.read(path)), 0
    changed = state in ("present", "absent") and drained != (state == "present")
    if changed and not module.check_mode:
        if state == "present":
            drain.put(options["by"], time.time(), path)
        else:
            drain.lift(path)
    if state == "waited" and not module.check_mode:
        left = drain.wait(options["seconds"])
    module.exit_json(changed=changed, drained=drained, releases=drain.releases(options["apps"]), open=left)


if __name__ == "__main__":
    main()
