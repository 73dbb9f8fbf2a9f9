#!/usr/bin/python
"""The module postgres_disk: what apps cannot take from PostgreSQL's disk, and what each database may take of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_disk
short_description: Bound databases, and keep a reserve of the disk for PostgreSQL
description:
  - On ext4 makes the blocks that are reserved for root PostgreSQL's as well, so that it goes on writing where others
    have filled the file system. Where the file system has project quotas, bounds what each database may hold, and what
    all temporary files may.
options:
  cluster: {description: "The cluster, such as 17/main.", type: str, required: true}
  databases:
    description: The databases.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Its name; its app's as well., type: str, required: true}
      disk: {description: "The most it may hold: 10G, or a share of the file system such as 50%.", type: str,
             default: 50%}
  temporary: {description: The most that temporary files of all queries may hold., type: str, default: 25%}
  reserve_share: {description: Percent of the file system that are reserved., type: int, default: 5}
  reserve_most: {description: The most MB that are reserved., type: int, default: 1024}
"""

EXAMPLES = r"""
- name: Keep a reserve for PostgreSQL, and bound the shop's database
  postgres_disk:
    cluster: 17/main
    databases: [{name: shop, disk: 10G}]
"""

RETURN = r"""
steps: {description: What was done., type: list, returned: always}
"""

import grp  # noqa: E402 - Ansible wants the documentation first
import re  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.flaskhost import quotas  # noqa: E402
from ansible.module_utils.flaskhost.postgres_psql import Psql, PsqlError  # noqa: E402

ARGUMENT_SPEC = {
    "cluster": {"type": "str", "required": True},
    "databases": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str", "required": True}, "disk": {"type": "str", "default": "50%"}},
    },
    "temporary": {"type": "str", "default": "25%"},
    "reserve_share": {"type": "int", "default": 5},
    "reserve_most": {"type": "int", "default": 1024},
}
#: The name of the project of all temporary files; no app's, since none has a space.
TEMPORARY = "PostgreSQL's temporary files"
QUESTION = (
    "SELECT pg_catalog.json_build_object('folder', pg_catalog.current_setting('data_directory'), 'databases',"
    " (SELECT pg_catalog.json_object_agg(datname, oid::bigint) FROM pg_catalog.pg_database));\n"
)


def reserve(module: AnsibleModule, system: quotas.FileSystem) -> list[str]:
    """Let PostgreSQL use what ext4 keeps for root, and see that there is enough of it."""
    if system.kind != "ext4" or not Path(system.device).is_block_device():
        return []
    _status, out, _err = module.run_command(["dumpe2fs", "-h", system.device], check_rc=True)
    have = {name: int(number) for name, number in re.findall(r"^([A-Z][^:\n]+): +(\d+)", out, re.MULTILINE)}
    group = grp.getgrnam("postgres").gr_gid
    share = have["Block count"] * module.params["reserve_share"] // 100
    wanted = min(share, module.params["reserve_most"] * 1024**2 // have["Block size"])
    options, steps = [], []
    found = re.search(r"^Reserved blocks gid: +(\d+)", out, re.MULTILINE)
    if found is None or int(found[1]) != group:
        options += ["-g", str(group)]
        steps.append(f"{system.mount}: what is reserved for root is PostgreSQL's too")
    if have["Reserved block count"] < wanted:
        options += ["-r", str(wanted)]
        steps.append(f"{system.mount}: {wanted * have['Block size'] // 1024**2} MB are reserved")
    if not module.check_mode and options:
        module.run_command(["tune2fs", *options, system.device], check_rc=True)
    # The superblock holds from the next boot on; this, until then.
    if f"resgid={group}" not in system.options:
        steps = steps or [f"{system.mount}: what is reserved for root is PostgreSQL's too"]
        if not module.check_mode:
            module.run_command(["mount", "-o", f"remount,resgid={group}", system.mount], check_rc=True)
    return steps


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    change = not module.check_mode
    try:
        [found] = Psql(module.run_command, module.params["cluster"]).ask(QUESTION)
    except PsqlError as error:
        module.fail_json(msg=str(error))
    base = Path(found["folder"]) / "base"
    system = quotas.file_system(base)
    steps = reserve(module, system)
    if system.has_quotas:
        wanted = [
            (database["name"], base / str(found["databases"][database["name"]]), database["disk"])
            for database in module.params["databases"]
            if database["name"] in found["databases"]
        ]
        temporary = base / "pgsql_tmp"
        if change and not temporary.exists():
            module.run_command(
                [
                    "setpriv",
                    "--reuid=postgres",
                    "--regid=postgres",
                    "--init-groups",
                    "mkdir",
                    "-m",
                    "0700",
                    str(temporary),
                ],
                check_rc=True,
            )
        wanted.append((TEMPORARY, temporary, module.params["temporary"]))
        try:
            for name, folder, _limit in wanted:
                if quotas.adopt(folder, quotas.project_of(name), change):
                    steps.append(f"{name}: {folder} counts as what it holds")
            limits = [(name, quotas.project_of(name), limit) for name, _folder, limit in wanted]
            steps += quotas.hold(module.run_command, system.mount, limits, change)
        except quotas.QuotaError as error:
            module.fail_json(msg=str(error), steps=steps)
    module.exit_json(changed=bool(steps), steps=steps)


if __name__ == "__main__":
    main()
