"""Plan the SQL that turns the existing databases and roles into those that should be.

A plan can be interrupted anywhere: the next one is made from what exists then.
"""

# ruff: noqa: S608 - this module produces SQL; every name and text goes through identifier() and literal().

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.flaskhost.postgres import names as postgres_names
from ansible.module_utils.flaskhost.postgres import scram as postgres_scram
from ansible.module_utils.flaskhost.postgres.database_questions import grantable
from ansible.module_utils.flaskhost.postgres.databases import (
    ATTRIBUTES,
    CLOSED,
    DEFAULT_RIGHTS,
    Database,
    identifier,
    literal,
)

#: Extensions that PostgreSQL does not trust, so that only its superuser can install them, and that give their users no
#: access to files, programs or other servers. The operator must allow all other untrusted extensions by name.
SAFE_EXTENSIONS = frozenset(
    "earthdistance h3 hypopg ip4r orafce periods pg_ivm pg_similarity pg_stat_statements pgmp pgsphere pgtap postgis "
    "postgis_topology prefix rational rum semver similarity timescaledb unit vector".split()
)
#: The attributes of each role, as SQL.
WORDS = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT"
#: psql's messages if another session holds a lock.
IN_THE_WAY = re.compile(
    r"lock timeout|deadlock detected|tuple concurrently (?:updated|deleted)|being accessed by other"
)


@dataclass(frozen=True)
class Step:
    """A change.

    Attributes:
        says: the change in words, without a secret.
        sql: the SQL that makes it.
        database: the database in which it runs.
        together: whether it runs in one transaction.
    """

    says: str
    sql: str
    database: str = "postgres"
    together: bool = False


def problems(databases: Iterable[Database], cluster: Mapping[str, Any], allowed: Iterable[str] = ()) -> list[str]:
    """List the problems that prevent the changes, before any is made.

    Args:
        databases: the databases as they should be.
        cluster: the result of :func:`database_questions.cluster_question`.
        allowed: extensions that the operator allows besides the trusted and the harmless ones.
    """
    found, allowed = [], set(allowed)
    if cluster["recovery"]:
        return ["this PostgreSQL server is read-only, because it is a standby or in recovery. Run this on the primary."]
    for database in databases:
        present = cluster["databases"].get(database.name)
        aside = [name for name in cluster["before"] if name.rpartition("_before_")[0] == database.name]
        if not present and aside:
            rename = f'ALTER DATABASE "{aside[-1]}" RENAME TO "{database.name}"'
            let_in = f'ALTER DATABASE "{database.name}" WITH CONNECTION LIMIT -1 ALLOW_CONNECTIONS true'
            found.append(
                f"there is no database {database.name}, but a restore kept {' and '.join(aside)}. A new empty database "
                f"would hide its rows. To get it back: sudo -u postgres psql -c '{rename}' -c '{let_in}'. To start "
                "with an empty database, drop it."
            )
        if present and present["encoding"] != "UTF8":
            found.append(
                f"the database {database.name} has the encoding {present['encoding']}, not UTF8. To "
                "convert it, as postgres: pg_dump -Fc, dropdb, run this again, pg_restore."
            )
        for extension in database.extensions:
            trusted = cluster["extensions"].get(extension)
            if trusted is None:
                found.append(
                    f"{database.name}: there is no extension {extension} on this host. Add its package to "
                    f"postgres_extra_packages (apt-cache search postgresql-{cluster['version'] // 10000}-), or "
                    "remove the extension."
                )
            elif not trusted and extension not in SAFE_EXTENSIONS | allowed:
                found.append(
                    f"{database.name}: PostgreSQL does not trust the extension {extension}: its users can access "
                    "files, programs or other servers. To allow it, add it to postgres_untrusted_extensions."
                )
    return found


