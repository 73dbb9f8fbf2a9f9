#!/usr/bin/python
"""The module kernel_settings: sysctl, now and at the next boot. Code: flaskhost/host/kernel_settings.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_settings
short_description: Set kernel parameters, now and at the next boot
description:
  - Writes one file of sysctl.d, and sets differing values in the running kernel.
  - A setting that the kernel lacks, that this host cannot change, or that a later file of sysctl.d overrides is
    reported without a failure. Forwarding and router advertisements stay unchanged if the host depends on them.
options:
  settings: {description: "Values by setting name.", type: dict, required: true}
  path: {description: File to write., type: path, required: true}
  header: {description: Comment at the top of the file., type: str, default: ""}
"""

EXAMPLES = r"""
- name: Hide the kernel's messages from users
  kernel_settings:
    path: /etc/sysctl.d/60-flaskhost.conf
    settings:
      kernel.dmesg_restrict: 1
"""

RETURN = r"""
differing: {description: "Settings that had another value, and that value.", type: dict, returned: always}
missing: {description: "Settings that this kernel does not have.", type: list, returned: always}
unwritable: {description: "Settings with another value that this host cannot change.", type: list, returned: always}
overruled: {description: "Settings that a later file overrides, and that file.", type: dict, returned: always}
left: {description: "Settings that the host needs unchanged, and why.", type: dict, returned: always}
refused: {description: "Settings that the kernel rejected, and its error.", type: dict, returned: always}
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import files as host_files
from ansible.module_utils.flaskhost.host import kernel_settings as logic

ARGUMENT_SPEC = {
    "settings": {"type": "dict", "required": True},
    "path": {"type": "path", "required": True},
    "header": {"type": "str", "default": ""},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    path = module.params["path"]
    settings = {str(key): str(value) for key, value in module.params["settings"].items()}
    each = logic.expanded(settings)
    found = logic.examine(settings, Path(path).name)
    text = logic.render(settings, found, module.params["header"])
    file = {"path": path, "content": text, "owner": "root", "group": "root", "mode": "0644"}
    changes = host_files.plan_files([file])
    refused: dict[str, str] = {}
    if not module.check_mode:
        host_files.apply(changes, module.run_command)
        refused = logic.set_now(each, found.differing)
        # A write can change other settings: without forwarding, the kernel accepts redirects again (inet_forward_change
        # in net/ipv4/devinet.c).
        again = logic.examine(settings, Path(path).name).differing.keys() - refused.keys()
        refused |= logic.set_now(each, again)
    for key, by in found.overruled.items():
        # The distribution's own settings are nobody's mistake, so do not warn about them at every run.
        if not by.startswith(("/usr/lib/", "/lib/")):
            module.warn(f"{key} keeps the value of {by}, which is read after {path}. Remove the setting there.")
    for key, reason in refused.items():
        module.warn(f"The kernel rejected {key} = {each[key]}: {reason}")
    diff = [host_files.diff(change) for change in changes]
    if found.differing:
        before = "".join(f"{key} = {now}\n" for key, now in found.differing.items())
        after = "".join(f"{key} = {each[key]}\n" for key in found.differing)
        diff.append({"before_header": "now", "after_header": "now", "before": before, "after": after})
    # A rejected value does not count as a change, because it would be one at every run.
    changed = bool(changes or found.differing.keys() - refused.keys())
    module.exit_json(changed=changed, refused=refused, diff=diff, **asdict(found))


if __name__ == "__main__":
    main()
