#!/usr/bin/python
"""The module host_identity: a host's own certificate, and those that it trusts.

The code is in module_utils/flaskhost/host/identity.py.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_identity
short_description: Create a host's own certificate, and store the certificates of the hosts that it trusts
description:
  - Generates a private key and a self-signed certificate on the host, once. The key never leaves the host.
  - Writes the certificates of other hosts into one file, which programs use to verify them.
options:
  folder: {description: Folder of the files., type: path, required: true}
  name: {description: Name of the host in its certificate., type: str, required: true}
  dns_name: {description: DNS name in the certificate that other hosts verify., type: str, required: true}
  peers:
    description:
      - Certificates of the hosts to trust, by name. An empty text keeps the one that the host already has.
      - If unset, the module only creates the host's own certificate.
    type: dict
    default: null
"""

EXAMPLES = r"""
- name: Create the host's own certificate
  host_identity:
    folder: /etc/flaskhost/identity
    name: "{{ inventory_hostname }}"
    dns_name: app.example.internal
"""

RETURN = r"""
certificate: {description: "The host's own certificate; empty in check mode if there is none yet.", type: str,
              returned: success}
paths: {description: "Files that differ, or differed, from the requested state.", type: list, returned: always}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.identity import CERTIFICATE, TRUSTED, Identity, IdentityError

ARGUMENT_SPEC = {
    "folder": {"type": "path", "required": True},
    "name": {"type": "str", "required": True},
    "dns_name": {"type": "str", "required": True},
    "peers": {"type": "dict", "default": None},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options, folder, paths = module.params, Path(module.params["folder"]), []
    os.umask(0o022)
    identity = Identity(folder, module.run_command)
    try:
        certificate = identity.certificate()
        if not certificate:
            paths.append(str(folder / CERTIFICATE))
            if not module.check_mode:
                certificate = identity.create(options["name"], options["dns_name"])
        # In check mode, the other hosts may have no certificate yet.
        if options["peers"] is not None and not (module.check_mode and "" in options["peers"].values()):
            wanted, text = identity.trusts(options["peers"])
            if not identity.is_trusting(wanted, text):
                paths.append(str(folder / TRUSTED))
                if not module.check_mode:
                    identity.trust(wanted, text)
    except IdentityError as error:
        module.fail_json(msg=str(error), paths=paths)
    module.exit_json(changed=bool(paths), certificate=certificate, paths=paths)


if __name__ == "__main__":
    main()
