"""Validate and select the app, version or release that an operator names for a playbook."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..apps.options import APP_OPTIONS
from ..apps.schema import plain_copy
from ..deploy.sources import git
from . import given as read
from .given import Refused

#: Playbooks that act on one app at a time: a value that fits one app rarely fits all of them.
SINGLE = ("rollback", "rotate_secret", "run", "setup")
#: For each playbook, the variable whose value is most likely to contain a space.
_EXAMPLES = {"deploy": "version", "rollback": "release", "run": "command", "backup": "kind"}
#: What playbooks/backup.yml can do.
KINDS = ("full", "diff", "files", "copy", "drill", "check", "list")


def problem(given: Mapping[str, Any], apps: Any, verb: str) -> str:
    """Find the first problem with the variables of a playbook.

    Args:
        given: the playbook's variables; unset variables are empty. Also ``_raw_params``, into which Ansible puts the
            words of ``-e`` that belong to no variable.
        apps: ``flask_apps``.
        verb: the playbook's name without its file extension.

    Returns:
        One sentence that names the variable and the fix; empty if there is no problem.
    """
    apps = apps if isinstance(apps, Mapping) else {}
    try:
        read.require_all_words(given, _EXAMPLES.get(verb, "app"))
        app, version, release = read.app(given, apps), read.text(given, "version"), read.release(given)
        if not app and len(apps) != 1 and (verb in SINGLE or version or release):
            named = "version" if version else "release" if release else ""
            why = f"{named} belongs to one app" if named else "one at a time"
            raise Refused(f"app: name one app ({why}): -e app=NAME. Available: {read.listed(apps)}.")
        if version:
            _check_version(version, app or next(iter(apps)), apps)
        for name in ("force", "owner"):
            read.switch(given, name, False)
        if verb == "backup":
            _check_kind(read.text(given, "kind"))
        elif verb == "run":
            _check_command(given)
        elif verb == "setup":
            _check_setup(given, app or next(iter(apps)), apps)
    except Refused as error:
        return str(error)
    return ""


def _check_kind(kind: str) -> None:
    if kind and kind not in KINDS:
        raise Refused(f"kind: {kind!r} is not one of {', '.join(KINDS)}. Example: -e kind=full")


def _check_command(given: Mapping[str, Any]) -> None:
    if not read.text(given, "command"):
        raise Refused("command: it is missing. Example: -e \"command='flask db current'\"")
    read.seconds(given, "timeout", 900)
    if not isinstance(given.get("run_secrets") or {}, Mapping):
        raise Refused("run_secrets: it must be a mapping of variables, in a file. Example: -e @secrets.yml")


def _check_setup(given: Mapping[str, Any], name: str, apps: Mapping[str, Any]) -> None:
    app = apps[name] if isinstance(apps[name], Mapping) else {}
    command = str(app.get("setup_command") or "")
    if not command:
        raise Refused(f"app: {name} has no setup_command. To run another command: ansible-playbook playbooks/run.yml")
    if read.text(given, "confirm") != name:
        raise Refused(
            f"confirm: this runs '{command}' again, which can delete the data of {name}. Back it up first "
            f"(ansible-playbook playbooks/backup.yml), then add -e confirm={name}"
        )


def _check_version(version: str, app: str, apps: Mapping[str, Any]) -> None:
    repo = str((apps[app].get("source") or {}).get("repo") or "")
    if not repo:
        raise Refused(
            f"version: {app} does not come from a git repository, so it has no versions. "
            f"Leave version out, or set flask_apps.{app}.source.repo."
        )
    if not re.fullmatch(APP_OPTIONS["source"].options["version"].pattern, version):
        raise Refused(f"version: {version!r} is not a branch, tag or commit. Example: -e version=v1.4.0")
    if git.needs_commit(repo, version):
        raise Refused(
            f"version: {app} is read over {repo.partition(':')[0]}://, so anyone on the network path can serve "
            f"other code as {version!r}. Name a full commit hash (40 digits), or use https:// or SSH in "
            f"flask_apps.{app}.source.repo."
        )


def select(records: list[dict[str, Any]], app: str = "", version: str = "") -> list[dict[str, Any]]:
    """Select the records that a playbook acts on.

    Args:
        records: all records, as returned by :func:`apps.record.app_records`.
        app: the app's name; empty for all apps.
        version: branch, tag or commit that overrides the inventory's; empty for the inventory's.

    Returns:
        New records; the arguments are not changed.
    """
    chosen = [plain_copy(record) for record in records if app.strip() in ("", record["name"])]
    if version:
        for record in chosen:
            record["source"]["version"] = version
    return chosen
