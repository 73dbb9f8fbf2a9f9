#!/usr/bin/python
"""The module flask_release: brings a release of one app into service. Its logic is in module_utils/flaskhost."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flask_release
short_description: Bring a release of a Flask app into service
description:
  - Fetches the code, builds its environment, runs the release command, starts the release in the slot that does not
    serve, asks it for its health, and only then lets it serve, by one atomic rename of the link that nginx connects to.
  - Does nothing where the wanted release serves already. Until the last step what served before is not touched.
  - The folder of I(source_path) is on the controller; the action plugin of the same name sends it where it is needed.
options:
  app: {description: The app's name., type: str, required: true}
  user: {description: The app's system user and group., type: str, required: true}
  root: {description: The app's folder., type: path, required: true}
  secrets_dir: {description: The folder of the app's secrets., type: path, required: true}
  cache_dir: {description: The folder of uv's caches., type: path, default: /var/cache/flaskhost}
  source_path: {description: A folder on the controller., type: str, default: ""}
  source_digest: {description: "Set by the action plugin: the digest of that folder.", type: str, default: ""}
  archive: {description: "Set by the action plugin: its archive on the host.", type: str, default: ""}
  source_repo: {description: The URL of a git repository., type: str, default: ""}
  source_version: {description: A branch, a tag or a commit., type: str, default: ""}
  source_subdir: {description: The folder of the app in the source., type: str, default: ""}
  wsgi: {description: The WSGI application., type: str, required: true}
  requirements: {description: The file that pins the dependencies., type: str, default: ""}
  extra_packages: {description: Packages on top of it., type: list, elements: str, default: []}
  server_package: {description: "The application server, pinned.", type: str, required: true}
  uv: {description: The path of uv., type: path, required: true}
  python: {description: The path of the interpreter., type: path, default: /usr/bin/python3}
  index_url: {description: The package index; empty for the host's own., type: str, default: ""}
  persistent: {description: Folders that outlast releases., type: list, elements: str, default: []}
  static_path: {description: The folder of static files; empty to find it., type: str, default: ""}
  release_command: {description: A command before a release serves., type: str, default: ""}
  environment: {description: Variables that are no secret., type: dict, default: {}}
  secrets: {description: Variables that are., type: dict, default: {}}
  unit: {description: The name of the slots' unit before the at sign., type: str, required: true}
  unit_files: {description: Files that decide how a slot runs., type: list, elements: path, default: []}
  server_config: {description: The app server's configuration; copied into the release., type: path, required: true}
  socket_dir: {description: The folder of the slots' sockets., type: path, required: true}
  live_socket: {description: The link that nginx connects through., type: path, required: true}
  host: {description: The app's canonical domain., type: str, required: true}
  health: {description: "path, status, probes and timeout of the gate.", type: dict, required: true}
  keep_releases: {description: Releases to keep., type: int, default: 5}
"""

EXAMPLES = r"""
- name: Bring the release into service
  flask_release:
    app: shop
    user: shop
    root: /srv/shop
    secrets_dir: /etc/flaskhost/shop
    source_repo: https://git.example.com/shop.git
    source_version: v1.4.0
    wsgi: shop:create_app()
    server_package: gunicorn==27.0.1
    uv: /opt/uv/bin/uv
    unit: flask-shop
    server_config: /etc/gunicorn/shop.conf.py
    socket_dir: /run/flask-shop
    live_socket: /srv/shop/live.sock
    host: www.example.com
    health: {path: /healthz, status: 200, probes: 3, timeout: 30}
"""

RETURN = r"""
release: {description: The release that serves., type: str, returned: success}
revision: {description: Its commit or digest., type: str, returned: success}
slot: {description: Its slot., type: str, returned: success}
previous: {description: The release that served before., type: str, returned: success}
needs_source: {description: The archive has to be sent first., type: bool, returned: success}
"""

from dataclasses import asdict  # noqa: E402 - Ansible wants the documentation first

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.flaskhost.release import Deployment  # noqa: E402
from ansible.module_utils.flaskhost.runner import ReleaseError  # noqa: E402

ARGUMENT_SPEC = {
    "app": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "secrets_dir": {"type": "path", "required": True},
    "cache_dir": {"type": "path", "default": "/var/cache/flaskhost"},
    "source_path": {"type": "str", "default": ""},
    "source_digest": {"type": "str", "default": ""},
    "archive": {"type": "str", "default": ""},
    "source_repo": {"type": "str", "default": ""},
    "source_version": {"type": "str", "default": ""},
    "source_subdir": {"type": "str", "default": ""},
    "wsgi": {"type": "str", "required": True},
    "requirements": {"type": "str", "default": ""},
    "extra_packages": {"type": "list", "elements": "str", "default": []},
    "server_package": {"type": "str", "required": True},
    "uv": {"type": "path", "required": True},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "index_url": {"type": "str", "default": ""},
    "persistent": {"type": "list", "elements": "str", "default": []},
    "static_path": {"type": "str", "default": ""},
    "release_command": {"type": "str", "default": ""},
    "environment": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "unit": {"type": "str", "required": True},
    "unit_files": {"type": "list", "elements": "path", "default": []},
    "server_config": {"type": "path", "required": True},
    "socket_dir": {"type": "path", "required": True},
    "live_socket": {"type": "path", "required": True},
    "host": {"type": "str", "required": True},
    "health": {"type": "dict", "required": True},
    "keep_releases": {"type": "int", "default": 5},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = dict(module.params)
    # A variable is text, whatever YAML took it for.
    for name in ("environment", "secrets"):
        options[name] = {key: _text(value) for key, value in options[name].items()}
    if bool(options["source_path"]) == bool(options["source_repo"]):
        module.fail_json(msg=f"{options['app']}: give one of source_path and source_repo.")
    deployment = Deployment(module.run_command, options, check=module.check_mode)
    try:
        outcome = deployment.deploy()
    except ReleaseError as error:
        module.fail_json(
            msg=f"{options['app']} was not released. {error.step}: {error.reason}\n{error.cure}",
            step=error.step,
            app=options["app"],
        )
    for warning in outcome.warnings:
        module.warn(f"{options['app']}: {warning}")
    result = asdict(outcome)
    result.pop("warnings")
    if outcome.changed:
        after = outcome.release or f"a new release of {outcome.revision[:12]}"
        result["diff"] = {
            "before": f"{outcome.previous or 'none'}\n",
            "after": f"{after}\n",
            "before_header": f"release of {options['app']}",
            "after_header": f"release of {options['app']}",
        }
    module.exit_json(**result)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
