#!/usr/bin/env python3
"""Visitors at a fixed rate, to see whether a deploy loses one of them: HTTPS, standard library only.

The rate does not fall when the site gets slow (an open loop): who waits for an answer before the next question asks
least when it matters most. Of the requests half go over connections that are kept open and used again, half over new
ones. Most are fast; some are slow, some are uploads, some are answers that come in pieces, so that at every moment some
of each kind are under way.

Every request has a time limit and ends as good or as lost. Lost is: the connection is refused or reset, no answer in
time, a status that is not 200 (502 of the proxy and 500 of the app alike), a body that is cut off or is not the one
wanted, and a request that could not be sent since too many were waiting.

Connections are kept as a browser keeps them. One that the server has closed while it was idle, before anything of the
next request was written, is replaced by a new one: nobody has lost anything. Once the request has been written, an end
of the connection is a loss. A browser would ask once more; here it counts, since not every client does, and not every
request may be asked twice. `--resend` is for where a server cannot do better: nginx that is reloaded closes the idle
connections at once, and what was on its way over one of them has not been seen by anybody.

    python tests/load_client.py --domain hello.test --port 14312 --seconds 60

prints one JSON line at the end (see `Report`). In a test it runs beside the deploy, as a process of its own:

    with Load("hello.test", 14312) as load:
        deploy()
    assert load.report.lost == 0, load.report.text()
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import hashlib
import json
import logging
import os
import resource
import select
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: One request in so many is of this kind; all others are fast.
EVERY = {"slow": 40, "upload": 40, "stream": 80}
#: Seconds that a slow answer and one in pieces take.
SLOW_SECONDS, STREAM_SECONDS = 0.5, 1.0
#: An upload: its bytes, in so many pieces, over so many seconds.
UPLOAD_BYTES, UPLOAD_PIECES, UPLOAD_SECONDS = 300_000, 10, 0.3
#: Connections that are kept open at the least. With one or two that are always busy no idle one would ever be closed.
POOL = 16
#: Seconds after which a release that answers again was switched back to: nginx closes its last connections after one
#: (roles/nginx), and no deploy is over within two.
LINGER = 2.0
#: The most that is written out of what can be many: lost requests, slowest requests.
SHOWN_LOST, SHOWN_SLOWEST = 200, 10
#: Seconds within which the site has to give its first answers.
START_SECONDS = 15.0
#: Milliseconds of delay of the client itself below which nobody asks why.
NOTED_LAG_MS = 5.0
#: Seconds of such a delay above which the requests of that time are left out. Made up for all at once they would be a
#: flood, which no site has earned because the machine of its visitors stood still.
SKIPPED_LAG = 0.25


@dataclass(frozen=True)
class Plan:
    """What to ask.

    Attributes:
        domain: the site's name, for SNI and the Host header.
        port: the port.
        address: the address to connect to.
        rate: requests per second.
        seconds: when to end; 0 for never.
        requests: how many requests at the most; 0 for no limit.
        timeout: seconds that one request may take, its connection included.
        max_in_flight: requests that may wait at a time; one more is not sent, and lost.
        path: what a fast request asks for.
        only_fast: for an app without /slow, /upload and /stream.
        until_file: ends the load when it exists.
        resend: ask once more, over a new connection, where a kept one has ended before anything of the answer came, as
            browsers do: a server that closes idle connections cannot know what is on its way to it (RFC 9112, 9.3.1).
        nice: the priority to ask for, as of nice(1): the visitors of a real site do not share its processors. Taken
            where the rights allow it.
        announce: write a first line when the site has given its first answers.
    """

    domain: str
    port: int
    address: str = "127.0.0.1"
    rate: float = 200.0
    seconds: float = 0.0
    requests: int = 0
    timeout: float = 15.0
    max_in_flight: int = 2000
    path: str = "/whoami"
    only_fast: bool = False
    until_file: str = ""
    resend: bool = False
    nice: int = -5
    announce: bool = False


@dataclass
class Report:
    """What became of the requests. Times are seconds since 1970, durations milliseconds.

    Attributes:
        requests: all that were due, the lost ones included.
        lost: how many of them were lost.
        reasons: the lost ones by reason, such as ``reset``, ``timed out`` and ``status 502``.
        kinds: requests and losses by kind: ``{"fast": {"requests": 100, "lost": 0}}``.
        lost_requests: the first lost ones: ``at`` (when it began), ``kind``, ``connection`` (new or kept), ``reason``,
            ``ms``, ``release``.
        lost_by_second: lost ones by the whole second in which they began.
        first_lost: when the first lost one began; 0 where none was.
        last_lost: when the last lost one began; 0 where none was.
        releases: good answers by the release that gave them.
        switches: when another release than before was seen first: ``at`` and ``release``.
        across: requests by kind that had begun before a switch, and ended well after it with the answer of the release
            that served before.
        worst_ms: the longest of the fast requests that were answered, with the time to connect.
        p50_ms: half of the fast requests took no longer.
        p99_ms: and 99 of 100.
        slowest: the slowest fast requests: ``at``, ``ms``, ``connection``, ``release`` and ``lag_ms``, by how much the
            client itself was late in that time. A request that is as slow as the client was late says nothing.
        lag_ms: by how much the client was late at the worst.
        skipped: requests that were due while it was late by more than `SKIPPED_LAG`, left out and counted nowhere else.
        replaced: kept connections that the server had closed while they were idle.
        resent: requests that were made once more (see `Plan.resend`), by kind.
        rate: requests per second that were really sent.
        seconds: how long it took.
        nice: the client's priority.
    """

    requests: int = 0
    lost: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    lost_requests: list[dict[str, Any]] = field(default_factory=list)
    lost_by_second: dict[str, int] = field(default_factory=dict)
    first_lost: float = 0.0
    last_lost: float = 0.0
    releases: dict[str, int] = field(default_factory=dict)
    switches: list[dict[str, Any]] = field(default_factory=list)
    across: dict[str, int] = field(default_factory=dict)
    worst_ms: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    slowest: list[dict[str, Any]] = field(default_factory=list)
    lag_ms: float = 0.0
    skipped: int = 0
    replaced: int = 0
    resent: dict[str, int] = field(default_factory=dict)
    rate: float = 0.0
    seconds: float = 0.0
    nice: int = 0

    @property
    def left_out(self) -> float:
        """The share of all requests that were due and left out, 0 to 1: what became of them is not known."""
        return self.skipped / max(self.requests + self.skipped, 1)

    def text(self) -> str:
        """The report in a few lines, for a test that failed."""
        lines = [
            f"{self.lost} of {self.requests} requests lost at {self.rate}/s: {self.reasons or 'none'}",
            f"fast ones: half within {self.p50_ms} ms, the worst {self.worst_ms} ms; client late by {self.lag_ms} ms"
            f" and {self.skipped} left out; made once more: {self.resent or 'none'}",
            f"answers by release: {self.releases}; switches: {self.switches}",
            *(f"lost: {item}" for item in self.lost_requests[:20]),
        ]
        return "\n".join(lines)


class Lost(Exception):
    """A request that was lost.

    Args:
        reason: why.
        release: the release that has answered, where one has.
    """

    def __init__(self, reason: str, release: str = "") -> None:
        super().__init__(reason)
        self.release = release


class Unanswered(Lost):
    """A request whose connection has ended before anything of an answer came."""


@dataclass(frozen=True)
class Answer:
    """An answer, read whole.

    Attributes:
        status: the status.
        headers: the headers, their names in lower case.
        body: the body.
        is_last: whether the connection cannot be used again.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    is_last: bool


