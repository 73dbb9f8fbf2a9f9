"""Read TOML files of an app's source, within limits that Python's own parser does not have.

The parser keeps each beginning of a dotted key in memory. A file of 40 KB, one key with 20,000 parts, takes 1.5 GB. So
does one of 16 MB with two million tables, in a minute, or with one number of eight million digits.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

#: Maximum number of parts of a dotted key, and maximum depth of tables and arrays.
_LONGEST_KEY, _DEEPEST = 50, 100
#: Maximum number of characters that begin a table, an array or a further part of a key, and of those that begin a
#: value. A uv.lock of 16 MB has about 20,000 and 800,000 of them.
_MOST_TABLES, _MOST_VALUES = 200_000, 1_000_000
#: Strings and comments. One without an end reaches to the end, where the parser would stop too. All repetitions are
#: possessive, so that no text makes them slow.
_TEXT = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:"{3,5}+|\\?\Z)|'
    r"'''(?:[^']++|'(?!''))*+(?:'{3,5}+|\Z)|"
    r'"(?:[^"\\\n]++|\\[^\n])*+"?+|'
    r"'[^'\n]*+'?+|#[^\n]*+",
    re.DOTALL,
)
#: A key, a number or a date that is longer than any other.
_LONG = re.compile(r"[A-Za-z0-9_+.:-]{1000}")
_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:[A-Za-z0-9_-]++[ \t]*+\.[ \t]*+){{{_LONGEST_KEY}}}")


class Damaged(ValueError):
    """A text is not TOML, or exceeds a limit."""


def loads(text: str) -> dict[str, Any]:
    """Parse a TOML file.

    Args:
        text: its content. The caller limits its length.

    Raises:
        Damaged: it is not valid, or no tool writes such a file.
    """
    outline = _TEXT.sub("_", text)
    tables, values = (sum(map(outline.count, characters)) for characters in ("[.", "{=,"))
    if tables > _MOST_TABLES or values > _MOST_VALUES:
        raise Damaged("it has too many tables or values")
    if _KEY.search(outline):
        raise Damaged(f"a key has more than {_LONGEST_KEY} parts")
    if _LONG.search(outline):
        raise Damaged("a key or a number is too long")
    del outline
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number can have too many digits.
        raise Damaged(str(error)) from None
    _check_depth(data)
    return data


def _check_depth(data: dict[str, Any]) -> None:
    """Reject a depth at which Python's own functions would fail, such as that of json."""
    level: list[Any] = [data]
    for _number in range(_DEEPEST):
        parts = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for part in parts for item in part if isinstance(item, (dict, list))]
        if not level:
            return
    raise Damaged(f"it is nested more than {_DEEPEST} levels deep")
