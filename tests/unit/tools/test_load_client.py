"""The load client of the deploy's tests: what it counts as lost and what not, told by servers that misbehave."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import load_client
from load_client import Client, Load, Lost, Plan, Report, Seen

DOMAIN = "hello.test"


@dataclasses.dataclass
class Request:
    """What a server has been asked.

    Attributes:
        number: the number of the request on the whole server, from 0.
        on_connection: its number on its connection, from 0.
        name: the name that was asked for in the handshake.
        head: its first line and headers.
        body: its body.
    """

    number: int
    on_connection: int
    name: str | None
    head: str
    body: bytes

    @property
    def path(self) -> str:
        return self.head.split(" ", 2)[1].partition("?")[0]


#: Answers a request with bytes; True as the second value closes the connection after them.
Behaviour = Callable[[Request], Awaitable[tuple[bytes, bool]]]


def http(body: bytes, status: int = 200, release: str = "r1", more: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status} X\r\nContent-Length: {size}\r\nX-Release: {release}\r\n{more}\r\n".encode() + body


def good(request: Request, release: str = "r1") -> bytes:
    """What the app hello answers."""
    if request.path == "/upload":
        return http(json.dumps({"bytes": len(request.body), "sha256": sha256(request.body).hexdigest()}).encode())
    if request.path == "/stream":
        head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Release: {release}\r\n\r\n"
        return head.encode() + b"5\r\nwait\n\r\n4\r\nend\n\r\n0\r\n\r\n"
    return http(b"{}", release=release)


async def well(request: Request) -> tuple[bytes, bool]:
    return good(request), False


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """The server's side of TLS, with a certificate that it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DOMAIN)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class Site:
    """A small HTTPS server.

    Args:
        context: its TLS.
        behaviour: how it answers; it may be replaced while it runs.
    """

    def __init__(self, context: ssl.SSLContext, behaviour: Behaviour) -> None:
        self.context, self.behaviour = context, behaviour
        self.requests: list[Request] = []
        self.connections, self.port = 0, 0
        self.names: dict[ssl.SSLObject, str | None] = {}
        context.sni_callback = lambda connection, name, _context: self.names.update({connection: name})

    async def __aenter__(self) -> Site:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, ssl=self.context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        count = 0
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = int(head.partition("Content-Length: ")[2].split("\r\n")[0] or 0)
                body = await reader.readexactly(length)
                name = self.names.get(writer.get_extra_info("ssl_object"))
                request = Request(len(self.requests), count, name, head, body)
                self.requests.append(request)
                count += 1
                answer, ends = await self.behaviour(request)
                writer.write(answer)
                if ends:
                    break
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            # The client has gone, or the test is over.
            pass
        finally:
            writer.close()


def load(context: ssl.SSLContext, behaviour: Behaviour, during: Callable[[Site, Client], None] = lambda *_: None,
         **options: object) -> tuple[Report, Site]:  # fmt: skip
    """Put a load on a server that behaves well until the first requests, which are not counted, have been answered."""

    async def both() -> tuple[Report, Site]:
        async with Site(context, well) as site:
            client = Client(Plan(DOMAIN, site.port, **{"rate": 1000.0, "requests": 40, **options}))
            await client.begin()
            site.requests.clear()
            site.behaviour = behaviour

            async def begun() -> None:
                during(site, client)

            client.begin = begun
            return await client.run(), site

    return asyncio.run(both())


# --- What is asked ---------------------------------------------------------------------------------------------------


def test_good_site_loses_nothing_and_gets_every_kind(context: ssl.SSLContext) -> None:
    report, site = load(context, well, requests=160)
    assert (report.requests, report.lost, report.reasons) == (160, 0, {})
    asked = {name: item["requests"] for name, item in report.kinds.items()}
    assert asked == {"fast": 150, "slow": 4, "upload": 4, "stream": 2}
    assert {(item.path, item.name) for item in site.requests} == {
        (path, DOMAIN) for path in ("/whoami", "/slow", "/upload", "/stream")
    }
    assert {len(item.body) for item in site.requests if item.path == "/upload"} == {300_000}
    assert all(f"Host: {DOMAIN}\r\n" in item.head for item in site.requests)
    assert report.releases == {"r1": 160}
    assert report.worst_ms >= report.p99_ms >= report.p50_ms > 0


