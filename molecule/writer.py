"""Runs on a host as the user guestbook: commits numbered rows, and notes each number once PostgreSQL has said yes.

python3 writer.py FILE    until PostgreSQL goes away
"""

import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Write until it cannot."""
    psql = subprocess.Popen(
        ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "guestbook"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with Path(sys.argv[1]).open("a", encoding="utf-8", buffering=1) as notes:
        number = 0
        while True:
            number += 1
            try:
                psql.stdin.write(f"INSERT INTO written (n) VALUES ({number}) RETURNING n;\n")  # noqa: S608 - a number
                psql.stdin.flush()
            except BrokenPipeError:
                return
            if psql.stdout.readline().strip() != str(number):
                return
            notes.write(f"{number} {time.time():.6f}\n")
            time.sleep(0.01)


if __name__ == "__main__":
    main()
