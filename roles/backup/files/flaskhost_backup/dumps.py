"""Move a database from one cluster to another: dump and restore it with the rights of its owner.

A restore runs the tenant's code: CHECK constraints, generated columns and domains while rows are loaded, functions in
expression indexes, and triggers. So a superuser only works on the empty database: it creates the database with its
extensions. Everything else is restored by a session role (sessions.py), under a name to which no app connects.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from flaskhost_backup import tools
from flaskhost_backup.cluster import Server
from flaskhost_backup.config import BackupError, Cluster
from flaskhost_backup.explain import explain
from flaskhost_backup.sessions import Login, literal, owners, quoted, tenant
from flaskhost_backup.tools import Done

#: A line of a dump's table of contents: its number, two OIDs, then its type, its name and its owner.
_ENTRY = re.compile(r"^\d+; \d+ \d+ (?P<text>.+)$")
#: Entries that the superuser restores into the empty database.
_EXTENSION = re.compile(r"^(?:EXTENSION - |COMMENT - EXTENSION )")
#: Entries of the database itself, which are restored once it has its final name.
_PROPERTIES = re.compile(r"^(?:DATABASE PROPERTIES - |ACL - DATABASE |COMMENT - DATABASE )")
_DATABASE = re.compile(r"^DATABASE - ")
_SCHEMA = re.compile(r"^SCHEMA - (?P<name>\S+) \S+$")
_LARGE = re.compile(r"^(?:BLOB |BLOBS |BLOB METADATA |ACL - LARGE OBJECT |COMMENT - LARGE OBJECT )")
#: Suffix of the name of a database that is being restored.
RESTORING = "_restoring"


@dataclass(frozen=True)
class Contents:
    """The contents of a dump.

    Attributes:
        lines: its table of contents, a line for each object.
        owner: the owner of the database.
        others: the owners of other objects.
        options: the options of CREATE DATABASE: encoding and locale.
    """

    lines: tuple[str, ...]
    owner: str
    others: frozenset[str]
    options: str

    def pick(self, *patterns: re.Pattern[str]) -> list[str]:
        """Return the lines that match one of the patterns."""
        return [line for line in self.lines if any(pattern.search(_text(line)) for pattern in patterns)]


def dump(login: Login, stream: IO[bytes]) -> None:
    """Dump a database.

    Args:
        login: a session role of the database.
        stream: where the dump is written: an open file or pipe.

    Raises:
        BackupError: the dump failed.
    """
    done = login.program("pg_dump", "--format=custom", "--create", "--compress=1", out=stream)
    if done.status:
        raise explain(done, f"PostgreSQL (database {login.database})")


def contents(archive: Archive) -> Contents:
    """Read the contents of a dump.

    Raises:
        BackupError: the file is not a dump of a database.
    """
    lines = tuple(line for line in archive.script("--list", "--create").splitlines() if _ENTRY.match(line))
    made = [line for line in lines if _DATABASE.search(_text(line))]
    script = archive.script("--create", entries=made) if made else ""
    options = re.search(r"^CREATE DATABASE .* WITH TEMPLATE = template0( [^;\n]*)?;$", script, re.MULTILINE)
    if not options:
        raise BackupError("The dump does not name its database.", "Create it with pg_dump --create.")
    owner = _owner(made[0])
    others = {_owner(line) for line in lines if not _EXTENSION.search(_text(line))} - {owner}
    return Contents(lines, owner, frozenset(others), options[1] or "")


def _owner(line: str) -> str:
    return _text(line).rsplit(" ", 1)[-1]


def _text(line: str) -> str:
    found = _ENTRY.match(line)
    return found["text"] if found else ""


class Archive:
    """A dump in a file that may be readable only for root.

    Args:
        cluster: the cluster whose programs read it.
        path: the file.
    """

    def __init__(self, cluster: Cluster, path: Path) -> None:
        self.cluster, self.path = cluster, path

    def script(self, *arguments: str, entries: list[str] | None = None) -> str:
        """Return the SQL or the listing that pg_restore prints for the dump.

        Raises:
            BackupError: pg_restore cannot read the dump.
        """
        nowhere = Login(self.cluster, Path("/nowhere"), 0, self.cluster.user)
        done = self.restore(nowhere, *arguments, "--file=-", entries=entries)
        if done.status:
            raise explain(done, "The dump")
        return done.out

    def restore(self, login: Login, *arguments: str, entries: list[str] | None = None) -> Done:
        """Restore some or all entries as a role."""
        lines = "".join(f"{line}\n" for line in entries or [])
        with tools.in_memory(lines) as listed, self.path.open("rb") as stream:
            chosen = [f"--use-list=/proc/self/fd/{listed}"] if entries is not None else []
            # Through standard input, because the user postgres cannot open the file.
            return login.program("pg_restore", *arguments, *chosen, stream=stream, lend=[listed])


def load(server: Server, name: str, path: Path, finish: Callable[[Login], None] | None = None) -> tuple[str, list[str]]:
    """Restore a dump into a database under a temporary name, to which no app connects.

    Args:
        server: the cluster.
        name: the final name of the database.
        path: the dump, created by ``pg_dump --format=custom --create``.
        finish: runs in the database as a session role before it gets its final name, such as a scrub. A BackupError
            undoes the restore.

    Returns:
        The temporary name, and notes for the operator.

    Raises:
        BackupError: the restore failed; nothing is left of it.
    """
    archive = Archive(server.cluster, path)
    held = contents(archive)
    there = {row[0]: row[1] == "t" for row in server.ask("SELECT rolname, rolsuper FROM pg_catalog.pg_roles")}
    if held.owner not in there:
        raise BackupError(
            f"The dump's database belongs to the role {held.owner}, which does not exist in this cluster.",
            "Run site.yml, which creates the roles of the apps.",
        )
    if there[held.owner]:
        raise BackupError(
            f"The dump's database belongs to the superuser {held.owner}. Code in it would run with all rights.",
            "Restore it next to the live cluster: ansible-playbook playbooks/restore.yml -e beside=true. Or restore "
            "the whole cluster.",
        )
    fresh = f"{name}{RESTORING}"
    drop(server, fresh)
    words = f"WITH OWNER = {quoted(held.owner)} TEMPLATE = template0{held.options}"
    server.ask(f"CREATE DATABASE {quoted(fresh)} {words}", None)
    try:
        server.ask(f"REVOKE ALL ON DATABASE {quoted(fresh)} FROM PUBLIC")
        notes = _fill(server, fresh, held, archive)
        with server.tenant(fresh) as login:
            if finish:
                finish(login)
            login.ask("ANALYZE", None)
    except BaseException:
        drop(server, fresh)
        raise
    return fresh, notes


def _fill(server: Server, fresh: str, held: Contents, archive: Archive) -> list[str]:
    """Restore the contents of a dump into an empty database. Return notes for the operator."""
    first = held.pick(_EXTENSION)
    if first:
        # The database is still empty, so an extension's script cannot run into the tenant's objects.
        script = archive.script(entries=first)
        schemas = {item.strip('"') for item in re.findall(r"^CREATE EXTENSION .* WITH SCHEMA (\S+);$", script, re.M)}
        found = {line for line in held.lines if (schema := _SCHEMA.search(_text(line))) and schema["name"] in schemas}
        first = [line for line in held.lines if line in {*found, *first}]
        inside = replace(server.superuser, database=fresh)
        _need(archive.restore(inside, "--exit-on-error", f"--dbname={fresh}", entries=first), fresh)
    mine = set(owners(server.superuser, fresh, held.others))
    strangers = sorted(held.others - mine - {"pg_database_owner", "-"})
    rest = [line for line in held.lines if line not in {*first, *held.pick(_DATABASE, _PROPERTIES)}]
    with tenant(server.superuser, fresh, also=held.others) as login:
        acting, words = login, []
        if strangers:
            # Objects of other owners, such as a superuser, go to the owner; large objects stay with the app.
            large = [line for line in rest if _LARGE.search(_text(line)) and _owner(line) not in strangers]
            _need(archive.restore(login, "--exit-on-error", f"--dbname={fresh}", entries=large), fresh)
            rest = [line for line in rest if line not in large]
            acting, words = login.pinning(role=held.owner), ["--no-owner"]
        _need(archive.restore(acting, "--exit-on-error", f"--dbname={fresh}", *words, entries=rest), fresh)
        login.ask(f"REASSIGN OWNED BY {quoted(login.role)} TO {quoted(held.owner)}; DROP OWNED BY {quoted(login.role)}")
    if not strangers:
        return []
    return [f"The objects of {', '.join(strangers)} in the database now belong to {held.owner}, like all others."]


def _need(done: Done, database: str) -> None:
    if done.status:
        raise explain(done, f"The database {database.removesuffix(RESTORING)}")


def set_properties(server: Server, name: str, path: Path) -> None:
    """Restore the settings and connection rights of a restored database.

    Raises:
        BackupError: PostgreSQL rejects a statement.
    """
    archive = Archive(server.cluster, path)
    last = contents(archive).pick(_PROPERTIES)
    # pg_restore restores the entries of the database itself only with --create, which starts with CREATE DATABASE.
    # That statement fails because the database exists. No other statement may fail.
    done = archive.restore(server.superuser, "--create", "--dbname=postgres", entries=last)
    alone = "errors ignored on restore: 1" in done.err and "already exists" in done.err
    if done.status and not (done.status == 1 and alone):
        raise explain(done, f"The database {name}")


def drop(server: Server, name: str) -> None:
    """Drop a database, if it exists."""
    server.ask(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)", None)


def rename(server: Server, names: list[tuple[str, str]]) -> None:
    """Rename databases, all or none, and end their connections, so that no app uses the old data by mistake.

    Args:
        server: the cluster.
        names: the current and the new name of each, in the order in which the new names become free.
    """
    for old, _new in names:
        server.ask(f"ALTER DATABASE {quoted(old)} WITH ALLOW_CONNECTIONS false")
        there = f"datname = {literal(old)} AND pid <> pg_backend_pid()"
        server.ask(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {there}")  # noqa: S608 - quoted
    # Do not close them permanently: pg_upgrade rejects a database without connections, and pg_dumpall omits it.
    steps = [
        f"ALTER DATABASE {quoted(old)} RENAME TO {quoted(new)}; "
        f"ALTER DATABASE {quoted(new)} WITH CONNECTION LIMIT {0 if '_before_' in new else -1} ALLOW_CONNECTIONS true; "
        for old, new in names
    ]
    server.ask(f"BEGIN; {''.join(steps)}COMMIT")


def let_in(server: Server, name: str) -> None:
    """Open a database again that a killed rename left closed."""
    server.ask(f"ALTER DATABASE {quoted(name)} WITH ALLOW_CONNECTIONS true")
