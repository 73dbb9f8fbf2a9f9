#!/usr/bin/python
"""The module flask_run: run one command in the live release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_run
short_description: Run a command in the live release of a Flask app
description:
  - Runs a shell command with the code, the virtual environment and the variables of the live release, as the app's
    user, in the same sandbox as the release command. It can write only to the app's data folder.
  - Rejected if the app is frozen, because a command can change anything.
  - The command continues if Ansible is interrupted, until its time limit.
options:
  app: {description: The app's name., type: str, required: true}
  user: {description: System user and group of the app., type: str, required: true}
  root: {description: The app's folder., type: path, required: true}
  data: {description: Folder that the app can write., type: path, required: true}
  secret_key_file: {description: "Environment file with the signing keys, optional.", type: path, required: true}
  unit: {description: Name of the slots' unit before the at sign., type: str, required: true}
  socket_dir: {description: Folder of the slots' sockets., type: path, required: true}
  live_socket: {description: Link that nginx connects through., type: path, required: true}
  command: {description: The command., type: str, required: true}
  secrets:
    description:
      - Variables for this run only, such as a password that the command sets. They override the release's own.
      - They are passed to the host in a file that only root can read, and that is removed when the command has ended.
        Do not put secrets into the command itself, which is visible in the process list and in the journal.
    type: dict
    default: {}
  timeout: {description: Time limit in seconds., type: int, default: 900}
  outbound: {description: Whether the app can connect to other hosts., type: bool, default: true}
  owner_file:
    description: Environment file with the login of the tables' owner; if empty, the command uses the app's role.
    type: str
    default: ""
  force: {description: Whether to run it even if the app is frozen., type: bool, default: false}
  freeze: {description: File of the freezes., type: path, default: /etc/flaskhost/freeze.json}
"""

EXAMPLES = r"""
- name: Show the revision of the database
  flask_run:
    app: shop
    user: shop
    root: /srv/shop
    data: /srv/shop/data
    secret_key_file: /etc/flaskhost/shop/secret_key.env
    unit: flask-shop
    socket_dir: /run/flask-shop
    live_socket: /srv/shop/live.sock
    command: flask db current
"""

RETURN = r"""
release: {description: The release that it ran in., type: str, returned: always}
output: {description: "Its output, error output last.", type: str, returned: success}
rc: {description: Its exit status., type: int, returned: when it was run}
"""

import functools
import secrets
import time
from pathlib import Path
from typing import Any

import ansible.module_utils.flaskhost.deploy.freeze as freeze  # noqa: PLR0402 - an absolute import, for Mitogen
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.deploy import drivers, environment
from ansible.module_utils.flaskhost.deploy.records import Store
from ansible.module_utils.flaskhost.deploy.slots import Slots
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.journal import require_journal
from ansible.module_utils.flaskhost.host.output import limited
from ansible.module_utils.flaskhost.host.redact import redact
from ansible.module_utils.flaskhost.host.runner import ReleaseError, as_owner, excerpt, sandboxed

ARGUMENT_SPEC = {
    "app": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "data": {"type": "path", "required": True},
    "secret_key_file": {"type": "path", "required": True},
    "unit": {"type": "str", "required": True},
    "socket_dir": {"type": "path", "required": True},
    "live_socket": {"type": "path", "required": True},
    "command": {"type": "str", "required": True},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "timeout": {"type": "int", "default": 900},
    "outbound": {"type": "bool", "default": True},
    "owner_file": {"type": "str", "default": ""},
    "force": {"type": "bool", "default": False},
    "freeze": {"type": "path", "default": str(freeze.FREEZE)},
}


