"""Find PostgreSQL roles and databases that have the name of an app but belong to somebody else.

Roles of Flaskhost carry a mark: a comment, which only a superuser can write. Neither an app's role nor its owner has
the privilege (CREATEROLE), so no app can mark a role or remove a mark. The mark is part of the cluster, and pg_dumpall,
pg_upgrade and pgBackRest keep it.

Roles of earlier versions have no mark until ``site.yml`` has run once. They are recognized by what those versions left
on the host where no app can write: the app's line in ``pg_hba.conf``, the file with the owner's password, or, if the
app was removed from ``flask_apps``, its system user, provided that its database has the owner and privileges that
Flaskhost assigns. Whatever an app does to its own database, it cannot make another app's name look foreign.

Preflight imports this module on hosts that it has not accepted yet: nothing here needs more than Python 3.7.
"""

# ruff: noqa: S608 - this module builds SQL; every name goes through _array().

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

#: Prefix of the mark's line in a role's comment, followed by the app's name.
MARK = "Flaskhost: "
#: The line that identifies our pg_hba.conf; roles/postgres/templates/pg_hba.conf.j2 writes it.
_OURS = "# Role: postgres."
#: Databases that users created have OIDs from this number on (FirstNormalObjectId).
_FIRST_OWN_NUMBER = 16384
#: Maximum bytes to read. Our file has a few lines for each app.
_LARGEST = 4 << 20


def marked(comment):
    """Return the app that a role belongs to, according to its comment.

    Args:
        comment: the comment on the role.

    Returns:
        The name of the app; empty for a role without a mark.
    """
    lines = [line[len(MARK) :].strip() for line in (comment or "").splitlines() if line.startswith(MARK)]
    return lines[-1] if lines else ""


def marking(comment, app):
    """Return the comment that marks a role, with the operator's own text above the mark."""
    others = [line for line in (comment or "").splitlines() if not line.startswith(MARK)]
    return "\n".join([*others, MARK + app])


def question(apps):
    """Return a query for the database ``postgres`` that returns one JSON object.

    Args:
        apps: for each app ``roles``, the names of its roles.

    Returns:
        The SQL. Its result has ``roles``, the comments on existing roles by name, and ``databases`` by name, with
        ``owner`` and ``open``, whether PUBLIC has a privilege on it.
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
    """Find roles and databases that are not the apps' own.

    Args:
        apps: for each app ``roles``, the names of its roles, its own first.
        answer: the result of :func:`question`.
        known: the apps that an earlier version has created; ``False`` for those whose database also has to look like
            ours.

    Returns:
        For each app whose name is taken: ``roles`` (the roles that are not its own, each with the app that it belongs
        to, or an empty string), ``database`` (whether the database name is taken) and ``owner`` (that database's).
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
    """Find the apps for which an earlier version has created roles and a database.

    Args:
        apps: for each app ``owner_file`` and ``home``, as Flaskhost names them.
        access_file: the cluster's ``pg_hba.conf``.

    Returns:
        The apps, with ``True``, or with ``False`` if only their system user exists.
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
    """Check whether a stopped cluster has databases in addition to PostgreSQL's own.

    Args:
        data: its data directory.
    """
    try:
        return any(int(item.name) >= _FIRST_OWN_NUMBER for item in (data / "base").iterdir() if item.name.isdigit())
    except OSError:
        return False


def look_up(run, apps, version="", settings=Path("/etc/postgresql")):
    """Query the host's PostgreSQL for the owners of the names. Changes nothing.

    Args:
        run: runs a command, with the interface of ``AnsibleModule.run_command``.
        apps: by name, each with ``roles``, ``owner_file`` and ``home``.
        version: the requested major version; the version that starts at boot if empty.
        settings: Debian's folder of the clusters' settings.

    Returns:
        ``foreign``, the result of :func:`foreign`, and ``silent``: the cluster that has data but does not respond, if
        only PostgreSQL could identify the owner of an app's names; otherwise empty.
    """
    nothing = {"foreign": {}, "silent": ""}
    if not apps:
        return nothing
    try:
        # Not at the top of the file: these modules need a newer Python than this one.
        from ansible.module_utils.flaskhost.postgres.psql import Psql, PsqlError  # noqa: PLC0415
        from ansible.module_utils.flaskhost.postgres.server import clusters, starts  # noqa: PLC0415
    except TypeError:
        return nothing
    found = clusters("main", settings)
    # An upgrade leaves the previous version's cluster behind, which does not start at boot.
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
