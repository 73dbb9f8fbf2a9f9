"""The apps' roles and databases in PostgreSQL: what there is, compared as a whole with what there should be.

Each database has an owner, which makes and changes its tables, and the role of the app, which reads and writes rows and
may do nothing else. Where both are the same role, the app does all of it. Nobody else gets in: the rights that
PostgreSQL gives everybody (PUBLIC) on a database are taken away.

Nothing here talks to PostgreSQL: :func:`cluster_question` and :func:`database_question` are SQL that answers with JSON,
and the plans made of the answers are SQL again. Every plan can be cut off anywhere and made anew.
"""

# ruff: noqa: S608 - SQL is what is made here; every name and text goes through identifier() and literal().

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.flaskhost.postgres import names as postgres_names
from ansible.module_utils.flaskhost.postgres import scram as postgres_scram

#: Databases of the cluster's own, which nobody but its superuser has business in.
CLOSED = ("postgres", "template1")
#: Extensions that PostgreSQL does not call trusted, so that only its superuser can install them, and that give who
#: uses them no way to files, programs or other servers. What is in neither list has to be allowed by name.
SAFE_EXTENSIONS = frozenset(
    "earthdistance h3 hypopg ip4r orafce periods pg_ivm pg_similarity pg_stat_statements pgmp pgsphere pgtap postgis "
    "postgis_topology prefix rational rum semver similarity timescaledb unit vector".split()
)
#: What a role of ours is: it may log in, or not, and nothing that reaches beyond its database.
ATTRIBUTES = ("rolsuper", "rolcreatedb", "rolcreaterole", "rolreplication", "rolbypassrls")
WORDS = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT"
#: What the app's role may do with what the owner makes, by the letter that pg_default_acl has for it.
DEFAULT_RIGHTS = {
    "r": ("TABLES", ("SELECT", "INSERT", "UPDATE", "DELETE")),
    "S": ("SEQUENCES", ("USAGE", "SELECT", "UPDATE")),
    "f": ("FUNCTIONS", ("EXECUTE",)),
    "T": ("TYPES", ("USAGE",)),
    "n": ("SCHEMAS", ("USAGE",)),
}
#: SQL that answers with the extensions of the database in which it is asked.
EXTENSIONS_QUESTION = "SELECT coalesce(json_agg(extname), '[]') FROM pg_extension;\n"
#: Tables, views and what else rows are read from.
RELATIONS = "'r','p','v','m','f'"


class DatabaseError(Exception):
    """Roles or databases that cannot be as they were asked for; the text says why and what to do."""


class InTheWay(DatabaseError):
    """Somebody holds a lock; a little later it may be gone."""


@dataclass(frozen=True)
class Login:
    """A role that logs in over the network and is then the app's role.

    Attributes:
        name: its name.
        password: its password; without one it cannot log in.
    """

    name: str
    password: str = ""


