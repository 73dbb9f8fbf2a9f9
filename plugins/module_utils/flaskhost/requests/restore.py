"""Parse the request of playbooks/restore.yml on the control node, before any host is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import given as read
from .given import Refused

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
    values = {name: read.text(given, name) for name in VARIABLES}
    names = read.names(apps)
    try:
        flags = {name: read.switch(given, name, False) for name in ("beside", "accept_gap", "force")}
        _check(given, values, names, hosts, beside=flags["beside"])
    except Refused as error:
        return {
            "problem": str(error), "database": [], "database_hosts": [], "files": [], "apps": [], "release": "",
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


def _check(
    given: Mapping[str, Any], values: dict[str, str], names: list[str], hosts: Sequence[str], *, beside: bool
) -> None:
    read.require_all_words(given, "to")
    points = [name for name in ("to", "release", "label") if values[name]]
    if len(points) > 1:
        raise Refused(f"{points[1]}: {points[0]} already names the point to restore to. Set only one of them.")
    app, what = read.app(given, names), values["what"] or "database"
    if what not in WHAT:
        raise Refused(f"what: {what!r} is not one of {', '.join(WHAT)}.")
    if what != "database" and not app:
        raise Refused(f"app: files are restored for one app. Name it: -e app=NAME. Available: {read.listed(names)}.")
    if what != "database" and (beside or values["release"] or values["label"]):
        raise Refused(
            "what: files can only be restored in place and to a time (-e to). Leave out beside, release and label."
        )
    if read.release(given) and not app and len(names) != 1:
        raise Refused(f"app: name the app of the release: -e app=NAME. Available: {read.listed(names)}.")
    if values["label"] and not _LABEL.fullmatch(values["label"]):
        raise Refused(
            f"label: {values['label']!r} is not a backup label. To list them on the host: sudo flaskhost-backup list"
        )
    if values["from"] not in ("", "local", "second"):
        raise Refused(f"from: {values['from']!r} is not one of local, second.")
    read.seconds(given, "timeout", 3600)
    _require_confirmation(values, what, hosts, beside=beside)


def _require_confirmation(values: dict[str, str], what: str, hosts: Sequence[str], *, beside: bool) -> None:
    files_only = what in ("files", "data", "queue")
    if not files_only and not hosts:
        raise Refused("hosts: this run has no host of the group db. Add one to the inventory, or to --limit.")
    if not beside and values["confirm"] not in ([values["app"]] if values["app"] else hosts):
        wanted = values["app"] or hosts[0]
        cluster = f"the whole PostgreSQL cluster of {wanted}, with every database"
        data = f"the data of {wanted}{'' if files_only else ' on ' + ', '.join(hosts)}"
        raise Refused(
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
