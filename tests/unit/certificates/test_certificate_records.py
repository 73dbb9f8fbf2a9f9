"""What is missing before an authority is asked: DNS by a real server on loopback, port 80 by a real web server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flaskhost_certificates import records
from flaskhost_certificates.config import CertificateError

OWN = ["198.51.100.4", "2001:db8::4"]


class Nameserver:
    """Answers from a zone: (name, type) to texts of records, or to an rcode; a name that is in no key is NXDOMAIN."""

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], list[str] | dns.rcode.Rcode] = {}
        self.asked: list[tuple[str, str]] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, peer = self.socket.recvfrom(4096)
                self.socket.sendto(self.answer(dns.message.from_wire(wire)).to_wire(), peer)

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name, kind = question.name.to_text(True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        alias = self.zone.get((name, "CNAME"))
        if alias:
            response.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "CNAME", *alias))
            name = alias[0].rstrip(".")
        found = self.zone.get((name, kind), [])
        if not isinstance(found, list):
            response.set_rcode(found)
        elif found:
            response.answer.append(dns.rrset.from_text(name + ".", 60, "IN", kind, *found))
        elif not any(owner == name or owner.endswith("." + name) for owner, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response


class Probe:
    """Says of each address what it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []

    def __call__(self, address: str, domain: str) -> str:
        self.asked.append((address, domain))
        return self.answers.get(address, "" if address in OWN else "answers 404")


@pytest.fixture(scope="module")
def server() -> Iterator[Nameserver]:
    server = Nameserver()
    yield server
    server.socket.close()


@pytest.fixture
def zone(server: Nameserver) -> dict[tuple[str, str], Any]:
    server.zone.clear()
    server.asked.clear()
    return server.zone


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def problems(server: Nameserver, zone: dict, probe: Probe) -> Any:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.timeout = ["127.0.0.1"], server.socket.getsockname()[1], 0.2

    def ask(*domains: str, own: list[str] = OWN) -> list[str]:
        return records.problems(domains, own, probe, resolver=resolver)

    return ask


def test_names_that_lead_here_have_no_problem(zone: dict, problems: Any, probe: Probe) -> None:
    zone["shop.example.com", "A"] = ["198.51.100.4"]
    zone["shop.example.com", "AAAA"] = ["2001:db8::4"]
    assert problems("shop.example.com") == []
    assert probe.asked == [("198.51.100.4", "shop.example.com"), ("2001:db8::4", "shop.example.com")]


def test_a_name_without_address_is_told_the_record_to_add(problems: Any) -> None:
    (problem,) = problems("shop.example.com")
    assert problem == (
        "shop.example.com has no address record yet. Add: shop.example.com. A 198.51.100.4 and shop.example.com. AAAA "
        "2001:db8::4."
    )


def test_a_name_with_other_records_only_has_no_address_either(zone: dict, problems: Any) -> None:
    zone["shop.example.com", "MX"] = ["10 mail.example.com."]
    assert problems("shop.example.com")[0].startswith("shop.example.com has no address record yet.")


def test_on_a_host_with_private_addresses_only_the_public_one_may_be_another(problems: Any) -> None:
    (problem,) = problems("shop.example.com", own=["10.0.0.5", "fd00::5"])
    assert "Add: shop.example.com. A 10.0.0.5 (or the public address that leads here" in problem


def test_private_addresses_of_bridges_are_not_proposed_beside_a_public_one(problems: Any) -> None:
    (problem,) = problems("shop.example.com", own=["198.51.100.4", "172.17.0.1", "fd00::1"])
    assert problem.endswith("Add: shop.example.com. A 198.51.100.4.")


def test_an_alias_that_leads_nowhere_is_named(zone: dict, problems: Any) -> None:
    zone["shop.example.com", "CNAME"] = ["gone.example.net."]
    assert problems("shop.example.com")[0].startswith(
        "shop.example.com is an alias (CNAME) of gone.example.net, which has no address record yet."
    )


def test_an_alias_that_leads_here_is_followed(zone: dict, problems: Any) -> None:
    zone["shop.example.com", "CNAME"] = ["host.example.net."]
    zone["host.example.net", "A"] = ["198.51.100.4"]
    assert problems("shop.example.com") == []


