"""A certificate, its chain and its key: what is read, what is refused, and with which words."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from flaskhost_certificates import pairs
from flaskhost_certificates.config import CertificateError
from flaskhost_certificates.pairs import Pair, covers, parse, problems, sign

NOW = 1_800_000_000.0
DAY = 86400.0
DOMAINS = ("shop.test", "www.shop.test")
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


class Party:
    """Somebody with a key, and with a certificate of somebody's.

    Args:
        name: the common name.
        issuer: who signs; nobody else for a self-signed one.
        names: what the certificate is for.
        ca: whether it is an authority's; None for no such extension.
        key: its key; one on P-256 where none is given.
        days: from when until when it is valid, counted from :data:`NOW`.
        digest: what the signature hashes with.
        usage: the extended key usage; None for no such extension.
        now: what the days are counted from, in seconds since 1970, where that is another time.
        sha1: sign by SHA-1 instead, with an RSA key; the library would not.
        more: arguments for the signature.
    """

    def __init__(
        self,
        name: str,
        issuer: Party | None = None,
        names: Sequence[str] = (),
        *,
        ca: bool | None = False,
        key: Any = None,
        days: tuple[float, float] = (-1, 90),
        digest: Any = hashes.SHA256,
        usage: Sequence[x509.ObjectIdentifier] | None = None,
        now: float = NOW,
        sha1: bool = False,
        **more: Any,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        begin, end = (datetime.fromtimestamp(now + item * DAY, UTC) for item in days)
        builder = x509.CertificateBuilder(signer.subject, self.subject, self.key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([general(item) for item in names]), False)
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca, None), True)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), False)
        self.certificate = builder.sign(signer.key, digest() if digest else None, **more)
        if sha1:
            self.certificate = signed_by_sha1(self.certificate, signer.key)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, form: Any = serialization.PrivateFormat.PKCS8, password: bytes = b"") -> bytes:
        """The private key in PEM form."""
        how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, form, how)


def signed_by_sha1(certificate: x509.Certificate, key: Any) -> x509.Certificate:
    der, family = certificate.public_bytes(serialization.Encoding.DER), bytes.fromhex("06092a864886f70d0101")
    der = der.replace(family + b"\x0b", family + b"\x05")  # sha256WithRSAEncryption, sha1WithRSAEncryption
    content = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    signature = key.sign(content, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - that it is weak is the point
    return x509.load_der_x509_certificate(der[: -len(signature)] + signature)


def general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


ROOT = Party("Root Nine", ca=True)
MIDDLE = Party("Middle One", ROOT, ca=True)
LEAF = Party("shop.test", MIDDLE, DOMAINS, usage=[SERVER, CLIENT])


def pair(*chain: Party, key: Party | None = None) -> Pair:
    return parse(b"".join(item.pem for item in chain), (key or chain[0]).key_pem())


def found(*chain: Party, key: Party | None = None, domains: Sequence[str] = DOMAINS, **options: Any) -> list[str]:
    return problems(pair(*chain, key=key), domains, NOW, **options)


def refused(chain: bytes | str, key: bytes | str) -> str:
    """What is said of a pair that cannot be read; never anything of the key."""
    with pytest.raises(CertificateError) as caught:
        parse(chain, key)
    assert caught.value.reason.endswith(".")
    assert caught.value.cure
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 300
    return str(caught.value)


# --- Reading ---------------------------------------------------------------------------------------------------------


def test_what_a_pair_says_of_itself() -> None:
    leaf = Party("shop.test", MIDDLE, ["Shop.TEST", "*.a.test", "192.0.2.7", "2001:DB8::7"])
    this = pair(leaf, MIDDLE)
    assert [item.serial_number for item in this.certificates] == [
        item.certificate.serial_number for item in (leaf, MIDDLE)
    ]
    assert this.leaf == leaf.certificate
    assert this.serial == leaf.certificate.serial_number
    assert this.names == {"shop.test", "*.a.test", "192.0.2.7", "2001:db8::7"}
    assert (this.not_before, this.not_after, this.lifetime) == (NOW - DAY, NOW + 90 * DAY, 91 * DAY)
    assert not this.self_signed
    assert this.issuer_name == "Middle One"
    assert this.fits
    assert pair(ROOT).self_signed
    assert not pair(Party("Root Nine", Party("Root Nine", ca=True))).self_signed, "by the name alone"


def test_the_key_is_not_shown() -> None:
    this = pair(LEAF, MIDDLE)
    assert "PRIVATE" not in repr(this)
    assert "key" not in repr(this)


def test_the_fingerprint_changes_with_either_part() -> None:
    this = pair(LEAF, MIDDLE)
    assert len(this.fingerprint) == 16
    assert int(this.fingerprint, 16)
    others = {pair(LEAF).fingerprint, pair(LEAF, MIDDLE, key=ROOT).fingerprint, this.fingerprint}
    assert len(others) == 3
    assert pair(LEAF, MIDDLE).fingerprint == this.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf subject=CN = shop\xc3\xa4\n" + text + b"\n\n more\n",
        lambda text: text.replace(b"-----\n-----", b"-----\n\n\n-----"),
        lambda text: text.replace(b"\n", b" "),  # a YAML block that folds (>)
        lambda text: text.decode("latin-1"),
    ],
)
def test_line_ends_and_remarks_make_no_other_pair(change: Callable[[bytes], bytes]) -> None:
    assert parse(change(LEAF.pem + MIDDLE.pem), change(LEAF.key_pem())) == pair(LEAF, MIDDLE)


def test_all_forms_of_a_key_are_the_same_pair() -> None:
    old = LEAF.key_pem(serialization.PrivateFormat.TraditionalOpenSSL)
    # What `openssl ecparam -genkey` writes: the curve's name comes first.
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert old.startswith(b"-----BEGIN EC PRIVATE KEY")
    assert parse(LEAF.pem, parameters + old) == parse(LEAF.pem, LEAF.key_pem())
    assert parse(LEAF.pem, LEAF.key_pem() + LEAF.pem) == parse(LEAF.pem, LEAF.key_pem()), "both in one file"


GOOD, KEY = LEAF.pem, LEAF.key_pem()
SECRET = KEY.splitlines()[1]


@pytest.mark.parametrize(
    ("chain", "key", "begin", "words"),
    [
        (b"", KEY, "The certificate", "no PEM certificate"),
        (LEAF.certificate.public_bytes(serialization.Encoding.DER), KEY, "The certificate", "no PEM certificate"),
        (GOOD[:-30], KEY, "The certificate", "truncated"),
        (GOOD + MIDDLE.pem[:200], KEY, "The certificate", "truncated"),
        (GOOD[:100] + b"!!!" + GOOD[103:], KEY, "The certificate", "damaged"),
        (GOOD[:300] + b"AAAA" + GOOD[304:400] + GOOD[460:], KEY, "The certificate", "damaged"),
        (GOOD + KEY, KEY, "The certificate", "contains a private key"),
        (KEY, GOOD, "The certificate", "contains a private key"),
        (GOOD.replace(b" CERTIFICATE", b" CERTIFICATE REQUEST"), KEY, "The certificate", "no PEM certificate"),
        (GOOD, b"", "The private key", "no PEM private key"),
        (GOOD, GOOD, "The private key", "no PEM private key"),
        (GOOD, KEY[:-40], "The private key", "truncated"),
        (GOOD, KEY[:60] + b"AAAA" + KEY[64:], "The private key", "damaged"),
        (GOOD, KEY[:60] + b"????" + KEY[64:], "The private key", "damaged"),
        (GOOD, KEY + ROOT.key_pem(), "The private key", "2 private keys"),
        (GOOD, LEAF.key_pem(password=b"x"), "The private key", "passphrase"),
        (
            GOOD,
            LEAF.key_pem(serialization.PrivateFormat.TraditionalOpenSSL, b"x"),
            "The private key",
            "passphrase",
        ),
    ],
)
def test_what_cannot_be_read_is_named(chain: bytes, key: bytes, begin: str, words: str) -> None:
    message = refused(chain, key)
    assert message.startswith(f"{begin} ")
    assert words in message
    assert SECRET[:8].decode() not in message
    assert "AAAA" not in message


def test_a_key_that_is_for_no_tls() -> None:
    key = x25519.X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert "has a type that TLS does not support" in refused(GOOD, key)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x7f"),
        (b"\x82\x09shop.test", b"\x82\x09\xffhop.test"),
        (b"\x0c\x09shop.test", b"\x0c\x09\xffhop.test"),
        (b"\x01\x01\xff\x04\x02\x30\x00", b"\x01\x01\xff\x04\x02\x30\x01"),
    ],
    ids=["key", "names", "subject", "constraints"],
)
def test_damage_of_an_inner_part_is_seen_when_it_is_read(old: bytes, new: bytes) -> None:
    """Later, in the middle of a run, it would be a stack trace."""
    der = LEAF.certificate.public_bytes(serialization.Encoding.DER)
    assert old in der
    broken = pairs._block(b"CERTIFICATE", der.replace(old, new))
    # Of an intermediate no extension is looked at.
    for chain in (broken,) if old[0] in (0x01, 0x82) else (broken, GOOD + broken):
        assert refused(chain, KEY).startswith("The certificate is damaged: parts of it cannot be parsed.")


def test_no_flipped_bit_is_a_stack_trace() -> None:
    der = LEAF.certificate.public_bytes(serialization.Encoding.DER)
    for place in range(0, len(der), 3):
        broken = der[:place] + bytes([der[place] ^ 0x15]) + der[place + 1 :]
        try:
            read = parse(pairs._block(b"CERTIFICATE", broken), KEY)
        except CertificateError:
            continue
        assert isinstance(problems(read, DOMAINS, NOW), list)
        assert isinstance(read.issuer_name, str)


def test_callers_name_what_is_at_fault() -> None:
    names = ("flask_apps.shop.tls.certificate", "flask_apps.shop.tls.key")
    for chain, key, name in ((b"x", KEY, names[0]), (GOOD, b"x", names[1])):
        with pytest.raises(CertificateError, match=f"^{name} contains no "):
            parse(chain, key, names)


def test_a_pair_from_its_files(tmp_path: Path) -> None:
    certificate, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    assert pairs.load(certificate, key) is None
    certificate.write_bytes(GOOD)
    assert pairs.load(certificate, key) is None
    key.symlink_to("current/privkey.pem")
    assert pairs.load(certificate, key) is None, "a link to nothing"
    key.unlink()
    key.write_bytes(KEY)
    assert pairs.load(certificate, key) == pair(LEAF)
    key.write_bytes(b"")
    with pytest.raises(CertificateError, match=f"^The file {key} contains no PEM private key"):
        pairs.load(certificate, key)
    key.unlink()
    key.mkdir()
    with pytest.raises(CertificateError, match=f"^The file {key} cannot be read: Is a directory"):
        pairs.load(certificate, key)


# --- Judging ---------------------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert found(LEAF, MIDDLE) == []
    assert found(LEAF, MIDDLE, ROOT) == [], "the root too does no harm"
    assert found(LEAF, MIDDLE, roots=[Party("Other", ca=True).certificate, ROOT.certificate]) == []
    assert found(LEAF, MIDDLE, roots=[MIDDLE.certificate]) == []
    assert found(LEAF, MIDDLE, ROOT, roots=[]) == [], "it brings its root along"
    assert found(Party("shop.test", MIDDLE, DOMAINS, ca=None), MIDDLE) == []


def only(messages: list[str]) -> str:
    """The only sentence, with its cure."""
    assert len(messages) == 1, messages
    assert messages[0].count(". ") >= 1
    assert messages[0].endswith(".")
    return messages[0]


def test_a_key_of_another_certificate() -> None:
    assert "does not belong" in only(found(LEAF, MIDDLE, key=Party("x")))


def test_a_chain_in_another_order() -> None:
    for chain in ((MIDDLE, LEAF), (ROOT, MIDDLE, LEAF)):
        message = only(found(*chain, key=LEAF))
        assert "out of order" in message
        assert "shop.test" in message
    message = only(found(LEAF, ROOT, MIDDLE))
    assert "Certificate 2" in message
    assert "out of order" in message


def test_an_intermediate_is_missing_or_another() -> None:
    message = only(found(LEAF, ROOT))
    assert "Root Nine" in message
    assert "it was signed by Middle One" in message
    # Same name, other key: of last year, say.
    assert "Certificate 2" in only(found(LEAF, Party("Middle One", ROOT, ca=True)))
    assert "Certificate 2" in only(found(LEAF, Party("Middle Two", ROOT, ca=True, key=MIDDLE.key))), "same key"
    message = only(found(LEAF, roots=[ROOT.certificate]))
    assert "Middle One is missing" in message
    assert "acme.root" in message
    assert found(LEAF) == [], "without roots nobody knows"


@pytest.fixture(scope="module")
def rsa_key() -> Any:
    return rsa.generate_private_key(65537, 2048)


def test_signatures_of_all_kinds(rsa_key: Any) -> None:
    for key, digest in ((rsa_key, hashes.SHA384), (ed25519.Ed25519PrivateKey.generate(), None)):
        authority = Party("Authority", key=key, ca=True, digest=digest)
        other = Party("Authority", ca=True)
        leaf = Party("shop.test", authority, DOMAINS, digest=digest, key=key if digest else None)
        assert found(leaf, authority) == []
        assert len(found(leaf, other)) == 1
        assert len(found(Party("shop.test", other, DOMAINS), authority)) == 1


@pytest.mark.skipif(not hasattr(x509.Certificate, "signature_algorithm_parameters"), reason="cryptography 41")
def test_signatures_with_pss(rsa_key: Any) -> None:
    authority = Party("Authority", key=rsa_key, ca=True)
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    leaf = Party("shop.test", authority, DOMAINS, rsa_padding=scheme)
    assert found(leaf, authority) == []
    other = Party("Authority", key=rsa.generate_private_key(65537, 2048), ca=True)
    assert len(found(leaf, other)) == 1


def test_names_that_are_not_covered() -> None:
    message = only(found(LEAF, MIDDLE, domains=["shop.test", "new.test", "192.0.2.7"]))
    assert "shop.test, www.shop.test, and not for new.test, 192.0.2.7." in message
    nameless = Party("shop.test", MIDDLE)
    assert "no name at all" in only(found(nameless, MIDDLE))


@pytest.mark.parametrize(
    ("names", "domain", "covered"),
    [
        (["shop.test"], "shop.test", True),
        (["shop.test"], "SHOP.test", True),
        (["SHOP.test."], "shop.test", True),
        (["shop.test"], "a.shop.test", False),
        (["*.shop.test"], "a.shop.test", True),
        (["*.shop.test"], "a.b.shop.test", False),
        (["*.shop.test"], "shop.test", False),
        (["*.shop.test"], "*.shop.test", True),
        (["*.test"], "*.shop.test", False),
        (["*.0.2.7"], "192.0.2.7", False),
        (["*"], "test", False),
        (["192.0.2.7"], "192.0.2.7", True),
        (["2001:db8::1"], "2001:DB8:0::1", True),
        (["2001:db8::1"], "2001:db8::2", False),
    ],
)
def test_what_covers_what(names: list[str], domain: str, covered: bool) -> None:
    assert covers(frozenset(names), [domain]) == ([] if covered else [domain])


def test_dates() -> None:
    early = Party("shop.test", MIDDLE, DOMAINS, days=(1, 2))
    assert "not valid before 2027-01-16 08:00:00 UTC" in only(found(early, MIDDLE))
    late = Party("shop.test", MIDDLE, DOMAINS, days=(-3, -1))
    assert "The certificate expired on 2027-01-14 08:00:00 UTC" in only(found(late, MIDDLE))
    old_middle = Party("Middle One", ROOT, ca=True, key=MIDDLE.key, days=(-9, -1))
    assert "intermediate certificate of Middle One expired" in only(found(LEAF, old_middle))
    old_root = Party("Root Nine", ca=True, key=ROOT.key, days=(-9, -1))
    assert found(LEAF, MIDDLE, old_root) == [], "nobody looks at a root's dates"


def test_keys_that_are_too_weak() -> None:
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that it is too small is the point
    assert "1024 bits" in only(found(Party("shop.test", MIDDLE, DOMAINS, key=small), MIDDLE))
    middle = Party("Middle One", ROOT, ca=True, key=small)
    assert "intermediate certificate of Middle One has an RSA key" in only(
        found(Party("shop.test", middle, DOMAINS), middle)
    )
    curve = ec.generate_private_key(ec.SECP224R1())
    assert "secp224r1" in only(found(Party("shop.test", MIDDLE, DOMAINS, key=curve), MIDDLE))


def test_a_hash_that_is_too_weak(rsa_key: Any) -> None:
    root = Party("Root Nine", ca=True, key=rsa_key, sha1=True)
    leaf = Party("shop.test", root, DOMAINS, sha1=True)
    assert "The certificate is signed with SHA1" in only(found(leaf, root))
    middle = Party("Middle One", root, ca=True, sha1=True)
    good = Party("shop.test", middle, DOMAINS)
    assert "intermediate certificate of Middle One is signed with SHA1" in only(found(good, middle, root))
    assert found(Party("shop.test", root, DOMAINS), root) == [], "a root is trusted, however it is signed"


def test_certificates_that_are_for_something_else() -> None:
    assert "CA:TRUE" in only(found(Party("shop.test", names=DOMAINS, ca=True)))
    assert "serverAuth" in only(found(Party("shop.test", MIDDLE, DOMAINS, usage=[CLIENT]), MIDDLE))


def test_all_that_is_wrong_is_told_at_once() -> None:
    bad = Party("x.test", MIDDLE, ["x.test"], days=(-9, -1), ca=True, usage=[CLIENT])
    assert len(found(bad, ROOT, key=Party("y"))) == 6


def test_a_name_cannot_command_a_terminal() -> None:
    evil = Party("E\x1b[2Jvil", ca=True)
    leaf = Party("shop.test", evil, DOMAINS)
    assert "\x1b" not in "".join(found(leaf, ROOT))
    assert pair(leaf).issuer_name == "E?[2Jvil"


# --- Roots -----------------------------------------------------------------------------------------------------------


def test_the_roots_of_the_system_and_of_a_private_authority(tmp_path: Path) -> None:
    system, extra = tmp_path / "system.crt", tmp_path / "root.pem"
    assert pairs.trusted_roots(None, system) == []
    system.write_bytes(b"# one\n" + ROOT.pem + pairs._block(b"CERTIFICATE", b"\x30\x00") + MIDDLE.pem)
    extra.write_bytes(LEAF.pem)
    assert pairs.trusted_roots(extra, system) == [item.certificate for item in (ROOT, MIDDLE, LEAF)]
    extra.write_bytes(b"nothing")
    with pytest.raises(CertificateError, match=f"{extra} cannot be read, or contains no.*acme.root"):
        pairs.trusted_roots(extra, system)
    with pytest.raises(CertificateError, match="cannot be read: No such file"):
        pairs.trusted_roots(tmp_path / "none", system)


# --- Signing ---------------------------------------------------------------------------------------------------------


def test_one_that_is_signed_by_itself() -> None:
    domains = ["shop.test", "*.shop.test", "192.0.2.7", "2001:db8::7"]
    this = sign(domains, NOW + 0.5)
    assert problems(this, domains, NOW) == []
    assert this.names == set(domains)
    assert this.self_signed
    assert this.issuer_name == "shop.test"
    assert (this.not_before, this.not_after) == (NOW - DAY, NOW + 3650 * DAY)
    key = this.leaf.public_key()
    assert (key.curve.name, this.leaf.signature_hash_algorithm.name) == ("secp256r1", "sha256")
    assert sign(domains, NOW).serial != this.serial
    assert parse(this.chain, this.key) == this, "in the form that is compared"
    extensions = {item.value.__class__: item.value for item in this.leaf.extensions}
    assert not extensions[x509.BasicConstraints].ca
    assert extensions[x509.KeyUsage].digital_signature
    assert not extensions[x509.KeyUsage].key_cert_sign
    assert list(extensions[x509.ExtendedKeyUsage]) == [SERVER]
    ours, theirs = extensions[x509.SubjectKeyIdentifier], extensions[x509.AuthorityKeyIdentifier]
    assert ours.digest == theirs.key_identifier


def test_a_first_name_that_is_too_long_for_a_common_name() -> None:
    domain = f"{'a' * 60}.{'b' * 60}.test"
    this = sign([domain], NOW)
    assert this.names == {domain}
    assert this.issuer_name == domain[:64]
