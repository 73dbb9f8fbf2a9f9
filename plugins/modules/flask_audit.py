#!/usr/bin/python
"""The module flask_audit: what scanners say of a host. Its logic is in module_utils/flaskhost/audit."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_audit
short_description: Let scanners look at a host, and write down what they say
description:
  - Scanners that the host lacks are unpacked into a folder of their own, and removed with it. Nothing is installed.
  - The steps outside and report are done by the action plugin of the same name, on the controller.
  - A scanner that cannot run is no failure of the module; the scan that it returns says why it could not.
  - Does the same in check mode and out of it.
options:
  step:
    description: What to do. prepare makes the folder, inside scans on the host, outside from the controller, report
      puts the scans together, clean removes the folder.
    type: str
    required: true
    choices: [prepare, inside, outside, report, clean]
  folder: {description: The folder that prepare has made., type: path, default: ""}
  scanner: {description: Which scanner to run., type: str, default: ""}
  scanners: {description: The scanners to prepare for., type: list, elements: str, default: []}
  profiles: {description: OpenSCAP's profiles., type: list, elements: str, default: []}
  content: {description: OpenSCAP's rules in the folder; where it is not there those that were fetched., type: str,
            default: ""}
  suite: {description: The release of Debian to fetch OpenSCAP's rules from; empty for none., type: str, default: ""}
  limits: {description: The most exposure of each service., type: list, elements: dict, default: []}
  ports: {description: The TCP ports that are meant to be open., type: list, elements: int, default: []}
  least_days: {description: A certificate with fewer days left is a finding., type: int, default: 14}
  names: {description: The names whose TLS is looked at., type: list, elements: str, default: []}
  most_names: {description: At most so many of them., type: int, default: 3}
  operator: {description: The address that Ansible comes from; fail2ban ignores it from prepare to clean., type: str,
             default: ""}
  address: {description: The host's address as the controller sees it., type: str, default: ""}
  own: {description: "What the step prepare says of the host's own address.", type: dict, default: {}}
  ssh_port: {description: The port of sshd; 0 for the one that Ansible comes in by., type: int, default: 0}
  https_port: {description: The port of HTTPS., type: int, default: 443}
  rate: {description: Connections per second when ports are tried., type: int, default: 1000}
  authority: {description: "The certificate of a private authority, a file on the controller.", type: str, default: ""}
  authority_pem: {description: "The same, as text: what the host's own testssl.sh gets.", type: str, default: ""}
  programs: {description: The scanners on the controller and their pinned packages., type: dict, default: {}}
  scans: {description: The scans to report., type: list, elements: dict, default: []}
  waivers: {description: The findings that stay as they are., type: list, elements: dict, default: []}
  own_waivers: {description: Those of the role itself., type: list, elements: dict, default: []}
  host: {description: The host's name in the report., type: str, default: ""}
  system: {description: "What the host runs, as the step prepare says it.", type: str, default: ""}
  reports: {description: The folder of the reports on the controller., type: str, default: reports}
"""

EXAMPLES = r"""
- name: Unpack the scanners
  flask_audit:
    step: prepare
    scanners: [lynis]
  register: audit

- name: Let Lynis look
  flask_audit:
    step: inside
    scanner: lynis
    folder: "{{ audit.folder }}"

- name: Remove the scanners
  flask_audit:
    step: clean
    folder: "{{ audit.folder }}"
"""