def test_a_record_of_another_host_names_record_addresses_and_cure(zone: dict, problems: Any) -> None:
    zone["shop.example.com", "A"] = ["203.0.113.9"]
    assert problems("shop.example.com") == [
        "The A record of shop.example.com is 203.0.113.9, which is not this host (198.51.100.4, 2001:db8::4), and a "
        "request there does not reach this host: 203.0.113.9:80 answers 404. Change it to 198.51.100.4; if "
        "203.0.113.9 is a load balancer, forward /.well-known/acme-challenge/ to this host."
    ]


@pytest.mark.parametrize(
    ("why", "said"), [("refused", "is refused"), ("timeout", "gets no response"), ("unreachable", "finds no route")]
)
def test_an_address_that_does_not_connect_may_be_behind_a_firewall(
    zone: dict, problems: Any, probe: Probe, why: str, said: str
) -> None:
    zone["shop.example.com", "A"] = ["203.0.113.9"]
    probe.answers["203.0.113.9"] = why
    (problem,) = problems("shop.example.com")
    assert f"203.0.113.9:80 {said}" in problem
    assert problem.endswith("if 203.0.113.9 leads to this host, open port 80 in the provider's firewall.")


@pytest.mark.parametrize("why", ["", "forwards to https://www.example.com/.well-known/acme-challenge/x"])
def test_an_address_that_passes_challenges_on_is_no_problem(zone: dict, problems: Any, probe: Probe, why: str) -> None:
    zone["shop.example.com", "A"] = ["203.0.113.9", "203.0.113.10"]
    probe.answers = {"203.0.113.9": why, "203.0.113.10": ""}
    assert problems("shop.example.com") == []


def test_each_address_of_a_name_must_lead_here(zone: dict, problems: Any) -> None:
    zone["shop.example.com", "A"] = ["198.51.100.4", "203.0.113.9"]
    (problem,) = problems("shop.example.com")
    assert "203.0.113.9" in problem


@pytest.mark.parametrize("why", ["refused", "timeout", "unreachable"])
def test_behind_nat_an_address_that_the_host_cannot_reach_is_left_to_the_authority(
    zone: dict, problems: Any, probe: Probe, why: str
) -> None:
    zone["shop.example.com", "A"] = ["203.0.113.9"]
    probe.answers = {"203.0.113.9": why, "10.0.0.5": ""}
    assert problems("shop.example.com", own=["10.0.0.5"]) == []
    assert ("10.0.0.5", "shop.example.com") in probe.asked, "the host's own port is looked at all the same"


def test_behind_nat_an_address_that_answers_otherwise_is_another_host(zone: dict, problems: Any) -> None:
    zone["shop.example.com", "A"] = ["203.0.113.9"]
    (problem,) = problems("shop.example.com", own=["10.0.0.5"])
    assert "203.0.113.9:80 answers 404" in problem


def test_a_private_record_of_another_host_is_none_of_nat(zone: dict, problems: Any, probe: Probe) -> None:
    zone["shop.example.com", "A"] = ["10.0.0.9"]
    probe.answers["10.0.0.9"] = "timeout"
    (problem,) = problems("shop.example.com", own=["10.0.0.5"])
    assert "The A record of shop.example.com is 10.0.0.9" in problem


def test_a_host_without_ipv4_has_no_record_of_it(zone: dict, problems: Any, probe: Probe) -> None:
    zone["shop.example.com", "A"] = ["203.0.113.9"]
    probe.answers["203.0.113.9"] = "timeout"
    (problem,) = problems("shop.example.com", own=["2001:db8::4"])
    assert "Change it to an address of this host" in problem


def test_a_bridges_address_is_not_proposed_for_a_record(zone: dict, problems: Any) -> None:
    zone["shop.example.com", "A"] = ["203.0.113.9"]
    (problem,) = problems("shop.example.com", own=["198.51.100.4", "172.17.0.1"])
    assert "not this host (198.51.100.4)" in problem
    assert "Change it to 198.51.100.4;" in problem


def test_the_own_port_80_must_answer(zone: dict, problems: Any, probe: Probe) -> None:
    zone["shop.example.com", "A"] = ["198.51.100.4"]
    probe.answers["198.51.100.4"] = "refused"
    (problem,) = problems("shop.example.com")
    assert problem.startswith(
        "Port 80 of this host does not respond for shop.example.com: a request to 198.51.100.4:80 is"
    )


def test_a_record_of_ipv6_on_a_host_without_is_to_be_removed(zone: dict, problems: Any, probe: Probe) -> None:
    zone["shop.example.com", "A"] = ["198.51.100.4"]
    zone["shop.example.com", "AAAA"] = ["2001:db8::9"]
    probe.answers["2001:db8::9"] = "unreachable"
    assert problems("shop.example.com", own=["198.51.100.4"]) == [
        "The AAAA record of shop.example.com is 2001:db8::9, but this host has no IPv6. Remove the AAAA record, or set "
        "up IPv6 on this host."
    ]


