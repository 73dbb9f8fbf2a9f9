#!/usr/bin/python
"""The module postgres_databases: compare and change all apps' roles and databases in one run.

The code is in module_utils/flaskhost/postgres: databases.py, database_questions.py and database_steps.py.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_databases
short_description: Manage roles, databases, privileges, limits and extensions in one run
description:
  - Queries PostgreSQL for the state of databases and their roles, and changes what differs. Connects with psql as the
    user postgres on the local socket.
  - If the owner of a database changes, the database is transferred with everything in it while the app runs.
  - Never removes a database, role or extension.
options:
  cluster: {description: "Cluster in Debian's notation, such as 17/main.", type: str, required: true}
  databases:
    description: Databases.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the database and of the app's role., type: str, required: true}
      owner: {description: "Role that owns it; the app's own if empty.", type: str, default: ""}
      owner_file:
        description: Environment file for the owner's password; removed if the app's role is the owner.
        type: str
        default: ""
      owner_variables:
        description: Further variables in that file; C({password}) is replaced by the password, which the host
          generates.
        type: dict
        default: {}
      connections: {description: Connection limit of the app's role; -1 for no limit., type: int, default: -1}
      owner_connections: {description: Connection limit of the owner., type: int, default: -1}
      statement_timeout: {description: Time limit of the app's statements in seconds; 0 for no limit., type: int,
                          default: 0}
      lock_timeout: {description: Seconds that the app's statements can wait for a lock; 0 for no limit., type: int,
                     default: 0}
      idle_in_transaction_timeout:
        description: Seconds that the app's transactions can be idle; 0 for no limit.
        type: int
        default: 0
      disk:
        description: Limit of its disk usage, such as 10G, or a share of the file system such as 50%. The temporary
            files
          of each role are limited to a quarter of that, shared by its connections. If empty, they have no limit.
        type: str
        default: ""
      pool: {description: Used by the role; the module ignores it., type: int, default: 0}
      extensions: {description: Extensions of the database., type: list, elements: str, default: []}
  logins:
    description: Passwords of roles that log in over the network, by database name and the last word of the role's name.
      The word owner stands for the owner; all others log in with the privileges of the app's role. Without a password,
      a role cannot log in.
    type: dict
    default: {}
  untrusted_extensions:
    description: Extensions to allow although PostgreSQL does not trust them.
    type: list
    elements: str
    default: []
  server_extensions: {description: Extensions of the database postgres., type: list, elements: str, default: []}
"""

EXAMPLES = r"""
- name: Give the shop a database
  postgres_databases:
    cluster: 17/main
    databases:
      - name: shop
        owner: shop-owner
        owner_file: /etc/flaskhost/shop/database_owner.env
        extensions: [citext]
"""

RETURN = r"""
steps: {description: "The changes that were made, or would be made.", type: list, returned: always}
"""

import os
import shlex
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.deploy import environment
from ansible.module_utils.flaskhost.host import atomic, quotas
from ansible.module_utils.flaskhost.host.runner import tail
from ansible.module_utils.flaskhost.postgres import database_questions, database_steps
from ansible.module_utils.flaskhost.postgres import databases as logic
from ansible.module_utils.flaskhost.postgres import scram as postgres_scram
from ansible.module_utils.flaskhost.postgres import server as postgres_server
from ansible.module_utils.flaskhost.postgres.psql import Psql, PsqlError

ARGUMENT_SPEC = {
    "cluster": {"type": "str", "required": True},
    "databases": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "owner": {"type": "str", "default": ""},
            "owner_file": {"type": "str", "default": ""},
            "owner_variables": {"type": "dict", "default": {}, "no_log": True},
            "connections": {"type": "int", "default": -1},
            "owner_connections": {"type": "int", "default": -1},
            "statement_timeout": {"type": "int", "default": 0},
            "lock_timeout": {"type": "int", "default": 0},
            "idle_in_transaction_timeout": {"type": "int", "default": 0},
            "disk": {"type": "str", "default": ""},
            "pool": {"type": "int", "default": 0},
            "extensions": {"type": "list", "elements": "str", "default": []},
        },
    },
    "logins": {"type": "dict", "default": {}, "no_log": True},
    "untrusted_extensions": {"type": "list", "elements": "str", "default": []},
    "server_extensions": {"type": "list", "elements": "str", "default": []},
}
#: The settings of a role, and the module's option for each.
SETTINGS = {
    "statement_timeout": "statement_timeout",
    "lock_timeout": "lock_timeout",
    "idle_in_transaction_session_timeout": "idle_in_transaction_timeout",
}
#: Number of attempts, one second apart, while another session holds a lock.
TRIES = 15


