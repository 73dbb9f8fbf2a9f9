#!/usr/bin/python
"""The module flask_maintenance: show a maintenance page instead of an app. The code is in module_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_maintenance
short_description: Show visitors a maintenance page instead of an app
description:
  - Creates or removes the page, which nginx looks up for every request. Visitors get it with status 503; requests in
    flight finish. nginx is reloaded only if the allowed addresses or Retry-After change.
options:
  state: {description: Whether visitors get the page., type: str, choices: [present, absent], required: true}
  sites:
    description: The apps whose pages are switched.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: The app's name., type: str, required: true}
      folder: {description: Folder of its maintenance page., type: path, required: true}
  message: {description: Text of the page; if empty, a general one., type: str, default: ""}
  retry_after: {description: Seconds after which clients can retry (Retry-After)., type: int, default: 600}
  allow:
    description: Addresses and networks that still reach the app.
    type: list
    elements: str
    default: []
  run:
    description:
      - Name of the run that the page belongs to. The page ends with that run on the host, unless it is ended earlier.
      - A page that is already up stays unchanged. A freeze is not checked.
    type: str
    default: ""
  lease:
    description: Seconds that the page of a I(run) stays up after this step; longer during a restore on the host.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Show the page to everybody except the testers
  flask_maintenance:
    sites: [{name: shop, folder: /srv/shop/maintenance}]
    state: present
    message: Back at 9
    retry_after: 600
    allow: [203.0.113.7, "2001:db8::/32"]

- name: Show it while data is restored
  flask_maintenance:
    sites: [{name: shop, folder: /srv/shop/maintenance}]
    state: present
    run: 20261121T101500Z-1a2b3c4d
"""

RETURN = r"""
apps: {description: The apps whose files changed., type: list, returned: success}
reloaded: {description: Whether nginx was reloaded., type: bool, returned: success}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.deploy import freeze
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from ansible.module_utils.flaskhost.operate.maintenance import MESSAGE, RETRY_AFTER, Maintenance, Request, Site
from ansible.module_utils.flaskhost.operate.run_page import LEASE, RunPages

ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "required": True},
    "sites": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "folder": {"type": "path", "required": True},
        },
    },
    "message": {"type": "str", "default": ""},
    "retry_after": {"type": "int", "default": RETRY_AFTER},
    "allow": {"type": "list", "elements": "str", "default": []},
    "run": {"type": "str", "default": ""},
    "lease": {"type": "int", "default": LEASE},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    sites = tuple(Site(site["name"], Path(site["folder"])) for site in options["sites"])
    message = options["message"] or MESSAGE
    request = Request(options["state"] == "present", sites, message, options["retry_after"], tuple(options["allow"]))
    try:
        if options["run"]:
            pages = RunPages(module.run_command, options["run"], check=module.check_mode)
            outcome = pages.show(request, options["lease"]) if request.on else pages.end(request.sites)
        else:
            outcome = Maintenance(module.run_command, freeze.check, check=module.check_mode).switch(request)
    except ReleaseError as error:
        module.fail_json(
            msg=f"The maintenance page was not switched. {error.step}: {error.reason}\n{error.cure}", step=error.step
        )
    module.exit_json(changed=outcome.changed, apps=outcome.apps, reloaded=outcome.reloaded, diff=outcome.diff)


if __name__ == "__main__":
    main()
