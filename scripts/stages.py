#!/usr/bin/env python3
"""Run make targets one after the other, stop at the first that fails, and say at the end what each took."""

from __future__ import annotations

import subprocess
import sys
import time

from common import ROOT, guarded, say


def main() -> int:
    """Run the targets that the command line names."""
    table: list[str] = []
    status = 0
    for target in sys.argv[1:]:
        say(f"make {target}")
        started = time.monotonic()
        try:
            command = ["make", "--no-print-directory", target]
            status = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603  # our own targets
        except KeyboardInterrupt:
            status = 130
        table.append(f"  {target:<18}{'ok' if status == 0 else 'FAILED':<8}{time.monotonic() - started:7.1f} s")
        if status != 0:
            break
    skipped = sys.argv[1 + len(table) :]
    table += [f"  {target:<18}not run" for target in skipped]
    print("\n" + "\n".join(table), flush=True)
    return status


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