@dataclass(frozen=True)
class Database:
    """One database and its roles, as they should be.

    Attributes:
        name: the name of the database and of the app's role.
        owner: the role that owns it; the app's own where it is the same name.
        password: the owner's; without one it cannot log in, if it is a role of its own.
        connections: how many the app's role may have open at once; -1 for any number.
        owner_connections: how many the owner may.
        settings: what holds for the app's connections, such as ``statement_timeout``; an empty text takes it back.
        temporary: MB that the temporary files of all connections of a role may hold together; 0 for any.
        extensions: those that are in it.
        logins: roles that log in over the network.
    """

    name: str
    owner: str
    password: str = ""
    connections: int = -1
    owner_connections: int = -1
    settings: Mapping[str, str] = field(default_factory=dict)
    temporary: int = 0
    extensions: tuple[str, ...] = ()
    logins: tuple[Login, ...] = ()

    def temporary_files(self, connections: int) -> dict[str, str]:
        """The setting that bounds each connection's temporary files, which lie in one folder for all databases.

        Only a superuser may change it (PostgreSQL, Resource Consumption, ``temp_file_limit``).

        Args:
            connections: how many connections share what is allowed; -1 for any number, taken for 100.
        """
        share = max(16, self.temporary // (connections if connections > 0 else 100))
        return {"temp_file_limit": f"{share}MB" if self.temporary else ""}

    @property
    def shared(self) -> bool:
        """Whether the app's role is the owner."""
        return self.owner == self.name

    @property
    def former(self) -> str:
        """The role that owns things in it where the owner was another one before."""
        return f"{self.name}-owner" if self.shared else self.name

    @property
    def roles(self) -> list[str]:
        """All roles that have to do with it."""
        return list(dict.fromkeys([self.name, self.owner, self.former, *(login.name for login in self.logins)]))


@dataclass(frozen=True)
class Step:
    """Something to be done.

    Attributes:
        says: what it is, for a reader; no secret is in it.
        sql: how.
        database: in which database.
        together: whether all of it is done or nothing, and again where somebody is in the way.
    """

    says: str
    sql: str
    database: str = "postgres"
    together: bool = False


def identifier(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it; backslashes stay what they are (``standard_conforming_strings``)."""
    return "'" + text.replace("'", "''") + "'"


def _array(names: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(literal(name) for name in sorted(set(names)))}]::text[]"


def cluster_question(databases: Iterable[Database]) -> str:
    """SQL that answers with one JSON object: what the cluster has of the roles and databases.

    Returns:
        ``version``, ``roles`` by name, ``databases`` by name, ``before`` (the names of databases that restores have put
        aside), ``members`` (pairs of a group and who is in it),
        ``extensions`` (those that are installed on the host, and whether PostgreSQL trusts them) and ``recovery``.
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
    """SQL that answers, in the database, with one JSON object: what is in it as it should not be.

    Returns:
        ``public_create`` (everybody may create in the schema public), ``usage`` (the app's role may use that schema),
        ``defaults`` (the rights that come with what the owner makes), ``foreign`` (how many things the former owner
        owns), ``bare`` (things of the owner's about which nobody has ever said who may use them) and ``extensions``.
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
  'bare', (SELECT count(*) FROM ({_bare(database.owner)}) AS bare),
  'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension));
"""


def _bare(owner: str, everything: bool = False) -> str:
    """SQL that lists what the owner has and the app's role needs rights on, as the grants' own words.

    Args:
        owner: the owner.
        everything: also what somebody has granted rights on, or taken them from: that is left to those who did it.
    """
    mine = f"(SELECT oid FROM pg_roles WHERE rolname = {literal(owner)})"
    # What an extension has made keeps the rights that the extension gave it.
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


# -- what is to be done -----------------------------------------------------------------------------------------------


def problems(databases: Iterable[Database], cluster: Mapping[str, Any], allowed: Iterable[str] = ()) -> list[str]:
    """Say why it cannot be, before anything is changed.

    Args:
        databases: what should be.
        cluster: the answer to :func:`cluster_question`.
        allowed: extensions that the operator allows beside those that are trusted or known to be harmless.
    """
    found, allowed = [], set(allowed)
    if cluster["recovery"]:
        return [
            "this PostgreSQL only reads, since it recovers or follows another one. Run this on the one that writes."
        ]
    for database in databases:
        present = cluster["databases"].get(database.name)
        aside = [name for name in cluster["before"] if name.rpartition("_before_")[0] == database.name]
        if not present and aside:
            rename = f'ALTER DATABASE "{aside[-1]}" RENAME TO "{database.name}"'
            let_in = f'ALTER DATABASE "{database.name}" WITH CONNECTION LIMIT -1 ALLOW_CONNECTIONS true'
            found.append(
                f"there is no database {database.name}, but there is {' and '.join(aside)}, which a restore has put "
                "aside. An empty one in its place would hide its rows. Bring it back: sudo -u postgres psql "
                f"-c '{rename}' -c '{let_in}'. Or drop it, if an empty one is what you want."
            )
        if present and present["encoding"] != "UTF8":
            found.append(
                f"the database {database.name} has the encoding {present['encoding']}, not UTF8. Dump it, drop it and "
                "load it again, as postgres: pg_dump -Fc, dropdb, run this again, pg_restore."
            )
        for extension in database.extensions:
            trusted = cluster["extensions"].get(extension)
            if trusted is None:
                found.append(
                    f"{database.name}: there is no extension {extension} on this host. Name its package in "
                    f"postgres_extra_packages (apt-cache search postgresql-{cluster['version'] // 10000}-), or "
                    "take it out."
                )
            elif not trusted and extension not in SAFE_EXTENSIONS | allowed:
                found.append(
                    f"{database.name}: PostgreSQL does not trust the extension {extension}: who uses it may reach "
                    "files, programs or other servers. Name it in postgres_untrusted_extensions if that is meant."
                )
    return found


def role_steps(databases: Iterable[Database], cluster: Mapping[str, Any]) -> list[Step]:
    """What has to be done about roles, and about databases from outside of them.

    Args:
        databases: what should be.
        cluster: the answer to :func:`cluster_question`.
    """
    steps: list[Step] = []
    roles, members = cluster["roles"], {tuple(pair) for pair in cluster["members"]}
    for wanted in databases:
        app, limit = wanted.name, wanted.owner_connections
        of_app = {**wanted.settings, **wanted.temporary_files(wanted.connections)}
        steps += _role(app, app, roles, login=True, limit=wanted.connections, settings=of_app)
        if not wanted.shared:
            owner, password, of_owner = wanted.owner, wanted.password, wanted.temporary_files(limit)
            steps += _role(app, owner, roles, login=bool(password), limit=limit, settings=of_owner, secret=password)
        elif wanted.former in roles:
            steps += _role(app, wanted.former, roles, login=False, limit=-1, secret="")
        for login in wanted.logins:
            settings = {**of_app, "role": identifier(wanted.name)}
            steps += _role(
                app,
                login.name,
                roles,
                login=bool(login.password),
                limit=wanted.connections,
                settings=settings,
                secret=login.password,
            )
            if (wanted.name, login.name) not in members:
                sql = f"GRANT {identifier(wanted.name)} TO {identifier(login.name)};"
                steps.append(Step(f"{login.name} is then {wanted.name}", sql))
        # A right of one of them over another would be a way around what keeps them apart.
        ours = {wanted.owner, wanted.former, wanted.name}
        for group, member in sorted(members):
            if group in ours and member in ours:
                sql = f"REVOKE {identifier(group)} FROM {identifier(member)};"
                steps.append(Step(f"{member} is no longer {group}", sql))
        steps += _database(wanted, cluster)
    for name in CLOSED:
        if _everybodys(cluster["databases"].get(name)):
            steps.append(Step(f"nobody else connects to {name}", f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;"))
    return steps


def _role(
    app: str,
    name: str,
    roles: Mapping[str, Any],
    *,
    login: bool,
    limit: int,
    settings: Mapping[str, str] | None = None,
    secret: str | None = None,
) -> list[Step]:
    """Make a role, or set right what it may do. Without ``secret`` its password is left alone, if it has one."""
    steps, present, quoted = [], roles.get(name), identifier(name)
    can = "LOGIN" if login else "NOLOGIN"
    comment = postgres_names.marking(present["comment"] if present else "", app)
    mark = f"COMMENT ON ROLE {quoted} IS {literal(comment)};"
    if present is None:
        # Both or neither: without its mark preflight could take the role for somebody else's.
        sql = f"CREATE ROLE {quoted} {can} {WORDS} CONNECTION LIMIT {limit};\n{mark}"
        steps.append(Step(f"create the role {name}", sql, together=True))
        present = {"limit": limit, "password": None, "settings": []}
    else:
        if postgres_names.marked(present["comment"]) != app:
            steps.append(Step(f"{name}: marked as a role of the app {app}", mark))
        wrong = [item for item in ATTRIBUTES if present[item]]
        if wrong or not present["rolinherit"] or present["rolcanlogin"] != login:
            more = f", not {', '.join(item.removeprefix('rol') for item in wrong)}" if wrong else ""
            sql = f"ALTER ROLE {quoted} {can} {WORDS};"
            steps.append(Step(f"{name}: {'logs in' if login else 'does not log in'}{more}", sql))
        if present["limit"] != limit:
            says = f"{name}: {limit if limit >= 0 else 'any number of'} connections, not {present['limit']}"
            steps.append(Step(says, f"ALTER ROLE {quoted} CONNECTION LIMIT {limit};"))
    if secret and not postgres_scram.fits(secret, present["password"]):
        sql = f"ALTER ROLE {quoted} PASSWORD {literal(postgres_scram.verifier(secret))};"
        steps.append(Step(f"{name}: another password", sql))
    elif secret == "" and present["password"] is not None:
        steps.append(Step(f"{name}: no password", f"ALTER ROLE {quoted} PASSWORD NULL;"))
    now = dict(item.split("=", 1) for item in present["settings"])
    for key, value in (settings or {}).items():
        if value and now.get(key) != value:
            # The value of role is a name; the others are numbers with a unit.
            sql = f"ALTER ROLE {quoted} SET {key} = {value if key == 'role' else literal(value)};"
            if key == "role" and now.get(key) == value.strip('"'):
                continue
            steps.append(Step(f"{name}: {key} = {value}", sql))
        elif not value and key in now:
            steps.append(Step(f"{name}: no {key}", f"ALTER ROLE {quoted} RESET {key};"))
    return steps


def _everybodys(present: Mapping[str, Any] | None) -> bool:
    return bool(present) and any(grantee == "" for grantee, _right in present["rights"])


def _database(wanted: Database, cluster: Mapping[str, Any]) -> list[Step]:
    steps, name, present = [], identifier(wanted.name), cluster["databases"].get(wanted.name)
    if present is None:
        # From template0: the others may have been given a locale, or tables.
        sql = (
            f"CREATE DATABASE {name} OWNER {identifier(wanted.owner)} TEMPLATE template0"
            " ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8';"
        )
        steps.append(Step(f"create the database {wanted.name}", sql))
        rights = {("", "CONNECT"), ("", "TEMPORARY")}
    else:
        rights = {tuple(item) for item in present["rights"]}
    if any(grantee == "" for grantee, _right in rights):
        sql = f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;"
        steps.append(Step(f"nobody else connects to {wanted.name}", sql))
    if not wanted.shared:
        # What it has as the owner, where it is that still, goes over to the new one with the database.
        its = {right for grantee, right in rights if grantee == wanted.name}
        if {"CONNECT", "TEMPORARY"} - its:
            sql = f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {identifier(wanted.name)};"
            steps.append(Step(f"{wanted.name} connects to its database", sql))
        if "CREATE" in its and present and present["owner"] != wanted.name:
            sql = f"REVOKE CREATE ON DATABASE {name} FROM {identifier(wanted.name)};"
            steps.append(Step(f"{wanted.name} creates no schemas", sql))
    return steps


def content_steps(wanted: Database, cluster: Mapping[str, Any], inside: Mapping[str, Any]) -> list[Step]:
    """What has to be done inside of a database.

    Args:
        wanted: what should be.
        cluster: the answer to :func:`cluster_question`.
        inside: the answer to :func:`database_question`; of a database that is yet to be made, :data:`FRESH`.
    """
    steps, name = [], wanted.name
    app, owner = identifier(name), identifier(wanted.owner)
    owned_by = (cluster["databases"].get(name) or {"owner": wanted.owner})["owner"]
    hand_over = inside["foreign"] > 0 or owned_by == wanted.former
    if hand_over or owned_by != wanted.owner:
        steps.append(_handing_over(wanted, owned_by, inside["foreign"]))
    if inside["public_create"]:
        steps.append(Step(f"{name}: not everybody creates tables", "REVOKE CREATE ON SCHEMA public FROM PUBLIC;", name))
    if inside["usage"]:
        sql = f"GRANT USAGE ON SCHEMA public TO {app};"
        steps.append(Step(f"{name}: the app finds its tables", sql, name))
    if not wanted.shared:
        has: dict[str, set[str]] = {}
        for kind, right in inside["defaults"]:
            has.setdefault(kind, set()).add(right)
        missing = [
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT {', '.join(rights)} ON {word} TO {app};"
            for kind, (word, rights) in DEFAULT_RIGHTS.items()
            if set(rights) - has.get(kind, set())
        ]
        if missing:
            steps.append(Step(f"{name}: the app uses what {wanted.owner} makes", "\n".join(missing), name, True))
        if inside["bare"] and not hand_over:
            steps.append(Step(f"{name}: the app uses what {wanted.owner} has made", _grants(wanted), name, True))
    return steps + extension_steps(name, wanted.extensions, inside["extensions"])


def extension_steps(database: str, wanted: Iterable[str], present: Iterable[str]) -> list[Step]:
    """Install the extensions that are not in a database yet; with those that they need."""
    return [
        Step(
            f"{database}: the extension {extension}",
            f"CREATE EXTENSION IF NOT EXISTS {identifier(extension)} SCHEMA public CASCADE;",
            database,
        )
        for extension in wanted
        if extension not in set(present)
    ]


#: What a new database made of template0 answers to :func:`database_question`.
FRESH: Mapping[str, Any] = {
    "public_create": False,
    "usage": False,
    "defaults": (),
    "foreign": 0,
    "bare": 0,
    "extensions": ("plpgsql",),
}


def _grants(wanted: Database, everything: bool = False) -> str:
    listing = _bare(wanted.owner, everything)
    return (
        f"SELECT 'GRANT ' || right_on || {literal(f' TO {identifier(wanted.name)}')} FROM ({listing}) AS item \\gexec"
    )


def _handing_over(wanted: Database, owned_by: str, count: int) -> Step:
    """Give a database and what is in it to its new owner while the app goes on, all at once or not at all."""
    app, owner, former = (identifier(role) for role in (wanted.name, wanted.owner, wanted.former))
    sql = []
    if owned_by not in (wanted.owner, wanted.former):
        sql.append(f"ALTER DATABASE {app} OWNER TO {owner};")
    if count or owned_by == wanted.former:
        sql.append(f"REASSIGN OWNED BY {former} TO {owner};")
    if not wanted.shared:
        sql += [f"GRANT CONNECT, TEMPORARY ON DATABASE {app} TO {app};", _grants(wanted, everything=True)]
    says = f"{wanted.name}: hand the database and what is in it over to {wanted.owner}"
    return Step(says, "\n".join(sql), wanted.name, True)


#: The words by which psql tells that somebody was in the way.
IN_THE_WAY = re.compile(
    r"lock timeout|deadlock detected|tuple concurrently (?:updated|deleted)|being accessed by other"
)


def script(steps: Iterable[Step]) -> str:
    """The steps as one input for psql."""
    lines, where = [], "postgres"
    for step in steps:
        if step.database != where:
            lines.append(f"\\connect {identifier(step.database)}")
            where = step.database
        lines += ["BEGIN;", step.sql, "COMMIT;"] if step.together else [step.sql]
    return "\n".join(lines) + "\n"
