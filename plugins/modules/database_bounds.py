#!/usr/bin/python
"""The module database_bounds: reserve disk space for PostgreSQL, and limit the disk usage of each database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_bounds
short_description: Limit the disk usage of databases, and reserve space for PostgreSQL
description:
  - On ext4, lets PostgreSQL use the blocks that are reserved for root, so that it can still write after others have
    filled the file system.
  - If the file system has project quotas, limits the disk usage of each database. PostgreSQL starts without these
    quotas and gets them back once it accepts connections. Crash recovery writes data again that was deleted since the
    last checkpoint. A quota would stop it, and with it every database of the cluster.
options:
  cluster: {description: "Cluster, such as 17/main; the one that starts at boot if empty.", type: str, default: ""}
  databases:
    description: Databases with their disk limits, such as 10G, or a share of the file system such as 50%; no limit if
      empty. A database and the files of the app with its name count toward the same limit.
    type: dict
    default: {}
  reserve_share: {description: Share of the file system to reserve in percent., type: int, default: 5}
  reserve_most: {description: Maximum reserve in MB., type: int, default: 1024}
"""

EXAMPLES = r"""
- name: Reserve space for PostgreSQL, and limit the shop's database
  database_bounds:
    cluster: 17/main
    databases: {shop: 10G}
"""

RETURN = r"""
steps: {description: The changes that were made., type: list, returned: always}
"""

import grp
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import files as host_files
from ansible.module_utils.flaskhost.host import quotas
from ansible.module_utils.flaskhost.postgres import server as postgres_server
from ansible.module_utils.flaskhost.postgres.psql import Psql, PsqlError

ARGUMENT_SPEC = {
    "cluster": {"type": "str", "default": ""},
    "databases": {"type": "dict", "default": {}},
    "reserve_share": {"type": "int", "default": 5},
    "reserve_most": {"type": "int", "default": 1024},
}
QUESTION = (
    "SELECT pg_catalog.json_build_object('folder', pg_catalog.current_setting('data_directory'), 'databases',"
    " (SELECT pg_catalog.json_object_agg(datname, oid::bigint) FROM pg_catalog.pg_database));\n"
)


def cluster(module: AnsibleModule) -> str:
    """Return the requested cluster, or the newest one that starts at boot."""
    folder = postgres_server.SETTINGS
    found = [
        version for version in postgres_server.clusters("main") if postgres_server.starts(folder / version / "main")
    ]
    return module.params["cluster"] or f"{max(found, key=int, default='')}/main"


def reserve(module: AnsibleModule, system: quotas.FileSystem) -> list[str]:
    """Let PostgreSQL use the blocks that ext4 reserves for root, and make the reserve large enough."""
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
        steps.append(f"{system.mount}: let PostgreSQL use the blocks reserved for root")
    if have["Reserved block count"] < wanted:
        options += ["-r", str(wanted)]
        steps.append(f"{system.mount}: reserve {wanted * have['Block size'] // 1024**2} MB")
    if not module.check_mode and options:
        module.run_command(["tune2fs", *options, system.device], check_rc=True)
    # The group in the superblock applies from the next mount on, and this mount option until then.
    if f"resgid={group}" not in system.options:
        steps = steps or [f"{system.mount}: let PostgreSQL use the blocks reserved for root"]
        if not module.check_mode:
            module.run_command(["mount", "-o", f"remount,resgid={group}", system.mount], check_rc=True)
    return steps


def bound(module: AnsibleModule, system: quotas.FileSystem, base: Path, found: dict[str, Any]) -> list[str]:
    """Assign each database's folder to its app's project, and set the project's quota.

    Raises:
        QuotaError: a database already exceeds its limit.
    """
    change, steps = not module.check_mode, []
    limits = []
    # The files of a previous version. As copies, they would count twice. As hard links to the new files, they count for
    # the app again right after this.
    for version, data in postgres_server.clusters("main").items():
        if data != base.parent:
            folders = [folder for folder in (data / "base").glob("[0-9]*") if quotas.adopt(folder, 0, change)]
            steps += [f"{folder} of PostgreSQL {version} counts toward no limit" for folder in folders]
    for name, disk in module.params["databases"].items():
        if not disk or name not in found:
            continue
        number = quotas.project_of(name)
        limits.append((name, number, disk))
        if quotas.adopt(base / str(found[name]), number, change):
            steps.append(f"{name}: {base / str(found[name])} counts toward its limit")
    for name, number in found.items():
        # Data that a restore has set aside belongs to the operator, and must not use up its app's quota.
        if name.rpartition("_before_")[0] in module.params["databases"] and quotas.adopt(base / str(number), 0, change):
            steps.append(f"{name}: {base / str(number)} counts toward no limit")
    steps += quotas.hold(module.run_command, system.mount, limits, change)
    return steps + units(module, system, {number: quotas.wanted(disk, system.mount) for _name, number, disk in limits})


def units(module: AnsibleModule, system: quotas.FileSystem, limits: dict[int, quotas.Bound]) -> list[str]:
    """Let PostgreSQL start without the quotas, and set them again once it accepts connections."""
    version, _slash, name = cluster(module).partition("/")
    text = quotas.start_units(
        unit=f"postgresql@{version}-{name}.service",
        ready=f"/usr/lib/postgresql/{version}/bin/pg_isready --quiet --host=/run/postgresql "
        f"--port={postgres_server.port(postgres_server.SETTINGS / version / name)}",
        mount=system.mount,
        limits=limits,
    )
    root = {"owner": "root", "group": "root", "mode": "0644"}
    changes = host_files.plan_files({"path": path, "content": content, **root} for path, content in text.items())
    if changes and not module.check_mode:
        host_files.apply(changes, module.run_command)
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)
    return [f"write {change.path}" for change in changes]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        [found] = Psql(module.run_command, cluster(module)).ask(QUESTION)
        base = Path(found["folder"]) / "base"
        system = quotas.file_system(base)
        steps = reserve(module, system)
        if system.has_quotas:
            steps += bound(module, system, base, found["databases"])
    except (PsqlError, quotas.QuotaError, host_files.HostFilesError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(steps), steps=steps)


if __name__ == "__main__":
    main()
