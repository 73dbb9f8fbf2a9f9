#!/usr/bin/python
"""The module flask_status: report what runs. The code is in module_utils/flaskhost."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_status
short_description: Report the live release of each Flask app, and its status
description:
  - Reads Flaskhost's records on the host, queries systemd, and checks each app's health over its own socket.
  - Changes nothing.
options:
  apps:
    description: Apps to report.
    type: list
    elements: dict
    required: true
    suboptions:
      app: {description: The app's name., type: str, required: true}
      root: {description: The app's folder., type: path, required: true}
      unit: {description: Name of the slots' unit before the at sign., type: str, required: true}
      socket_dir: {description: Folder of the slots' sockets., type: path, required: true}
      live_socket: {description: Link that nginx connects through., type: path, required: true}
      certificate: {description: The app's certificate., type: path, required: true}
      maintenance: {description: Folder of the maintenance page., type: path, required: true}
      host: {description: The app's canonical domain., type: str, required: true}
      health: {description: "path, status and body of the health check.", type: dict, required: true}
      instances: {description: "The app's cache and queue: kind, engine, unit, user and socket.", type: list,
                  elements: dict, default: []}
  freeze: {description: File of the freezes., type: path, default: /etc/flaskhost/freeze.json}
"""

EXAMPLES = r"""
- name: Read the status of the shop
  flask_status:
    apps:
      - app: shop
        root: /srv/shop
        unit: flask-shop
        socket_dir: /run/flask-shop
        live_socket: /srv/shop/live.sock
        certificate: /etc/flaskhost/tls/shop/fullchain.pem
        maintenance: /srv/shop/maintenance
        host: www.example.com
        health: {path: /healthz, status: 200}
"""

RETURN = r"""
rows: {description: "The status, a mapping for each app.", type: list, returned: success}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.operate.status import read

ARGUMENT_SPEC = {
    "apps": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "unit": {"type": "str", "required": True},
            "socket_dir": {"type": "path", "required": True},
            "live_socket": {"type": "path", "required": True},
            "certificate": {"type": "path", "required": True},
            "maintenance": {"type": "path", "required": True},
            "host": {"type": "str", "required": True},
            "health": {"type": "dict", "required": True},
            "instances": {"type": "list", "elements": "dict", "default": []},
        },
    },
    "freeze": {"type": "path", "default": "/etc/flaskhost/freeze.json"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    rows = read(module.run_command, module.params["apps"], Path(module.params["freeze"]))
    module.exit_json(changed=False, rows=rows)


if __name__ == "__main__":
    main()
