"""Roles and databases that PostgreSQL already has under the names of apps, and that belong to somebody else.

A role of Flaskhost's carries a mark: a comment, which only a superuser can write. Neither an app's role nor its owner
has the right to (CREATEROLE), so no app can mark a role or remove a mark. The mark is part of the cluster, and
pg_dumpall, pg_upgrade and pgBackRest keep it.

Roles of earlier versions have no mark until ``site.yml`` has run once. They are known by what those versions left on
the host where no app can write: the app's line in ``pg_hba.conf``, the file with the owner's password, or, once the app
was taken out of ``flask_apps``, its system user, provided that its database has the owner and the rights that Flaskhost
gives it. Whatever an app does to its own database, it can make no other app's name look foreign.

Preflight imports this on hosts that it has yet to refuse: nothing here needs more than Python 3.7.
"""

# ruff: noqa: S608 - SQL is what is made here; every name goes through _array().

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

#: What begins the line of the comment on a role; the app's name follows.
MARK = "Flaskhost: "
#: By which pg_hba.conf is known to be ours; roles/postgres/templates/pg_hba.conf.j2 writes it.
_OURS = "# Role: postgres."
#: Databases that somebody has created have numbers from here on (FirstNormalObjectId).
_FIRST_OWN_NUMBER = 16384
#: Bytes. Ours has some lines for each app.
_LARGEST = 4 << 20


def marked(comment):
    """Say whose role it is by its comment.

    Args:
        comment: the comment on the role.

    Returns:
        The name of the app; empty for a role that is nobody's.
    """
    lines = [line[len(MARK) :].strip() for line in (comment or "").splitlines() if line.startswith(MARK)]
    return lines[-1] if lines else ""


def marking(comment, app):
    """The comment that marks a role, below what an operator has written about it."""
    others = [line for line in (comment or "").splitlines() if not line.startswith(MARK)]
    return "\n".join([*others, MARK + app])


def question(apps):
    """SQL for the database ``postgres`` that answers with one JSON object.

    Args:
        apps: for each app ``roles``, the names of its roles.

    Returns:
        The question. Its answer has ``roles``, the comments on those that exist, by name, and ``databases`` by name,
        with ``owner`` and ``open``, whether everybody (PUBLIC) has a right on it.
    """
    roles, databases = _array(role for app in apps.values() for role in app["roles"]), _array(apps)
    return f"""
SELECT pg_catalog.json_build_object(
  'roles', coalesce((SELECT pg_catalog.json_object_agg(rolname,
      coalesce(pg_catalog.shobj_description(oid, 'pg_authid'), ''))
    FROM pg_catalog.pg_authid WHERE rolname = ANY ({roles})), '{{}}'),
  'databases', coalesce((SELECT pg_catalog.json_object_agg(datname, pg_catalog.json_build_object(
      'owner', pg_catalog.pg_get_userbyid(datdba), 'open', EXISTS (SELECT FROM
        pg_catalog.aclexplode(coalesce(datacl, pg_catalog.acldefault('d', datdba))) WHERE grantee = 0)))
    FROM pg_catalog.pg_database WHERE datname = ANY ({databases})), '{{}}'));
"""


def _array(names):
    return "ARRAY[{}]::text[]".format(", ".join("'{}'".format(name.replace("'", "''")) for name in sorted(set(names))))


def foreign(apps, answer, known):
    """Find what is not the apps' own.

    Args:
        apps: for each app ``roles``, the names of its roles, its own first.
        answer: the answer to :func:`question`.
        known: the apps that an earlier version is known to have created; those whose database has to look like ours
            as well have the value ``False``.

    Returns:
        For each app whose name is taken, ``roles`` (those that are not its own, each with the app that it belongs to,
        or an empty text), ``database`` (whether its name is taken) and ``owner`` (that database's).
    """
    found = {}
    for name, app in apps.items():
        database = answer["databases"].get(name)
        ours = known.get(name)
        if ours is False:
            ours = bool(database) and database["owner"] in (name, name + "-owner") and not database["open"]
        owners = {role: marked(answer["roles"][role]) for role in app["roles"] if role in answer["roles"]}
        roles = {role: owner for role, owner in owners.items() if owner != name and (owner or not ours)}
        taken = database is not None and not ours and owners.get(name) != name
        if roles or taken:
            found[name] = {"roles": roles, "database": taken, "owner": database["owner"] if taken else ""}
    return found


def known(apps, access_file):
    """Find the apps that an earlier version has given roles and a database.

    Args:
        apps: for each app ``owner_file`` and ``home``, as Flaskhost names them.
        access_file: the cluster's ``pg_hba.conf``.

    Returns:
        The apps, with ``True``, or ``False`` if only their system user is there.
    """
    try:
        with access_file.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LARGEST)
    except OSError:
        text = ""
    lines = re.findall(r'^local +"([^"]+)" "\1" peer\b', text, re.MULTILINE) if _OURS in text else []
    found = {}
    for name, app in apps.items():
        if name in lines or os.path.lexists(app["owner_file"]):
            found[name] = True
        elif _home(name) == app["home"]:
            found[name] = False
    return found


def _home(name):
    try:
        return pwd.getpwnam(name).pw_dir
    except KeyError:
        return None


def has_databases(data):
    """Whether a cluster that does not run has databases beside its own.

    Args:
        data: the folder of its data.
    """
    try:
        return any(int(item.name) >= _FIRST_OWN_NUMBER for item in (data / "base").iterdir() if item.name.isdigit())
    except OSError:
        return False


def look_up(run, apps, version="", settings=Path("/etc/postgresql")):
    """Ask the host's PostgreSQL whose the names are. Changes nothing.

    Args:
        run: runs a command, as ``AnsibleModule.run_command`` does.
        apps: by name, each with ``roles``, ``owner_file`` and ``home``.
        version: the major version that is wanted; the one that is started at boot when empty.
        settings: where Debian has the settings of clusters.

    Returns:
        ``foreign``, what :func:`foreign` found, and ``silent``: the cluster that has data and does not answer, if there
        is an app about which only PostgreSQL could say; otherwise empty.
    """
    nothing = {"foreign": {}, "silent": ""}
    if not apps:
        return nothing
    try:
        # Not above: they need a newer Python than this file does.
        from ansible.module_utils.flaskhost.postgres.psql import Psql, PsqlError  # noqa: PLC0415
        from ansible.module_utils.flaskhost.postgres.server import clusters, starts  # noqa: PLC0415
    except TypeError:
        return nothing
    found = clusters("main", settings)
    # An upgrade leaves the former version's cluster behind, which is not started.
    serving = [item for item in found if starts(settings / item / "main")] or list(found)
    chosen = version if version in serving else max(serving, key=float, default="")
    if not chosen:
        return nothing
    cluster = chosen + "/main"
    ours = known(apps, settings / cluster / "pg_hba.conf")
    try:
        answer = Psql(run, cluster).ask(question(apps))[0]
    except (PsqlError, OSError, ValueError, IndexError):
        unknown = [name for name in apps if not ours.get(name)]
        return dict(nothing, silent=cluster if unknown and has_databases(found[chosen]) else "")
    return dict(nothing, foreign=foreign(apps, answer, ours))
