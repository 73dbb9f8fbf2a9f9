"""Parse the request of playbooks/restore.yml on the control node, before any host is changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: The variables of the playbook.
VARIABLES = (
    "to",
    "release",
    "label",
    "app",
    "what",
    "beside",
    "from",
    "of",
    "copy_before",
    "accept_gap",
    "timeout",
    "confirm",
    "force",
)
#: What can be restored. ``files`` are the app's data folder and its queue, and ``both`` adds its database.
WHAT = ("database", "files", "data", "queue", "both")
_LABEL = re.compile(r"\d{8}-\d{6}F(?:_\d{8}-\d{6}[DI])?")
_RELEASE = re.compile(r"\d{8}T\d{6}Z-[0-9a-zA-Z._-]{1,40}")


def request(given: Mapping[str, Any], apps: Any, hosts: Sequence[str], time: str = "") -> dict[str, Any]:
    """Parse a request to restore data.

    Args:
        given: the variables of :data:`VARIABLES` as strings or booleans; unset variables are empty. Also
            ``_raw_params``, into which Ansible puts the words of ``-e`` that belong to no variable.
        apps: ``flask_apps``.
        hosts: the database hosts of this run.
        time: start time of the migration of ``release``, if the database host itself has no record of it.

    Returns:
        ``problem``, a sentence that names the variable and the fix, empty if there is no problem; ``database`` and
        ``files``, the arguments of flaskhost-backup, each empty if there is nothing to restore; ``database_hosts``,
        the hosts that the database arguments are for; ``apps``, the names of the apps whose data is replaced;
        ``release``, the release whose migration is undone, and ``release_app``, its app; ``replaces``, whether data is
        replaced; ``force``, whether a freeze is overridden.
    """
    values = {name: str(given.get(name) if given.get(name) is not None else "").strip() for name in VARIABLES}
    flags = {name: values[name].lower() in ("true", "yes", "on", "1") for name in ("beside", "accept_gap", "force")}
    names = sorted(apps) if isinstance(apps, Mapping) else []
    problem = next(_problems(given, values, flags, names, hosts), "")
    if problem:
        return {
            "problem": problem, "database": [], "database_hosts": [], "files": [], "apps": [], "release": "",
            "release_app": "", "replaces": False, "force": False,
        }  # fmt: skip
    what = values["what"] or "database"
    whole = not values["app"] and not flags["beside"]
    return {
        "problem": "",
        "database": _database(values, flags, time) if what in ("database", "both") else [],
        "database_hosts": [] if what in ("files", "data", "queue") else [values["confirm"]] if whole else list(hosts),
        "files": _files(values, what) if what != "database" else [],
        "apps": [] if flags["beside"] else [values["app"]] if values["app"] else names,
        "release": values["release"],
        "release_app": (values["app"] or names[0]) if values["release"] else "",
        "replaces": not flags["beside"],
        "force": flags["force"],
    }


def _problems(
    given: Mapping[str, Any], values: dict[str, str], flags: dict[str, bool], names: list[str], hosts: Sequence[str]
) -> Iterator[str]:
    if str(given.get("_raw_params") or "").strip():
        yield (
            "to: words were lost, because -e ends a value at a space. Quote the value twice: "
            "-e \"to='2026-11-21 10:15:00'\", or write a T instead of the space."
        )
    points = [name for name in ("to", "release", "label") if values[name]]
    if len(points) > 1:
        yield f"{points[1]}: {points[0]} already names the point to restore to. Set only one of them."
    app, what = values["app"], values["what"] or "database"
    known = ", ".join(names) or "none"
    if app and app not in names:
        yield f"app: there is no app {app!r} in flask_apps. Available: {known}."
    if what not in WHAT:
        yield f"what: {what!r} is not one of {', '.join(WHAT)}."
    if what != "database" and not app:
        yield f"app: files are restored for one app. Name it: -e app=NAME. Available: {known}."
    if what != "database" and (flags["beside"] or values["release"] or values["label"]):
        yield "what: files can only be restored in place and to a time (-e to). Leave out beside, release and label."
    if values["release"] and not _RELEASE.fullmatch(values["release"]):
        yield f"release: {values['release']!r} is not a release name such as 20261121T101500Z-1a2b3c4. See status.yml."
    if values["release"] and not app and len(names) != 1:
        yield f"app: name the app of the release: -e app=NAME. Available: {known}."
    if values["label"] and not _LABEL.fullmatch(values["label"]):
        yield f"label: {values['label']!r} is not a backup label. To list them on the host: sudo flaskhost-backup list"
    if values["from"] not in ("", "local", "second"):
        yield f"from: {values['from']!r} is not one of local, second."
    if values["timeout"] and not (values["timeout"].isdigit() and int(values["timeout"])):
        yield "timeout: not a number of seconds. Example: -e timeout=3600"
    yield from _unconfirmed(values, what, hosts, beside=flags["beside"])


def _unconfirmed(values: dict[str, str], what: str, hosts: Sequence[str], *, beside: bool) -> Iterator[str]:
    files_only = what in ("files", "data", "queue")
    if not files_only and not hosts:
        yield "hosts: this run has no host of the group db. Add one to the inventory, or to --limit."
    elif not beside and values["confirm"] not in ([values["app"]] if values["app"] else hosts):
        wanted = values["app"] or hosts[0]
        cluster = f"the whole PostgreSQL cluster of {wanted}, with every database"
        data = f"the data of {wanted}{'' if files_only else ' on ' + ', '.join(hosts)}"
        yield (
            f"confirm: this replaces {data if values['app'] else cluster}. The current data is kept, and "
            f"nothing is deleted. To confirm: -e confirm={wanted}. To look at the data first: -e beside=true"
        )


def _source(values: dict[str, str]) -> list[str]:
    found = [f"--from={values['from']}"] if values["from"] else []
    return found + ([f"--of={values['of']}"] if values["of"] else [])


def _database(values: dict[str, str], flags: dict[str, bool], time: str) -> list[str]:
    found = ["restore", *_source(values)]
    target = values if not time else {**values, "to": time, "release": ""}
    for name, option in (
        ("to", "to"),
        ("release", "release"),
        ("label", "backup"),
        ("copy_before", "copy-before"),
    ):
        if target[name]:
            found.append(f"--{option}={target[name]}")
    found += [f"--timeout={values['timeout']}"] if values["timeout"] else []
    found += ["--accept-gap"] if flags["accept_gap"] else []
    if target["release"] and values["app"]:
        found.append(f"--app={values['app']}")
    if flags["beside"]:
        return [*found, "--beside"]
    # A rollback to an earlier release follows: the live release cannot use the older schema.
    found += ["--no-start"] if values["release"] else []
    found += [f"--database={values['app']}"] if values["app"] else []
    return [*found, f"--confirm={values['confirm']}"]


def _files(values: dict[str, str], what: str) -> list[str]:
    found = ["restore-files", f"--app={values['app']}", *_source(values)]
    found += [f"--part={what}"] if what in ("data", "queue") else []
    found += [f"--to={values['to']}"] if values["to"] else []
    return [*found, f"--confirm={values['confirm']}"]