def test_half_of_the_requests_have_a_new_connection(context: ssl.SSLContext) -> None:
    # So slowly that the pool is enough for what falls due while the machine stands still.
    report, site = load(context, well, rate=60.0, requests=100, only_fast=True)
    assert report.lost == 0
    new = sum(item.on_connection == 0 for item in site.requests)
    # A kept one is opened anew where all others are busy.
    assert 50 <= new <= 70
    assert max(item.on_connection for item in site.requests) >= 2


def test_rate_does_not_fall_when_the_site_is_slow(context: ssl.SSLContext) -> None:
    all_are_here = asyncio.Event()

    async def slowly(request: Request) -> tuple[bytes, bool]:
        if request.number == 39:
            all_are_here.set()
        await all_are_here.wait()
        return good(request), False

    # Nobody is answered before all have asked: a client that waits for answers would ask sixteen times, and wait.
    report, _site = load(context, slowly, requests=40, only_fast=True)
    assert (report.requests, report.lost) == (40, 0)


def test_load_ends_by_time_and_by_number_and_by_a_file(context: ssl.SSLContext, tmp_path: Path) -> None:
    report, _site = load(context, well, rate=100.0, requests=0, seconds=0.2, only_fast=True)
    assert report.requests <= 20 <= report.requests + report.skipped
    file = tmp_path / "end"
    file.touch()
    report, _site = load(context, well, rate=100.0, requests=0, until_file=str(file), only_fast=True)
    assert report.requests < 20


def test_requests_in_flight_are_answered_before_the_end(context: ssl.SSLContext) -> None:
    async def slowly(request: Request) -> tuple[bytes, bool]:
        await asyncio.sleep(0.3)
        return good(request), False

    report, _site = load(context, slowly, requests=0, seconds=0.05, only_fast=True)
    assert report.lost == 0
    assert sum(report.releases.values()) == report.requests


# --- What is lost ----------------------------------------------------------------------------------------------------


async def fail(request: Request) -> tuple[bytes, bool]:
    return http(b"sorry", 500), False


async def redirect(request: Request) -> tuple[bytes, bool]:
    return http(b"", 301), False


async def cut_off(request: Request) -> tuple[bytes, bool]:
    return http(b"{", length=100), True


async def cut_off_chunks(request: Request) -> tuple[bytes, bool]:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwait\n\r\n", True


async def cut_off_head(request: Request) -> tuple[bytes, bool]:
    return b"HTTP/1.1 200 OK\r\nContent-", True


async def hang_up(request: Request) -> tuple[bytes, bool]:
    return b"", True


async def hang(request: Request) -> tuple[bytes, bool]:
    await asyncio.sleep(5)
    return b"", True


async def talk_nonsense(request: Request) -> tuple[bytes, bool]:
    return b"220 mail.example.test ESMTP\r\n\r\n", False


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (fail, "status 500"),
        (redirect, "status 301"),
        (cut_off, "short body"),
        (cut_off_chunks, "short body"),
        (cut_off_head, "closed within the headers"),
        (hang_up, "closed without an answer"),
        (hang, "timed out"),
        (talk_nonsense, "not HTTP"),
    ],
    ids=lambda item: item if isinstance(item, str) else item.__name__,
)
def test_lost_request_is_counted_with_its_reason(context: ssl.SSLContext, behaviour: Behaviour, reason: str) -> None:
    before = time.time()
    report, site = load(context, behaviour, requests=10, timeout=2.0, only_fast=True)
    assert (report.requests, report.lost) == (10, 10)
    assert report.reasons == {reason: 10}
    # Over kept connections as over new ones: none has been asked for a second time.
    assert len(site.requests) == 10
    assert {item["connection"] for item in report.lost_requests} == {"new", "kept"}
    assert before <= report.first_lost <= report.last_lost <= time.time()
    assert sum(report.lost_by_second.values()) == 10
    assert reason in report.text()


