#!/usr/bin/python
"""The module flask_freeze: freeze an app. The code is in module_utils/flaskhost."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_freeze
short_description: Freeze a Flask app, so that nothing can change it for a while
description:
  - Records on the host that an app, or all apps, must not be changed, why, and until when.
  - Every command of Flaskhost checks this first. A freeze expires by itself.
options:
  app: {description: "Name of the app, or an asterisk for all apps.", type: str, default: "*"}
  state:
    description: Whether it is frozen. With C(checked), nothing is changed, and the module fails if one of I(apps) is
      frozen.
    type: str
    choices: [present, absent, checked]
    default: present
  apps: {description: "With C(checked), the apps to check.", type: list, elements: str, default: []}
  passed_by: {description: "With C(checked), the option that overrides a freeze, for the message.", type: str,
              default: ""}
  reason: {description: "Reason, shown when a change is rejected.", type: str, default: ""}
  ends: {description: "End of the freeze, in seconds since 1970.", type: float, default: 0}
  by: {description: "User and control node, as user@host.", type: str, default: ""}
  path: {description: File of the freezes., type: path, default: /etc/flaskhost/freeze.json}
"""

EXAMPLES = r"""
- name: Freeze all apps until the audit is over
  flask_freeze:
    reason: audit
    ends: 1796112000
    by: ada@laptop
"""

RETURN = r"""
frozen: {description: "The active freezes, by app.", type: dict, returned: success}
"""

import os
import time
from pathlib import Path

import ansible.module_utils.flaskhost.deploy.freeze as freeze  # noqa: PLR0402 - an absolute import, for Mitogen
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.runner import ReleaseError

ARGUMENT_SPEC = {
    "app": {"type": "str", "default": freeze.ALL},
    "state": {"type": "str", "choices": ["present", "absent", "checked"], "default": "present"},
    "apps": {"type": "list", "elements": "str", "default": []},
    "passed_by": {"type": "str", "default": ""},
    "reason": {"type": "str", "default": ""},
    "ends": {"type": "float", "default": 0},
    "by": {"type": "str", "default": ""},
    "path": {"type": "path", "default": str(freeze.FREEZE)},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    # Override the umask of the login: other users need access to the folders that are created here.
    os.umask(0o022)
    options = module.params
    app, path, now = options["app"], Path(options["path"]), time.time()
    try:
        if options["state"] == "checked":
            for name in options["apps"] or [freeze.ALL]:
                freeze.check(name, path, now, passed_by=options["passed_by"])
            entries = freeze.active(path, now)
            module.exit_json(changed=False, frozen=entries)
        if options["state"] == "absent":
            entries = freeze.lift(app, path, now)
        else:
            if not options["reason"].strip() or options["ends"] <= now:
                module.fail_json(msg="A freeze needs a reason and an end in the future, by this host's clock.")
            entries = freeze.put(
                app, reason=options["reason"], until=options["ends"], by=options["by"], path=path, now=now
            )
    except ReleaseError as error:
        module.fail_json(msg=f"{error.step}: {error.reason}\n{error.cure}", step=error.step)
    before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    after = freeze.render(entries)
    if options["state"] == "absent" and freeze.ALL in entries:
        module.warn(f"{app} stays frozen, because all apps are frozen. To lift that freeze, leave out -e app={app}.")
    if before != after and not module.check_mode:
        freeze.write(entries, path)
    result = {"changed": before != after, "frozen": entries}
    if before != after:
        result["diff"] = {"before": before, "after": after, "before_header": str(path), "after_header": str(path)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
