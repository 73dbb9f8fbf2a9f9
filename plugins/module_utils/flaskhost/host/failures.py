"""Failures of the programs that run on servers, as sentences for the operator."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

#: The variable that systemd sets for its services. journald reads a line's priority from its start (sd-daemon(3)).
UNIT = "INVOCATION_ID"
ERROR = "<3>"


class Failure(Exception):
    """A failure that an operator can do something about.

    Attributes:
        reason: what is wrong, as a sentence without secrets.
        cure: what to do next, as a sentence; can be empty.
    """

    def __init__(self, reason: str, cure: str = "") -> None:
        super().__init__(f"{reason} {cure}".strip())
        self.reason = reason
        self.cure = cure


def system_error(error: OSError) -> str:
    """Describe an error of the system, such as ``No space left on device (/srv/shop)``."""
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}"


def defect(error: BaseException, program: str, *, secret: bool = False) -> str:
    """Describe an unexpected exception in a sentence.

    Args:
        error: the exception.
        program: the program's name.
        secret: whether the exception's own text can contain a secret, and is left out.
    """
    places = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    text = "" if secret else f": {str(error)[:200]}"
    return f"{program} has a bug: {type(error).__name__}{where}{text}. Please report it."


def report(problem: str) -> None:
    """Print a problem on one line to standard error, for the journal with the priority of an error."""
    priority = ERROR if os.environ.get(UNIT) else ""
    print(f"{priority}{' '.join(problem.split())}", file=sys.stderr)