def arguments(options: dict[str, Any], release: str, group: str = "", once: str = "") -> list[str]:
    """Return the ``systemd-run`` command line.

    Args:
        options: the module's options.
        release: the live release.
        group: the group that it runs with; the app's own if empty.
        once: an environment file for this run only, which systemd removes at the end even if this process is gone.
    """
    folder = Path(options["root"]) / "releases" / release
    wrapped = sandboxed(
        ["/bin/sh", "-c", options["command"]],
        user=options["user"],
        root=options["root"],
        directory=f"{folder}/app",
        writable=[options["data"]],
        environment={
            "PATH": f"{folder}/venv/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": options["data"],
            "PYTHONPATH": f"{folder}/app:{folder}/app/src",
        },
        environment_files=[
            f"-{options['secret_key_file']}",
            f"{folder}/env",
            *([options["owner_file"]] if options["owner_file"] else []),
            *([once] if once else []),
        ],
        timeout=options["timeout"],
        outbound=options["outbound"],
        group=group,
        properties=drivers.removal([options["owner_file"], once]),
    )
    # Without a task's name, because a deploy stops tasks, which it considers leftovers of a killed deploy.
    return [item.replace("_task-", "_run-", 1) if item.startswith("--unit=") else item for item in wrapped]


def live_release(options: dict[str, Any], run: Any) -> str:
    """Return the live release.

    Raises:
        ReleaseError: no release is live.
    """
    slots = Slots(
        run,
        unit=options["unit"],
        root=Path(options["root"]),
        socket_dir=Path(options["socket_dir"]),
        live_socket=Path(options["live_socket"]),
    )
    release = slots.release(slots.live())
    if not release:
        raise ReleaseError(
            "Find the live release",
            f"no release of {options['app']} is live on this host.",
            "Deploy it first: ansible-playbook playbooks/deploy.yml",
        )
    return release


def _text(value: Any) -> str:
    """Convert a value to a string, whatever type YAML has parsed."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    # By default, AnsibleModule expands $NAME in arguments with root's own environment variables.
    run = limited(functools.partial(module.run_command, expand_user_and_vars=False))
    release = group = ""
    try:
        if options["timeout"] < 1:
            raise ReleaseError("Read the options", "timeout must be 1 or more.", "-e timeout=900")
        release = live_release(options, run)
        if not options["force"]:
            freeze.check(options["app"], Path(options["freeze"]))
        require_journal(options["unit"], "Find the app")
        if options["owner_file"] and not module.check_mode:
            group = as_owner(run, options["owner_file"], "Log in as the owner of the tables")
    except ReleaseError as error:
        hint = "\nTo run the command anyway: -e force=true" if "frozen" in error.reason else ""
        module.fail_json(msg=f"{error.step}: {error.reason}\n{error.cure}{hint}", step=error.step, release=release)
    if module.check_mode:
        module.exit_json(changed=True, release=release, output="")
    began = time.monotonic()
    once = drivers.RUNTIME / f"run-{secrets.token_hex(8)}.env" if options["secrets"] else None
    try:
        if once:
            variables = {name: _text(value) for name, value in options["secrets"].items()}
            once.parent.mkdir(mode=0o700, exist_ok=True)
            atomic.write(once, environment.render(variables))
        record = Store(Path(options["root"])).record(release)
        with drivers.owner_login(options["owner_file"], record.driver if record else "") as login:
            status, out, err = run(arguments({**options, "owner_file": login}, release, group, str(once or "")))
    except ReleaseError as error:
        module.fail_json(msg=f"{error.step}: {error.reason}\n{error.cure}", release=release)
    finally:
        if once:
            once.unlink(missing_ok=True)
    output = "\n".join(text.rstrip("\n") for text in (out, err) if text.strip())
    if status:
        late = time.monotonic() - began >= options["timeout"]
        how = f"was stopped after {options['timeout']} s (timeout)" if late else f"failed with exit code {status}"
        said = f":\n{excerpt(output, 50, 450)}" if output else ", without output."
        module.fail_json(msg=f"'{redact(options['command'])}' {how}{said}", rc=status, release=release)
    module.exit_json(changed=True, release=release, output=output, rc=0)


if __name__ == "__main__":
    main()
