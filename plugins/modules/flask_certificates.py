#!/usr/bin/python
"""The module flask_certificates: installs the program flaskhost-certificates and runs it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_certificates
short_description: See that each site has its certificate
description:
  - Installs the program flaskhost-certificates with its configuration and its units, all in one run, and lets it do one
    of two things. The program does the same by its timer when no Ansible is near.
  - Whether the authority could give a certificate is told as a warning, so that one name that is not ready keeps back
    neither the other sites nor the rest of the play; with I(strict) it is a failure.
options:
  state:
    description:
      - prepared, before the web server starts, makes sure that each site has a pair at its final path.
      - applied, when it runs, asks the authority for what is missing and deletes what is no longer wanted.
    type: str
    choices: [prepared, applied]
    required: true
  program:
    description: The files of the program, path to text; only with prepared. No secret, but nothing for a log either.
    type: dict
    default: {}
  units: {description: "systemd's units, path to text; only with prepared.", type: dict, default: {}}
  launcher: {description: The path of the program itself., type: path, default: /usr/local/sbin/flaskhost-certificates}
  config: {description: "What becomes certificates.json; no secret.", type: dict, default: {}}
  email: {description: Where the authority writes to., type: str, default: ""}
  directory: {description: The URL of the authority's ACME directory., type: str, default: ""}
  root: {description: "The root certificate of a private authority, PEM.", type: str, default: ""}
  external_account: {description: "key_id and hmac_key of an external account.", type: dict, default: {}}
  dns_credentials: {description: The settings of certbot's DNS plugin., type: dict, default: {}}
  own:
    description: "Pairs to install: name of the site, own_certificate and own_key, both PEM."
    type: list
    elements: dict
    default: []
  host: {description: "What the operator calls the host, for warnings.", type: str, default: ""}
  strict: {description: Fail where a certificate could not be had., type: bool, default: false}
  asks:
    description: Whether a certificate comes from a CA; for check mode on a host without the program.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Ask the authority for what is missing
  flask_certificates:
    state: applied
"""

RETURN = r"""
certificates: {description: "What there is to tell of each: name, source, serial, not_after.", type: list,
               returned: success}
files: {description: The files that were written., type: list, returned: success}
notes: {description: What is worth knowing and no problem., type: list, returned: success}
"""

import os
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.wanted import File, missing
from ansible.module_utils.flaskhost.programs import certificates

ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["prepared", "applied"], "required": True},
    "program": {"type": "dict", "default": {}, "no_log": True},
    "units": {"type": "dict", "default": {}},
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
    # Whatever the one who logged in has: others have to get through the folders that are made here.
    os.umask(0o022)
    try:
        result = prepare(module) if module.params["state"] == "prepared" else apply(module)
    except certificates.Refused as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


def prepare(module: AnsibleModule) -> dict[str, object]:
    """Install the program, and let it make what the web server starts with."""
    options = module.params
    files = certificates.program_files(options["program"], options["launcher"])
    files += [File(Path(path), text) for path, text in options["units"].items()]
    files += certificates.settings_files(options, options["config"])
    wanted = missing(files)
    diff = [file.diff() for file in wanted]
    if module.check_mode:
        # What is on the host may be an older one, or none: ask the one that would be there.
        with tempfile.TemporaryDirectory(prefix="flaskhost-") as folder:
            command = certificates.put_aside(files, Path(folder), options["launcher"])
            answer = certificates.ask(module.run_command, [*command, "prepare", "--check"], options["own"])
    else:
        for file in wanted:
            file.write()
        if any(file.path.match("/etc/systemd/system/*") for file in wanted):
            module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        answer = certificates.ask(module.run_command, [options["launcher"], "prepare"], options["own"])
    return {
        "changed": bool(wanted or answer.get("changed")),
        "certificates": answer.get("certificates", []),
        "files": [str(file.path) for file in wanted],
        "notes": certificates.notes(answer),
        "warnings": certificates.warnings(answer, options["host"]),
        "diff": diff + certificates.diff(answer),
    }


def apply(module: AnsibleModule) -> dict[str, object]:
    """Let the program ask the authority."""
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
