"""SQL that reads the databases and roles that exist, each as one JSON object."""

# ruff: noqa: S608 - this module produces SQL; every name and text goes through identifier() and literal().

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.flaskhost.postgres.databases import ATTRIBUTES, CLOSED, DEFAULT_RIGHTS, Database, literal

#: SQL that returns the extensions of the current database.
EXTENSIONS_QUESTION = "SELECT coalesce(json_agg(extname), '[]') FROM pg_extension;\n"
#: The kinds of relations from which rows can be read.
RELATIONS = "'r','p','v','m','f'"
#: The result of :func:`database_question` for a new database, created from template0.
FRESH: Mapping[str, Any] = {
    "public_create": False,
    "usage": False,
    "defaults": (),
    "foreign": 0,
    "bare": 0,
    "extensions": ("plpgsql",),
}


def cluster_question(databases: Iterable[Database]) -> str:
    """Return SQL that reads the roles and databases of the cluster, as one JSON object.

    Returns:
        SQL for ``version``, ``roles`` by name, ``databases`` by name, ``before`` (the names of databases that restores
        moved aside), ``members`` (pairs of a group and its member), ``extensions`` (those that the host can install,
        and whether PostgreSQL trusts them) and ``recovery``.
    """
    databases = list(databases)
    roles = _array(role for database in databases for role in database.roles)
    names = _array([*CLOSED, *(database.name for database in databases)])
    attributes = ", ".join(f"'{name}', {name}" for name in (*ATTRIBUTES, "rolinherit", "rolcanlogin"))
    return f"""
SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'recovery', pg_is_in_recovery(),
  'roles', coalesce((SELECT json_object_agg(rolname, json_build_object({attributes},
      'limit', rolconnlimit, 'password', rolpassword, 'settings', coalesce(setconfig, '{{}}'::text[]),
      'comment', coalesce(shobj_description(pg_authid.oid, 'pg_authid'), '')))
    FROM pg_authid LEFT JOIN pg_db_role_setting ON setrole = pg_authid.oid AND setdatabase = 0
    WHERE rolname = ANY ({roles})), '{{}}'),
  'databases', coalesce((SELECT json_object_agg(datname, json_build_object(
      'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding), 'collate', datcollate,
      'ctype', datctype, 'rights', (SELECT coalesce(json_agg(json_build_array(
        CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type)), '[]')
        FROM aclexplode(coalesce(datacl, acldefault('d', datdba))))))
    FROM pg_database WHERE datname = ANY ({names})), '{{}}'),
  'before', (SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database
    WHERE datname ~ '_before_[0-9]{{8}}t[0-9]{{6}}z$'),
  'members', coalesce((SELECT json_agg(DISTINCT jsonb_build_array(pg_get_userbyid(roleid), pg_get_userbyid(member)))
    FROM pg_auth_members WHERE pg_get_userbyid(member)::text = ANY ({roles})), '[]'),
  'extensions', coalesce((SELECT json_object_agg(name, trusted) FROM (SELECT name, bool_or(trusted) AS trusted
    FROM pg_available_extension_versions GROUP BY name) AS extension), '{{}}'));
"""


def database_question(database: Database) -> str:
    """Return SQL that reads the rights and objects in a database that may have to change, as one JSON object.

    Returns:
        SQL for ``public_create`` (whether everybody may create objects in the schema public), ``usage`` (whether the
        app's role lacks USAGE on that schema), ``defaults`` (the default rights on what the owner creates),
        ``foreign`` (how many objects the former owner owns), ``bare`` (how many objects of the owner never had their
        rights changed) and ``extensions``.
    """
    roles = (database.name, database.owner, database.former)
    app, owner, former = (f"(SELECT oid FROM pg_roles WHERE rolname = {literal(role)})" for role in roles)
    return f"""
SELECT json_build_object(
  'public_create', EXISTS (SELECT FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
    WHERE nspname = 'public' AND grantee = 0 AND privilege_type = 'CREATE'),
  'usage', EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public' AND NOT has_schema_privilege({app}, oid, 'USAGE')),
  'defaults', coalesce((SELECT json_agg(json_build_array(defaclobjtype::text, privilege_type))
    FROM pg_default_acl, aclexplode(defaclacl)
    WHERE defaclnamespace = 0 AND defaclrole = {owner} AND grantee = {app}), '[]'),
  'foreign', (SELECT count(*) FROM pg_shdepend LEFT JOIN pg_class ON classid = 'pg_class'::regclass
      AND pg_class.oid = objid
    WHERE deptype = 'o' AND refclassid = 'pg_authid'::regclass AND refobjid = {former}
      AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid NOT IN ('pg_largeobject'::regclass, 'pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
      AND relpersistence IS DISTINCT FROM 't'),
  'bare', (SELECT count(*) FROM ({grantable(database.owner)}) AS bare),
  'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension));
"""


def grantable(owner: str, everything: bool = False) -> str:
    """Return SQL that lists the owner's objects on which the app's role needs rights, in the words of GRANT.

    Args:
        owner: the owner.
        everything: whether to include objects on which somebody has granted or revoked rights. Those rights are
            otherwise left unchanged.
    """
    mine = f"(SELECT oid FROM pg_roles WHERE rolname = {literal(owner)})"
    # Objects of an extension keep the rights that the extension gave them.
    not_of_extension = (
        "NOT EXISTS (SELECT FROM pg_depend WHERE pg_depend.objid = {0}.oid AND pg_depend.classid = '{0}'::regclass"
        " AND pg_depend.deptype = 'e')"
    )
    never = "" if everything else " AND {0} IS NULL"
    tables, sequences = (", ".join(DEFAULT_RIGHTS[kind][1]) for kind in "rS")
    return (
        f"SELECT format('{tables} ON %I.%I', nspname, relname) AS right_on FROM pg_class"
        f" JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE relkind IN ({RELATIONS})"
        f" AND relpersistence <> 't' AND relowner = {mine}{never.format('relacl')}"
        f" AND {not_of_extension.format('pg_class')}"
        f" UNION ALL SELECT format('{sequences} ON SEQUENCE %I.%I', nspname, relname) FROM pg_class"
        f" JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE relkind = 'S'"
        f" AND relpersistence <> 't' AND relowner = {mine}{never.format('relacl')}"
        f" AND {not_of_extension.format('pg_class')}"
        f" UNION ALL SELECT format('USAGE ON SCHEMA %I', nspname) FROM pg_namespace"
        f" WHERE nspowner = {mine}{never.format('nspacl')} AND {not_of_extension.format('pg_namespace')}"
    )


def _array(names: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(literal(name) for name in sorted(set(names)))}]::text[]"
