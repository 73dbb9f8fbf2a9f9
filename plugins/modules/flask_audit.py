#!/usr/bin/python
"""The module flask_audit: run scanners on a host. The code is in module_utils/flaskhost/audit."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_audit
short_description: Scan a host, and write a report
description:
  - Scanners that the host lacks are unpacked into a folder of their own, and removed with it. Nothing is installed.
  - The action plugin of the same name runs the steps outside and report, on the control node.
  - A scanner that cannot run does not fail the module; the returned scan contains the reason.
  - Works the same in check mode.
options:
  step:
    description: Step to run. prepare creates the folder, inside scans on the host, outside scans from the control node,
      report combines the scans, clean removes the folder.
    type: str
    required: true
    choices: [prepare, inside, outside, report, clean]
  folder: {description: Folder that prepare has created., type: path, default: ""}
  scanner: {description: Scanner to run., type: str, default: ""}
  scanners: {description: Scanners to prepare., type: list, elements: str, default: []}
  profiles: {description: OpenSCAP profiles., type: list, elements: str, default: []}
  content: {description: File with OpenSCAP's rules; if it does not exist the downloaded rules are used., type: str,
            default: ""}
  suite: {description: Debian release from which to download OpenSCAP's rules; empty for none., type: str, default: ""}
  limits: {description: Maximum exposure of each service., type: list, elements: dict, default: []}
  ports: {description: TCP ports that should be open., type: list, elements: int, default: []}
  least_days: {description: Minimum days that a certificate must be valid., type: int, default: 14}
  names: {description: Domains whose TLS is checked., type: list, elements: str, default: []}
  most_names: {description: Maximum number of domains to check., type: int, default: 3}
  operator: {description: Address that Ansible connects from; fail2ban ignores it from prepare to clean., type: str,
             default: ""}
  address: {description: Address of the host as seen from the control node., type: str, default: ""}
  own: {description: "Result own of the step prepare.", type: dict, default: {}}
  ssh_port: {description: Port of sshd; 0 for the port that Ansible uses., type: int, default: 0}
  https_port: {description: HTTPS port., type: int, default: 443}
  rate: {description: Connections per second of the port scan., type: int, default: 1000}
  authority: {description: "File on the control node with the certificate of a private CA.", type: str, default: ""}
  authority_pem: {description: "The same certificate as text, for testssl.sh on the host.", type: str, default: ""}
  programs: {description: Scanners on the control node with their pinned packages., type: dict, default: {}}
  scans: {description: Scans for the report., type: list, elements: dict, default: []}
  waivers: {description: Waivers for findings that stay as they are., type: list, elements: dict, default: []}
  own_waivers: {description: Waivers of the role itself., type: list, elements: dict, default: []}
  host: {description: Name of the host in the report., type: str, default: ""}
  system: {description: "Result system of the step prepare.", type: str, default: ""}
  reports: {description: Folder of the reports on the control node., type: str, default: reports}
"""

EXAMPLES = r"""
- name: Unpack the scanners
  flask_audit:
    step: prepare
    scanners: [lynis]
  register: audit

- name: Scan the host with Lynis
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
folder: {description: Folder of the scanners., type: str, returned: with prepare}
ours: {description: Whether Flaskhost has set up the host., type: bool, returned: with prepare}
system: {description: Short description of the operating system., type: str, returned: with prepare}
release: {description: "Release number, such as 13.", type: str, returned: with prepare}
own: {description: "The host's own address, sshd's ports, and the host keys.", type: dict, returned: with prepare}
lacks: {description: "Settings that a host with a shared kernel cannot change: kernel, network, clock.", type: list,
        returned: with prepare}
scans: {description: "The results, a mapping for each scan.", type: list, returned: with inside and outside}
page: {description: Path of the report., type: str, returned: with report}
summary: {description: Summary of the report in a few lines., type: list, returned: with report}
left: {description: Number of findings that are neither passed nor waived., type: int, returned: with report}
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
        "instances": host.instances,
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
            msg=f"The step {params['step']} runs on the control node, but the action plugin flask_audit is missing."
        )
    host = inside.Host(Path(params["folder"]))
    if params["scanner"] == "nginx":
        settings, why_not = host.nginx()
        module.exit_json(changed=False, settings=settings, why_not=why_not)
    try:
        scans = scan(host, params)
    except (inside.AuditError, OSError) as error:
        # A failed scanner must not keep the others from running.
        scans = [not_run(params["scanner"], params["scanner"], host.why(params["scanner"]) or str(error))]
    module.exit_json(changed=False, scans=[each.as_dict() for each in scans])


if __name__ == "__main__":
    main()
