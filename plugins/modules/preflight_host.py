#!/usr/bin/python
"""The module preflight_host: what preflight asks a host, in one run. Its logic is in flaskhost/host_questions.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_host
short_description: Check values against the host's accounts, systemd and PostgreSQL
description:
  - Asks systemd whether it can read the times of timers, and PostgreSQL, if it is installed, whether it takes the
    values of settings, and whose the roles and databases are that have given names. Looks up the users and groups that
    have given names, and restores that were killed. Changes nothing.
options:
  apps:
    description: The names of the apps that are to run on the host. Without it, apps are not looked for.
    type: list
    elements: str
  names: {description: Names of users and groups., type: list, elements: str, default: []}
  calendars: {description: "Times, as in systemd.time(7).", type: list, elements: str, default: []}
  databases:
    description: The apps whose databases the host has, by name, each with the names of its roles (I(roles), its own
      first), the file with its owner's password (I(owner_file)) and the home of its system user (I(home)).
    type: dict
    default: {}
  postgres_settings: {description: "Values of PostgreSQL's settings, by name.", type: dict, default: {}}
  postgres_version: {description: "The major version of PostgreSQL; the newest installed if empty.", type: str,
                     default: ""}
"""

EXAMPLES = r"""
- name: Check times and settings
  preflight_host:
    calendars: ["*-*-* 03:00"]
    postgres_settings: {work_mem: 64MB}
"""

RETURN = r"""
answers:
  description: "What systemd (calendars) and PostgreSQL (postgres) say. Under accounts, for each name that
    is taken, home, the home of the user, and group, whether a group has it that is not that user's own. Under
    databases, foreign, the roles and databases that have an app's name and are not its own, and silent, the cluster
    that does not answer. Under restores, a sentence for each restore that was killed and is not finished. Under
    others, a sentence for each app that runs and is not one of apps."
  type: dict
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import questions as host_questions
from ansible.module_utils.flaskhost.host.accounts import accounts
from ansible.module_utils.flaskhost.postgres import names as postgres_names

ARGUMENT_SPEC = {
    "apps": {"type": "list", "elements": "str"},
    "names": {"type": "list", "elements": "str", "default": []},
    "calendars": {"type": "list", "elements": "str", "default": []},
    "databases": {"type": "dict", "default": {}},
    "postgres_settings": {"type": "dict", "default": {}},
    "postgres_version": {"type": "str", "default": ""},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)

    def run(command, **given):
        usual = {"cwd": "/", "environ_update": {"LC_ALL": "C.UTF-8"}, "expand_user_and_vars": False}
        try:
            return module.run_command(command, handle_exceptions=False, **dict(usual, **given))
        except OSError as error:  # there is no such program
            return 127, "", str(error)

    options = module.params
    settings = {str(name): str(value) for name, value in options["postgres_settings"].items()}
    version, apps = options["postgres_version"], options["apps"]
    found = host_questions.answer(run, options["calendars"], settings, version, apps=apps)
    found["accounts"] = accounts(options["names"])
    found["databases"] = postgres_names.look_up(run, options["databases"], options["postgres_version"])
    module.exit_json(changed=False, answers=found)


if __name__ == "__main__":
    main()