@dataclass
class Seen:
    """One request that has ended.

    Attributes:
        kind: fast, slow, upload or stream.
        is_new: whether it had a connection of its own.
        at: when it began, in seconds since 1970.
        began: the same by the clock that only counts.
        ms: how long it took.
        release: the release that answered, where it says so.
        reason: why it was lost; empty when it was not.
    """

    kind: str
    is_new: bool
    at: float
    began: float
    ms: float
    release: str = ""
    reason: str = ""

    @property
    def ended(self) -> float:
        """When it ended, by the clock that only counts."""
        return self.began + self.ms / 1000


class Connection:
    """One connection to the site."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, plan: Plan, context: ssl.SSLContext) -> Connection:
        """Connect and shake hands."""
        reader, writer = await asyncio.open_connection(
            plan.address, plan.port, ssl=context, server_hostname=plan.domain, limit=1024 * 1024
        )
        return cls(reader, writer)

    async def is_closed(self) -> bool:
        """Whether the server has closed the connection while it was idle."""
        # Twice: what lies in the socket is looked at in the first round and delivered in the second.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.transport.is_closing()

    def close(self) -> None:
        """Close it, without waiting for the server's word."""
        self.writer.transport.abort()

    async def answer(self) -> Answer:
        """Read an answer.

        Raises:
            Lost: it is cut off, or is no answer.
        """
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise Lost("closed within the headers") from None
            raise Unanswered("closed without an answer") from None
        first, *lines = head.decode("latin-1").split("\r\n")
        try:
            status = int(first.split(" ", 2)[1])
        except (IndexError, ValueError):
            raise Lost("not HTTP") from None
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _colon, value in pairs}
        is_last = headers.get("connection", "").lower() == "close"
        try:
            if headers.get("transfer-encoding", "").lower() == "chunked":
                body = await self._chunks()
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body, is_last = await self.reader.read(), True
        except (asyncio.IncompleteReadError, ValueError):
            raise Lost("short body", headers.get("x-release", "")) from None
        return Answer(status, headers, body, is_last)

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            chunk = await self.reader.readexactly(size + 2)
            if not size:
                return body
            body += chunk[:-2]


