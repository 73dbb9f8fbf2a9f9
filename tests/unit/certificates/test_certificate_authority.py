"""The authority's directory from a real HTTPS server, certbot's command line, and what its failures are turned into."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import ssl
import string
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flaskhost_certificates import authority
from flaskhost_certificates.config import Certificate, CertificateError, Config

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
DIRECTORY = {name: f"https://ca.example.com/{name}" for name in ("newNonce", "newAccount", "newOrder")}
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="


def certificate(*domains: str, challenge: str = "http") -> Certificate:
    folder = Path("/etc/flaskhost/tls/shop")
    places = (folder / "fullchain.pem", folder / "privkey.pem")
    return Certificate("shop", domains, "acme", challenge, *places, variable="flask_apps.shop")


def config(**values: Any) -> Config:
    return Config(certificates=(), **values)


def command(*domains: str, challenge: str = "http", **values: Any) -> list[str]:
    wanted = certificate(*(domains or ("shop.example.com",)), challenge=challenge)
    return authority.certonly(config(**values), wanted)


def pairs(line: list[str]) -> set[tuple[str, str]]:
    return set(pairwise(line))


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of 127.0.0.1 that is its own root."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([address]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


class TestDirectory:
    @contextlib.contextmanager
    def serve(self, pem: Path, status: int, body: str) -> Iterator[str]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *_: None  # a client that hangs up is no error here
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}/dir"
        server.shutdown()
        server.server_close()

    def test_of_a_private_authority(self, pem: Path) -> None:
        answer = DIRECTORY | {"meta": {"caaIdentities": ["ca.example.com"]}}
        with self.serve(pem, 200, json.dumps(answer)) as url:
            assert authority.directory(url, pem) == answer

    @pytest.mark.parametrize("meta", [None, "x", {}, {"caaIdentities": None}, {"caaIdentities": [1]}])
    def test_that_names_nothing_for_caa(self, pem: Path, meta: Any) -> None:
        with self.serve(pem, 200, json.dumps(DIRECTORY | {"meta": meta})) as url:
            assert authority.directory(url, pem)["meta"]["caaIdentities"] == []

    def test_without_its_root_it_is_not_trusted(self, pem: Path) -> None:
        with self.serve(pem, 200, json.dumps(DIRECTORY)) as url, pytest.raises(CertificateError) as caught:
            authority.directory(url, None)
        assert re.match(r"The CA 127.0.0.1:\d+ is not trusted: self.signed certificate", caught.value.reason)
        assert caught.value.cure == "Set acme.root to the PEM of its root certificate."

    @pytest.mark.parametrize(
        ("status", "body", "reason"),
        [
            (200, "<html>", "did not return an ACME directory"),
            (200, "[]", "did not return an ACME directory"),
            (200, '{"newNonce": ""}', "did not return an ACME directory"),
            (404, "", r"returned 404 for https://127.0.0.1:\d+/dir"),
            (503, "", "is down or busy: it returned 503"),
            (429, "", "is down or busy: it returned 429"),
        ],
    )
    def test_another_answer_is_a_sentence(self, pem: Path, status: int, body: str, reason: str) -> None:
        with self.serve(pem, status, body) as url, pytest.raises(CertificateError, match=reason):
            authority.directory(url, pem)

    def test_nobody_there_is_a_sentence(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(CertificateError, match=rf"127.0.0.1:{port} cannot be reached: connection refused"):
            authority.directory(f"https://127.0.0.1:{port}/dir", None)

    def test_silence_is_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(authority, "TIMEOUT", 0.05)
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            pytest.raises(CertificateError, match="cannot be reached: it did not respond in time"),
        ):
            authority.directory(f"https://127.0.0.1:{silent.getsockname()[1]}/dir", None)

    def test_a_name_that_is_none_is_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: Any, **__: Any) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with pytest.raises(
            CertificateError, match=r"The name of the CA ca.example.com cannot be resolved. Check acme.directory"
        ):
            authority.directory("https://ca.example.com/dir", None)

    @pytest.mark.parametrize(
        "url", ["http://ca.example.com/dir", "ca.example.com", "", "https://", "https://x:y/", "https://a:secret@b/dir"]
    )
    def test_only_https_is_asked(self, url: str) -> None:
        with pytest.raises(CertificateError, match=r"acme.directory is not an HTTPS URL") as caught:
            authority.directory(url, None)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("text", [None, "", "ä", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
    def test_a_root_that_is_none_is_a_sentence(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "root.pem").write_text(text)
        with pytest.raises(
            CertificateError, match=r"acme.root .*root.pem\) (cannot be read|contains no PEM certificate)"
        ):
            authority.directory("https://127.0.0.1:1/", tmp_path / "root.pem")


def test_the_http_challenge_is_asked_for_by_webroot() -> None:
    line = command("shop.example.com", "www.shop.example.com")
    assert line[:2] == ["/opt/flaskhost/certbot/bin/certbot", "certonly"]
    assert pairs(line) >= {
        ("--config", "/etc/flaskhost/certbot/cli.ini"),
        ("--config-dir", "/etc/letsencrypt"),
        ("--cert-name", "flask-shop"),
        ("--webroot", "-w"),
        ("-w", "/var/www/acme"),
        ("-d", "shop.example.com"),
        ("-d", "www.shop.example.com"),
        ("--deploy-hook", "/usr/local/sbin/flaskhost-certificates deployed"),
        ("--elliptic-curve", "secp256r1"),
    }
    assert {"--non-interactive", "--renew-with-new-domains", "--keep-until-expiring"} <= set(line)
    assert "--force-renewal" not in line


def test_a_new_one_can_be_forced() -> None:
    assert "--force-renewal" in authority.certonly(config(), certificate("a.example.com"), force=True)


def test_the_dns_challenge_is_asked_for_by_plugin_without_a_secret() -> None:
    line = command("*.shop.example.com", challenge="dns", dns_plugin="hetzner", dns_propagation=45)
    assert pairs(line) >= {
        ("--authenticator", "dns-hetzner"),
        ("--dns-hetzner-credentials", "/etc/flaskhost/certbot/dns.ini"),
        ("--dns-hetzner-propagation-seconds", "45"),
        ("-d", "*.shop.example.com"),
    }
    assert "--webroot" not in line


def test_route53_has_no_such_arguments() -> None:
    line = command(challenge="dns", dns_plugin="route53")
    assert not [item for item in line if item.startswith("--dns-route53-")]


def test_the_dns_challenge_without_plugin_is_a_sentence() -> None:
    with pytest.raises(CertificateError, match=r"flask_apps.shop.tls.challenge is dns, but no DNS plugin is set"):
        command(challenge="dns")


@pytest.mark.parametrize(
    ("key_type", "arguments"),
    [
        ("p256", "--key-type ecdsa --elliptic-curve secp256r1"),
        ("p384", "--key-type ecdsa --elliptic-curve secp384r1"),
        ("rsa2048", "--key-type rsa --rsa-key-size 2048"),
        ("rsa4096", "--key-type rsa --rsa-key-size 4096"),
    ],
)
def test_each_key_type(key_type: str, arguments: str) -> None:
    assert arguments in " ".join(command(key_type=key_type))


def test_a_key_type_that_is_none_is_a_sentence() -> None:
    with pytest.raises(CertificateError, match=r"acme.key_type is dsa. Available: p256, p384, rsa2048, rsa4096"):
        command(key_type="dsa")


def test_a_profile_is_preferred() -> None:
    assert ("--preferred-profile", "shortlived") in pairs(command(profile="shortlived"))
    assert "--preferred-profile" not in command()


def test_addresses_have_an_argument_of_their_own() -> None:
    line = command("shop.example.com", "203.0.113.7", "2001:db8::7")
    assert pairs(line) >= {("-d", "shop.example.com"), ("--ip-address", "203.0.113.7"), ("--ip-address", "2001:db8::7")}


def test_addresses_need_a_challenge_that_can() -> None:
    with pytest.raises(CertificateError, match="which the dns challenge cannot validate"):
        command("203.0.113.7", challenge="dns", dns_plugin="rfc2136")


def test_renewal_leaves_each_lineage_its_own_authority() -> None:
    line = authority.renewal(config())
    assert line[:2] == ["/opt/flaskhost/certbot/bin/certbot", "renew"]
    assert {"--non-interactive", "--no-random-sleep-on-renew"} <= set(line)
    assert ("--config-dir", "/etc/letsencrypt") in pairs(line)
    assert "--config" not in line


class TestBundle:
    @pytest.fixture
    def settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
        (tmp_path / "roots.crt").write_text("# system\n-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----")
        key = "-----BEGIN PRIVATE KEY-----\nK\n-----END PRIVATE KEY-----\n"
        (tmp_path / "root.pem").write_text(f"{key}-----BEGIN CERTIFICATE-----\nB\n-----END CERTIFICATE-----\n")
        monkeypatch.setattr(authority, "SYSTEM_ROOTS", tmp_path / "roots.crt")
        return config(settings=tmp_path, root=tmp_path / "root.pem")

    def test_holds_both(self, settings: Config, tmp_path: Path) -> None:
        path = authority.ca_bundle(settings)
        assert path == tmp_path / "ca-bundle.pem"
        assert re.findall(r"^[ABK]$", path.read_text(), re.MULTILINE) == ["A", "B"], "and no key"
        assert "-----END CERTIFICATE-----\n-----BEGIN" in path.read_text(), "one to a line"
        assert path.stat().st_mode & 0o777 == 0o644
        assert authority.environment(settings) == {"REQUESTS_CA_BUNDLE": str(path)}
        assert {item.name for item in tmp_path.iterdir()} == {"roots.crt", "root.pem", "ca-bundle.pem"}

    def test_is_written_when_something_changed_only(self, settings: Config, tmp_path: Path) -> None:
        before = authority.ca_bundle(settings).stat()
        assert authority.ca_bundle(settings).stat().st_ino == before.st_ino
        (tmp_path / "root.pem").write_text("-----BEGIN CERTIFICATE-----\nC\n-----END CERTIFICATE-----\n")
        assert "\nC\n" in authority.ca_bundle(settings).read_text()

    def test_is_not_there_for_a_public_authority(self, tmp_path: Path) -> None:
        assert authority.ca_bundle(config(settings=tmp_path)) is None
        assert authority.environment(config(settings=tmp_path)) == {}
        assert list(tmp_path.iterdir()) == []

    def test_without_the_systems_roots_it_is_the_private_one(self, settings: Config, tmp_path: Path) -> None:
        (tmp_path / "roots.crt").unlink()
        text = authority.ca_bundle(settings).read_text()
        assert text == "-----BEGIN CERTIFICATE-----\nB\n-----END CERTIFICATE-----\n"

    def test_that_cannot_be_written_is_a_sentence(self, settings: Config, tmp_path: Path) -> None:
        with pytest.raises(CertificateError, match=r"ca-bundle.pem cannot be written"):
            authority.ca_bundle(config(settings=tmp_path / "none", root=settings.root))


def report(kind: str, detail: str, name: str = "shop.example.com") -> str:
    """What certbot prints when a challenge has failed."""
    return (
        "Saving debug log to /var/log/letsencrypt/letsencrypt.log\nRequesting a certificate for shop.example.com\n\n"
        "Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported "
        f"these problems:\n  Identifier: {name}\n  Type:   {kind}\n  Detail: {detail}\n\n"
        "Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot. "
        "Connection refused is not said here.\n\n"
        "Some challenges have failed.\n" + ADVICE
    )


ADVICE = (
    "Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile "
    "/var/log/letsencrypt/letsencrypt.log or re-run Certbot with -v for more details.\n"
)
URL = "http://shop.example.com/.well-known/acme-challenge/TuK0hV5mJpXwWcDbqVnOqZcVj7cQ8hPp7WkZx5aBcDe"


@pytest.mark.parametrize(
    ("kind", "detail", "reason", "cure"),
    [
        ("dns", "DNS problem: NXDOMAIN looking up A for shop.example.com - check that a DNS record exists for this "
         "domain", "found no address of shop.example.com", "Add the A record"),
        ("dns", "no valid A records found for shop.example.com; no valid AAAA records found for shop.example.com",
         "found no address", "Add the A record"),
        ("dns", "DNS problem: SERVFAIL looking up A for shop.example.com", "cannot resolve shop.example.com", "DNSSEC"),
        ("dns", "DNS problem: query timed out looking up A for shop.example.com", "cannot resolve", "DNS servers"),
        ("dns", "DNS problem: NXDOMAIN looking up TXT for _acme-challenge.shop.example.com", "TXT record of",
         "acme.dns.propagation"),
        ("unauthorized", 'Incorrect TXT record "x" found at _acme-challenge.shop.example.com', "TXT record of",
         "acme.dns.propagation"),
        ("connection", f"203.0.113.9: Fetching {URL}: Timeout during connect (likely firewall problem)",
         "no response on port 80", "provider's firewall"),
        ("connection", f"203.0.113.9: Fetching {URL}: Connection refused", "port 80 of shop.example.com refused",
         "A and AAAA"),
        ("connection", f"203.0.113.9: Fetching {URL}: Error getting validation data", "could not fetch",
         "lead to this host"),
        ("unauthorized", f"203.0.113.9: Invalid response from {URL}: 404", "another host or site responded",
         "lead to this host, and check the proxies in front of it"),
        ("dns", "While processing CAA for shop.example.com: DNS problem: SERVFAIL looking up CAA for example.com - the "
         "domain's nameservers may be malfunctioning", "cannot resolve shop.example.com", "DNSSEC"),
        ("malformed", "something new", "could not validate shop.example.com: malformed (something new)", "port 80"),
    ],
)  # fmt: skip
def test_a_failed_challenge(kind: str, detail: str, reason: str, cure: str) -> None:
    failure = authority.explain(report(kind, detail), NOW)
    assert failure.reason.startswith("The CA reports: ")
    assert reason in failure.reason
    assert "shop.example.com" in failure.reason
    assert cure in failure.cure
    assert failure.not_before == 0


#: Boulder's texts (va/caa.go, ra/ra.go), as certbot prints them: of a challenge, at the end of an order, and of renew.
REFUSED = "CAA record for example.com prevents issuance"
PROCESSING = f"While processing CAA for shop.example.com: {REFUSED}"
FINALIZING = "An unexpected error occurred:\nError finalizing order :: "
RENEWING = (
    "Failed to renew certificate flask-shop with error: urn:ietf:params:acme:error:caa :: Certification Authority "
    "Authorization (CAA) records forbid the CA from issuing a certificate"
)


@pytest.mark.parametrize(
    ("text", "domain", "reason"),
    [
        (report("caa", PROCESSING), "example.com",
         "The CA reports: the CAA record of example.com forbids it to issue for shop.example.com."),
        (report("caa", f"During secondary validation: {PROCESSING}"), "example.com",
         "The CA reports: the CAA record of example.com forbids it to issue for shop.example.com."),
        (report("caa", "no"), "shop.example.com",
         "The CA reports: the CAA records of shop.example.com forbid it to issue (no)."),
        (report("unauthorized", "CAA forbids"), "shop.example.com",
         "The CA reports: the CAA records of shop.example.com forbid it to issue (CAA forbids)."),
        (f"{FINALIZING}rechecking caa: {PROCESSING}", "example.com",
         "The CAA record of example.com forbids the CA to issue the certificate."),
        (f'{FINALIZING}Rechecking CAA for "shop.example.com" and 1 more identifiers failed. Refer to sub-problems for '
         "more information", "shop.example.com",
         "CAA records forbid the CA to issue the certificate: shop.example.com."),
        (f"{RENEWING} :: Error finalizing order :: rechecking caa: {PROCESSING}", "example.com",
         "The CAA record of example.com forbids the CA to issue the certificate."),
        (RENEWING, "the domain", "CAA records forbid the CA to issue the certificate."),
    ],
    ids=range(8),
)  # fmt: skip
def test_a_caa_record_that_forbids_is_named_with_the_one_that_allows(text: str, domain: str, reason: str) -> None:
    failure = authority.explain(f"{text}\n{ADVICE}", NOW, identity=lambda: "letsencrypt.org")
    assert failure.reason == reason
    assert failure.cure.startswith(f'Add: {domain}. CAA 0 issue "letsencrypt.org" (for a wildcard: issuewild).')
    # An authority that does not say its name.
    unknown = authority.explain(f"{text}\n{ADVICE}", NOW)
    assert unknown.reason == reason
    assert unknown.cure.startswith(f"Add the CA to the CAA records of {domain}.")


def test_the_name_in_caa_records_is_only_asked_for_where_one_forbids() -> None:
    def unused() -> str:
        raise AssertionError("the directory was fetched without need")

    authority.explain(report("connection", "Connection refused"), NOW, identity=unused)
    authority.explain(f"{FINALIZING}rejectedIdentifier", NOW, identity=unused)


def test_failed_challenges_of_two_names_are_both_told() -> None:
    text = report("dns", "NXDOMAIN looking up A", "a.example.com") + report(
        "connection", "Connection refused", "b.example"
    )
    failure = authority.explain(text, NOW)
    assert "a.example.com" in failure.reason
    assert "port 80 of b.example refused" in failure.reason


ORDER = "An unexpected error occurred:\nError creating new order :: "
SEE = ": see https://letsencrypt.org/docs/rate-limits/#new-certificates-per-exact-set-of-identifiers"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (ORDER + "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, "
         "retry after 2026-11-22 10:00:00 UTC" + SEE, datetime(2026, 11, 22, 10, tzinfo=UTC)),
        (ORDER + 'too many certificates already issued for "example.com". Retry after 2026-11-22T10:00:00Z' + SEE,
         datetime(2026, 11, 22, 10, tzinfo=UTC)),
        (ORDER + 'too many failed authorizations (5) for "x.example.com" in the last 1h0m0s, retry after 2026-11-21 '
         "12:12:00 UTC" + SEE, datetime(2026, 11, 21, 12, 12, tzinfo=UTC)),
        ("Failed to renew certificate flask-shop with error: urn:ietf:params:acme:error:rateLimited :: There were too "
         "many requests of a given type :: too many new orders (300) from this account in the last 3h0m0s, retry after "
         "2026-11-21 12:30:00 UTC", datetime(2026, 11, 21, 12, 30, tzinfo=UTC)),
        (ORDER + "too many new registrations (10) from this IP address", datetime(2026, 11, 21, 13, tzinfo=UTC)),
        (ORDER + "too many new orders, retry after 2020-01-01 00:00:00 UTC", datetime(2026, 11, 21, 13, tzinfo=UTC)),
        (ORDER + "too many new orders, retry after 2026-99-99 00:00:00 UTC", datetime(2026, 11, 21, 13, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_a_rate_limit_says_until_when(text: str, moment: datetime) -> None:
    failure = authority.explain(f"{text}\n{ADVICE}", NOW)
    assert failure.reason.startswith("The CA's rate limit is reached: too many ")
    assert "retry after" not in failure.reason.lower()
    assert failure.not_before == moment.timestamp()
    assert moment.strftime("%Y-%m-%d %H:%M:%S UTC") in failure.cure


def test_a_paused_account_is_told_where_to_go() -> None:
    text = ORDER + (
        "Your account is temporarily prevented from requesting certificates for shop.example.com and possibly others. "
        "Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc.def.ghi\n"
    )
    failure = authority.explain(text, NOW)
    assert "temporarily prevented from requesting certificates for shop.example.com" in failure.reason
    assert "https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc.def.ghi" in failure.cure
    assert failure.not_before == NOW + 3600


#: What certbot 5.8.0 printed, without its first and last line; those of the network measured on loopback.
PRINTED = [
    ("Another instance of Certbot is already running.", "Another certbot is running"),
    ("certbot: error: unrecognized arguments: --dns-hetzner-credentials /x/dns.ini --dns-hetzner-propagation-seconds 3",
     "The DNS plugin hetzner of certbot is not installed."),
    ("The requested dns-hetzner plugin does not appear to be installed",
     "The plugin dns-hetzner of certbot is not installed."),
    ("The dns-hetzner plugin is not working; there may be problems with\nyour existing configuration.\nThe error: x",
     "certbot's plugin dns-hetzner does not work."),
    ("Unable to register an account with ACME server. Server requires external account binding. Please use --eab-kid "
     "and --eab-hmac-key.", "The CA requires an external account."),
    ("Unable to register an account with ACME server. Error returned by the ACME server: The external account binding "
     "is invalid", "The CA rejected the external account."),
    ("The ACME server believes ops@example.com is an invalid email address. Please ensure", "email address ops@exa"),
    ("An unexpected error occurred:\nrequests.exceptions.ConnectionError: HTTPSConnectionPool(host='127.0.0.1', "
     "port=1): Max retries exceeded with url: /dir (Caused by NewConnectionError(\"HTTPSConnection(host='127.0.0.1', "
     "port=1): Failed to establish a new connection: [Errno 111] Connection refused\"))", "The CA does not respond"),
    ("An unexpected error occurred:\nrequests.exceptions.ConnectionError: HTTPSConnectionPool(host='ca', port=443): "
     "Max retries exceeded with url: / (Caused by NameResolutionError(\"HTTPSConnection(host='ca', port=443): Failed "
     "to resolve 'ca' ([Errno -2] Name or service not known)\"))", "cannot resolve the CA's name."),
    ("An unexpected error occurred:\nrequests.exceptions.SSLError: HTTPSConnectionPool(host='localhost', port=4443): "
     "Max retries exceeded with url: /eab (Caused by SSLError(SSLCertVerificationError(1, '[SSL: "
     "CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)')))",
     "certbot does not trust the CA's own certificate: self-signed certificate."),
    ("An unexpected error occurred:\nacme.errors.ClientError: <Response [500]>", "The CA is down or busy."),
    ("Unable to register an account with ACME server. Error returned by the ACME server: Service busy; retry later.",
     "The CA is down or busy."),
    ("Failed to renew certificate flask-shop with error: urn:ietf:params:acme:error:rateLimited :: There were too many "
     "requests of a given type :: Service busy; retry later.", "The CA is down or busy."),
    (ORDER + 'Cannot issue for "shop.internal": Domain name does not end with a valid public suffix (TLD)',
     "The CA does not issue certificates for this name:"),
    (ORDER + "rejectedIdentifier", "The CA does not issue certificates for this name."),
    (ORDER + 'profile "shortlived" not permitted', 'the profile "shortlived" to this account'),
    ("The currently selected ACME CA endpoint does not support issuing wildcard certificates.", "no wildcard certif"),
    ("Client with the currently selected authenticator does not support any combination of challenges that will "
     "satisfy the CA.", "does not accept this challenge"),
    ("Missing property in credentials configuration file /etc/flaskhost/certbot/dns.ini:\n * Property "
     '"dns_rfc2136_server" not found (should be The target DNS server).', "acme.dns.credentials is incomplete: *"),
    ("Received response from server: REFUSED", "rejected the record of the challenge: REFUSED."),
    ("Encountered error adding TXT record: The peer didn't know the key we used", "didn't know the key we used."),
    ("Unable to determine base domain for _acme-challenge.shop.example.com using names: ['x'].",
     "does not serve the zone of _acme-challenge.shop.example.com."),
    ("Encountered error when making query: The DNS operation timed out.", "not respond: The DNS operation timed out."),
    ("All authorizations were not finalized by the CA.", "The CA took too long."),
    ("An unexpected error occurred:\nOSError: [Errno 28] No space left on device", "The disk is full."),
    ("/opt/flaskhost/certbot/bin/certbot: No such file or directory", "certbot does not run: No such file or direct"),
    ('Traceback (most recent call last):\n  File "/opt/flaskhost/certbot/bin/certbot", line 3, in <module>\n    from '
     "certbot.main import main\nModuleNotFoundError: No module named 'certbot'",
     "certbot does not run: No module named 'certbot'."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), PRINTED)
def test_a_failure_is_a_sentence_and_a_cure(text: str, reason: str) -> None:
    failure = authority.explain(f"Saving debug log to /var/log/letsencrypt/letsencrypt.log\n{text}\n{ADVICE}", NOW)
    assert reason in failure.reason
    assert failure.reason.endswith(".")
    assert not re.search(r"[: ]\.$|\.\.$", failure.reason)
    assert failure.cure.endswith(".")
    assert "\n" not in failure.reason + failure.cure
    assert failure.not_before == 0


def test_what_is_not_known_is_told_by_certbots_last_words() -> None:
    text = f"Saving debug log to /x\n\x1b[31mAn unexpected error occurred:\x1b[0m\nValueError: odd thing\n{ADVICE}"
    failure = authority.explain(text, NOW)
    assert failure.reason == "certbot failed: ValueError: odd thing."
    assert "/var/log/letsencrypt/letsencrypt.log" in failure.cure
    assert authority.explain("", NOW).reason == "certbot failed: it printed nothing."


@pytest.mark.parametrize(
    "text",
    [
        f"Error parsing credentials configuration '/x/dns.ini': Invalid line ('dns_rfc2136_secret {SECRET}') at line 3",
        f"ValueError: cannot read {SECRET}",
        f"KeyError: 'hmac={SECRET}'",
        f"Encountered error adding TXT record: bad key {SECRET}",
        f"{ORDER}too many new orders {SECRET}",
    ],
)
def test_a_secret_that_certbot_quotes_is_not_passed_on(text: str) -> None:
    failure = authority.explain(text, NOW)
    assert SECRET.rstrip("=") not in failure.reason + failure.cure


def test_each_rule_has_what_its_sentences_name() -> None:
    for pattern, reason, cure in authority.RULES:
        named = {field for _, field, _, _ in string.Formatter().parse(reason + cure) if field}
        if "record" in named:
            named = named - {"record"} | {"name"}
        assert named <= set(re.compile(pattern).groupindex), pattern


def test_the_authority_that_fails_is_named() -> None:
    said = "requests.exceptions.ConnectionError: Failed to establish a new connection: [Errno 111] Connection refused"
    assert authority.explain(said, 0, "https://ca.example.com:14000/dir").reason == (
        "The CA ca.example.com:14000 does not respond."
    )
    assert authority.explain(said, 0).reason == "The CA does not respond."
