"""Certificates of one's own (tls.mode: files): served where they fit, and refused before nginx has seen them."""

import datetime
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fleet import APPS, orders, pem, play

pytestmark = pytest.mark.usefixtures("corrected")


class Private:
    """An authority of one's own."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root of a company")])
        self.root = self._sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None))

    def _sign(self, subject, key, *extensions):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *domains):
        """A certificate for these names, and its key, both as text."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domains[0])])
        alternatives = x509.SubjectAlternativeName([x509.DNSName(domain) for domain in domains])
        certificate = self._sign(subject, key, alternatives, x509.BasicConstraints(ca=False, path_length=None))
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return pem(certificate), text


@pytest.fixture(scope="module")
def private():
    return Private()


def with_pair(certificate, key):
    """The apps, with a pair of its own for shop."""
    return {**APPS, "shop": {**APPS["shop"], "tls": {"mode": "files", "certificate": certificate, "key": key}}}


@pytest.fixture(scope="module")
def installed(private, trixie):
    """A pair of one's own that fits is served by one of the hosts; the last test goes back to the authority's."""
    certificate, key = private.issue(*APPS["shop"]["domains"])
    status, output = play("-vvv", limit=trixie.name, flask_apps=with_pair(certificate, key))
    assert status == 0, output
    return certificate, key, output


def test_own_certificate_is_served_and_its_key_is_told_to_nobody(private, trixie, installed):
    certificate, key, output = installed
    wanted = x509.load_pem_x509_certificate(certificate.encode())
    for domain in APPS["shop"]["domains"]:
        assert trixie.verified(domain, pem(private.root)) == wanted
    for line in key.splitlines()[1:-1]:
        assert line not in output
    assert "PRIVATE KEY-----" not in output
    path = "/etc/flaskhost/tls/shop/privkey.pem"
    assert trixie.run(f"stat -L -c '%U %G %a' {path}") == "root root 600\n"


def damaged(key):
    """A key with some characters swapped in its middle."""
    lines = key.splitlines()
    lines[2] = lines[2][::-1]
    return "\n".join(lines) + "\n"


def bad_pairs(private):
    """Pairs that do not fit, by what the sentence about each has to name."""
    certificate, key = private.issue(*APPS["shop"]["domains"])
    _other, other_key = private.issue(*APPS["shop"]["domains"])
    strange, strange_key = private.issue("somebody-else.test")
    return {
        "corrupt key": (certificate, damaged(key), "shop.tls.key"),
        "key of another certificate": (certificate, other_key, "shop.tls"),
        "wrong names": (strange, strange_key, "shop.test"),
        "no certificate": (key, key, "shop.tls.certificate"),
    }


@pytest.mark.parametrize("kind", ["corrupt key", "wrong names"])
def test_bad_pair_is_refused_before_nginx_is_touched(ca, private, trixie, installed, kind):
    before, count = trixie.fingerprint(), orders(ca)
    certificate, key, named = bad_pairs(private)[kind]
    status, output = play("-vvv", limit=trixie.name, flask_apps=with_pair(certificate, key))
    assert status != 0
    assert named in output
    for line in key.splitlines()[1:-1]:
        assert line not in output
    assert trixie.fingerprint() == before
    assert orders(ca) == count


@pytest.mark.parametrize("kind", ["corrupt key", "key of another certificate", "wrong names", "no certificate"])
def test_host_checks_once_more_by_itself(private, trixie, installed, kind):
    """Whatever the controller has let through."""
    before = trixie.fingerprint()
    certificate, key, named = bad_pairs(private)[kind]
    pairs = json.dumps({"files": {"shop": {"certificate": certificate, "key": key}}})
    trixie.run(f"umask 077; cat > /run/pair.json <<'END'\n{pairs}\nEND")
    result = trixie.host.run("timeout 60 /usr/local/sbin/flaskhost-certificates prepare < /run/pair.json")
    trixie.run("rm /run/pair.json")
    said = result.stdout + result.stderr
    assert result.rc == 1, said
    assert named in said
    assert "Traceback" not in said
    for line in key.splitlines()[1:-1]:
        assert line not in said
    assert trixie.fingerprint() == before


def test_authoritys_certificate_is_back_when_it_is_wanted_again(trixie, roots):
    status, output = play(limit=trixie.name)
    assert status == 0, output
    trixie.verified("www.shop.test", roots["main"])
    assert trixie.visitor.ask("https://shop.test/").status == 200
