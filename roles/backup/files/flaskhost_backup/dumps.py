"""A database out of a cluster and into another: dumped and restored with the rights of its owner.

A restore runs code of the tenant's: CHECK constraints, generated columns and domains while rows come in, the functions
of expression indexes, triggers. So a superuser only does what touches an empty database: it creates it, with the
extensions. All else is restored by a session role (sessions.py), under another name, which no app connects to.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flaskhost_backup import tools
from flaskhost_backup.cluster import Server
from flaskhost_backup.config import BackupError, Cluster
from flaskhost_backup.explain import explain
from flaskhost_backup.sessions import Login, literal, owners, quoted, tenant
from flaskhost_backup.tools import Done

#: A line of a dump's table of contents: its number, two object identifiers, then what it is, its name and its owner.
_ENTRY = re.compile(r"^\d+; \d+ \d+ (?P<text>.+)$")
#: What the superuser restores into the empty database.
_EXTENSION = re.compile(r"^(?:EXTENSION - |COMMENT - EXTENSION )")
#: What belongs to the database itself, and is restored when it has its name.
_PROPERTIES = re.compile(r"^(?:DATABASE PROPERTIES - |ACL - DATABASE |COMMENT - DATABASE )")
_DATABASE = re.compile(r"^DATABASE - ")
_SCHEMA = re.compile(r"^SCHEMA - (?P<name>\S+) \S+$")
_LARGE = re.compile(r"^(?:BLOB |BLOBS |BLOB METADATA |ACL - LARGE OBJECT |COMMENT - LARGE OBJECT )")
#: Ends the name of a database that is being restored.
RESTORING = "_restoring"


@dataclass(frozen=True)
class Contents:
    """What a dump holds.

    Attributes:
        lines: its table of contents, a line for each object.
        owner: who owns the database.
        others: who else owns something.
        options: the words of CREATE DATABASE: encoding and locale.
    """

    lines: tuple[str, ...]
    owner: str
    others: frozenset[str]
    options: str

    def pick(self, *patterns: re.Pattern[str]) -> list[str]:
        """The lines that fit one of the patterns."""
        return [line for line in self.lines if any(pattern.search(_text(line)) for pattern in patterns)]


def dump(server: Server, database: str, path: Path) -> None:
    """Dump a database of a cluster that nobody else connects to.

    Args:
        server: the cluster.
        database: which.
        path: a new file, in a folder of root's.

    Raises:
        BackupError: it cannot be.
    """
    with server.tenant(database, reads_all=True) as login, path.open("xb") as stream:
        done = login.program("pg_dump", "--format=custom", "--create", "--compress=1", out=stream)
    if done.status:
        raise explain(done, "The restored cluster")


def contents(archive: Archive) -> Contents:
    """Read what a dump holds.

    Raises:
        BackupError: it is no dump of a database.
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
    """A dump in a file, which may be one that only root reads.

    Args:
        cluster: whose programs read it.
        path: the file.
    """

    def __init__(self, cluster: Cluster, path: Path) -> None:
        self.cluster, self.path = cluster, path

    def script(self, *arguments: str, entries: list[str] | None = None) -> str:
        """What pg_restore would do, or has to say of the dump.

        Raises:
            BackupError: it cannot read it.
        """
        nowhere = Login(self.cluster, Path("/nowhere"), 0, self.cluster.user)
        done = self.restore(nowhere, *arguments, "--file=-", entries=entries)
        if done.status:
            raise explain(done, "The dump")
        return done.out

    def restore(self, login: Login, *arguments: str, entries: list[str] | None = None) -> Done:
        """Restore some entries, or all, as a role."""
        lines = "".join(f"{line}\n" for line in entries or [])
        with tools.in_memory(lines) as listed, self.path.open("rb") as stream:
            chosen = [f"--use-list=/proc/self/fd/{listed}"] if entries is not None else []
            # By its standard input: postgres itself could not open it.
            return login.program("pg_restore", *arguments, *chosen, stream=stream, lend=[listed])


def load(server: Server, name: str, path: Path, finish: Callable[[Login], None] | None = None) -> tuple[str, list[str]]:
    """Restore a dump into a database under another name, which no app connects to.

    Args:
        server: the cluster.
        name: the name that the database is to get.
        path: the dump, made by ``pg_dump --format=custom --create``.
        finish: what is done in it before it gets its name, as a session role: a scrub, for instance. A BackupError of
            it undoes the restore.

    Returns:
        The name that it has until then, and what there is to tell.

    Raises:
        BackupError: it cannot be; nothing is left of it.
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
    """Restore what a dump holds into an empty database; return what there is to tell."""
    first = held.pick(_EXTENSION)
    if first:
        # Still empty: there is nothing of the tenant's that a script of an extension could meet.
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
            # What a superuser owned, for instance, can only become the owner's; large objects stay the app's.
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
    """Give a database that was restored its settings, and who may connect to it.

    Raises:
        BackupError: PostgreSQL refuses.
    """
    archive = Archive(server.cluster, path)
    last = contents(archive).pick(_PROPERTIES)
    # No entry of a database's own is restored without --create, which always begins with CREATE DATABASE: it fails,
    # since the database is there, and may be the only statement that does.
    done = archive.restore(server.superuser, "--create", "--dbname=postgres", entries=last)
    alone = "errors ignored on restore: 1" in done.err and "already exists" in done.err
    if done.status and not (done.status == 1 and alone):
        raise explain(done, f"The database {name}")


def drop(server: Server, name: str) -> None:
    """Drop a database, where it is there."""
    server.ask(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)", None)


def rename(server: Server, names: list[tuple[str, str]]) -> None:
    """Rename databases, all of them or none, and end who is in them; under a name of before no app gets in by mistake.

    Args:
        server: the cluster.
        names: the present name and the new one of each, in the order in which a new one becomes free.
    """
    for old, _new in names:
        server.ask(f"ALTER DATABASE {quoted(old)} WITH ALLOW_CONNECTIONS false")
        there = f"datname = {literal(old)} AND pid <> pg_backend_pid()"
        server.ask(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {there}")  # noqa: S608 - quoted
    # Not closed for good: pg_upgrade refuses a database that nobody can connect to, and pg_dumpall leaves it out.
    steps = [
        f"ALTER DATABASE {quoted(old)} RENAME TO {quoted(new)}; "
        f"ALTER DATABASE {quoted(new)} WITH CONNECTION LIMIT {0 if '_before_' in new else -1} ALLOW_CONNECTIONS true; "
        for old, new in names
    ]
    server.ask(f"BEGIN; {''.join(steps)}COMMIT")


def let_in(server: Server, name: str) -> None:
    """Open a database again that a rename which was killed has closed."""
    server.ask(f"ALTER DATABASE {quoted(name)} WITH ALLOW_CONNECTIONS true")