def test_the_ipv6_of_a_balancer_is_not_ours_to_judge(zone: dict, problems: Any, probe: Probe) -> None:
    zone["shop.example.com", "A"] = ["203.0.113.9"]
    zone["shop.example.com", "AAAA"] = ["2001:db8::9"]
    probe.answers = {"203.0.113.9": "", "2001:db8::9": "unreachable"}
    assert problems("shop.example.com", own=["198.51.100.4"]) == []


def test_several_web_hosts_are_no_balancer(zone: dict, problems: Any, probe: Probe) -> None:
    """One that passes challenges on to us has a record beside ours."""
    zone["shop.example.com", "A"] = ["198.51.100.4", "203.0.113.9"]
    zone["shop.example.com", "AAAA"] = ["2001:db8::9"]
    probe.answers = {"198.51.100.4": "", "203.0.113.9": "", "2001:db8::9": "unreachable"}
    (problem,) = problems("shop.example.com", own=["198.51.100.4"])
    assert "Remove the AAAA record" in problem


def test_a_resolver_that_fails_is_told_for_its_name_only(zone: dict, problems: Any) -> None:
    zone["bad.example.com", "A"] = dns.rcode.SERVFAIL
    zone["good.example.com", "A"] = ["198.51.100.4"]
    (problem,) = problems("bad.example.com", "good.example.com")
    assert problem.startswith("bad.example.com cannot be resolved: the resolver returned a failure (SERVFAIL).")


def test_a_resolver_that_is_silent_is_told(monkeypatch: pytest.MonkeyPatch, probe: Probe) -> None:
    monkeypatch.setattr(records, "LIFETIME", 0.1)
    resolver = dns.resolver.Resolver(configure=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver.nameservers, resolver.port = ["127.0.0.1"], silent.getsockname()[1]
        (problem,) = records.problems(["shop.example.com"], OWN, probe, resolver=resolver)
    assert problem.startswith("shop.example.com cannot be resolved: the resolver did not respond in time.")


def test_a_wildcard_wants_the_other_challenge(problems: Any) -> None:
    assert "needs the dns challenge" in problems("*.shop.example.com")[0]


@pytest.mark.parametrize(
    ("own", "why", "count"),
    [
        (["203.0.113.9"], "", 0),
        (["203.0.113.9"], "refused", 1),
        (["198.51.100.4"], "answers 404", 1),
        (["198.51.100.4"], "", 0),
        (["10.0.0.5"], "timeout", 0),
    ],
)
def test_an_address_as_a_name(  # noqa: PLR0917
    problems: Any, probe: Probe, server: Nameserver, own: list[str], why: str, count: int
) -> None:
    probe.answers = {"203.0.113.9": why, "10.0.0.5": ""}
    assert len(problems("203.0.113.9", own=own)) == count
    assert server.asked == [], "an address is not looked up"


def test_a_host_without_resolver_is_told(monkeypatch: pytest.MonkeyPatch, probe: Probe) -> None:
    def missing() -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver, "Resolver", missing)
    with pytest.raises(CertificateError, match=r"no DNS resolver. Name one in /etc/resolv.conf"):
        records.problems(["shop.example.com"], OWN, probe)


def listing(*addresses: str) -> str:
    return json.dumps([{"ifname": "x", "addr_info": [{"local": item} for item in addresses]}, {"ifname": "y"}])


def test_own_addresses_are_those_that_others_reach_public_first() -> None:
    said = listing("127.0.0.1", "::1", "172.17.0.1", "fe80::1", "2001:db8::4", "198.51.100.4")
    asked = []
    assert records.own_addresses(lambda command: asked.append(command) or (0, said, "")) == [
        "198.51.100.4",
        "2001:db8::4",
        "172.17.0.1",
    ]
    assert asked == [["ip", "-j", "address"]]


@pytest.mark.parametrize("answer", [(1, "[]", "no"), (0, "not JSON", ""), (0, '[{"addr_info": [{"local": "x"}]}]', "")])
def test_own_addresses_that_cannot_be_read_are_a_sentence(answer: tuple[int, str, str]) -> None:
    with pytest.raises(CertificateError, match="The addresses of this host cannot be read"):
        records.own_addresses(lambda _: answer)


