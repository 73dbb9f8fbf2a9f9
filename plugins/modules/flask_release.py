#!/usr/bin/python
"""The module flask_release: make a release of one app live. The code is in module_utils/flaskhost."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_release
short_description: Make a release of a Flask app live, or roll back to an earlier one
description:
  - Fetches the code, builds its virtual environment, runs the release command, starts the release in the idle slot,
    checks its health, and only then switches traffic to it, with one atomic rename of the link that nginx connects to.
    Then it watches the responses to visitors, and renames the link back if they are worse than before.
  - Does nothing if the requested release is already live. The live release is not touched until the rename.
  - The folder of I(source_path) and the file of I(source_archive) are on the control node; the action plugin of the
    same name uploads them when necessary. A small folder goes along with the module.
options:
  app: {description: The app's name., type: str, required: true}
  verb:
    description: Whether to deploy, to roll back to an earlier release, or to restart the live one.
    type: str
    choices: [deploy, rollback, restart]
    default: deploy
  phases:
    description: Phases to run, for a deploy to several hosts; empty for all. See
      module_utils/flaskhost/deploy/release.py.
    type: list
    elements: str
    choices: [prepare, migrate, gate, flip, finish, return]
    default: []
  release: {description: "Release of the later phases, or target of a rollback.", type: str, default: ""}
  previous: {description: "With the phase return, the previous release; empty if there was none.", type: str,
             default: ""}
  force:
    description: Whether to roll back even if the database's schema is unreadable, or unknown to the release.
    type: bool
    default: false
  passes_freeze: {description: Whether to roll back even if the app is frozen., type: bool, default: false}
  schema_before: {description: Schema revision that another host found., type: str, default: ""}
  schema_after: {description: Schema revision after its release command., type: str, default: ""}
  deploy: {description: "Set by the action plugin: ID of this run of the playbook.", type: str, default: ""}
  by: {description: "Set by the action plugin: who runs it, as user@controller.", type: str, default: ""}
  controller: {description: "Set by the action plugin: the process that runs it.", type: dict, default: {}}
  stamp: {description: "Set by the action plugin: start time in seconds since 1970.", type: float, default: 0}
  takeover: {description: "Set by the action plugin: the dead run whose lock is taken over.", type: str, default: ""}
  user: {description: System user and group of the app., type: str, required: true}
  root: {description: The app's folder., type: path, required: true}
  secrets_dir: {description: Folder of the app's secrets., type: path, required: true}
  cache_dir: {description: Folder of uv's caches., type: path, default: /var/cache/flaskhost}
  source_path: {description: Folder on the control node., type: str, default: ""}
  source_digest: {description: "Set by the action plugin: digest of that folder.", type: str, default: ""}
  source_data: {description: "Set by the action plugin: archive of a small folder, in Base64.", type: str, default: ""}
  source_archive: {description: Archive on the control node or its URL., type: str, default: ""}
  source_checksum: {description: "Checksum of the archive, sha256:...", type: str, default: ""}
  archive: {description: "Set by the action plugin: the archive on the host.", type: str, default: ""}
  source_repo: {description: URL of a git repository., type: str, default: ""}
  source_version: {description: "Branch, tag or commit.", type: str, default: ""}
  source_key: {description: Private key that can read the repository., type: str, default: ""}
  source_known_hosts: {description: Host keys of its server., type: str, default: ""}
  source_subdir: {description: Folder of the app in the source., type: str, default: ""}
  wsgi: {description: WSGI callable., type: str, required: true}
  requirements: {description: File that pins the dependencies., type: str, default: ""}
  install: {description: "Extras, groups and project to install.", type: dict, default: {}}
  wheelhouse: {description: Folder in the code with all packages., type: str, default: ""}
  extra_packages: {description: Additional packages., type: list, elements: str, default: []}
  server_package: {description: "Application server, pinned.", type: str, required: true}
  server_lock:
    description: Application server and its dependencies, pinned, with their hashes.
    type: str
    required: true
  uv: {description: Path of uv., type: path, required: true}
  python: {description: Path of the distribution's Python., type: path, default: /usr/bin/python3}
  interpreter_version: {description: Version of Python; empty for the distribution's., type: str, default: ""}
  pythons: {description: Folder of the other versions of Python., type: path, default: /opt/flaskhost/python}
  index_url: {description: Package index; empty for the host's own., type: str, default: ""}
  system_packages: {description: "Debian packages of the app, which the role installs.", type: list, elements: str,
                    default: []}
  build_packages: {description: "Debian packages for builds, which the role installs.", type: list, elements: str,
                   default: []}
  build_command: {description: Command that completes the code of a release., type: str, default: ""}
  build_timeout: {description: Time limit in seconds for it and for each step of a build., type: int, default: 900}
  persistent: {description: Folders that are kept across releases., type: list, elements: str, default: []}
  protected_folder: {description: "Folder of the app's data whose files the web server sends, relative.", type: str,
                     default: ""}
  web_user: {description: The web server's user., type: str, default: www-data}
  static_path: {description: Folder of static files; detected if empty., type: str, default: ""}
  setup_command: {description: Command that runs once in the life of the app's data., type: str, default: ""}
  release_command: {description: Command that runs before a release goes live., type: str, default: ""}
  release_timeout: {description: Time limit in seconds for each of them and its statements., type: int, default: 900}
  release_lock_timeout: {description: Seconds that it can wait for a database lock., type: int, default: 5}
  owner_file: {description: Environment file with the login of the tables' owner., type: str, default: ""}
  database_driver:
    description: Driver in SQLALCHEMY_DATABASE_URI; auto for the one that the packages contain. If empty, the variable
      stays as it is.
    type: str
    default: ""
  database_per_host: {description: Used by the role; the module ignores it., type: bool, default: false}
  processes: {description: "Commands of worker processes, by name.", type: dict, default: {}}
  timers: {description: "Scheduled commands by name, each with command and on_calendar.", type: dict, default: {}}
  environment: {description: Environment variables that are not secret., type: dict, default: {}}
  secrets: {description: Secret environment variables., type: dict, default: {}}
  files: {description: "Files to write into the code: content by path.", type: dict, default: {}}
  unit: {description: Name of the slots' unit before the at sign., type: str, required: true}
  unit_files: {description: Files that decide how a slot runs., type: list, elements: path, default: []}
  units_dir: {description: Folder of systemd's units., type: path, default: /etc/systemd/system}
  memory_mb: {description: "Memory limit of each process in MB.", type: int, default: 512}
  memory_follows_host:
    description: Whether memory_mb is a share of the host's memory. A small change then waits for the next release.
    type: bool
    default: false
  drain: {description: Seconds that a process has to finish., type: int, default: 30}
  outbound: {description: Whether the app can connect to other hosts., type: bool, default: true}
  server_config: {description: Configuration of the app server; copied into the release., type: path, required: true}
  socket_dir: {description: Folder of the slots' sockets., type: path, required: true}
  live_socket: {description: Link that nginx connects through., type: path, required: true}
  gate_address: {description: "nginx's listener for root only, unix: and a path; empty to skip nginx.", type: str,
                 default: ""}
  access_log: {description: nginx's access log of the app., type: path, default: /nonexistent}
  host: {description: The app's canonical domain., type: str, required: true}
  health: {description: "path, status, body, probes, timeout and settle of the gate.", type: dict, required: true}
  watch: {description: Seconds to watch the release after the switch., type: int, default: 10}
  keep_releases: {description: Number of releases to keep., type: int, default: 5}
"""

