#!/usr/bin/python
"""The module app_disk: create the apps' users and folders, and limit each app's disk usage."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_disk
short_description: Create the users and folders of apps, and limit their disk usage
description:
  - Creates each app's user and folder. If the file system has project quotas, assigns the app's folders to its project
    and sets its quota. On other file systems, there is no limit.
options:
  apps:
    description: The apps.
    type: list
    elements: dict
    default: []
    suboptions:
      app: {description: The app's name., type: str, required: true}
      root: {description: The app's folder., type: path, required: true}
      disk: {description: "Limit of its disk usage: 10G, 500M, 2T, or a share of the file system such as 50%.",
             type: str, default: 50%}
      folders: {description: "Further folders that count, such as those of its queue. Missing ones are created for root
               alone.", type: list, elements: path, default: []}
  users: {description: "System users to create: the home of each by its name. It is not created.", type: dict,
          default: {}}
  files: {description: "Files to write for root, readable by all, as texts by path.", type: dict, default: {}}
  cache_dir: {description: Folder of the build caches., type: path, default: /var/cache/flaskhost}
"""

EXAMPLES = r"""
- name: Create the shop's user and folder, and limit its disk usage
  app_disk:
    users: {shop: /srv/shop/data}
    apps: [{app: shop, root: /srv/shop, disk: 10G}]
"""

RETURN = r"""
bounds: {description: The quotas that were set., type: list, returned: always}
unbounded: {description: File systems without project quotas., type: list, returned: always}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import files as host_files
from ansible.module_utils.flaskhost.host import quotas
from ansible.module_utils.flaskhost.host.system_users import SystemUser, UserError

ARGUMENT_SPEC = {
    "apps": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "disk": {"type": "str", "default": "50%"},
            "folders": {"type": "list", "elements": "path", "default": []},
        },
    },
    "users": {"type": "dict", "default": {}},
    "files": {"type": "dict", "default": {}},
    "cache_dir": {"type": "path", "default": "/var/cache/flaskhost"},
}


def create(path: Path, mode: int, change: bool) -> bool:
    """Create a missing folder that belongs to root. Return whether it was missing."""
    if path.exists():
        return False
    if change:
        path.mkdir(parents=True)
        path.chmod(mode)
    return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    change, changed = not module.check_mode, False
    limits: dict[str, list[tuple[str, int, str]]] = {}
    unbounded = set()
    done: list[str] = []
    # Override the umask of the login: all users need access to folders that are created for files.
    os.umask(0o022)
    usual = {"owner": "root", "group": "root", "mode": "0644"}
    files: list[host_files.Change] = []
    try:
        for name, home in module.params["users"].items():
            changed |= SystemUser(name, home).ensure(module.run_command, change)
        for app in module.params["apps"]:
            root, cache = Path(app["root"]), Path(module.params["cache_dir"]) / app["app"]
            changed |= create(root, 0o755, change)
            # Belongs to root until the first build, which creates the build account.
            changed |= create(cache, 0o700, change)
            # Created here, because everything in them must count from the beginning.
            folders = [Path(folder) for folder in app["folders"]]
            for folder in folders:
                changed |= create(folder, 0o700, change)
            project = quotas.project_of(app["app"])
            # The data folder can be the operator's link to another disk.
            for top in dict.fromkeys((root, cache, Path(os.path.realpath(root / "data")), *folders)):
                system = quotas.file_system(top)
                if not system.has_quotas:
                    unbounded.add(system.mount)
                    continue
                entry = (app["app"], project, app["disk"])
                if entry not in limits.setdefault(system.mount, []):
                    limits[system.mount].append(entry)
                changed |= quotas.adopt(top, project, change)
        for mount, entries in limits.items():
            done += quotas.hold(module.run_command, mount, entries, change)
        wanted = [{"path": path, "content": text, **usual} for path, text in module.params["files"].items()]
        files = host_files.plan_files(wanted)
        if change:
            host_files.apply(files, module.run_command)
    except (quotas.QuotaError, UserError, host_files.HostFilesError) as error:
        module.fail_json(msg=str(error), changed=changed, bounds=done)
    diff = [host_files.diff(file) for file in files]
    module.exit_json(changed=changed or bool(done or files), bounds=done, unbounded=sorted(unbounded), diff=diff)


if __name__ == "__main__":
    main()
