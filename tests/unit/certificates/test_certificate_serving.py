"""What a server on loopback really serves, as its visitors see it."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from flaskhost_certificates import serving
from flaskhost_certificates.config import CertificateError
from flaskhost_certificates.pairs import Pair, parse, sign
from flaskhost_certificates.serving import prove, served, trusted
from test_certificate_pairs import Party

NOW = time.time()
DOMAINS = ["shop.test", "*.shop.test", "192.0.2.7"]
OLD, NEW = sign(DOMAINS, NOW), sign(DOMAINS, NOW)
ROOT = Party("Root Nine", ca=True, now=NOW)
MIDDLE = Party("Middle One", ROOT, ca=True, now=NOW)
LEAF = Party("shop.test", MIDDLE, DOMAINS, now=NOW)


def der(pair: Pair) -> bytes:
    return pair.leaf.public_bytes(Encoding.DER)


class Server:
    """A TLS server on loopback that remembers which names it was asked for.

    Args:
        folder: where it may write.
        pair: what it serves.
    """

    def __init__(self, folder: Path, pair: Pair) -> None:
        self.folder, self.pairs, self.names = folder, [pair], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def serve(self, *pairs: Pair) -> None:
        """Serve these in turn from now on, and the last one for good."""
        self.pairs = list(pairs)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            pair = self.pairs.pop(0) if len(self.pairs) > 1 else self.pairs[0]
            for name, data in (("c", pair.chain), ("k", pair.key)):
                (self.folder / name).write_bytes(data)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.folder / "c", self.folder / "k")
            context.sni_callback = lambda _socket, name, _context: self.names.append(name)
            with contextlib.suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as tls:
                tls.settimeout(1)
                tls.recv(1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    this = Server(tmp_path, OLD)
    yield this
    this.listener.close()


# --- What is served --------------------------------------------------------------------------------------------------


def test_a_visitor_names_the_domain_and_sees_the_certificate(server: Server) -> None:
    assert served("shop.test", server.port) == der(OLD)
    assert served("*.shop.test", server.port) == der(OLD)
    assert served("192.0.2.7", server.port) == der(OLD)
    assert served("2001:db8::1", server.port) == der(OLD)
    assert server.names == ["shop.test", "flaskhost-probe.shop.test", None, None]


def test_where_nobody_serves_there_is_no_certificate(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        begin = time.monotonic()
        assert served("shop.test", port, timeout=0.2) is None, "silent"
        assert not trusted("shop.test", None, port, timeout=0.2)
        assert time.monotonic() - begin < 5
    assert served("shop.test", port) is None, "closed"
    assert not trusted("shop.test", None, port)
    assert served("a..b", port) is None


def test_a_weak_certificate_is_seen_too(server: Server, weak: Pair) -> None:
    server.serve(weak)
    assert served("shop.test", server.port) == der(weak)


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> Pair:
    """One that OpenSSL's usual level of security refuses, and the servers of this test do not."""
    real = ssl.SSLContext.load_cert_chain

    def load(self: ssl.SSLContext, *arguments: Path) -> None:
        self.set_ciphers("DEFAULT:@SECLEVEL=0")
        real(self, *arguments)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that it is too small is the point
    party = Party("shop.test", names=DOMAINS, key=key, now=NOW)
    return parse(party.pem, party.key_pem())


# --- Proof -----------------------------------------------------------------------------------------------------------


def test_all_domains_are_asked_for_three_times(server: Server) -> None:
    prove(DOMAINS, OLD, port=server.port)
    assert server.names == ["shop.test"] * 3 + ["flaskhost-probe.shop.test"] * 3 + [None] * 3


def test_old_workers_are_waited_for(server: Server) -> None:
    server.serve(OLD, OLD, NEW, NEW, OLD, NEW)
    prove(["shop.test"], NEW, port=server.port)
    assert len(server.names) == 8, "three in a row, of the new one"


def test_what_is_served_for_too_long_is_told_by_its_serial(server: Server) -> None:
    begin = time.monotonic()
    with pytest.raises(CertificateError) as caught:
        prove(["shop.test"], NEW, port=server.port, patience=0.3)
    assert 0.3 <= time.monotonic() - begin < 20
    assert "shop.test is still served with another certificate" in caught.value.reason
    assert f"{OLD.serial:x}" in caught.value.reason
    assert f"{NEW.serial:x}" in caught.value.reason
    assert caught.value.cure