EXAMPLES = r"""
- name: Deploy the release
  flask_release:
    app: shop
    user: shop
    root: /srv/shop
    secrets_dir: /etc/flaskhost/shop
    source_repo: https://git.example.com/shop.git
    source_version: v1.4.0
    wsgi: shop:create_app()
    server_package: gunicorn==27.0.1
    server_lock: "{{ lookup('ansible.builtin.file', 'server.txt') }}"
    uv: /opt/uv/bin/uv
    unit: flask-shop
    server_config: /etc/gunicorn/shop.conf.py
    socket_dir: /run/flask-shop
    live_socket: /srv/shop/live.sock
    host: www.example.com
    health: {path: /healthz, status: 200, probes: 3, timeout: 30}
"""

RETURN = r"""
release: {description: The live release., type: str, returned: success}
revision: {description: Its commit or digest., type: str, returned: success}
slot: {description: Its slot., type: str, returned: success}
previous: {description: The previous release., type: str, returned: success}
pending: {description: Whether later phases have to follow., type: bool, returned: success}
schema_before: {description: Schema revision before the release command., type: str, returned: success}
schema_after: {description: Schema revision after it., type: str, returned: success}
needs_source: {description: Whether the archive must be uploaded first., type: bool, returned: success}
new_folders: {description: "Data folders that were created, from the option persistent.", type: list, returned: success}
lock_holder: {description: The run that holds the lock., type: dict, returned: when another run does}
"""

