#!/usr/bin/python
"""The module flask_run: runs one command in the release that serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_run
short_description: Run a command in the live release of a Flask app
description:
  - Runs a command of the shell with the code, the environment and the variables of the release that serves, as the
    app's user, in the same sandbox as the release command. It may write the app's data folder and nothing else.
  - A frozen app is left alone, since nobody can tell what a command changes.
  - The command goes on when Ansible is interrupted, until its time is up.
options:
  app: {description: The app's name., type: str, required: true}
  user: {description: The app's system user and group., type: str, required: true}
  root: {description: The app's folder., type: path, required: true}
  data: {description: The folder that the app may write., type: path, required: true}
  secret_key_file: {description: "A file of variables, which need not be there.", type: path, required: true}
  unit: {description: The name of the slots' unit before the at sign., type: str, required: true}
  socket_dir: {description: The folder of the slots' sockets., type: path, required: true}
  live_socket: {description: The link that nginx connects through., type: path, required: true}
  command: {description: The command., type: str, required: true}
  secrets:
    description:
      - Variables of this one run, such as a password that the command sets. They win over the release's own.
      - They go to the host in a file that only root reads and that is removed when the command has ended. The command
        itself is in the process list and in the journal; a secret does not belong into it.
    type: dict
    default: {}
  timeout: {description: Seconds until it is ended., type: int, default: 900}
  outbound: {description: Whether the app may connect to other hosts., type: bool, default: true}
  owner_file:
    description: Variables by which the command owns the tables of the app; without it, it has the app's own rights.
    type: str
    default: ""
  force: {description: Run it although the app is frozen., type: bool, default: false}
  freeze: {description: The file of the freezes., type: path, default: /etc/flaskhost/freeze.json}
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
output: {description: "What it wrote, errors last.", type: str, returned: success}
rc: {description: Its exit status., type: int, returned: when it was run}
"""

import functools
import secrets
import time
from pathlib import Path
from typing import Any

import ansible.module_utils.flaskhost.deploy.freeze as freeze  # noqa: PLR0402 - a whole name, for Mitogen
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.deploy import environment
from ansible.module_utils.flaskhost.deploy.slots import Slots
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.journal import require_journal
from ansible.module_utils.flaskhost.host.runner import ReleaseError, as_owner, sandboxed

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


#: The folder of the files of variables that are there for one run: in memory, and root's.
RUNTIME = Path("/run/flaskhost")


def arguments(options: dict[str, Any], release: str, group: str = "", once: str = "") -> list[str]:
    """The ``systemd-run`` that runs the command.

    Args:
        options: the module's options.
        release: the release that serves.
        group: the group that it runs with; the app's own when empty.
        once: a file of variables for this run alone, which systemd removes at the end, also when this process is gone.
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
        properties=[f"ExecStopPost=-+/bin/rm --force {once}"] if once else [],
    )
    # Not a task's name: a deploy stops those, taking them for what a killed deploy has left.
    return [item.replace("_task-", "_run-", 1) if item.startswith("--unit=") else item for item in wrapped]


def live_release(options: dict[str, Any], run: Any) -> str:
    """The release that serves.

    Raises:
        ReleaseError: none does.
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
            "Look for the live release",
            f"no release of {options['app']} serves on this host.",
            "Deploy it first: ansible-playbook playbooks/deploy.yml",
        )
    return release


def _text(value: Any) -> str:
    """A variable is text, whatever YAML took it for."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    # AnsibleModule puts root's own variables in the place of $NAME in an argument, unless told not to.
    run = functools.partial(module.run_command, expand_user_and_vars=False)
    release = group = ""
    try:
        if options["timeout"] < 1:
            raise ReleaseError("Read the options", "timeout has to be 1 or more.", "-e timeout=900")
        release = live_release(options, run)
        if not options["force"]:
            freeze.check(options["app"], Path(options["freeze"]))
        require_journal(options["unit"], "Look for the app")
        if options["owner_file"] and not module.check_mode:
            group = as_owner(run, options["owner_file"], "Log in as the owner of the tables")
    except ReleaseError as error:
        hint = "\nTo run the command all the same: -e force=true" if "frozen" in error.reason else ""
        module.fail_json(msg=f"{error.step}: {error.reason}\n{error.cure}{hint}", step=error.step, release=release)
    if module.check_mode:
        module.exit_json(changed=True, release=release, output="")
    began = time.monotonic()
    once = RUNTIME / f"run-{secrets.token_hex(8)}.env" if options["secrets"] else None
    try:
        if once:
            variables = {name: _text(value) for name, value in options["secrets"].items()}
            once.parent.mkdir(mode=0o700, exist_ok=True)
            atomic.write(once, environment.render(variables))
        status, out, err = run(arguments(options, release, group, str(once or "")))
    except ReleaseError as error:
        module.fail_json(msg=f"{error.step}: {error.reason}\n{error.cure}", release=release)
    finally:
        if once:
            once.unlink(missing_ok=True)
    output = "\n".join(text.rstrip("\n") for text in (out, err) if text.strip())
    if status:
        late = time.monotonic() - began >= options["timeout"]
        how = f"was ended after {options['timeout']} s (timeout)" if late else f"ended with {status}"
        said = f":\n{output}" if output else ", and said nothing."
        module.fail_json(msg=f"'{options['command']}' {how}{said}", rc=status, release=release)
    module.exit_json(changed=True, release=release, output=output, rc=0)


if __name__ == "__main__":
    main()
