#!/usr/bin/python
"""The module host_pam: manage profiles of pam-auth-update, and revert them if they would lock anyone out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_pam
short_description: Manage profiles of pam-auth-update without locking anyone out
description:
  - Writes profiles to /usr/share/pam-configs and enables them with pam-auth-update, as Debian packages do.
  - Evaluates the new stacks before it accepts them. If they reject users whom the old stacks accepted, or the reverse,
    or if pam-auth-update did not do what was requested, the previous state is restored.
options:
  profiles:
    description: Profiles.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: File name., type: str, required: true}
      content: {description: Content., type: str, required: true}
  state: {description: Whether the profiles are enabled., type: str, choices: [present, absent], default: present}
  empty_passwords: {description: Whether an account without a password can log in without one., type: bool,
                    default: false}
  keys_outlast_passwords:
    description: Whether an expired password matters only for password logins, and not for key-based logins.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Reject recent passwords
  host_pam:
    profiles:
      - name: example-pwhistory
        content: |
          Name: Reject recent passwords
          Default: yes
          Priority: 1023
          Password-Type: Primary
          Password:
            requisite pam_pwhistory.so remember=24 use_authtok
"""

RETURN = r"""
missing: {description: "Lines that were missing in the stacks.", type: list, returned: always}
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import files as host_files
from ansible.module_utils.flaskhost.host import pam_stack

ARGUMENT_SPEC = {
    "profiles": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {"name": {"type": "str", "required": True}, "content": {"type": "str", "required": True}},
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "empty_passwords": {"type": "bool", "default": False},
    "keys_outlast_passwords": {"type": "bool", "default": True},
}
STACKS = Path("/etc/pam.d")
PROFILES = Path("/usr/share/pam-configs")
STATE = Path("/var/lib/pam")
KINDS = ("auth", "account", "password", "session")


def common() -> dict[str, str]:
    """Return the texts of the common files, by type."""
    return {kind: host_files.read(str(STACKS / f"common-{kind}")) or "" for kind in KINDS}


def faults(texts: dict[str, str]) -> set[str]:
    """Return what is wrong with the stacks."""
    return set(pam_stack.faults(texts["auth"], texts["account"]))


def restore(saved: Path, names: list[str]) -> None:
    """Restore the stacks, their state and the profiles."""
    for path in sorted((saved / "stacks").iterdir()):
        temporary = STACKS / f".{path.name}.flaskhost"
        shutil.copy2(path, temporary)
        temporary.replace(STACKS / path.name)
    shutil.copytree(saved / "state", STATE, dirs_exist_ok=True)
    for name in names:
        old = saved / "profiles" / name
        if old.exists():
            shutil.copy2(old, PROFILES / name)
        else:
            (PROFILES / name).unlink(missing_ok=True)


def save(saved: Path, names: list[str]) -> None:
    """Back up the files that are about to change."""
    for folder in ("stacks", "profiles"):
        (saved / folder).mkdir()
    for path in STACKS.glob("common-*"):
        shutil.copy2(path, saved / "stacks" / path.name)
    shutil.copytree(STATE, saved / "state")
    for name in names:
        if (PROFILES / name).exists():
            shutil.copy2(PROFILES / name, saved / "profiles" / name)


def change(module: AnsibleModule, names: list[str], files: list[host_files.Change]) -> str:
    """Make the changes. Return the problem with them, or an empty string."""
    before, options = faults(common()), module.params
    present = options["state"] == "present"
    host_files.apply(files, module.run_command)
    # With --package, pam-auth-update asks only about new profiles, and without a terminal it does not ask at all.
    verb = "--enable" if present else "--remove"
    command = ["/usr/sbin/pam-auth-update", "--package", verb, *names]
    status, out, err = module.run_command(command, environ_update={"DEBIAN_FRONTEND": "noninteractive"})
    if status:
        return f"pam-auth-update failed: {(out + err).strip()}"
    host_files.apply(option_changes(options), module.run_command)
    after = common()
    missing = [line for profile in options["profiles"] for line in pam_stack.missing_lines(profile["content"], after)]
    if present and missing:
        return f"pam-auth-update omitted {', '.join(missing)}: {(out + err).strip() or 'no output'}"
    if not present:
        for name in names:
            (PROFILES / name).unlink(missing_ok=True)
    return "; ".join(sorted(faults(after) - before))


def option_changes(options: dict[str, Any]) -> list[host_files.Change]:
    """Return the changes of pam_unix's own options: empty passwords are rejected, and keys outlast passwords."""
    if options["state"] != "present":
        return []
    wanted = {}
    if not options["empty_passwords"]:
        wanted["auth"] = pam_stack.without(common()["auth"], "pam_unix.so", "nullok")
    if options["keys_outlast_passwords"]:
        wanted["account"] = pam_stack.having(common()["account"], "account", "pam_unix.so", "no_pass_expiry")
    return [
        host_files.Change(str(STACKS / f"common-{kind}"), text, wanted[kind], (0, 0), 0o644)
        for kind, text in common().items()
        if text and wanted.get(kind, text) != text
    ]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    present, profiles = options["state"] == "present", options["profiles"]
    names = [profile["name"] for profile in profiles]
    wanted: list[dict[str, Any]] = [
        {"path": str(PROFILES / item["name"]), "content": item["content"], "owner": "root", "group": "root",
         "mode": "0644"} for item in profiles
    ]  # fmt: skip
    before = common()
    files = host_files.plan_files(wanted) if present else []
    wanted_lines = profiles if present else []
    missing = [line for item in wanted_lines for line in pam_stack.missing_lines(item["content"], before)]
    own = option_changes(options)
    leftover = [name for name in names if (PROFILES / name).exists()] if not present else []
    changed = bool(files or missing or own or leftover)
    diff = [host_files.diff(item) for item in files + own]
    if not changed or module.check_mode:
        module.exit_json(changed=changed, missing=missing, diff=diff)
    with tempfile.TemporaryDirectory(prefix="flaskhost-pam-") as folder:
        saved = Path(folder)
        save(saved, names)
        try:
            problem = change(module, names, files)
        except Exception:
            restore(saved, names)
            raise
        if problem:
            restore(saved, names)
            module.fail_json(msg=f"PAM was not changed. Problem with the new profiles: {problem}", missing=missing)
    module.exit_json(changed=True, missing=missing, diff=diff)


if __name__ == "__main__":
    main()
