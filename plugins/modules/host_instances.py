#!/usr/bin/python
"""The module host_instances: run instances of a server. The code is in module_utils/flaskhost/host/instances.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_instances
short_description: Run instances of a server, and remove those that are not wanted any more
description:
  - Creates the user of each instance, and runs its unit with the files on the disk, also after a run that was killed
    between the write and the restart.
  - The unit files must exist. Their section X-Flaskhost names the server as Engine, and also User, Config and State,
    the folder of the data.
options:
  engine: {description: "Name of the server, as in the unit files.", type: str, required: true}
  instances:
    description: The wanted instances.
    type: list
    elements: dict
    required: true
    suboptions:
      unit: {description: Name of the unit with its suffix., type: str, required: true}
      user: {description: System user of the instance., type: str, required: true}
      config: {description: File of its settings., type: str, default: ""}
      journal: {description: "Namespace of its journal; the host's journal if empty.", type: str, default: ""}
  state:
    description: With present, the wanted instances run. With pruned, the others are stopped and removed, and their data
      is kept as a copy.
    type: str
    choices: [present, pruned]
    default: present
"""

EXAMPLES = r"""
- name: Run an instance
  host_instances:
    engine: redis
    instances:
      - {unit: flask-shop_cache.service, user: shop_cache, config: /etc/flaskhost/flask-shop_cache.conf}
"""

RETURN = r"""
steps: {description: "The steps, such as start and the unit.", type: list, returned: always}
leaving: {description: The units on the host that are not wanted any more., type: list, returned: always}
broken: {description: "For each instance that did not start, the reason. The module warns and continues, because an app
  can prevent its own instance from starting.", type: list, returned: always}
copies: {description: The folders with the data of removed instances., type: list, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.instances import Instances
from ansible.module_utils.flaskhost.host.runner import ReleaseError

ARGUMENT_SPEC = {
    "engine": {"type": "str", "required": True},
    "instances": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "unit": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "config": {"type": "str", "default": ""},
            "journal": {"type": "str", "default": ""},
        },
    },
    "state": {"type": "str", "choices": ["present", "pruned"], "default": "present"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    found = Instances(module.run_command, module.params["engine"], module.params["instances"])
    leaving = found.leaving()
    said: list[str] = []
    copies: list[str] = []
    broken: list[str] = []
    try:
        if module.params["state"] == "pruned":
            said = [f"remove {unit}" for unit in leaving]
            if not module.check_mode:
                copies = [copy for unit, of_unit in leaving.items() if (copy := found.remove(unit, of_unit))]
        else:
            users, needed = found.missing_users(), found.needed()
            said = [f"useradd {user}" for user in users]
            said += [f"{step} {unit}" for unit, steps in needed.items() for step in steps]
            if not module.check_mode:
                found.create_users(users)
                broken = found.take(needed)
    except ReleaseError as error:
        module.fail_json(msg=f"{error} {error.cure}")
    for reason in broken:
        module.warn(reason)
    module.exit_json(changed=bool(said), steps=said, leaving=list(leaving), copies=copies, broken=broken)


if __name__ == "__main__":
    main()
