"""Who opens sessions of PostgreSQL. A superuser's session in a tenant's database would run the tenant's code.

Each place is listed with the reason why it is safe, so that a new one is judged by a person.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from loading import ROOT

CLIENTS = "psql|pg_dump|pg_dumpall|pg_restore|pg_amcheck|vacuumdb|reindexdb|clusterdb"
#: The programs' places: which of them, and why so.
ALLOWED = {
    # The superuser's only session: without search_path, and only in the database postgres.
    "plugins/module_utils/flaskhost/postgres/psql.py": {"psql"},
    # As the app's own user and role.
    "plugins/module_utils/flaskhost/deploy/database.py": {"psql"},
    # The new cluster's statistics. ANALYZE runs functions of indexes with their owner's rights.
    "plugins/modules/postgres_upgrade.py": {"vacuumdb"},
    # As session roles, which have the rights of the tenant and no others.
    "roles/backup/files/flaskhost_backup/sessions.py": {"psql"},
    "roles/backup/files/flaskhost_backup/drill.py": {"pg_amcheck"},
    "roles/backup/files/flaskhost_backup/dumps.py": {"pg_dump", "pg_restore"},
    # Reads the catalog of the database postgres, and stays connected.
    "roles/postgres/files/flaskhost_postgres_limits.py": {"psql"},
}


def in_python(text: str) -> set[str]:
    """The clients among the texts of a program: a whole text, or the end of a path."""
    texts = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    found = (re.fullmatch(rf"(?:.*/)?({CLIENTS})", text) for text in texts if isinstance(text, str))
    return {match[1] for match in found if match}


def in_commands(text: str) -> set[str]:
    """The clients that a playbook or a script starts: with an option, or as the first word of a list."""
    return set(re.findall(rf"\b({CLIENTS})(?=,? +-)", re.sub(r"(?m)^\s*#.*$", "", text)))


def places() -> Iterator[tuple[str, set[str]]]:
    """Each file of the product that starts a client."""
    for folder in ("plugins", "roles", "playbooks"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".yml", ".j2", ".sh"} and (found := clients(path)):
                yield str(path.relative_to(ROOT)), found


def clients(path: Path) -> set[str]:
    """The clients of one file."""
    text = path.read_text()
    return in_python(text) if path.suffix == ".py" else in_commands(text)


def test_a_client_in_any_form_is_found() -> None:
    assert in_python('run([f"{bin}/psql", "-c", x]); run(["pg_dump"]); """psql is not used."""') == {"psql", "pg_dump"}
    assert in_commands("argv: [psql, --command, x]\ncmd: pg_dump --format=custom\n# psql -c x") == {"psql", "pg_dump"}


def test_only_these_places_open_sessions_of_postgresql() -> None:
    assert dict(places()) == ALLOWED