def test_the_domain_that_is_wrong_is_named() -> None:
    def ask(domain: str, **_: object) -> bytes:
        return der(OLD if domain == "b.test" else NEW)

    with pytest.raises(CertificateError, match=r"^b\.test is still"):
        prove(["a.test", "b.test", "c.test"], NEW, patience=0, ask=ask)
    prove(["a.test", "c.test"], NEW, patience=0, ask=ask)


def test_no_answer_is_no_proof() -> None:
    with pytest.raises(CertificateError, match=f"no TLS handshake succeeds on port 4430.*{NEW.serial:x}"):
        prove(["a.test"], NEW, port=4430, patience=0, ask=lambda *_, **__: None)


# --- Trust -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root.pem"
    path.write_bytes(ROOT.pem)
    return path


def chain(*parties: Party) -> Pair:
    return parse(b"".join(item.pem for item in parties), parties[0].key_pem())


def test_a_visitor_trusts_what_leads_to_a_known_root(server: Server, root: Path) -> None:
    server.serve(chain(LEAF, MIDDLE))
    for domain in DOMAINS:
        assert trusted(domain, root, server.port)
    assert server.names == ["shop.test", "flaskhost-probe.shop.test", None]
    assert not trusted("shop.test", None, server.port), "of an authority that nobody knows"


@pytest.mark.parametrize("domain", ["other.test", "a.b.shop.test", "192.0.2.8"])
def test_nobody_trusts_a_certificate_of_another_name(server: Server, root: Path, domain: str) -> None:
    server.serve(chain(LEAF, MIDDLE))
    assert not trusted(domain, root, server.port)


def test_nobody_trusts_what_is_incomplete_or_over_or_self_signed(server: Server, root: Path) -> None:
    over = Party("shop.test", MIDDLE, DOMAINS, now=NOW, days=(-9, -1))
    for pair in (chain(LEAF), chain(over, MIDDLE), OLD):
        server.serve(pair)
        assert not trusted("shop.test", root, server.port)


def test_a_root_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    with pytest.raises(CertificateError, match=f"{path} cannot be read: No such file.*acme.root"):
        trusted("shop.test", path, 1)
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(CertificateError, match="is not a PEM certificate"):
        trusted("shop.test", path, 1)


# --- nginx -----------------------------------------------------------------------------------------------------------


class Host:
    """Answers commands, by the first words of each."""

    def __init__(self, **failing: tuple[str, str]) -> None:
        self.failing, self.calls = failing, []

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.calls.append(" ".join(command))
        name = "nginx" if command[0].endswith("nginx") else command[1].replace("-", "_")
        return (1, *self.failing[name]) if name in self.failing else (0, "", "")


def test_nginx_is_reloaded_once_it_finds_no_fault() -> None:
    host = Host()
    serving.reload(host)
    assert host.calls == ["/usr/sbin/nginx -t -q", "systemctl reload nginx.service"]


def test_nginx_is_left_alone_where_it_would_refuse() -> None:
    words = "".join(f"line {number}\n" for number in range(99)) + "\n  [emerg] key values mismatch\x1b[2J\n\n"
    host = Host(nginx=("", words))
    with pytest.raises(CertificateError) as caught:
        serving.reload(host)
    assert host.calls == ["/usr/sbin/nginx -t -q"]
    assert re.match(
        r"nginx was not reloaded: /usr/sbin/nginx -t -q reported: .*key values mismatch", caught.value.reason
    )
    assert "\x1b" not in caught.value.reason
    assert "\n" not in caught.value.reason
    assert "line 1;" not in caught.value.reason, "the end will do"


def test_a_reload_that_fails_is_told() -> None:
    with pytest.raises(CertificateError, match=r"systemctl reload nginx\.service failed: Job failed.*journalctl"):
        serving.reload(Host(reload=("", "Job failed.\n")))
    with pytest.raises(CertificateError, match="failed: nothing"):
        serving.reload(Host(reload=("", "")))


def test_whether_nginx_runs() -> None:
    host = Host()
    assert serving.is_running(host)
    assert host.calls == ["systemctl is-active --quiet nginx.service"]
    assert not serving.is_running(Host(is_active=("", "")))