def test_release_that_fails_is_named(context: ssl.SSLContext) -> None:
    report, _site = load(context, fail, requests=2, only_fast=True)
    assert {item["release"] for item in report.lost_requests} == {"r1"}
    assert report.releases == {}


def test_one_lost_among_many_is_found(context: ssl.SSLContext) -> None:
    async def once(request: Request) -> tuple[bytes, bool]:
        return (http(b"", 502), False) if request.number == 17 else (good(request), False)

    report, _site = load(context, once, requests=40, only_fast=True)
    assert (report.lost, report.reasons) == (1, {"status 502": 1})
    assert report.kinds == {"fast": {"requests": 40, "lost": 1}}


def test_site_that_goes_away_is_lost(context: ssl.SSLContext) -> None:
    def close(site: Site, client: Client) -> None:
        site.server.close()
        while client.idle:
            client.idle.pop().close()

    report, _site = load(context, well, close, requests=6, only_fast=True)
    assert report.reasons == {"refused": 6}


def test_stream_without_its_end_is_lost(context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_client, "EVERY", {"stream": 1})
    monkeypatch.setattr(Client, "kind", lambda self, number: "stream")

    async def unfinished(request: Request) -> tuple[bytes, bool]:
        return http(b"wait\n"), False

    report, _site = load(context, unfinished, requests=4)
    assert report.reasons == {"short body": 4}


def test_upload_that_arrives_in_part_is_lost(context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_client, "EVERY", {"upload": 1})
    monkeypatch.setattr(Client, "kind", lambda self, number: "upload")

    async def forget(request: Request) -> tuple[bytes, bool]:
        return http(json.dumps({"bytes": 1, "sha256": "no"}).encode()), False

    report, _site = load(context, forget, requests=4)
    assert report.reasons == {"not all of the upload arrived": 4}


def test_request_that_cannot_be_sent_is_lost(context: ssl.SSLContext) -> None:
    report, _site = load(context, hang, requests=20, timeout=2.0, max_in_flight=5, only_fast=True)
    assert report.reasons == {"timed out": 5, "not sent: too many wait": 15}


# --- What is not -----------------------------------------------------------------------------------------------------


def test_kept_connection_that_was_closed_while_idle_is_replaced(context: ssl.SSLContext) -> None:
    """As nginx does after keepalive_timeout, or when it is reloaded: without a word, after a whole answer."""

    async def and_close(request: Request) -> tuple[bytes, bool]:
        return good(request), True

    report, _site = load(context, and_close, rate=200.0, requests=60, only_fast=True)
    assert report.lost == 0, report.text()
    assert report.replaced >= 5