RETURN = r"""
folder: {description: The folder of the scanners., type: str, returned: with prepare}
ours: {description: Whether Flaskhost has set the host up., type: bool, returned: with prepare}
system: {description: What the host runs., type: str, returned: with prepare}
release: {description: "The release's number, such as 13.", type: str, returned: with prepare}
own: {description: "The host's own address, sshd's ports and keys.", type: dict, returned: with prepare}
lacks: {description: "What the host cannot set, since it shares its kernel: kernel, network, clock.", type: list,
        returned: with prepare}
scans: {description: "What was found, a mapping for each scan.", type: list, returned: with inside and outside}
page: {description: The page of the report., type: str, returned: with report}
summary: {description: The report in a few lines., type: list, returned: with report}
left: {description: How many findings are neither passed nor waived., type: int, returned: with report}
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.audit import bans
from ansible.module_utils.flaskhost.audit import host as inside
from ansible.module_utils.flaskhost.audit.model import Scan, not_run
from ansible.module_utils.flaskhost.host.abilities import abilities

ARGUMENT_SPEC: dict[str, Any] = {
    "step": {"type": "str", "required": True, "choices": ["prepare", "inside", "outside", "report", "clean"]},
    "folder": {"type": "path", "default": ""},
    "scanner": {"type": "str", "default": ""},
    "scanners": {"type": "list", "elements": "str", "default": []},
    "profiles": {"type": "list", "elements": "str", "default": []},
    "content": {"type": "str", "default": ""},
    "suite": {"type": "str", "default": ""},
    "limits": {"type": "list", "elements": "dict", "default": []},
    "ports": {"type": "list", "elements": "int", "default": []},
    "least_days": {"type": "int", "default": 14},
    "names": {"type": "list", "elements": "str", "default": []},
    "most_names": {"type": "int", "default": 3},
    "operator": {"type": "str", "default": ""},
    "address": {"type": "str", "default": ""},
    "own": {"type": "dict", "default": {}},
    "ssh_port": {"type": "int", "default": 0},
    "https_port": {"type": "int", "default": 443},
    "rate": {"type": "int", "default": 1000},
    "authority": {"type": "str", "default": ""},
    "authority_pem": {"type": "str", "default": ""},
    "programs": {"type": "dict", "default": {}},
    "scans": {"type": "list", "elements": "dict", "default": []},
    "waivers": {"type": "list", "elements": "dict", "default": []},
    "own_waivers": {"type": "list", "elements": "dict", "default": []},
    "host": {"type": "str", "default": ""},
    "system": {"type": "str", "default": ""},
    "reports": {"type": "str", "default": "reports"},
}


def scan(host: inside.Host, params: dict[str, Any]) -> list[Scan]:
    """Run one scanner on the host."""
    content = Path(params["content"] or "/nonexistent")
    scanners: dict[str, Callable[[], Scan | list[Scan]]] = {
        "lynis": host.lynis,
        "openscap": lambda: host.openscap(params["profiles"], content),
        "testssl": lambda: host.testssl(params["names"], params["authority_pem"]),
        "exposure": lambda: host.exposure(params["limits"]),
        "listeners": lambda: host.listeners(params["ports"]),
        "certificates": lambda: host.certificates(params["least_days"]),
        "updates": host.updates,
        "backup": host.backup,
    }
    if params["scanner"] not in scanners:
        raise inside.AuditError("There is no such scanner on the host.")
    started = time.monotonic()
    found = scanners[params["scanner"]]()
    if isinstance(found, list):
        return found
    found.seconds = round(time.monotonic() - started)
    return [found]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    if params["step"] == "prepare":
        folder = inside.make_folder()
        host = inside.Host(folder)
        bans.ignore(folder, params["operator"], host.run)
        host.fetch(params["scanners"])
        if "openscap" in params["scanners"] and params["suite"] and not params["content"]:
            host.fetch_content(params["suite"])
        module.exit_json(
            changed=False, folder=str(folder), system=inside.system(),
            release=inside.os_release("VERSION_ID"), ours=inside.is_ours(), own=inside.whereabouts(),
            lacks=inside.lacks(abilities()),
        )  # fmt: skip
    if params["step"] == "clean":
        folder = Path(params["folder"])
        bans.restore(folder, inside.Host(folder).run)
        inside.remove_folder(folder)
        module.exit_json(changed=False)
    if params["step"] != "inside":
        module.fail_json(
            msg=f"The step {params['step']} is the controller's: the action plugin flask_audit is missing."
        )
    host = inside.Host(Path(params["folder"]))
    if params["scanner"] == "nginx":
        settings, why_not = host.nginx()
        module.exit_json(changed=False, settings=settings, why_not=why_not)
    try:
        scans = scan(host, params)
    except (inside.AuditError, OSError) as error:
        # Whatever one scanner lacks, the others have their say.
        scans = [not_run(params["scanner"], params["scanner"], host.why(params["scanner"]) or str(error))]
    module.exit_json(changed=False, scans=[each.as_dict() for each in scans])


if __name__ == "__main__":
    main()
