"""SQL that takes out of a database what must not be in it, run so that a scrub that did not happen is never believed.

psql only carries the text: inside a dollar-quoted literal it knows no commands of its own, so there is no ``\\q`` that
would end the session with status 0. The server runs the text as one statement, in which it refuses COMMIT, ROLLBACK
and COPY from the client. So either all of the text has been run and is committed, or there is an error.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from flaskhost_backup.config import BackupError
from flaskhost_backup.explain import explain
from flaskhost_backup.sessions import Login

_CURE = (
    "Correct the scrub file. It is plain SQL and runs in one transaction. BEGIN, COMMIT, COPY ... FROM STDIN and "
    "The commands of psql (\\\\...) are not supported."
)


def read(path: Path) -> str:
    """Read a scrub.

    Raises:
        BackupError: it is no text.
    """
    try:
        sql = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BackupError("The scrub file is not UTF-8 text.", _CURE) from None
    if "\0" in sql:
        raise BackupError("The scrub file contains a NUL character, which SQL does not allow.", _CURE)
    return sql


def script(sql: str, tag: str) -> str:
    """What psql is given: the transaction, with its number before and after the scrub.

    What the scrub has created becomes the property of the database's owner.
    """
    # The closing tag has a line of its own: the scrub may end with a comment.
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
    """Run a scrub, and make sure that it has been run to its end and committed.

    Args:
        login: a session role with the rights of the database's owner.
        sql: the scrub.

    Raises:
        BackupError: it failed, or it cannot be shown that it did not; nothing of it has happened.
    """
    # The names in it are found as everywhere: not with the empty search_path of our own questions.
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