class Crossing(Site):
    """A server that closes a connection when its second request begins to come, as if it had done so just before."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = reader.readuntil
        asked = 0

        async def readuntil(separator: bytes = b"\n") -> bytes:
            nonlocal asked
            asked += 1
            head = await whole(separator)
            if asked > 1:
                raise ConnectionResetError
            return head

        reader.readuntil = readuntil
        await super().serve(reader, writer)


@pytest.mark.parametrize("kind", ["fast", "upload"])
def test_request_that_crosses_with_the_end_of_its_connection_is_lost_or_made_once_more(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(load_client, "EVERY", {kind: 1})
    monkeypatch.setattr(load_client, "UPLOAD_SECONDS", 0.1)
    monkeypatch.setattr(Client, "kind", lambda self, number: kind)

    async def ask(resend: bool) -> tuple[Client, str]:
        async with Crossing(context, well) as site:
            client = Client(Plan(DOMAIN, site.port, resend=resend))
            await client.ask("fast", True)
            await client.one(kind, False)
            for connection in client.idle:
                connection.close()
            return client, client.seen[0].reason

    client, reason = asyncio.run(ask(False))
    assert reason in {"fast": ("closed without an answer",), "upload": ("closed without an answer", "reset")}[kind]
    client, reason = asyncio.run(ask(True))
    assert (reason, client.resent) == ("", {kind: 1})


@pytest.mark.parametrize(
    ("behaviour", "reason"), [(hang_up, "closed without an answer"), (cut_off_head, "closed within the headers")]
)
def test_what_a_new_connection_or_half_an_answer_has_lost_is_not_made_once_more(
    context: ssl.SSLContext, behaviour: Behaviour, reason: str
) -> None:
    report, site = load(context, behaviour, requests=10, only_fast=True, resend=True)
    assert report.reasons == {reason: 10}
    once_more = 5 if behaviour is hang_up else 0
    assert (report.resent, len(site.requests)) == ({"fast": once_more} if once_more else {}, 10 + once_more)


def test_connection_that_the_server_will_close_is_not_used_again(context: ssl.SSLContext) -> None:
    async def last(request: Request) -> tuple[bytes, bool]:
        # It says so and waits for the client.
        return http(b"{}", more="Connection: close\r\n"), False

    report, site = load(context, last, requests=60, only_fast=True)
    assert report.lost == 0
    # The pool was filled by a server that kept its connections.
    assert sum(item.on_connection > 0 for item in site.requests) <= load_client.POOL


def test_answer_without_a_length_ends_with_its_connection(context: ssl.SSLContext) -> None:
    async def old(request: Request) -> tuple[bytes, bool]:
        return b"HTTP/1.0 200 OK\r\n\r\nhello", True

    report, _site = load(context, old, requests=6, only_fast=True)
    assert report.lost == 0


# --- The report ------------------------------------------------------------------------------------------------------


def test_delay_of_the_client_itself_is_told(context: ssl.SSLContext) -> None:
    def block(site: Site, client: Client) -> None:
        asyncio.get_running_loop().call_later(0.05, time.sleep, 0.5)

    report, _site = load(context, well, block, rate=200.0, requests=30, only_fast=True)
    assert report.lag_ms > 400
    assert report.slowest[0]["lag_ms"] > 400 or report.worst_ms < 400


def test_delay_is_by_how_much_a_moment_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Plan(DOMAIN, 1))
    monkeypatch.setattr(load_client, "time", SimpleNamespace(perf_counter=lambda: 1000.0))
    assert [asyncio.run(client.until(due)) for due in (1000.0, 999.75, 999.5)] == [0.0, 0.25, 0.5]
    assert client.worst_lag == 500
    assert client.lags == [(1000.0, 250), (1000.0, 500)]


def test_requests_of_a_time_in_which_the_client_stood_still_are_left_out(context: ssl.SSLContext) -> None:
    def block(site: Site, client: Client) -> None:
        asyncio.get_running_loop().call_later(0.1, time.sleep, 0.6)

    report, _site = load(context, well, block, rate=200.0, requests=0, seconds=1.0, only_fast=True)
    assert report.lost == 0
    assert report.skipped >= 100
    assert report.requests <= 100
    # Of two hundred that were due; what is counted nowhere else is not forgotten.
    assert report.left_out == report.skipped / (report.requests + report.skipped) >= 0.5
    assert f"{report.skipped} left out" in report.text()


def test_none_is_left_out_where_the_client_was_on_time_and_losses_do_not_count() -> None:
    assert Report().left_out == Report(requests=100, lost=100).left_out == 0
    assert Report(requests=98, skipped=2).left_out == 0.02


def seen(release: str, began: float, ms: float, kind: str = "fast") -> Seen:
    return Seen(kind, True, began, began, ms, release)


def test_switch_is_found_once_though_both_releases_answer_for_a_while() -> None:
    requests = [seen("r1", 0.01 * number, 5) for number in range(100)]
    requests += [seen("r2" if number % 3 == 0 else "r1", 1 + 0.01 * number, 5) for number in range(50)]
    requests += [seen("r2", 1.5 + 0.002 * number, 5) for number in range(150)]
    # The last connection of before that was kept, three hundred milliseconds after all others.
    requests += [seen("r1", 1.8, 5)]
    requests += [seen("r2", 1.9 + 0.01 * number, 5) for number in range(210)]
    requests += [seen("r1", 4 + 0.01 * number, 5) for number in range(100)]
    found = [(round(when, 3), release) for when, release in load_client.switches(requests)]
    assert found == [(1.005, "r2"), (4.005, "r1")]


def test_requests_that_were_under_way_over_a_switch_are_counted() -> None:
    client = Client(Plan(DOMAIN, 1))
    client.seen = [seen("r1", 0.01 * number, 5) for number in range(100)]
    client.seen += [seen("r2", 1 + 0.01 * number, 5) for number in range(100)]
    client.seen += [seen("r1", 0.8, 500, "slow"), seen("r1", 0.2, 500, "slow"), seen("r2", 1.1, 500, "slow")]
    client.seen += [seen("r1", 0.9, 1000, "stream"), seen("r2", 0.9, 300, "upload")]
    assert client.report(205, 2.0).across == {"slow": 1, "stream": 1}


def test_only_fast_requests_count_for_the_worst() -> None:
    client = Client(Plan(DOMAIN, 1))
    client.seen = [seen("r1", 0.01 * number, 5 + number) for number in range(100)] + [seen("r1", 1, 9000, "slow")]
    report = client.report(101, 1.0)
    assert (report.p50_ms, report.p99_ms, report.worst_ms) == (55.0, 104.0, 104.0)


# --- As a process ----------------------------------------------------------------------------------------------------


def test_command_line_is_the_plan() -> None:
    plan = Plan(DOMAIN, 14312, rate=50.0, only_fast=True, path="/readyz", until_file="/x y", nice=0)
    plan = dataclasses.replace(plan, announce=True)
    assert load_client.plan_of(load_client.arguments_of(plan)) == plan
    words = ["--domain", DOMAIN, "--port", "1"]
    assert load_client.plan_of(words) == Plan(DOMAIN, 1)


def test_load_runs_beside_what_it_is_put_on(context: ssl.SSLContext) -> None:
    async def both() -> tuple[Report, Report]:
        async with Site(context, well) as site:
            held = Load(DOMAIN, site.port, rate=100.0, only_fast=True)
            await asyncio.to_thread(held.start)
            before = len(site.requests)
            while len(site.requests) < before + 20:
                await asyncio.sleep(0.01)
            ended = await asyncio.to_thread(held.stop)
            counted = Load(DOMAIN, site.port, rate=200.0, requests=10, only_fast=True)
            await asyncio.to_thread(counted.start)
            return ended, await asyncio.to_thread(counted.wait)

    ended, counted = asyncio.run(both())
    assert ended.lost == 0
    assert ended.requests >= 20
    assert (counted.requests, counted.lost) == (10, 0)


def test_load_ends_with_the_process_that_has_begun_it(context: ssl.SSLContext) -> None:
    script = (
        "import sys, time; from load_client import Load; load = Load('hello.test', int(sys.argv[1]), only_fast=True)"
    )
    script += "; load.start(); print(load.process.pid, flush=True); time.sleep(60)"

    def kill_it(port: int) -> Path:
        tests = Path(load_client.__file__).parent
        with subprocess.Popen([sys.executable, "-c", script, str(port)], cwd=tests, stdout=subprocess.PIPE) as test:
            assert test.stdout
            client = Path("/proc", test.stdout.readline().decode().strip(), "cmdline")
            assert b"load_client" in client.read_bytes()
            test.kill()
        deadline = time.monotonic() + 60
        while client.exists() and client.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.1)
        return client

    async def both() -> Path:
        async with Site(context, well) as site:
            return await asyncio.to_thread(kill_it, site.port)

    client = asyncio.run(both())
    # What has ended and is not yet waited for has no command line any more.
    assert not client.exists() or not client.read_bytes()


def test_load_on_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> None:
        await Client(Plan(DOMAIN, 1, only_fast=True)).begin()

    monkeypatch.setattr(load_client, "START_SECONDS", 0.3)
    with pytest.raises(Lost, match="refused"):
        asyncio.run(nothing())
