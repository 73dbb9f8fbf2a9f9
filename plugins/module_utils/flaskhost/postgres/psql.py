"""Run PostgreSQL's client psql as the user postgres on the local socket."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.flaskhost.host.runner import Run, tail

#: Settings of all our connections. The search path is empty, so that names resolve only in pg_catalog: otherwise a
#: database owner could shadow a function, and our superuser would call it. Password hashes never reach the log, even if
#: a statement fails.
OPTIONS = (
    "-c search_path= -c role=none -c local_preload_libraries= -c default_transaction_read_only=off"
    " -c standard_conforming_strings=on -c client_min_messages=warning -c log_statement=none"
    " -c log_min_error_statement=panic"
    " -c log_min_duration_statement=-1 -c statement_timeout=0 -c idle_in_transaction_session_timeout=60s"
    # Give up on a lock soon, so that no other session waits behind our statement. It is retried later.
    " -c lock_timeout=2s -c deadlock_timeout=100ms"
)


class PsqlError(Exception):
    """PostgreSQL does not respond, or rejects a statement; the message contains the reason and the fix."""


def as_postgres(command: list[str]) -> list[str]:
    """Return a command that runs as the user postgres and cannot gain other privileges."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--no-new-privs", *command]


def answers(text: str) -> list[Any]:
    """Parse the JSON values that psql printed one after the other."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


class Psql:
    """Connects to a cluster as its superuser.

    Args:
        run: runs a command, with the interface of ``AnsibleModule.run_command``.
        cluster: the cluster, such as ``17/main``.
    """

    def __init__(self, run: Run, cluster: str) -> None:
        self.run_command = run
        client = ["psql", "--cluster", cluster, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        self.command = as_postgres([*client, "--set=ON_ERROR_STOP=1", "--dbname=postgres"])

    def run(self, sql: str) -> tuple[int, str, str]:
        """Run SQL, passed on standard input because it can contain secrets."""
        environ = {"PGOPTIONS": OPTIONS, "PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "flaskhost", "LC_ALL": "C.UTF-8"}
        return self.run_command(self.command, data=sql, environ_update=environ, cwd="/", expand_user_and_vars=False)

    def ask(self, sql: str) -> list[Any]:
        """Run SQL that returns JSON.

        Raises:
            PsqlError: the query failed.
        """
        status, out, err = self.run(sql)
        if status:
            raise PsqlError(f"PostgreSQL reported: {tail(err, 3) or 'nothing'}\nCheck that it runs: pg_lsclusters")
        return answers(out)
