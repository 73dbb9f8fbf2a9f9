"""Runs on a host as an app's user: commits numbered rows, and notes each number once PostgreSQL has said yes.

python3 writer.py FILE DATABASE            until PostgreSQL goes away
python3 writer.py FILE DATABASE --again    over a new connection when one is lost, until it is ended
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO


def write(database: str, notes: TextIO, number: int) -> int:
    """Write over one connection until it is lost; return the last number that was sent."""
    psql = subprocess.Popen(
        ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", database],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while True:
        number += 1
        try:
            psql.stdin.write(f"INSERT INTO written (n) VALUES ({number}) RETURNING n;\n")
            psql.stdin.flush()
        except BrokenPipeError:
            return number
        if psql.stdout.readline().strip() != str(number):
            return number
        notes.write(f"{number} {time.time():.6f}\n")
        time.sleep(0.01)


def main() -> None:
    """Write until it cannot, or for ever."""
    number = 0
    with Path(sys.argv[1]).open("a", encoding="utf-8", buffering=1) as notes:
        while True:
            # A number whose answer was lost may be in the table. It is not sent again.
            number = write(sys.argv[2], notes, number)
            if "--again" not in sys.argv:
                return
            time.sleep(0.2)


if __name__ == "__main__":
    main()
