"""The apps' databases and roles in PostgreSQL, as they should be, and how SQL quotes their names.

Each database has an owner, which creates and changes its tables, and the role of the app, which reads and writes rows
and nothing else. If both are the same role, the app does all of it. No other role can connect: the rights on a
database that PostgreSQL grants to everybody (PUBLIC) are revoked.

:mod:`database_questions` reads what exists, and :mod:`database_steps` plans the changes. Both only produce SQL. Nothing
here talks to PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: The cluster's own databases, which only its superuser needs.
CLOSED = ("postgres", "template1")
#: Attributes that reach beyond a database. No role of an app has them.
ATTRIBUTES = ("rolsuper", "rolcreatedb", "rolcreaterole", "rolreplication", "rolbypassrls")
#: Rights of the app's role on what the owner creates, by the letter of the object type in pg_default_acl.
DEFAULT_RIGHTS = {
    "r": ("TABLES", ("SELECT", "INSERT", "UPDATE", "DELETE")),
    "S": ("SEQUENCES", ("USAGE", "SELECT", "UPDATE")),
    "f": ("FUNCTIONS", ("EXECUTE",)),
    "T": ("TYPES", ("USAGE",)),
    "n": ("SCHEMAS", ("USAGE",)),
}


class DatabaseError(Exception):
    """Roles or databases cannot be as requested; the text says why and what to do."""


class InTheWay(DatabaseError):
    """Another session holds a lock, so a later attempt can succeed."""


@dataclass(frozen=True)
class Login:
    """A role that logs in over the network and then acts as the app's role.

    Attributes:
        name: its name.
        password: its password. Without a password, it cannot log in.
    """

    name: str
    password: str = ""


@dataclass(frozen=True)
class Database:
    """A database and its roles, as they should be.

    Attributes:
        name: the name of the database and of the app's role.
        owner: the role that owns the database; the app's role if the names are equal.
        password: the owner's password. Without a password, an owner that is not the app's role cannot log in.
        connections: connection limit of the app's role; -1 for none.
        owner_connections: connection limit of the owner; -1 for none.
        settings: settings of the app's role, such as ``statement_timeout``; an empty text resets one.
        temporary: limit of the temporary files of all connections of a role together, in MB; 0 for none.
        extensions: the extensions in the database.
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
        """Return the setting that limits the temporary files of a connection. All databases share their folder.

        Only a superuser may change it (PostgreSQL, Resource Consumption, ``temp_file_limit``).

        Args:
            connections: how many connections share the limit; -1 for any number, which counts as 100.
        """
        share = max(16, self.temporary // (connections if connections > 0 else 100))
        return {"temp_file_limit": f"{share}MB" if self.temporary else ""}

    @property
    def shared(self) -> bool:
        """Whether the app's role is the owner."""
        return self.owner == self.name

    @property
    def former(self) -> str:
        """The role that still owns objects in the database, if the owner was another one before."""
        return f"{self.name}-owner" if self.shared else self.name

    @property
    def roles(self) -> list[str]:
        """All roles of the database."""
        return list(dict.fromkeys([self.name, self.owner, self.former, *(login.name for login in self.logins)]))


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text for SQL. Backslashes are plain characters (``standard_conforming_strings``)."""
    return "'" + text.replace("'", "''") + "'"
