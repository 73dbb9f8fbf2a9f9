"""PostgreSQL's own client, run as the user postgres over the local socket."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.flaskhost.host.runner import Run, tail

#: What holds for every connection of ours. Names are looked for in PostgreSQL's own schema alone: an owner could else
#: put a function of its own in the way, which its superuser would then call. A digest of a password is in no log, also
#: where a statement fails.
OPTIONS = (
    "-c search_path= -c role=none -c local_preload_libraries= -c default_transaction_read_only=off"
    " -c standard_conforming_strings=on -c client_min_messages=warning -c log_statement=none"
    " -c log_min_error_statement=panic"
    " -c log_min_duration_statement=-1 -c statement_timeout=0 -c idle_in_transaction_session_timeout=60s"
    # Who finds somebody in the way gives up soon, so that nobody has to wait behind it, and comes back later.
    " -c lock_timeout=2s -c deadlock_timeout=100ms"
)


class PsqlError(Exception):
    """PostgreSQL did not answer, or refuses something; the text says why and what to do."""


def as_postgres(command: list[str]) -> list[str]:
    """A command that runs as the user postgres, and can become nobody else."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--no-new-privs", *command]


def answers(text: str) -> list[Any]:
    """The JSON values that psql has printed one after the other."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


class Psql:
    """Talks to a cluster as its superuser.

    Args:
        run: runs a command, as ``AnsibleModule.run_command`` does.
        cluster: the cluster, such as ``17/main``.
    """

    def __init__(self, run: Run, cluster: str) -> None:
        self.run_command = run
        client = ["psql", "--cluster", cluster, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        self.command = as_postgres([*client, "--set=ON_ERROR_STOP=1", "--dbname=postgres"])

    def run(self, sql: str) -> tuple[int, str, str]:
        """Run SQL; it goes in by the standard input, since there may be a secret in it."""
        environ = {"PGOPTIONS": OPTIONS, "PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "flaskhost", "LC_ALL": "C.UTF-8"}
        return self.run_command(self.command, data=sql, environ_update=environ, cwd="/", expand_user_and_vars=False)

    def ask(self, sql: str) -> list[Any]:
        """Run SQL that answers with JSON.

        Raises:
            PsqlError: there is no answer.
        """
        status, out, err = self.run(sql)
        if status:
            raise PsqlError(f"PostgreSQL says: {tail(err, 3) or 'nothing'}\nSee that it runs: pg_lsclusters")
        return answers(out)
