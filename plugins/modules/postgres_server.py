#!/usr/bin/python
"""The module postgres_server: run a cluster with the configuration on the disk.

The code is in module_utils/flaskhost/postgres/server.py.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_server
short_description: Run a PostgreSQL cluster with its settings
description:
  - Writes a settings file, C(pg_hba.conf), the cluster's environment variables and a drop-in of the unit, and starts,
    reloads or restarts the cluster.
  - Restarts it only if PostgreSQL itself reports that a setting on the disk needs a restart, or if its unit has
    changed. A setting that PostgreSQL rejects is not put in place; one that keeps it from starting is reverted.
  - Stops before any change if the cluster's data belongs to another major version.
options:
  cluster: {description: "Cluster in Debian's notation, such as 17/main.", type: str, required: true}
  only_guard: {description: Whether only to check that the data belongs to this version., type: bool, default: false}
  databases_in_use:
    description: Databases in use by name, each with its pool size in PgBouncer (0 for no pool). If set, the module only
      returns the databases whose access or pool the files on the disk contain although these do not need it, and
      whether the cluster exists.
    type: dict
  settings_file:
    description: Settings file in conf.d.
    type: dict
    suboptions: &file
      path: {description: The file., type: path, required: true}
      content: {description: Content., type: str, required: true}
  access_file:
    description: Rules about who can log in.
    type: dict
    suboptions: *file
  names_file:
    description: Mapping of system users to roles.
    type: dict
    suboptions: *file
  environment_file:
    description: Environment variables of the cluster's processes. They take effect at its next start or restart; a
      change of this file does not cause one.
    type: dict
    suboptions: *file
  unit_file:
    description: Drop-in of the unit.
    type: dict
    suboptions: *file
  enable_checksums:
    description: Whether to enable page checksums in a cluster without them; the cluster is stopped for that.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Run PostgreSQL with its settings
  postgres_server:
    cluster: 17/main
    settings_file:
      path: /etc/postgresql/17/main/conf.d/60-flaskhost.conf
      content: |
        work_mem = '16MB'
"""

