#!/usr/bin/python
"""The module postgres_upgrade: move the data of a cluster to another major version, or return to the previous one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_upgrade
short_description: Move a cluster's data to another major version of PostgreSQL, or return to the previous one
description:
  - Copies the data with Debian's pg_upgradecluster. The previous cluster stays on the disk, stopped, with its data.
  - Returning starts the previous cluster again in place of the new one, which also stays on the disk. Only the new
    cluster has the data that was written since the upgrade.
  - PostgreSQL is down while the data is copied.
options:
  cluster: {description: "Target cluster in Debian's notation, such as 17/main.", type: str, required: true}
  state: {description: Whether to upgrade or to return., type: str, choices: [upgraded, back], default: upgraded}
  method:
    description: Upgrade method; upgrade copies the files (pg_upgrade). dump is rejected, because it would run apps'
      code as the superuser.
    type: str
    choices: [upgrade, dump]
    default: upgrade
"""

EXAMPLES = r"""
- name: Move the data to PostgreSQL 17
  postgres_upgrade:
    cluster: 17/main
"""

RETURN = r"""
former: {description: The version that had the data before., type: str, returned: success}
"""

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host.runner import tail
from ansible.module_utils.flaskhost.postgres import server as logic
from ansible.module_utils.flaskhost.postgres.psql import Psql, PsqlError, as_postgres

ARGUMENT_SPEC = {
    "cluster": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["upgraded", "back"], "default": "upgraded"},
    "method": {"type": "str", "choices": ["upgrade", "dump"], "default": "upgrade"},
}


class Upgrade:
    """Moves the data of one cluster.

    Args:
        module: runs commands, and has the options.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.version, self.name = module.params["cluster"].split("/")
        self.found = logic.clusters(self.name)
        self.former = (sorted(self.found.keys() - {self.version}) or [""])[-1]

    def folder(self, version: str) -> Path:
        """Return the settings folder of a version."""
        return logic.SETTINGS / version / self.name

    def run(self, what: str, command: list[str], data: str | None = None) -> None:
        """Run a command with ``data`` on its standard input.

        Raises:
            ServerError: the command failed.
        """
        status, out, err = self.module.run_command(command, cwd="/", expand_user_and_vars=False, data=data)
        if status:
            state = self.module.run_command(["pg_lsclusters"])[1]
            raise logic.ServerError(
                f"{what} failed: {tail(out + err)}\nThe data of PostgreSQL {self.former} is unchanged, in "
                f"{self.found[self.former]}. The clusters now:\n{state}See docs/postgres.md, Another major version."
            )

    def upgrade(self) -> bool:
        """Copy the data. Return whether there was anything to do.

        Raises:
            ServerError: the upgrade is not possible, or failed.
        """
        if not self.former:
            if self.version in self.found:
                return False
            raise logic.ServerError("this host has no cluster with data to upgrade. Run site.yml.")
        ports = {version: logic.port(self.folder(version)) for version in self.found}
        if self.version in self.found:
            if logic.starts(self.folder(self.version)) and not logic.starts(self.folder(self.former)):
                return False
            raise logic.ServerError(
                f"there are two clusters with data, {self.former} on port {ports[self.former]} and {self.version} on "
                f"port {ports[self.version]}: an upgrade was interrupted or undone. If you do not need the data in "
                f"{self.version}, remove that cluster, start the other one, and run this again: "
                f"sudo pg_dropcluster --stop {self.version} {self.name}; "
                f"sudo systemctl start postgresql@{self.former}-{self.name}"
            )
        if self.module.params["method"] == "dump":
            raise logic.ServerError(
                "method=dump is no longer supported: it would load the apps' data, and run their CHECK constraints and "
                "triggers, as PostgreSQL's superuser. Use method=upgrade. Nothing has been changed."
            )
        self.room()
        self.closed()
        if self.module.check_mode:
            return True
        move = ["pg_upgradecluster", "-v", self.version, "-m", self.module.params["method"], self.former, self.name]
        self.run("pg_upgradecluster", move)
        # The new cluster has no statistics about its tables yet, so its query plans would be bad.
        analyze = ["vacuumdb", "--cluster", f"{self.version}/{self.name}", "--all", "--analyze-in-stages", "--quiet"]
        self.run("vacuumdb", as_postgres(analyze))
        return True

    def room(self) -> None:
        """Check that the disk has room for a copy.

        Raises:
            ServerError: it does not.
        """
        status, out, _err = self.module.run_command(
            ["du", "--summarize", "--block-size=1M", str(self.found[self.former])]
        )
        needed = int(out.split()[0]) if not status and out.split() else 0
        free = shutil.disk_usage(logic.DATA).free // 1024**2
        # A dump rebuilds the indexes, with additional files for sorting.
        if needed * 1.2 > free:
            raise logic.ServerError(
                f"the data takes {needed} MB and its copy needs a fifth more, but {free} MB are free on {logic.DATA}. "
                "Free some space, or use a larger disk. Nothing has been changed."
            )

    def closed(self) -> None:
        """Check that each database accepts connections: pg_upgrade rejects others, and a dump omits them silently.

        Raises:
            ServerError: at least one does not.
        """
        closed = "pg_database WHERE NOT datallowconn AND datname <> 'template0'"
        try:
            names = Psql(self.module.run_command, f"{self.former}/{self.name}").ask(
                f"SELECT coalesce(json_agg(datname), '[]') FROM {closed}"  # noqa: S608 - a constant
            )[0]
        except PsqlError as error:
            raise logic.ServerError(f"PostgreSQL {self.former} must run before an upgrade. {error}") from error
        if names:
            raise logic.ServerError(
                f"{', '.join(names)} allows no connections, so it would not be copied. Drop it, or allow connections: "
                f"ALTER DATABASE {names[0]} WITH ALLOW_CONNECTIONS true. Nothing has been changed."
            )

    def back(self) -> bool:
        """Start the previous cluster in place of the new one. Return whether there was anything to do.

        Raises:
            ServerError: there is no previous cluster.
        """
        if not self.former or self.version not in self.found:
            raise logic.ServerError(
                "there is no previous cluster to return to: this host has data of "
                f"{', '.join(self.found) or 'no version'}."
            )
        if logic.starts(self.folder(self.former)) and not logic.starts(self.folder(self.version)):
            return False
        if self.module.check_mode:
            return True
        ports = {version: logic.port(self.folder(version)) for version in (self.former, self.version)}
        # Both are stopped, then they swap places. The apps use the lower port.
        for version in (self.version, self.former):
            self.module.run_command(["systemctl", "stop", f"postgresql@{version}-{self.name}.service"])
        for version, port, start in (
            (self.version, max(ports.values()), "manual"),
            (self.former, min(ports.values()), "auto"),
        ):
            self.run("pg_conftool", ["pg_conftool", version, self.name, "set", "port", str(port)])
            # As the user postgres, who owns the folder: root would follow a link in it.
            self.run("tee", as_postgres(["tee", str(self.folder(version) / "start.conf")]), data=f"{start}\n")
        self.run("systemctl daemon-reload", ["systemctl", "daemon-reload"])
        self.run("systemctl start", ["systemctl", "start", f"postgresql@{self.former}-{self.name}.service"])
        return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    upgrade = Upgrade(module)
    try:
        changed = upgrade.back() if module.params["state"] == "back" else upgrade.upgrade()
    except logic.ServerError as error:
        module.fail_json(msg=str(error), former=upgrade.former)
    module.exit_json(changed=changed, former=upgrade.former)


if __name__ == "__main__":
    main()