from contextlib import suppress
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flaskhost.deploy.lock import Locked
from ansible.module_utils.flaskhost.deploy.release import PHASES, Deployment
from ansible.module_utils.flaskhost.host.output import limited
from ansible.module_utils.flaskhost.host.runner import ReleaseError, harmless

#: Characters of a file's content that is masked in the output.
SHORTEST = 4
ARGUMENT_SPEC = {
    "app": {"type": "str", "required": True},
    "verb": {"type": "str", "default": "deploy", "choices": ["deploy", "rollback", "restart"]},
    "phases": {"type": "list", "elements": "str", "default": [], "choices": [*PHASES, "return"]},
    "release": {"type": "str", "default": ""},
    "previous": {"type": "str", "default": ""},
    "force": {"type": "bool", "default": False},
    "passes_freeze": {"type": "bool", "default": False},
    "schema_before": {"type": "str", "default": ""},
    "schema_after": {"type": "str", "default": ""},
    "deploy": {"type": "str", "default": ""},
    "by": {"type": "str", "default": ""},
    "controller": {"type": "dict", "default": {}},
    "stamp": {"type": "float", "default": 0.0},
    "takeover": {"type": "str", "default": ""},
    "user": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "secrets_dir": {"type": "path", "required": True},
    "cache_dir": {"type": "path", "default": "/var/cache/flaskhost"},
    "source_path": {"type": "str", "default": ""},
    "source_digest": {"type": "str", "default": ""},
    # The code can contain secrets.
    "source_data": {"type": "str", "default": "", "no_log": True},
    "source_archive": {"type": "str", "default": ""},
    "source_checksum": {"type": "str", "default": ""},
    "archive": {"type": "str", "default": ""},
    "source_repo": {"type": "str", "default": ""},
    "source_version": {"type": "str", "default": ""},
    "source_key": {"type": "str", "default": "", "no_log": True},
    "source_known_hosts": {"type": "str", "default": ""},
    "source_subdir": {"type": "str", "default": ""},
    "wsgi": {"type": "str", "required": True},
    "requirements": {"type": "str", "default": ""},
    "install": {"type": "dict", "default": {}},
    "wheelhouse": {"type": "str", "default": ""},
    "extra_packages": {"type": "list", "elements": "str", "default": []},
    "server_package": {"type": "str", "required": True},
    "server_lock": {"type": "str", "required": True},
    "uv": {"type": "path", "required": True},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "interpreter_version": {"type": "str", "default": ""},
    "pythons": {"type": "path", "default": "/opt/flaskhost/python"},
    "index_url": {"type": "str", "default": ""},
    "build_packages": {"type": "list", "elements": "str", "default": []},
    "system_packages": {"type": "list", "elements": "str", "default": []},
    "build_command": {"type": "str", "default": ""},
    "build_timeout": {"type": "int", "default": 900},
    "persistent": {"type": "list", "elements": "str", "default": []},
    "protected_folder": {"type": "str", "default": ""},
    "web_user": {"type": "str", "default": "www-data"},
    "static_path": {"type": "str", "default": ""},
    "setup_command": {"type": "str", "default": ""},
    "release_command": {"type": "str", "default": ""},
    "release_timeout": {"type": "int", "default": 900},
    "release_lock_timeout": {"type": "int", "default": 5},
    "owner_file": {"type": "str", "default": ""},
    "database_driver": {"type": "str", "default": ""},
    "database_per_host": {"type": "bool", "default": False},
    "processes": {"type": "dict", "default": {}},
    "timers": {"type": "dict", "default": {}},
    "environment": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "files": {"type": "dict", "default": {}, "no_log": True},
    "unit": {"type": "str", "required": True},
    "unit_files": {"type": "list", "elements": "path", "default": []},
    "units_dir": {"type": "path", "default": "/etc/systemd/system"},
    "memory_mb": {"type": "int", "default": 512},
    "memory_follows_host": {"type": "bool", "default": False},
    "drain": {"type": "int", "default": 30},
    "outbound": {"type": "bool", "default": True},
    "server_config": {"type": "path", "required": True},
    "socket_dir": {"type": "path", "required": True},
    "live_socket": {"type": "path", "required": True},
    "gate_address": {"type": "str", "default": ""},
    "access_log": {"type": "path", "default": "/nonexistent"},
    "host": {"type": "str", "required": True},
    "health": {"type": "dict", "required": True},
    "watch": {"type": "int", "default": 10},
    "keep_releases": {"type": "int", "default": 5},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = dict(module.params)
    # Variables and files are strings, whatever type YAML has parsed.
    for name in ("environment", "secrets", "files"):
        options[name] = {key: _text(value) for key, value in options[name].items()}
    # Ansible masks whole contents in all output. A file with a line break or a digit would mask each of them.
    module.no_log_values.difference_update(text for text in options["files"].values() if len(text.strip()) < SHORTEST)
    if len([name for name in ("source_path", "source_archive", "source_repo") if options[name]]) != 1:
        module.fail_json(msg=f"{options['app']}: set exactly one of source_path, source_archive and source_repo.")
    deployment = Deployment(limited(module.run_command), options, check=module.check_mode)
    try:
        outcome = deployment.go()
    except ReleaseError as error:
        _hide_keys(module, deployment)
        more = {"lock_holder": error.holder} if isinstance(error, Locked) else {}
        done = {"deploy": "released", "rollback": "rolled back", "restart": "restarted"}[options["verb"]]
        module.fail_json(
            msg=f"{options['app']} was not {done}. {error.step}: {error.reason}\n{error.cure}",
            step=error.step,
            app=options["app"],
            **more,
        )
    _hide_keys(module, deployment)
    for warning in outcome.warnings:
        module.warn(f"{options['app']}: {harmless(warning)}")
    result = asdict(outcome)
    result.pop("warnings")
    plan = result.pop("plan")
    if outcome.changed:
        after = [outcome.release or f"a new release of {outcome.revision[:12]}", *plan]
        result["diff"] = {
            "before": f"{outcome.previous or 'none'}\n",
            "after": "".join(f"{line}\n" for line in after),
            "before_header": f"release of {options['app']}",
            "after_header": f"release of {options['app']}",
        }
    module.exit_json(**result)


def _hide_keys(module: AnsibleModule, deployment: Deployment) -> None:
    """Let Ansible mask the generated keys too, in case an app has printed them."""
    with suppress(OSError, ValueError):
        module.no_log_values.update(deployment.app.keys.read())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
