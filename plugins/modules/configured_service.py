#!/usr/bin/python
"""The module configured_service: run a service with the configuration on the disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: configured_service
short_description: Run a service with the configuration on the disk
description:
  - Starts and enables the service, and reloads or restarts it if one of its files is newer than its last state change.
    Unlike with a handler, this also works after a run that was killed between the write and the reload.
options:
  name: {description: "Name of the unit, for a single service.", required: false}
  services: {description: "Several services in one run, instead of I(name)."}
extends_documentation_fragment: [flaskhost_service, flaskhost_service.services]
"""

EXAMPLES = r"""
- name: Run nginx with its current configuration
  configured_service:
    name: nginx.service
    reload_files: [/etc/nginx]
    test: [/usr/sbin/nginx, -t]
"""

RETURN = r"""
steps: {description: "The steps, each with the unit: daemon-reload, enable, start, restart, reload.", type: list,
        returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import services

ARGUMENT_SPEC = {
    **services.OPTIONS,
    "name": {"type": "str"},
    "services": {"type": "list", "elements": "dict", "options": services.OPTIONS},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        supports_check_mode=True,
        required_one_of=[("name", "services")],
        mutually_exclusive=[("name", "services")],
    )
    options = module.params
    done: list[str] = []
    wanted = [options] if options["name"] else options["services"]
    try:
        services.bring_up(wanted, module.run_command, module.check_mode, done)
    except services.ServiceError as error:
        module.fail_json(msg=str(error), steps=done)
    module.exit_json(changed=bool(done), steps=done)


if __name__ == "__main__":
    main()
