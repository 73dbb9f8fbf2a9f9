"""Validate and select the app, version or release that an operator names for a playbook."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..apps.options import APP_OPTIONS
from ..apps.schema import plain_copy
from ..deploy.sources import git

#: Playbooks that act on one app at a time: a value that fits one app rarely fits all of them.
SINGLE = ("rollback", "rotate_secret", "run", "setup")
#: For each playbook, the variable whose value is most likely to contain a space.
_EXAMPLES = {"deploy": "version", "rollback": "release"}
_RELEASE = re.compile(r"\d{8}T\d{6}Z-[0-9a-zA-Z._-]{1,40}")


def problem(given: Mapping[str, Any], apps: Any, verb: str) -> str:
    """Find the first problem with the variables of a playbook.

    Args:
        given: ``app``, ``version`` and ``release``; unset variables are empty. Also ``_raw_params``, into which Ansible
            puts the words of ``-e`` that belong to no variable.
        apps: ``flask_apps``.
        verb: the playbook's name without its file extension.

    Returns:
        One sentence that names the variable and the fix; empty if there is no problem.
    """
    apps = apps if isinstance(apps, Mapping) else {}
    names = ", ".join(sorted(apps)) or "none"
    if str(given.get("_raw_params") or "").strip():
        # The shell strips the quotes of -e version="v1 x", and Ansible then ends the value at the space: do not deploy
        # half of a version. The words are not shown, because they could belong to a secret.
        name = _EXAMPLES.get(verb, "app")
        cure = f"Quote the value twice: -e \"{name}='...'\""
        return f"{name}: words were lost, because -e ends a value at a space. {cure}"
    app, version, release = (str(given.get(name) or "").strip() for name in ("app", "version", "release"))
    if app and app not in apps:
        return f"app: there is no app {app!r} in flask_apps. Available: {names}."
    if not app and len(apps) != 1 and (verb in SINGLE or version or release):
        why = "version belongs to one app" if version else "release belongs to one app" if release else "one at a time"
        return f"app: name one app ({why}): -e app=NAME. Available: {names}."
    if version:
        return _version_problem(version, app or next(iter(apps)), apps)
    if release and not _RELEASE.fullmatch(release):
        return f"release: {release!r} is not a release name such as 20261121T101500Z-1a2b3c4. See status.yml."
    return ""


def setup_problem(given: Mapping[str, Any], apps: Any) -> str:
    """Find the first problem with the variables of playbooks/setup.yml.

    Args:
        given: ``app`` and ``confirm``; unset variables are empty. Also ``_raw_params``, see :func:`problem`.
        apps: ``flask_apps``.

    Returns:
        One sentence or two that name the variable and the fix; empty if there is no problem.
    """
    if found := problem(given, apps, "setup"):
        return found
    name = str(given.get("app") or "") or next(iter(apps))
    app = apps[name] if isinstance(apps[name], Mapping) else {}
    command = str(app.get("setup_command") or "")
    if not command:
        return f"app: {name} has no setup_command. To run another command: ansible-playbook playbooks/run.yml"
    if str(given.get("confirm") or "") != name:
        return (
            f"confirm: this runs '{command}' again, which can delete the data of {name}. Back it up first "
            f"(ansible-playbook playbooks/backup.yml), then add -e confirm={name}"
        )
    return ""


def _version_problem(version: str, app: str, apps: Mapping[str, Any]) -> str:
    repo = str((apps[app].get("source") or {}).get("repo") or "")
    if not repo:
        return (
            f"version: {app} does not come from a git repository, so it has no versions. "
            f"Leave version out, or set flask_apps.{app}.source.repo."
        )
    if not re.fullmatch(APP_OPTIONS["source"].options["version"].pattern, version):
        return f"version: {version!r} is not a branch, tag or commit. Example: -e version=v1.4.0"
    if git.needs_commit(repo, version):
        return (
            f"version: {app} is read over {repo.partition(':')[0]}://, so anyone on the network path can serve "
            f"other code as {version!r}. Name a full commit hash (40 digits), or use https:// or SSH in "
            f"flask_apps.{app}.source.repo."
        )
    return ""


def select(records: list[dict[str, Any]], app: str = "", version: str = "") -> list[dict[str, Any]]:
    """Select the records that a playbook acts on.

    Args:
        records: all records, as returned by :func:`apps.record.app_records`.
        app: the app's name; empty for all apps.
        version: branch, tag or commit that overrides the inventory's; empty for the inventory's.

    Returns:
        New records; the arguments are not changed.
    """
    chosen = [plain_copy(record) for record in records if app in ("", record["name"])]
    if version:
        for record in chosen:
            record["source"]["version"] = version
    return chosen