def role_steps(databases: Iterable[Database], cluster: Mapping[str, Any]) -> list[Step]:
    """Plan the changes of roles, and of databases from the outside.

    Args:
        databases: the databases as they should be.
        cluster: the result of :func:`database_questions.cluster_question`.
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
                steps.append(Step(f"make {login.name} a member of {wanted.name}", sql))
        # A membership of one in another would bypass their separation.
        ours = {wanted.owner, wanted.former, wanted.name}
        for group, member in sorted(members):
            if group in ours and member in ours:
                sql = f"REVOKE {identifier(group)} FROM {identifier(member)};"
                steps.append(Step(f"remove {member} from {group}", sql))
        steps += _database(wanted, cluster)
    for name in CLOSED:
        if _everybodys(cluster["databases"].get(name)):
            steps.append(Step(f"revoke the rights of PUBLIC on {name}", f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;"))
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
    """Create a role, or correct its rights. If ``secret`` is None, its password stays unchanged."""
    steps, present, quoted = [], roles.get(name), identifier(name)
    can = "LOGIN" if login else "NOLOGIN"
    comment = postgres_names.marking(present["comment"] if present else "", app)
    mark = f"COMMENT ON ROLE {quoted} IS {literal(comment)};"
    if present is None:
        # In one transaction: preflight could treat a role without its mark as somebody else's.
        sql = f"CREATE ROLE {quoted} {can} {WORDS} CONNECTION LIMIT {limit};\n{mark}"
        steps.append(Step(f"create the role {name}", sql, together=True))
        present = {"limit": limit, "password": None, "settings": []}
    else:
        if postgres_names.marked(present["comment"]) != app:
            steps.append(Step(f"mark {name} as a role of the app {app}", mark))
        wrong = [item for item in ATTRIBUTES if present[item]]
        if wrong or not present["rolinherit"] or present["rolcanlogin"] != login:
            more = f", remove {', '.join(item.removeprefix('rol') for item in wrong)}" if wrong else ""
            sql = f"ALTER ROLE {quoted} {can} {WORDS};"
            steps.append(Step(f"{name}: {'allow' if login else 'forbid'} logins{more}", sql))
        if present["limit"] != limit:
            says = f"{name}: connection limit {limit if limit >= 0 else 'none'}, was {present['limit']}"
            steps.append(Step(says, f"ALTER ROLE {quoted} CONNECTION LIMIT {limit};"))
    if secret and not postgres_scram.fits(secret, present["password"]):
        sql = f"ALTER ROLE {quoted} PASSWORD {literal(postgres_scram.verifier(secret))};"
        steps.append(Step(f"{name}: change the password", sql))
    elif secret == "" and present["password"] is not None:
        steps.append(Step(f"{name}: remove the password", f"ALTER ROLE {quoted} PASSWORD NULL;"))
    now = dict(item.split("=", 1) for item in present["settings"])
    for key, value in (settings or {}).items():
        if value and now.get(key) != value:
            # The value of role is a name; the others are numbers with a unit.
            sql = f"ALTER ROLE {quoted} SET {key} = {value if key == 'role' else literal(value)};"
            if key == "role" and now.get(key) == value.strip('"'):
                continue
            steps.append(Step(f"{name}: {key} = {value}", sql))
        elif not value and key in now:
            steps.append(Step(f"{name}: reset {key}", f"ALTER ROLE {quoted} RESET {key};"))
    return steps


def _everybodys(present: Mapping[str, Any] | None) -> bool:
    """Return whether PUBLIC has a right on a database."""
    return any(grantee == "" for grantee, _right in (present["rights"] if present else ()))


def _database(wanted: Database, cluster: Mapping[str, Any]) -> list[Step]:
    """Create a database, or correct the rights on it."""
    steps, name, present = [], identifier(wanted.name), cluster["databases"].get(wanted.name)
    if present is None:
        # From template0: somebody may have changed the locale of template1, or created tables in it.
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
        steps.append(Step(f"revoke the rights of PUBLIC on {wanted.name}", sql))
    if not wanted.shared:
        # If the app's role is still the owner, the new owner takes over these rights with the database.
        its = {right for grantee, right in rights if grantee == wanted.name}
        if {"CONNECT", "TEMPORARY"} - its:
            sql = f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {identifier(wanted.name)};"
            steps.append(Step(f"{wanted.name}: allow connections to its database", sql))
        if "CREATE" in its and present and present["owner"] != wanted.name:
            sql = f"REVOKE CREATE ON DATABASE {name} FROM {identifier(wanted.name)};"
            steps.append(Step(f"{wanted.name}: revoke the creation of schemas", sql))
    return steps


def content_steps(wanted: Database, cluster: Mapping[str, Any], inside: Mapping[str, Any]) -> list[Step]:
    """Plan the changes inside a database.

    Args:
        wanted: the database as it should be.
        cluster: the result of :func:`database_questions.cluster_question`.
        inside: the result of :func:`database_questions.database_question`; :data:`database_questions.FRESH` for a
            database that does not exist yet.
    """
    steps, name = [], wanted.name
    app, owner = identifier(name), identifier(wanted.owner)
    owned_by = (cluster["databases"].get(name) or {"owner": wanted.owner})["owner"]
    hand_over = inside["foreign"] > 0 or owned_by == wanted.former
    if hand_over or owned_by != wanted.owner:
        steps.append(_handing_over(wanted, owned_by, inside["foreign"]))
    if inside["public_create"]:
        steps.append(Step(f"{name}: PUBLIC may not create tables", "REVOKE CREATE ON SCHEMA public FROM PUBLIC;", name))
    if inside["usage"]:
        sql = f"GRANT USAGE ON SCHEMA public TO {app};"
        steps.append(Step(f"{name}: grant the app USAGE on the schema public", sql, name))
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
            steps.append(Step(f"{name}: grant rights on new objects of {wanted.owner}", "\n".join(missing), name, True))
        if inside["bare"] and not hand_over:
            steps.append(Step(f"{name}: grant rights on all objects of {wanted.owner}", _grants(wanted), name, True))
    return steps + extension_steps(name, wanted.extensions, inside["extensions"])


def extension_steps(database: str, wanted: Iterable[str], present: Iterable[str]) -> list[Step]:
    """Plan to install the missing extensions of a database, with those that they need."""
    return [
        Step(
            f"{database}: install the extension {extension}",
            f"CREATE EXTENSION IF NOT EXISTS {identifier(extension)} SCHEMA public CASCADE;",
            database,
        )
        for extension in wanted
        if extension not in set(present)
    ]


def _grants(wanted: Database, everything: bool = False) -> str:
    """Return SQL that grants the app's role its rights on the owner's objects."""
    listing = grantable(wanted.owner, everything)
    return (
        f"SELECT 'GRANT ' || right_on || {literal(f' TO {identifier(wanted.name)}')} FROM ({listing}) AS item \\gexec"
    )


def _handing_over(wanted: Database, owned_by: str, count: int) -> Step:
    """Hand a database and its objects over to a new owner in one transaction, while the app runs."""
    app, owner, former = (identifier(role) for role in (wanted.name, wanted.owner, wanted.former))
    sql = []
    if owned_by not in (wanted.owner, wanted.former):
        sql.append(f"ALTER DATABASE {app} OWNER TO {owner};")
    if count or owned_by == wanted.former:
        sql.append(f"REASSIGN OWNED BY {former} TO {owner};")
    if not wanted.shared:
        sql += [f"GRANT CONNECT, TEMPORARY ON DATABASE {app} TO {app};", _grants(wanted, everything=True)]
    says = f"{wanted.name}: transfer the database and its objects to {wanted.owner}"
    return Step(says, "\n".join(sql), wanted.name, True)


def script(steps: Iterable[Step]) -> str:
    """Return the input for psql that runs the steps."""
    lines, where = [], "postgres"
    for step in steps:
        if step.database != where:
            lines.append(f"\\connect {identifier(step.database)}")
            where = step.database
        lines += ["BEGIN;", step.sql, "COMMIT;"] if step.together else [step.sql]
    return "\n".join(lines) + "\n"