def read_password(path: Path) -> str:
    """Read the password from an owner's environment file; empty if there is no file or no valid password in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    for line in text.splitlines():
        name, _equals, value = line.partition("=")
        if name == "PGPASSWORD":
            found = "".join(shlex.split(value))
            return found if postgres_scram.PLAIN.fullmatch(found) else ""
    return ""


def temporary(disk: str, data: Path) -> int:
    """Return the limit of a role's temporary files in MB: a quarter of its database's limit.

    Args:
        disk: the database's limit, as in :func:`quotas.size`; empty for no limit.
        data: the cluster's data directory.
    """
    if not disk:
        return 0
    there = os.statvfs(data)
    return quotas.size(disk, there.f_blocks * there.f_frsize) // 4 // 1024**2


def wanted_databases(options: dict[str, Any]) -> tuple[list[logic.Database], dict[Path, str | None]]:
    """Return the requested databases, and the texts of the owners' environment files by path; None removes a file."""
    databases: list[logic.Database] = []
    files: dict[Path, str | None] = {}
    version, _slash, cluster = options["cluster"].partition("/")
    data = postgres_server.data_folder(postgres_server.SETTINGS / version / cluster)
    for item in options["databases"]:
        name, path = item["name"], Path(item["owner_file"])
        owner = item["owner"] or name
        passwords = dict(options["logins"].get(name) or {})
        password = str(passwords.pop("owner", ""))
        if item["owner_file"] and owner == name:
            files[path] = None
        elif item["owner_file"]:
            password = password or read_password(path) or postgres_scram.new_password()
            variables = {"PGUSER": owner, "PGPASSWORD": password}
            given = {key: str(value).replace("{password}", password) for key, value in item["owner_variables"].items()}
            files[path] = environment.render({**variables, **given})
        databases.append(
            logic.Database(
                name=name,
                owner=owner,
                password=password if owner != name else "",
                connections=item["connections"],
                owner_connections=item["owner_connections"],
                settings={key: f"{item[option]}s" if item[option] else "" for key, option in SETTINGS.items()},
                temporary=temporary(item["disk"], data),
                extensions=tuple(item["extensions"]),
                logins=tuple(logic.Login(f"{name}-{word}", str(value or "")) for word, value in passwords.items()),
            )
        )
    return databases, files


def write_files(files: dict[Path, str | None], check: bool) -> list[str]:
    """Write or remove the owners' files. Return what was done."""
    done = []
    for path, text in files.items():
        present = path.read_text(encoding="utf-8") if path.is_file() else None
        status = path.stat() if present is not None else None
        private = status is not None and (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
        if present == text and (text is None or private):
            continue
        done.append(f"{'remove' if text is None else 'write'} {path}")
        if check:
            continue
        if text is None:
            path.unlink()
            continue
        # With the same modes as in a deploy: only root can enter the apps' folders.
        path.parent.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        atomic.write(path, text)
        os.chown(path, 0, 0)
    return done


def inside(psql: Psql, databases: list[logic.Database], cluster: dict[str, Any]) -> tuple[list[str], list[Any]]:
    """Query the extensions of the database postgres, and the contents of the others; for a new one, its defaults."""
    there = [database for database in databases if database.name in cluster["databases"]]
    sql = database_questions.EXTENSIONS_QUESTION + "".join(
        f"\\connect {logic.identifier(database.name)}\n{database_questions.database_question(database)}"
        for database in there
    )
    extensions, *answers = psql.ask(sql)
    found = dict(zip([database.name for database in there], answers, strict=True))
    return extensions, [found.get(database.name, database_questions.FRESH) for database in databases]


def converge(module: AnsibleModule, psql: Psql, databases: list[logic.Database]) -> list[str]:
    """Change what differs from the requested state.

    Returns:
        What was done, or would be done.

    Raises:
        DatabaseError: the state cannot be reached.
    """
    done: dict[str, None] = {}
    for left in reversed(range(TRIES)):
        cluster = psql.ask(database_questions.cluster_question(databases))[0]
        found = database_steps.problems(databases, cluster, module.params["untrusted_extensions"])
        if found:
            raise logic.DatabaseError("Nothing was changed: " + "\n".join(found))
        outside = database_steps.role_steps(databases, cluster)
        if outside and not module.check_mode:
            run(psql, outside)
            cluster = psql.ask(database_questions.cluster_question(databases))[0]
        done |= dict.fromkeys(step.says for step in outside)
        present, contents = inside(psql, databases, cluster)
        steps = database_steps.extension_steps("postgres", module.params["server_extensions"], present)
        for database, content in zip(databases, contents, strict=True):
            steps += database_steps.content_steps(database, cluster, content)
        if not steps or module.check_mode:
            return [*done, *(step.says for step in steps)]
        try:
            run(psql, steps)
            return [*done, *(step.says for step in steps)]
        except logic.InTheWay:
            if not left:
                raise
            time.sleep(1)
    return list(done)


def run(psql: Psql, steps: list[database_steps.Step]) -> None:
    """Execute the steps.

    Raises:
        InTheWay: another session holds a lock.
        DatabaseError: PostgreSQL rejects a step.
    """
    status, _out, err = psql.run(database_steps.script(steps))
    if not status:
        return
    if database_steps.IN_THE_WAY.search(err):
        raise logic.InTheWay(
            f"a transaction of an app keeps holding a lock ({tail(err, 1)}). Find the transaction in "
            "pg_stat_activity by xact_start (sudo -u postgres psql), then run the same command again."
        )
    raise logic.DatabaseError(f"PostgreSQL reported: {tail(err, 3)}\nCorrect this and run the same command again.")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    databases, files = wanted_databases(module.params)
    # Passwords that are generated here, which are not in the module's options.
    for item in databases:
        module.no_log_values |= {item.password, *(login.password for login in item.logins)} - {""}
    try:
        # Before the database changes, so that no password of PostgreSQL is lost.
        steps = write_files({path: text for path, text in files.items() if text is not None}, module.check_mode)
        steps += converge(module, Psql(module.run_command, module.params["cluster"]), databases)
        steps += write_files({path: text for path, text in files.items() if text is None}, module.check_mode)
    except (logic.DatabaseError, PsqlError, environment.ReleaseError) as error:
        module.fail_json(msg=str(error), steps=[])
    diff = {"before": "", "after": "".join(f"{step}\n" for step in steps)} if steps else {}
    module.exit_json(changed=bool(steps), steps=steps, diff=diff)


if __name__ == "__main__":
    main()