def test_own_addresses_without_the_command_are_a_sentence() -> None:
    def run(command: list[str]) -> tuple[int, str, str]:
        raise FileNotFoundError(2, "No such file", command[0])

    with pytest.raises(CertificateError, match="iproute2"):
        records.own_addresses(run)


class Quiet(SimpleHTTPRequestHandler):
    hosts: list[str] = []  # noqa: RUF012 - what all requests of a test have in common

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(handler: Any, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    # The default of half a second would be waited for at the end of each test.
    threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def self_signed(path: Path) -> Path:
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1).not_valid_before(now - timedelta(1))
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(private + made.not_valid_after(now + timedelta(1)).sign(key, hashes.SHA256()).public_bytes(pem))
    return path


def answering(status: int, body: bytes = b"", location: str = "") -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if location:
                self.send_header("Location", location.replace("TOKEN", self.path))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def webroot(tmp_path: Path) -> Path:
    (tmp_path / records.CHALLENGES).mkdir(parents=True)
    return tmp_path


def files(webroot: Path) -> list[Path]:
    return list((webroot / records.CHALLENGES).iterdir())


def test_a_web_server_with_the_webroot_is_found_by_name_and_nothing_is_left(webroot: Path) -> None:
    Quiet.hosts.clear()
    old = os.umask(0o077)
    try:
        with serving(partial(Quiet, directory=str(webroot))) as port, records.probing(webroot, port) as probe:
            assert probe("127.0.0.1", "shop.example.com") == ""
            assert probe("127.0.0.1", "2001:db8::4") == ""
            assert [path.stat().st_mode & 0o777 for path in files(webroot)] == [0o644]
    finally:
        os.umask(old)
    assert Quiet.hosts == ["shop.example.com", "[2001:db8::4]"]
    assert files(webroot) == []


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (answering(404), "answers 404"),
        (answering(200, b"another site"), "answers something else"),
        (answering(200), "answers something else"),
        (answering(301, location="http://www.example.com/"), "redirects to http://www.example.com/"),
        (answering(301, location="http://[broken"), "redirects to http://[broken"),
        (answering(302, location="http://www.example.comTOKEN"), "forwards to http://www.example.com/.well-known/"),
        (answering(302, location="https://shop.example.com:8443TOKEN"), "forwards to https://shop.example.com:8443/.w"),
    ],
)
def test_what_another_host_answers_is_said(webroot: Path, handler: Any, why: str) -> None:
    with serving(handler) as port, records.probing(webroot, port, tls_port=1) as probe:
        assert probe("127.0.0.1", "shop.example.com").startswith(why)


@pytest.mark.parametrize("second", ["webroot", "gone"])
def test_a_redirect_to_the_same_name_is_followed(webroot: Path, second: str) -> None:
    """As a former host does it: every request to HTTPS, by a certificate that nobody trusts, and no such file there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(webroot / "tls.pem"))
    there = partial(Quiet, directory=str(webroot)) if second == "webroot" else answering(404)
    here = answering(301, location="https://shop.example.comTOKEN")
    with serving(here) as port, serving(there, context) as tls, records.probing(webroot, port, tls) as probe:
        assert probe("127.0.0.1", "shop.example.com") == ("" if second == "webroot" else "answers 404")


def test_a_port_without_listener_refuses(webroot: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with records.probing(webroot, port) as probe:
        assert probe("127.0.0.1", "shop.example.com") == records.REFUSED


def test_a_listener_that_says_nothing_times_out(webroot: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with records.probing(webroot, port, timeout=0.05) as probe:
            assert probe("127.0.0.1", "shop.example.com") == records.TIMEOUT


def test_what_is_no_web_server_is_said(webroot: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        with records.probing(webroot, listener.getsockname()[1]) as probe:
            assert probe("127.0.0.1", "shop.example.com") == "answers no HTTP"


def test_what_a_killed_run_has_left_is_removed_and_nothing_else(webroot: Path) -> None:
    folder = webroot / records.CHALLENGES
    for name in ("flaskhost-probe-old", "flaskhost-probe-new", "of-certbot"):
        (folder / name).write_text("")
    past = time.time() - 3600
    os.utime(folder / "flaskhost-probe-old", (past, past))
    os.utime(folder / "of-certbot", (past, past))
    with records.probing(webroot, 1):
        pass
    assert sorted(path.name for path in files(webroot)) == ["flaskhost-probe-new", "of-certbot"]


def test_a_webroot_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="folder of challenges"), records.probing(tmp_path / "none"):
        pass
