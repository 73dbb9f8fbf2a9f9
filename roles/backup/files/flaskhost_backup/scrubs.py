"""Run SQL that removes confidential data from a database, so that an incomplete scrub never counts as done.

psql only passes the text on: inside a dollar-quoted literal, it does not interpret its own commands, so ``\\q`` cannot
end the session with status 0. The server runs the text as one statement, in which it rejects COMMIT, ROLLBACK and COPY
from the client. So either the whole text has run and is committed, or there is an error.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from flaskhost_backup.config import BackupError
from flaskhost_backup.explain import explain
from flaskhost_backup.sessions import Login

_CURE = (
    "Correct the scrub file. It is plain SQL and runs in one transaction. BEGIN, COMMIT, COPY ... FROM STDIN and "
    "commands of psql (\\...) are not supported."
)


def read(path: Path) -> str:
    """Read a scrub.

    Raises:
        BackupError: the file is not text.
    """
    try:
        sql = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BackupError("The scrub file is not UTF-8 text.", _CURE) from None
    if "\0" in sql:
        raise BackupError("The scrub file contains a NUL character, which SQL does not allow.", _CURE)
    return sql


def script(sql: str, tag: str) -> str:
    """Return the input of psql: the transaction, with its number before and after the scrub.

    Objects that the scrub creates belong to the database's owner.
    """
    # The closing tag is on its own line, because the scrub can end with a comment.
    return f"""BEGIN;
SELECT pg_catalog.pg_current_xact_id();
DO $do{tag}$ BEGIN EXECUTE $sql{tag}$
{sql}
$sql{tag}$; END $do{tag}$;
RESET ROLE;
SELECT pg_catalog.format('REASSIGN OWNED BY %I TO %I', session_user, pg_catalog.pg_get_userbyid(datdba))
  FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database() \\gexec
SELECT pg_catalog.pg_current_xact_id();
COMMIT;
"""  # noqa: S608 - the operator's own SQL


def run(login: Login, sql: str) -> None:
    """Run a scrub, and verify that it ran to its end and was committed.

    Args:
        login: a session role with the rights of the database's owner.
        sql: the scrub.

    Raises:
        BackupError: it failed, or its success cannot be verified; none of it took effect.
    """
    # Names in it resolve as usual, not with the empty search_path of our own queries.
    acting = login.pinning(search_path=None)
    done = acting.run(script(sql, secrets.token_hex(16)), None)
    if done.status:
        problem = explain(done, f"The scrub of {login.database}")
        raise BackupError(f"The scrub failed: {problem.reason}", f"{problem.cure} {_CURE}".strip())
    numbers = done.out.split()
    if len(numbers) != 2 or numbers[0] != numbers[1] or not numbers[0].isdigit():
        raise BackupError("The scrub did not complete in one transaction.", _CURE)
    if login.ask(f"SELECT pg_catalog.pg_xact_status('{numbers[0]}')") != [["committed"]]:
        raise BackupError("The scrub was not committed.", _CURE)
