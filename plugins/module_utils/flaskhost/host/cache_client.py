"""Ask a small instance of Redis or Memcached how it is, over its Unix socket.

Clients of the instance decide how busy it is, and its user could replace the socket. So the answers are limited in size
and time, and the process behind the socket must belong to the expected user.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

#: Maximum number of bytes of an answer.
LONGEST = 65_536
#: A line of Redis' INFO keyspace, such as ``db0:keys=3,expires=1,avg_ttl=0``.
_KEYSPACE = re.compile(r"keys=(\d{1,18}),expires=(\d{1,18})\b.*")


class NoAnswer(OSError):
    """The instance did not answer; the text is the reason."""

    def __str__(self) -> str:
        return str(self.args[0])


class Keys(NamedTuple):
    """The keys of a database of Redis.

    Attributes:
        all: all keys.
        expiring: the keys that expire.
    """

    all: int
    expiring: int

    @property
    def lasting(self) -> int:
        """The keys that do not expire."""
        return self.all - self.expiring


def info_of_redis(path: Path, user: int, seconds: float) -> dict[str, str]:
    """Return what Redis says about its memory, its files and its keys.

    Args:
        path: the socket.
        user: the user ID that the process must have.
        seconds: time limit.

    Raises:
        NoAnswer: it did not answer, or not with that, or has not loaded its data yet.
    """
    answer = _ask(path, user, b"INFO memory persistence keyspace\r\n", _whole_bulk, seconds)
    if not answer.startswith("$"):
        # Such as "-LOADING Redis is loading the dataset in memory".
        raise NoAnswer(plain(answer.partition("\r\n")[0].lstrip("-")))
    found = dict(line.split(":", 1) for line in answer.split("\r\n")[1:] if ":" in line)
    # It answers this question although it refuses others then, with the keys that it has read so far.
    if found.get("loading") != "0":
        raise NoAnswer("it still loads its data")
    return found


def keys_of_redis(info: Mapping[str, str]) -> dict[str, Keys]:
    """Return the keys of each database, by its number; databases without keys are missing.

    Args:
        info: the result of :func:`info_of_redis`.
    """
    found = {}
    for name, value in info.items():
        keys = _KEYSPACE.fullmatch(value) if re.fullmatch(r"db\d+", name) else None
        if keys:
            found[name[2:]] = Keys(int(keys[1]), int(keys[2]))
    return found


def memcached_stats(path: Path, user: int, seconds: float) -> dict[str, str]:
    """Return the statistics of Memcached. Takes the arguments of :func:`info_of_redis`.

    Raises:
        NoAnswer: it did not answer, or not with that.
    """
    answer = _ask(path, user, b"stats\r\n", lambda data: data.endswith(b"END\r\n"), seconds)
    lines = [line.split(" ", 2) for line in answer.split("\r\n") if line.startswith("STAT ")]
    if not lines:
        raise NoAnswer(plain(answer) or "an empty answer")
    return {words[1]: words[2] for words in lines if len(words) == 3}


def _ask(path: Path, user: int, question: bytes, is_whole: Callable[[bytes], bool], seconds: float) -> str:
    last = time.monotonic() + seconds
    data = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(path))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if struct.unpack("3i", credentials)[1] != user:
                raise NoAnswer("another user's process is behind its socket")
            connection.sendall(question)
            while not is_whole(data):
                left = last - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                part = connection.recv(LONGEST)
                if not part or len(data) + len(part) > LONGEST:
                    raise NoAnswer("it closed the connection" if not part else "its answer is too long")
                data += part
    except NoAnswer:
        raise
    except TimeoutError:
        raise NoAnswer(f"no answer within {seconds:g} s") from None
    except OSError as error:
        raise NoAnswer(error.strerror or str(error)) from None
    return data.decode("utf-8", "replace")


def _whole_bulk(data: bytes) -> bool:
    """Check whether an answer of Redis is complete: an error, which is one line, or a text with its length in front."""
    first, end, rest = data.partition(b"\r\n")
    if not end:
        return False
    return not re.fullmatch(rb"\$\d{1,9}", first) or len(rest) >= int(first[1:]) + 2


def plain(text: str, longest: int = 200) -> str:
    """Return a text on one line, without control characters that a client may have written."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[: longest * 2]).split())[:longest]
