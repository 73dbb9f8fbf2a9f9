#!/usr/bin/python
"""The module preflight_host: run preflight's queries on a host. Code: module_utils/flaskhost/host/questions.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_host
short_description: Check values against the host's accounts, systemd and PostgreSQL
description:
  - Validates the calendar events of timers with systemd and, if PostgreSQL is installed, the values of settings with
    PostgreSQL, and queries the owners of roles and databases with given names. Looks up users and groups with given
    names, and restores that were killed. Changes nothing.
  - Returns the host's time, so that the clocks of several hosts can be compared.
  - Also reads the fact C(packages), the installed packages, as package_facts does.
options:
  apps:
    description: Names of the apps that should run on the host. If unset, running apps are not checked.
    type: list
    elements: str
  names: {description: Names of users and groups., type: list, elements: str, default: []}
  packages: {description: Names of Debian packages., type: list, elements: str, default: []}
  calendars: {description: "Calendar events, as in systemd.time(7).", type: list, elements: str, default: []}
  databases:
    description: Apps whose databases are on the host, by name, each with the names of its roles (I(roles), its own
      first), the file with its owner's password (I(owner_file)) and the home of its system user (I(home)).
    type: dict
    default: {}
  interfaces: {description: Whether to read the fact C(flaskhost_interfaces)., type: bool, default: false}
  postgres_settings: {description: "Values of PostgreSQL's settings, by name.", type: dict, default: {}}
  postgres_version: {description: "Major version of PostgreSQL; the newest installed one if empty.", type: str,
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
  description: "The answers of systemd (calendars) and PostgreSQL (postgres). accounts has, for each existing name,
    home, the user's home, and group, whether a group has the name that is not that user's own. databases has foreign,
    the roles and databases with an app's name that are not its own, and silent, the cluster that does not respond.
    restores has a sentence for each restore that was killed before it finished, and others a sentence for each app that
    runs although apps does not contain it. unknown_packages has the packages that the host's package lists do not
    contain. clock is the host's time, in seconds since 1970."
  type: dict
  returned: always
ansible_facts:
  description: "packages, unless dpkg does not say which are installed; flaskhost_interfaces, the IPv4 addresses of each
    network interface with the length of their prefix, if interfaces is true."
  type: dict
  returned: always
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import questions as host_questions
from ansible.module_utils.flaskhost.host.accounts import accounts
from ansible.module_utils.flaskhost.postgres import names as postgres_names

ARGUMENT_SPEC = {
    "apps": {"type": "list", "elements": "str"},
    "names": {"type": "list", "elements": "str", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
    "calendars": {"type": "list", "elements": "str", "default": []},
    "databases": {"type": "dict", "default": {}},
    "interfaces": {"type": "bool", "default": False},
    "postgres_settings": {"type": "dict", "default": {}},
    "postgres_version": {"type": "str", "default": ""},
}


def main() -> None:
    """Run the module."""
    clock = time.time()
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)

    def run(command, **given):
        usual = {"cwd": "/", "environ_update": {"LC_ALL": "C.UTF-8"}, "expand_user_and_vars": False}
        try:
            return module.run_command(command, handle_exceptions=False, **dict(usual, **given))
        except OSError as error:  # the program does not exist
            return 127, "", str(error)

    options = module.params
    settings = {str(name): str(value) for name, value in options["postgres_settings"].items()}
    version, apps = options["postgres_version"], options["apps"]
    packages = options["packages"]
    found = host_questions.answer(run, options["calendars"], settings, version, apps=apps, packages=packages)
    found["clock"] = clock
    found["accounts"] = accounts(options["names"])
    found["databases"] = postgres_names.look_up(run, options["databases"], options["postgres_version"])
    have = host_questions.installed(run)
    facts = {"packages": have} if have else {}
    if options["interfaces"]:
        facts["flaskhost_interfaces"] = host_questions.interfaces(run)
    module.exit_json(changed=False, answers=found, ansible_facts=facts)


if __name__ == "__main__":
    main()