RETURN = r"""
steps: {description: "The changes that were made, or would be made.", type: list, returned: always}
reasons: {description: "The settings that required a restart.", type: list, returned: always}
leaving: {description: "Result for databases_in_use.", type: list, returned: when asked}
exists: {description: "Whether the cluster exists.", type: bool, returned: with databases_in_use}
checksums: {description: Whether pages have checksums., type: bool, returned: success}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.host import files as host_files
from ansible.module_utils.flaskhost.host import service_state
from ansible.module_utils.flaskhost.host.runner import tail
from ansible.module_utils.flaskhost.postgres import server as logic
from ansible.module_utils.flaskhost.postgres.psql import Psql, PsqlError, as_postgres

FILE = {"path": {"type": "path", "required": True}, "content": {"type": "str", "required": True}}
ARGUMENT_SPEC = {
    "cluster": {"type": "str", "required": True},
    "only_guard": {"type": "bool", "default": False},
    "databases_in_use": {"type": "dict"},
    "settings_file": {"type": "dict", "options": FILE},
    "access_file": {"type": "dict", "options": FILE},
    "names_file": {"type": "dict", "options": FILE},
    "environment_file": {"type": "dict", "options": FILE},
    "unit_file": {"type": "dict", "options": FILE},
    "enable_checksums": {"type": "bool", "default": False},
}
#: The files that a reload applies.
RELOADED = ("settings_file", "access_file", "names_file")


class Server:
    """One cluster and its files.

    Args:
        module: runs commands, and has the options.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.options = module, module.params
        self.version, self.name = self.options["cluster"].split("/")
        self.folder = logic.SETTINGS / self.version / self.name
        self.data = logic.data_folder(self.folder)
        self.programs = Path("/usr/lib/postgresql") / self.version / "bin"
        self.unit = f"postgresql@{self.version}-{self.name}.service"
        self.psql = Psql(module.run_command, self.options["cluster"])
        self.steps: list[str] = []
        self.reasons: list[str] = []
        self.answer: dict[str, Any] = {}

    def plan(self) -> list[host_files.Change]:
        """Return the changes of files that differ from the requested state."""
        # Without access to the data directory, this exits immediately. It validates the new file.
        judge = [str(self.programs / "postgres"), "-C", "max_connections", "-D", str(self.data), "--config-file=%s"]
        own = {"owner": "root", "group": "postgres", "mode": "0640"}
        wanted = [
            {**(self.options["settings_file"] or {}), **own, "validate": as_postgres(judge)},
            {**(self.options["access_file"] or {}), **own},
            {**(self.options["names_file"] or {}), **own},
            {**(self.options["environment_file"] or {}), **own},
            {**(self.options["unit_file"] or {}), "owner": "root", "group": "root", "mode": "0644"},
        ]
        return host_files.plan_files(item for item in wanted if "path" in item)

    def service(self) -> list[str]:
        """Return the systemctl steps, given the unit's state and the files' times."""
        show = [
            "systemctl",
            "show",
            "--timestamp=us+utc",
            f"--property={','.join(service_state.PROPERTIES)}",
            self.unit,
        ]
        properties = service_state.parse_show(self.module.run_command(show, check_rc=True)[1])
        reload_files = [file["path"] for name in RELOADED if (file := self.options[name])]
        restart_files = [str(Path(self.options["unit_file"]["path"]).parent)] if self.options["unit_file"] else []
        if not self.module.check_mode:
            service_state.settle(reload_files + restart_files)
        # Debian's generator starts the cluster at boot, according to its start.conf.
        return service_state.steps(properties, False, reload_files, restart_files)

    def ask(self) -> dict[str, Any]:
        """Query the running server about its files."""
        self.answer = self.psql.ask(logic.QUESTION)[0]
        return self.answer

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl. Return its error, or an empty string."""
        status, out, err = self.module.run_command(["systemctl", *arguments])
        return tail(out + err, 3) or "no output" if status else ""

    def log(self) -> str:
        """Return the last lines of the unit's log."""
        command = ["journalctl", "--no-pager", "--output=cat", "--lines=15", f"--unit={self.unit}"]
        return tail(self.module.run_command(command)[1])

    def converge(self, changes: list[host_files.Change]) -> None:
        """Write the files, and run the service with them.

        Raises:
            ServerError: this failed; the previous files are in place again.
        """
        text = (self.options["settings_file"] or {}).get("content", "")
        libraries = self.programs.parent / "lib"
        if missing := logic.missing_libraries(text, libraries):
            raise logic.ServerError(
                f"PostgreSQL was not restarted: there is no library {', '.join(missing)} in {libraries}, and "
                "without it, PostgreSQL would not start or would reject connections. Its settings are unchanged.\n"
                "Correct postgres_extra_settings, or add the package of the library to postgres_extra_packages, and "
                "run the same command again."
            )
        try:
            host_files.apply(changes, self.module.run_command)
        except host_files.HostFilesError as error:
            said = logic.refusals(str(error)) or str(error)
            raise logic.ServerError(
                f"PostgreSQL rejects these settings, and runs unchanged: {said}\nCorrect postgres_extra_settings."
            ) from error
        needed = self.service()
        if "start" not in needed:
            answer = self.ask()
            problems = logic.file_problems(answer)
            if problems:
                self.restore(changes)
                raise logic.ServerError("PostgreSQL rejects the new files, and runs unchanged: " + "; ".join(problems))
            self.reasons = logic.restart_reasons(answer)
            needed = logic.service_steps(needed, self.reasons)
        for step in needed:
            if step == "restart":
                # Flush first, to shorten the downtime of the restart. Continue even if that fails.
                self.psql.run("CHECKPOINT")
            problem = self.systemctl(step, *([] if step == "daemon-reload" else [self.unit]))
            if problem:
                self.recover(step, problem, changes)
        self.steps += needed

    def recover(self, step: str, problem: str, changes: list[host_files.Change]) -> None:
        """Revert the files with which the cluster does not start, and start it.

        Raises:
            ServerError: always, with the result of the recovery.
        """
        log = self.log()
        said = f"systemctl {step} {self.unit} failed: {problem}\nIts last log lines:\n{log}"
        if not changes or step not in ("start", "restart"):
            # A failed reload also counts as a state change, so make the files newer: the next run must repeat it.
            files = [item["path"] for key in RELOADED if (item := self.options[key])]
            service_state.make_younger(files)
            raise logic.ServerError(f"{said}\nCorrect this and run the same command again.")
        self.restore(changes)
        self.systemctl("daemon-reload")
        again = self.systemctl("restart", self.unit)
        now = "It does not start with the previous files either" if again else "It runs again with the previous files"
        raise logic.ServerError(f"{said}\n{now}. Correct postgres_extra_settings and run the same command again.")

    def restore(self, changes: list[host_files.Change]) -> None:
        """Restore the previous files."""
        back = []
        for change in reversed(changes):
            after, before = change.before, change.after
            back.append(host_files.Change(change.path, before, after, change.owner, change.mode))
        host_files.apply(back, self.module.run_command)

    def checksums(self) -> bool:
        """Enable page checksums if requested. Return whether pages have them.

        Raises:
            ServerError: they cannot be enabled.
        """
        answer = self.answer or self.ask()
        if answer["checksums"] or not self.options["enable_checksums"]:
            return bool(answer["checksums"])
        self.steps.append("checksums")
        if self.module.check_mode:
            return False
        command = as_postgres([str(self.programs / "pg_checksums"), "--enable", f"--pgdata={self.data}"])
        problem = self.systemctl("stop", self.unit)
        if not problem:
            status, out, err = self.module.run_command(command, cwd="/")
            problem = tail(out + err, 3) if status else ""
        problem = self.systemctl("start", self.unit) or problem
        if problem:
            raise logic.ServerError(f"checksums could not be enabled: {problem}\n{self.log()}")
        return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    server, checksums, changes = Server(module), True, []
    try:
        found = logic.clusters(server.name)
        started = [version for version in found if logic.starts(logic.SETTINGS / version / server.name)]
        logic.guard(server.version, found, started)
        if module.params["only_guard"]:
            module.exit_json(changed=False, steps=[], reasons=[], checksums=True)
        if module.params["databases_in_use"] is not None:
            wanted = {name: int(pool) for name, pool in module.params["databases_in_use"].items()}
            access = host_files.read(str(server.folder / "pg_hba.conf")) or ""
            leaving = logic.leaving(access, host_files.read(str(logic.POOLS)) or "", wanted)
            exists = (server.folder / "postgresql.conf").exists()
            module.exit_json(changed=False, steps=[], reasons=[], leaving=leaving, exists=exists)
        changes = server.plan()
        if module.check_mode:
            server.steps = server.service() or (["reload"] if changes else [])
        else:
            server.converge(changes)
        if not (module.check_mode and "start" in server.steps):
            checksums = server.checksums()
    except (logic.ServerError, PsqlError) as error:
        module.fail_json(msg=str(error), steps=server.steps, reasons=server.reasons)
    if not checksums and "checksums" not in server.steps:
        module.warn(
            f"{module.params['cluster']} has no checksums, so damage to the data on the disk is not detected. To "
            "enable them, set postgres_enable_checksums: true; PostgreSQL is stopped while all of its data is read."
        )
    module.exit_json(
        changed=bool(changes or server.steps),
        steps=server.steps,
        reasons=server.reasons,
        checksums=checksums,
        diff=[host_files.diff(change) for change in changes],
    )


if __name__ == "__main__":
    main()