class Client:
    """Sends the requests and takes down what becomes of them.

    Args:
        plan: what to ask.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # The certificates of test hosts are signed by themselves. No session is resumed: each handshake is a whole one.
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        # The one that has been idle for longest is used next: all of them are, in turn.
        self.idle: deque[Connection] = deque()
        self.seen: list[Seen] = []
        self.lags: list[tuple[float, float]] = []  # when it was noticed, milliseconds
        self.worst_lag, self.replaced, self.skipped = 0.0, 0, 0
        self.resent: Counter[str] = Counter()
        self.in_flight: set[asyncio.Task[None]] = set()
        self.ending = asyncio.Event()
        self.payload = os.urandom(UPLOAD_BYTES // UPLOAD_PIECES) * UPLOAD_PIECES
        self.digest = hashlib.sha256(self.payload).hexdigest()

    # -- one request ------------------------------------------------------------------------------------------------

    def head(self, method: str, path: str, length: int = 0) -> bytes:
        """The beginning of a request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.plan.domain}", "User-Agent: flaskhost-load", "Accept: */*"]
        if length:
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode()

    async def write(self, connection: Connection, kind: str) -> None:
        """Send a request of a kind."""
        if kind == "upload":
            connection.writer.write(self.head("POST", "/upload", len(self.payload)))
            size = len(self.payload) // UPLOAD_PIECES
            for start in range(0, len(self.payload), size):
                connection.writer.write(self.payload[start : start + size])
                await connection.writer.drain()
                await asyncio.sleep(UPLOAD_SECONDS / UPLOAD_PIECES)
            return
        paths = {"slow": f"/slow?seconds={SLOW_SECONDS}", "stream": f"/stream?seconds={STREAM_SECONDS}"}
        connection.writer.write(self.head("GET", paths.get(kind, self.plan.path)))
        await connection.writer.drain()

    def fault(self, kind: str, answer: Answer) -> str:
        """Say why an answer is not the one that was asked for; empty when it is."""
        if answer.status != 200:
            return f"status {answer.status}"
        if kind == "stream" and not answer.body.endswith(b"end\n"):
            return "short body"
        if kind == "upload":
            try:
                counted = json.loads(answer.body)
                is_whole = (counted["bytes"], counted["sha256"]) == (len(self.payload), self.digest)
            except (ValueError, KeyError, TypeError):
                is_whole = False
            return "" if is_whole else "not all of the upload arrived"
        return ""

    async def exchange(self, connection: Connection, kind: str) -> str:
        """Ask over a connection that is open, which is kept for the next request where the server agrees.

        Returns:
            The release that has answered.

        Raises:
            Lost: the request is lost.
        """
        try:
            await self.write(connection, kind)
        except (ConnectionResetError, BrokenPipeError):
            raise Unanswered("reset") from None
        answer = await connection.answer()
        release = answer.headers.get("x-release", "")
        if fault := self.fault(kind, answer):
            raise Lost(fault, release)
        if not answer.is_last:
            self.idle.append(connection)
        return release

    async def kept(self) -> Connection | None:
        """A connection that is open and idle, the one that has waited longest; None where there is none."""
        while self.idle:
            connection = self.idle.popleft()
            if not await connection.is_closed():
                return connection
            self.replaced += 1
            connection.close()
        return None

    async def ask(self, kind: str, is_new: bool) -> str:
        """Make one request, and return the release that has answered.

        Raises:
            Lost: it is lost.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self.plan.timeout):
                if connection := None if is_new else await self.kept():
                    try:
                        return await self.exchange(connection, kind)
                    except Unanswered:
                        if not self.plan.resend:
                            raise
                        self.resent[kind] += 1
                        connection.close()
                        connection = None
                connection = await Connection.open(self.plan, self.context)
                return await self.exchange(connection, kind)
        except TimeoutError:
            raise Lost("timed out") from None
        except ConnectionRefusedError:
            raise Lost("refused") from None
        except ConnectionResetError:
            raise Lost("reset" if connection else "reset while connecting") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Lost(f"{type(error).__name__}" + ("" if connection else " while connecting")) from None
        finally:
            if connection and connection not in self.idle:
                connection.close()
            # Beyond what the pool is for: the newest, which in most cases is that of this request.
            while is_new and len(self.idle) > POOL:
                self.idle.pop().close()

    async def one(self, kind: str, is_new: bool) -> None:
        """Make one request and take down what became of it."""
        at, began = time.time(), time.perf_counter()
        release, reason = "", ""
        try:
            release = await self.ask(kind, is_new)
        except Lost as lost:
            reason, release = str(lost), lost.release
        self.seen.append(Seen(kind, is_new, at, began, (time.perf_counter() - began) * 1000, release, reason))

    # -- all of them ------------------------------------------------------------------------------------------------

    def kind(self, number: int) -> str:
        """The kind of the request with this number."""
        if not self.plan.only_fast:
            for place, (kind, every) in enumerate(EVERY.items()):
                # Not all at the same moment, and over new connections as often as over kept ones.
                if number % every == 5 + 9 * place:
                    return kind
        return "fast"

    async def begin(self) -> None:
        """Fill the pool; these requests are not counted.

        Raises:
            Lost: the site does not answer.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                for _ in range(POOL):
                    await self.ask("fast", True)
                return
            except Lost:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    async def run(self) -> Report:
        """Ask until the end, and report.

        Raises:
            Lost: the site does not answer from the beginning.
        """
        await self.begin()
        if self.plan.announce:
            print(json.dumps({"started": time.time()}), flush=True)
        # What is there already is not looked through again: a collection in full stops everything for a while.
        gc.freeze()
        watcher = asyncio.create_task(self.watch_file()) if self.plan.until_file else None
        began = time.perf_counter()
        number = 0
        while not self.ending.is_set():
            after = (number + self.skipped) / self.plan.rate
            due = began + after
            if self.plan.requests and number >= self.plan.requests:
                break
            # Not "due - began", which is rounded up or down as long as the machine has been running for.
            if self.plan.seconds and after >= self.plan.seconds:
                break
            late = await self.until(due)
            if self.ending.is_set():
                break
            if late > SKIPPED_LAG:
                self.skipped += int(late * self.plan.rate)
            self.send(number)
            number += 1
        took = time.perf_counter() - began
        if self.in_flight:
            await asyncio.wait(self.in_flight)
        if watcher:
            watcher.cancel()
        for connection in self.idle:
            connection.close()
        return self.report(number, took)

    async def until(self, due: float) -> float:
        """Sleep until a moment; note and return the seconds by which it was missed."""
        # Late already: the others still get their turn.
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        now = time.perf_counter()
        late = now - due
        self.worst_lag = max(self.worst_lag, late * 1000)
        if late * 1000 > NOTED_LAG_MS:
            self.lags.append((now, late * 1000))
        return late

    def send(self, number: int) -> None:
        """Begin the request with this number."""
        kind, is_new = self.kind(number), number % 2 == 0
        # Every kind over both: those that are not fast would all have the same parity.
        if kind != "fast":
            is_new = number // EVERY[kind] % 2 == 0
        if len(self.in_flight) >= self.plan.max_in_flight:
            self.seen.append(
                Seen(kind, is_new, time.time(), time.perf_counter(), 0.0, reason="not sent: too many wait")
            )
            return
        task = asyncio.create_task(self.one(kind, is_new))
        self.in_flight.add(task)
        task.add_done_callback(self.in_flight.discard)

    async def watch_file(self) -> None:
        """End the load when the file is there."""
        while not Path(self.plan.until_file).exists():
            await asyncio.sleep(0.1)
        self.ending.set()

    def report(self, number: int, took: float) -> Report:
        """Put the requests together."""
        lost = sorted((item for item in self.seen if item.reason), key=lambda item: item.began)
        good = [item for item in self.seen if not item.reason]
        fast = sorted((item for item in good if item.kind == "fast"), key=lambda item: item.ms)
        moments = switches(good)
        kinds: dict[str, dict[str, int]] = {}
        for item in self.seen:
            counted = kinds.setdefault(item.kind, {"requests": 0, "lost": 0})
            counted["requests"] += 1
            counted["lost"] += bool(item.reason)
        across: Counter[str] = Counter()
        for item in good:
            if any(item.began < when < item.ended and item.release != release for when, release in moments):
                across[item.kind] += 1
        to_epoch = time.time() - time.perf_counter()
        return Report(
            requests=number,
            lost=len(lost),
            reasons=dict(Counter(item.reason for item in lost).most_common()),
            kinds=kinds,
            lost_requests=[shown(item, self.lags) for item in lost[:SHOWN_LOST]],
            lost_by_second={str(second): count for second, count in sorted(Counter(int(i.at) for i in lost).items())},
            first_lost=round(lost[0].at, 3) if lost else 0.0,
            last_lost=round(lost[-1].at, 3) if lost else 0.0,
            releases=dict(Counter(item.release for item in good)),
            switches=[{"at": round(when + to_epoch, 3), "release": release} for when, release in moments],
            across=dict(across),
            worst_ms=round(fast[-1].ms, 1) if fast else 0.0,
            p50_ms=round(fast[len(fast) // 2].ms, 1) if fast else 0.0,
            p99_ms=round(fast[len(fast) * 99 // 100].ms, 1) if fast else 0.0,
            slowest=[shown(item, self.lags) for item in fast[: -SHOWN_SLOWEST - 1 : -1]],
            lag_ms=round(self.worst_lag, 1),
            skipped=self.skipped,
            replaced=self.replaced,
            resent=dict(self.resent),
            rate=round(number / took, 1) if took else 0.0,
            seconds=round(took, 2),
            nice=os.getpriority(os.PRIO_PROCESS, 0),
        )


def shown(item: Seen, lags: list[tuple[float, float]]) -> dict[str, Any]:
    """A request as the report has it."""
    # The client's delay may be noticed just after the answer that it has held up.
    lag = max((late for when, late in lags if item.began <= when <= item.ended + 0.02), default=0.0)
    values: dict[str, Any] = {
        "at": round(item.at, 3),
        "kind": item.kind,
        "connection": "new" if item.is_new else "kept",
        "ms": round(item.ms, 1),
        "lag_ms": round(lag, 1),
        "release": item.release,
    }
    return {**values, "reason": item.reason} if item.reason else values


def switches(good: list[Seen]) -> list[tuple[float, str]]:
    """When which release took over, as the fast requests see it.

    For a second after a switch both releases answer, since the proxy goes on using its open connections. A switch is
    when another release answers, and one that has not done so for `LINGER` seconds.

    Args:
        good: the requests that were not lost.

    Returns:
        The moment of each first answer of a release after another one, and the release.
    """
    fast = sorted((item for item in good if item.kind == "fast" and item.release), key=lambda item: item.ended)
    before, last = "", dict[str, float]()
    found = []
    for item in fast:
        if before and item.release != before and item.ended - last.get(item.release, -LINGER) >= LINGER:
            found.append((item.ended, item.release))
        before, last[item.release] = item.release, item.ended
    return found


class Load:
    """The load in a process of its own: it begins with ``with`` and ends with it, or with `start` and `stop`.

    Args:
        domain: the site's name.
        port: its port on this machine.
        options: other attributes of `Plan`.

    Attributes:
        report: what became of the requests, when it has ended.
    """

    def __init__(self, domain: str, port: int, **options: Any) -> None:
        self.plan = Plan(domain, port, **options)
        self.process: subprocess.Popen[str] | None = None
        self.report = Report()

    def start(self) -> Load:
        """Begin, and return when the site has given its first answers.

        Raises:
            RuntimeError: it gives none.
        """
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).resolve()),
                *arguments_of(dataclasses.replace(self.plan, announce=True)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A Ctrl-C is for whoever started it; the end comes from there.
            start_new_session=True,
        )
        assert self.process.stdout  # noqa: S101 - for the type checker
        ready, _write, _error = select.select([self.process.stdout], [], [], START_SECONDS + self.plan.timeout + 5)
        if not ready or not self.process.stdout.readline():
            self.process.kill()
            _out, err = self.process.communicate()
            raise RuntimeError(f"The load has not begun: {err.strip()}")
        return self

    def stop(self) -> Report:
        """End it: what is under way gets its answer, or its time limit. The report is `report`, too.

        Raises:
            RuntimeError: the client itself has failed.
        """
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._finish(self.plan.timeout + 15)

    def wait(self) -> Report:
        """Wait until it ends by itself: `Plan.seconds` are over, or `Plan.requests` are made.

        Raises:
            RuntimeError: the client itself has failed.
        """
        return self._finish(None)

    def _finish(self, timeout: float | None) -> Report:
        if not self.process:
            return self.report
        process, self.process = self.process, None
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        if process.returncode or not out.strip():
            raise RuntimeError(f"The load has failed: {err.strip()}")
        self.report = Report(**json.loads(out.strip().splitlines()[-1]))
        return self.report

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            self.stop()
        except RuntimeError:
            # What failed inside says more.
            if not kind:
                raise


def arguments_of(plan: Plan) -> list[str]:
    """The command line for a plan."""
    words = []
    for name, value in dataclasses.asdict(plan).items():
        option = f"--{name.replace('_', '-')}"
        words += ([option] if value else []) if isinstance(value, bool) else [option, str(value)]
    return words


def plan_of(words: list[str] | None = None) -> Plan:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Visitors at a fixed rate; prints one JSON line at the end.")
    parser.add_argument("--domain", required=True, help="the site's name")
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument("--address", default=Plan.address, help="the address to connect to")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="requests per second")
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="0: until SIGTERM")
    parser.add_argument("--requests", type=int, default=Plan.requests, help="at the most; 0: no limit")
    parser.add_argument("--timeout", type=float, default=Plan.timeout, help="seconds for one request")
    parser.add_argument("--max-in-flight", type=int, default=Plan.max_in_flight, help="requests waiting at a time")
    parser.add_argument("--path", default=Plan.path, help="what a fast request asks for")
    parser.add_argument("--only-fast", action="store_true", help="no slow ones, no uploads, no streams")
    parser.add_argument("--until-file", default=Plan.until_file, metavar="PATH", help="end when it exists")
    parser.add_argument("--resend", action="store_true", help="once, what a kept connection left unanswered")
    parser.add_argument("--nice", type=int, default=Plan.nice, help="the priority to ask for")
    parser.add_argument("--announce", action="store_true", help="write a line when the site has begun to answer")
    return Plan(**vars(parser.parse_args(words)))


async def end_with(parent: int, client: Client) -> None:
    """End the load when the process that has begun it is gone: nobody would end it any more."""
    while os.getppid() == parent:
        await asyncio.sleep(0.5)
    client.ending.set()


async def run_until_told(plan: Plan) -> Report:
    """Run a plan; SIGTERM and SIGINT end it early, and so does the end of the parent."""
    client = Client(plan)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, client.ending.set)
    orphaned = asyncio.create_task(end_with(os.getppid(), client))
    try:
        return await client.run()
    finally:
        orphaned.cancel()


def main() -> int:
    """Run the load and print the report."""
    plan = plan_of()
    # A connection that ends in the middle is what is counted here, and not what a log is for.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, plan.nice)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        report = asyncio.run(run_until_told(plan))
    except Lost as lost:
        print(f"https://{plan.domain} at {plan.address}:{plan.port} does not answer: {lost}", file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
