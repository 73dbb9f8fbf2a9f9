"""A writer on a host, and the rows that PostgreSQL has told it are safe: what the scenarios count after a fault."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

WRITER = Path(__file__).with_name("writer.py")
#: What the writer was told is safe.
NOTES = "/var/tmp/written"  # noqa: S108 - of the test, on its own host


def sql(host: Any, text: str, database: str = "guestbook") -> str:
    """Ask PostgreSQL, as its superuser."""
    done = host.run("cd / && runuser -u postgres -- psql --no-psqlrc -qAt -v ON_ERROR_STOP=1 -c %s %s", text, database)
    assert done.rc == 0, done.stderr
    return done.stdout.strip()


def rows(host: Any) -> list[int]:
    """The numbers that are in the database."""
    return [int(line) for line in sql(host, "SELECT n FROM written ORDER BY n").split()]


class Writer:
    """A writer on the host, and the numbers that it was told are safe, which are kept outside of the database.

    Args:
        host: the host.
        again: whether it connects again when it has lost PostgreSQL; else it ends then.
    """

    def __init__(self, host: Any, *, again: bool = False) -> None:
        self.host = host
        sql(host, "DROP TABLE IF EXISTS written; CREATE TABLE written (n bigint PRIMARY KEY);"
                  "GRANT ALL ON written TO guestbook")  # fmt: skip
        host.run(f"rm -f {NOTES}; install -o guestbook /dev/null {NOTES}")
        script = base64.b64encode(WRITER.read_bytes()).decode()
        host.run(f"echo {script} | base64 -d > /var/tmp/writer.py")
        command = f"python3 /var/tmp/writer.py {NOTES} guestbook {'--again' if again else ''}"
        host.run(f"systemd-run --unit=writer --uid=guestbook --collect {command}")

    def numbers(self, until: float | None = None) -> list[int]:
        """The acknowledged numbers, up to a time."""
        lines = (line.split() for line in self.host.file(NOTES).content_string.splitlines())
        return [int(number) for number, at in lines if until is None or float(at) <= until]

    def stop(self) -> None:
        """Let it end; it has written, or there would be nothing to lose."""
        self.host.run("systemctl stop writer")
        assert self.numbers(), "the writer has written nothing"
