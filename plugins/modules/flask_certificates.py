#!/usr/bin/python
"""The module flask_certificates: install the program flaskhost-certificates, and run it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_certificates
short_description: Give each site its certificate
description:
  - Installs the program flaskhost-certificates with its configuration and its units in one run, and runs one of two of
    its commands. Without Ansible, a timer runs the same commands.
  - If the CA does not issue a certificate, the module warns, so that one domain that is not ready affects neither the
    other sites nor the rest of the play. With I(strict), the module fails instead.
options:
  state:
    description:
      - prepared, before the web server starts, ensures that each site has a certificate and key at their final path.
      - applied, once the web server runs, requests missing certificates from the CA and deletes unused ones.
    type: str
    choices: [prepared, applied]
    required: true
  program:
    description: Files of the program as texts by path; only with prepared. Not secret, but kept out of logs.
    type: dict
    default: {}
  units: {description: "systemd units as texts by path; only with prepared.", type: dict, default: {}}
  timers:
    description: Timers to run, as the module configured_service takes them; only with prepared.
    default: []
  launcher: {description: Path of the program itself., type: path, default: /usr/local/sbin/flaskhost-certificates}
  config: {description: "Contents of certificates.json, without secrets.", type: dict, default: {}}
  email: {description: Address that the CA writes to., type: str, default: ""}
  directory: {description: URL of the CA's ACME directory., type: str, default: ""}
  root: {description: "Root certificate of a private CA in PEM format.", type: str, default: ""}
  external_account: {description: "key_id and hmac_key of an external account.", type: dict, default: {}}
  dns_credentials: {description: Settings of certbot's DNS plugin., type: dict, default: {}}
  own:
    description: "Key pairs to install: name of the site, own_certificate and own_key, both in PEM format."
    type: list
    elements: dict
    default: []
  host: {description: "Name of the host, for warnings.", type: str, default: ""}
  strict: {description: Whether to fail if a certificate cannot be obtained., type: bool, default: false}
  asks:
    description: Whether a certificate comes from a CA; for check mode on a host without the program.
    type: bool
    default: true
extends_documentation_fragment: [flaskhost_service.timers]
"""

EXAMPLES = r"""
- name: Request missing certificates from the CA
  flask_certificates:
    state: applied
"""

RETURN = r"""
certificates: {description: "The certificates: name, source, serial, not_after.", type: list,
               returned: success}
files: {description: The files that were written., type: list, returned: success}
notes: {description: Information that is not a problem., type: list, returned: success}
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import services
from ansible.module_utils.flaskhost.host.wanted import File, missing
from ansible.module_utils.flaskhost.programs import certificates

ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["prepared", "applied"], "required": True},
    "program": {"type": "dict", "default": {}, "no_log": True},
    "units": {"type": "dict", "default": {}},
    "timers": {"type": "list", "elements": "dict", "default": [], "options": services.OPTIONS},
    "launcher": {"type": "path", "default": "/usr/local/sbin/flaskhost-certificates"},
    "config": {"type": "dict", "default": {}},
    "email": {"type": "str", "default": ""},
    "directory": {"type": "str", "default": ""},
    "root": {"type": "str", "default": ""},
    "external_account": {"type": "dict", "default": {}, "no_log": True},
    "dns_credentials": {"type": "dict", "default": {}, "no_log": True},
    "own": {"type": "list", "elements": "dict", "default": [], "no_log": True},
    "host": {"type": "str", "default": ""},
    "strict": {"type": "bool", "default": False},
    "asks": {"type": "bool", "default": True},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    # Override the umask of the login: other users need access to the folders that are created here.
    os.umask(0o022)
    try:
        result = prepare(module) if module.params["state"] == "prepared" else apply(module)
    except (certificates.Refused, services.ServiceError) as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


def prepare(module: AnsibleModule) -> dict[str, Any]:
    """Install the program, and let it create the certificates that the web server needs to start."""
    options = module.params
    files = certificates.program_files(options["program"], options["launcher"])
    files += [File(Path(path), text) for path, text in options["units"].items()]
    files += certificates.settings_files(options, options["config"])
    wanted = missing(files)
    diff = [file.diff() for file in wanted]
    if module.check_mode:
        # The installed program can be an older version, or missing: run the one that would be installed.
        with tempfile.TemporaryDirectory(prefix="flaskhost-") as folder:
            command = certificates.put_aside(files, Path(folder), options["launcher"])
            answer = certificates.ask(module.run_command, [*command, "prepare", "--check"], options["own"])
    else:
        for file in wanted:
            file.write()
        if any(file.path.match("/etc/systemd/system/*") for file in wanted):
            module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        answer = certificates.ask(module.run_command, [options["launcher"], "prepare"], options["own"])
    steps: list[str] = []
    services.bring_up(options["timers"], module.run_command, module.check_mode, steps)
    return {
        "changed": bool(wanted or answer.get("changed") or steps),
        "certificates": answer.get("certificates", []),
        "files": [str(file.path) for file in wanted],
        "notes": certificates.notes(answer),
        "warnings": certificates.warnings(answer, options["host"]),
        "diff": diff + certificates.diff(answer),
    }


def apply(module: AnsibleModule) -> dict[str, Any]:
    """Let the program request certificates from the CA."""
    options = module.params
    if module.check_mode and not Path(options["launcher"]).exists():
        return {"changed": options["asks"], "certificates": [], "files": [], "notes": [], "warnings": [], "diff": []}
    command = [options["launcher"], "apply", *(["--check"] if module.check_mode else [])]
    answer = certificates.ask(module.run_command, command)
    warnings = certificates.warnings(answer, options["host"])
    if warnings and options["strict"]:
        raise certificates.Refused("\n".join([*warnings, certificates.HINT]))
    return {
        "changed": bool(answer.get("changed")),
        "certificates": answer.get("certificates", []),
        "files": [],
        "notes": certificates.notes(answer),
        "warnings": [*warnings, *([certificates.HINT] if warnings else [])],
        "diff": certificates.diff(answer),
    }


if __name__ == "__main__":
    main()
