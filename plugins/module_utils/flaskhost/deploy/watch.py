"""The watch over a new live release: the responses to visitors, according to the web server's access log."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

#: Fewer errors than this count as chance, even with few requests.
MINIMUM_ERRORS = 3
#: The share of errors by which the new release can exceed the previous one.
ERROR_MARGIN = 0.05
#: Minimum number of responses before their times are compared.
MINIMUM_ANSWERS = 10
#: Slow: the median response takes this many times as long as before, and at least this many seconds.
SLOW_FACTOR, SLOW_SECONDS = 4.0, 1.0
#: Bytes at the end of the log that are read for the traffic before: a few thousand requests.
TAIL_BYTES = 1024 * 1024


@dataclass
class Traffic:
    """The requests of one release.

    Attributes:
        release: the release, as the app server identifies itself in the log; empty for none.
        others: whether a 502 or 504 without a release counts too: no app server responded.
        answers: number of requests.
        errors: number of 5xx responses among them.
        times: the app's response times in seconds.
    """

    release: str
    others: bool = False
    answers: int = 0
    errors: int = 0
    times: list[float] = field(default_factory=list)

    @property
    def error_share(self) -> float:
        """Share of errors among the responses."""
        return self.errors / self.answers if self.answers else 0.0

    def add(self, lines: list[bytes]) -> None:
        """Count the requests in lines of the access log: JSON with ``status``, ``release`` and ``upstream_time``."""
        for line in lines:
            try:
                entry = json.loads(line)
                status, named = int(entry["status"]), entry["release"]
            except (ValueError, KeyError, TypeError):
                continue
            unanswered = self.others and not named and status in (502, 504)
            if not unanswered and (not named or named != self.release):
                continue
            self.answers += 1
            self.errors += status >= 500
            try:
                self.times.append(float(str(entry.get("upstream_time", "")).split(",")[-1]))
            except ValueError:
                continue


def verdict(before: Traffic, now: Traffic) -> str:
    """Describe the problem with the live release; empty if there is none.

    Args:
        before: the traffic of the previous release.
        now: the traffic of the live release.
    """
    if now.errors >= MINIMUM_ERRORS and now.error_share > before.error_share + ERROR_MARGIN:
        earlier = f"; with the previous release it was {before.errors} of {before.answers}" if before.answers else ""
        return f"{now.errors} of {now.answers} requests ended with a server error (5xx){earlier}"
    if len(now.times) >= MINIMUM_ANSWERS:
        usual, present = median(before.times) if before.times else 0.0, median(now.times)
        if before.times and present > max(SLOW_SECONDS, SLOW_FACTOR * usual):
            return f"the median response time is {present:.2f} s; with the previous release it was {usual:.2f} s"
    return ""


class AccessLog:
    """The access log of one app, read from its current end.

    Args:
        path: the file; optional.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inode, self.position = self._end()

    def _end(self) -> tuple[int, int]:
        try:
            status = self.path.stat()
        except OSError:
            return 0, 0
        return status.st_ino, status.st_size

    def begin(self) -> None:
        """Start to read at the current end of the log."""
        self.inode, self.position = self._end()

    def before(self, release: str) -> Traffic:
        """Return the traffic of a release in the last megabyte of the log, including requests without a response."""
        # They count on both sides: if the site was down before, visitors' errors are not the new release's fault.
        traffic = Traffic(release, others=True)
        try:
            with self.path.open("rb") as stream:
                stream.seek(max(0, self.position - TAIL_BYTES))
                lines = stream.read(min(self.position, TAIL_BYTES)).splitlines()
        except OSError:
            return traffic
        traffic.add(lines)
        return traffic

    def new_lines(self) -> list[bytes]:
        """Return the complete lines written since the last call. A rotated log is read from its beginning."""
        try:
            with self.path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                if status.st_ino != self.inode or status.st_size < self.position:
                    self.inode, self.position = status.st_ino, 0
                stream.seek(self.position)
                whole, newline, _rest = stream.read().rpartition(b"\n")
        except OSError:
            return []
        self.position += len(whole) + len(newline)
        return whole.splitlines()
