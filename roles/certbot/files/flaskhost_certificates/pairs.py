"""A certificate with its chain and its private key: read, judged, and signed by itself.

Works with cryptography 38 (Debian 12) and later; what later versions do better is used only where it is there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flaskhost_certificates.config import CertificateError

#: The roots that Debian trusts, in one file (package ca-certificates).
SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
#: How long a certificate of our own signature lasts: it bridges the time until a better one is there.
SELF_SIGNED_DAYS = 3650
#: The longest common name (RFC 5280, appendix A, ub-common-name).
COMMON_NAME_LENGTH = 64
#: The least that the CA/Browser Forum's Baseline Requirements allow (6.1.5): RSA 2048 bits, and the curve P-256.
RSA_BITS, CURVE_BITS = 2048, 256

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
#: What the library raises at damaged input.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_FROM_VAULT = "Write it in PEM format, as a YAML block (|) with all its lines."
_Key: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
_WRONG_KEY = (
    "The private key does not belong to the certificate. Set the key that the certificate was requested with, or "
    "request a new certificate for this key."
)


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and a private key; made by :func:`parse`, :func:`load` and :func:`sign`.

    Whether the key belongs to the certificate is for :func:`problems` to say.

    Attributes:
        chain: PEM, the site's own certificate (the leaf) first.
        key: PEM (PKCS #8), not encrypted. A secret: it is not in the pair's ``repr``.
    """

    chain: bytes
    key: bytes = field(repr=False)

    @cached_property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The certificates of the chain, in its order."""
        return tuple(x509.load_der_x509_certificate(_decode(body)) for _, body in _BLOCK.findall(self.chain))

    @property
    def leaf(self) -> x509.Certificate:
        """The site's own certificate."""
        return self.certificates[0]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when the chain or the key does; nothing of the private key is in them."""
        return hashlib.sha256(self.chain + _public_bytes(self._private_key.public_key())).hexdigest()[:16]

    @property
    def serial(self) -> int:
        """The serial number of the leaf."""
        return self.leaf.serial_number

    @cached_property
    def names(self) -> frozenset[str]:
        """The DNS names, in lower case, and the IP addresses, as text, that the leaf is for.

        The common name is none of them: no browser looks at it (RFC 9110, section 4.3.4).
        """
        try:
            extension = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return frozenset()
        dns = extension.value.get_values_for_type(x509.DNSName)
        addresses = extension.value.get_values_for_type(x509.IPAddress)
        return frozenset(map(_normal, [*dns, *map(str, addresses)]))

    @property
    def not_before(self) -> float:
        """When the leaf begins to be valid, in seconds since 1970."""
        return _dates(self.leaf)[0]

    @property
    def not_after(self) -> float:
        """When the leaf ends, in seconds since 1970."""
        return _dates(self.leaf)[1]

    @property
    def lifetime(self) -> float:
        """How long the leaf is valid in all, in seconds."""
        return self.not_after - self.not_before

    @property
    def self_signed(self) -> bool:
        """Whether the leaf is signed by its own key."""
        return _issued(self.leaf, self.leaf)

    @property
    def issuer_name(self) -> str:
        """Who signed the leaf, for people."""
        return _text(self.leaf.issuer)

    @property
    def fits(self) -> bool:
        """Whether the private key belongs to the leaf."""
        return _public_bytes(self._private_key.public_key()) == _public_bytes(self.leaf.public_key())

    @cached_property
    def _private_key(self) -> _Key:
        return serialization.load_pem_private_key(self.key, password=None)  # type: ignore[return-value]


def parse(
    chain: bytes | str, key: bytes | str, names: tuple[str, str] = ("The certificate", "The private key")
) -> Pair:
    """Read a pair from PEM, whatever its line ends, and whatever stands between the blocks.

    Args:
        chain: the leaf and its intermediates.
        key: the private key, in one of PKCS #8, PKCS #1 and SEC 1.
        names: what the two are called where one of them is at fault: a variable, for instance.

    Raises:
        CertificateError: one of both cannot be used; no part of the key is in the text.
    """
    return _parse(chain, key, names, _FROM_VAULT)


def load(certificate: Path, key: Path) -> Pair | None:
    """Read a pair from its files.

    Returns:
        None when one of them is not there.

    Raises:
        CertificateError: they are there and cannot be used.
    """
    texts = []
    for path in (certificate, key):
        try:
            texts.append(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            reason = f"The file {path} cannot be read: {error.strerror}."
            raise CertificateError(reason, "Only root can read it: run this as root, or correct the file.") from None
    names = (f"The file {certificate}", f"The file {key}")
    return _parse(texts[0], texts[1], names, "Replace it by a valid file, or delete both files of the pair.")


def trusted_roots(extra: Path | None = None, system: Path = SYSTEM_ROOTS) -> list[x509.Certificate]:
    """The roots that this host trusts, for :func:`problems`.

    Args:
        extra: a file with the root of a private authority.
        system: the file with the distribution's; where it is missing, there are none.

    Raises:
        CertificateError: the private authority's root cannot be read.
    """
    found = _readable(system.read_bytes()) if system.is_file() else []
    if extra is not None:
        try:
            more = _readable(extra.read_bytes())
        except OSError as error:
            more, why = [], f": {error.strerror}"
        else:
            why = ", or contains no PEM certificate"
        if not more:
            reason = f"The CA's root certificate {extra} cannot be read{why}."
            raise CertificateError(reason, "Set acme.root to the root certificate, then run site.yml again.")
        found += more
    return found


def sign(domains: Sequence[str], now: float) -> Pair:
    """Make a key (ECDSA P-256), and a certificate that it signs itself.

    Args:
        domains: names, wildcards and IP addresses.
        now: seconds since 1970; the certificate begins a day earlier, for visitors whose clock is slow.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    public, moment = key.public_key(), datetime.fromtimestamp(int(now), UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domains[0][:COMMON_NAME_LENGTH])])
    usage = dict.fromkeys(
        [
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ],
        False,
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName([_general_name(domain) for domain in domains]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(digital_signature=True, **usage), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(days=1))
        .not_valid_after(moment + timedelta(days=SELF_SIGNED_DAYS))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Pair(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _private_bytes(key))


def covers(names: Collection[str], domains: Sequence[str]) -> list[str]:
    """The domains that a certificate is not for.

    Args:
        names: what it is for: :attr:`Pair.names`. A wildcard stands for one label (RFC 6125, section 6.4.3).
        domains: names, wildcards (only the same wildcard will do) and IP addresses (only the same).
    """
    have = frozenset(map(_normal, names))
    return [domain for domain in domains if _normal(domain) not in have and _wildcard(domain) not in have]


def problems(
    pair: Pair, domains: Sequence[str], now: float, roots: Sequence[x509.Certificate] | None = None
) -> list[str]:
    """All that keeps a pair from serving visitors.

    Args:
        pair: what has been read.
        domains: what it should be for.
        now: seconds since 1970.
        roots: what the chain has to lead to, unless it holds its own root: :func:`trusted_roots`. None for anything;
            then an intermediate that is missing at the end cannot be told.

    Returns:
        Sentences, each with its cure.
    """
    owner = next((item for item in pair.certificates if _same_key(item, pair)), None)
    if owner is not None and not pair.fits:
        # All the rest would be said of the wrong certificate.
        return [
            f"The chain is out of order: the private key belongs to the certificate of {_text(owner.subject)}, which "
            "is not the first one. Put the site's own certificate first, then each one's issuer."
        ]
    return [
        *([] if pair.fits else [_WRONG_KEY]),
        *_chain_problems(pair.certificates, roots),
        *_name_problems(pair, domains),
        *_date_problems(pair.certificates, now),
        *_strength_problems(pair.certificates),
        *_purpose_problems(pair),
    ]


def _same_key(certificate: x509.Certificate, pair: Pair) -> bool:
    return _public_bytes(certificate.public_key()) == _public_bytes(pair._private_key.public_key())


def _chain_problems(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate] | None) -> Iterator[str]:
    for place, (item, issuer) in enumerate(itertools.pairwise(chain), 1):
        if _issued(item, issuer):
            continue
        what = f"Certificate {place + 1} of the chain ({_text(issuer.subject)}) did not sign the one before it"
        if any(_issued(item, other) for other in chain if other is not item):
            yield f"{what}: the chain is out of order. Put each certificate's issuer right after it."
        else:
            yield (
                f"{what}: it was signed by {_text(item.issuer)}. Add that intermediate certificate there; the CA "
                "offers it for download."
            )
        return
    last = chain[-1]
    if roots is None or _issued(last, last) or any(last == root or _issued(last, root) for root in roots):
        return
    yield (
        f"The chain ends before a root that this host trusts: the certificate of {_text(last.issuer)} is missing. "
        "Append the intermediate certificates that the CA provides. For a private CA, append its root or set "
        "acme.root."
    )


def _name_problems(pair: Pair, domains: Sequence[str]) -> Iterator[str]:
    if missing := covers(pair.names, domains):
        known = ", ".join(sorted(pair.names)) or "no name at all"
        yield (
            f"The certificate is for {known}, and not for {', '.join(missing)}. Request one for all domains, or "
            "remove those from the app's domains."
        )


def _date_problems(chain: Sequence[x509.Certificate], now: float) -> Iterator[str]:
    for item, what in _judged(chain):
        begins, ends = _dates(item)
        if now < begins:
            yield f"{what} is not valid before {_time(begins)}. Use it from then on, or correct this host's clock."
        if now > ends:
            yield f"{what} expired on {_time(ends)}. Request a new one."


def _strength_problems(chain: Sequence[x509.Certificate]) -> Iterator[str]:
    for item, what in _judged(chain):
        key = item.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS:
            yield (
                f"{what} has an RSA key of {key.key_size} bits, which browsers reject. Request one for a key of "
                f"{RSA_BITS} bits or more, or for an ECDSA key."
            )
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < CURVE_BITS:
            yield (
                f"{what} has a key on the curve {key.curve.name}, which browsers reject. Request one for a key on "
                "P-256 or P-384."
            )
        algorithm = _hash(item)
        if isinstance(algorithm, hashes.SHA1 | hashes.MD5):
            yield (
                f"{what} is signed with {algorithm.name.upper()}, which browsers reject. Request one that is signed "
                "with SHA-256 or better."
            )


def _purpose_problems(pair: Pair) -> Iterator[str]:
    basic = _extension(pair.leaf, x509.BasicConstraints)
    if basic is not None and basic.ca:
        yield (
            "The first certificate is a CA's (basicConstraints CA:TRUE), not a site's. Put the site's own "
            "certificate first, or request one with CA:FALSE."
        )
    purposes = _extension(pair.leaf, x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
        yield (
            "The certificate is not for servers (its extended key usage lacks serverAuth). Request one for a TLS web "
            "server."
        )


def _judged(chain: Sequence[x509.Certificate]) -> Iterator[tuple[x509.Certificate, str]]:
    """The certificates that browsers judge, with their names: a root is trusted as it is, whatever it looks like."""
    yield chain[0], "The certificate"
    for item in chain[1:]:
        if not _issued(item, item):
            yield item, f"The intermediate certificate of {_text(item.subject)}"


# --- Reading PEM -----------------------------------------------------------------------------------------------------


def _parse(chain: bytes | str, key: bytes | str, names: tuple[str, str], cure: str) -> Pair:
    chain, key = (item.encode("utf-8", "replace") if isinstance(item, str) else item for item in (chain, key))
    certificates = _read_chain(chain, names[0], cure)
    private = _read_key(key, names[1], cure)
    text = b"".join(item.public_bytes(serialization.Encoding.PEM) for item in certificates)
    pair = Pair(text, _private_bytes(private))
    try:
        # What is decoded only when it is asked for has to be asked for here.
        for item in certificates:
            _ = _public_bytes(item.public_key()), _dates(item), _text(item.subject), _issued(item, item)
        _ = pair.names, pair.issuer_name, pair.fits, _extension(pair.leaf, x509.BasicConstraints)
    except _UNREADABLE:
        raise CertificateError(f"{names[0]} is damaged: parts of it cannot be parsed.", cure) from None
    return pair


def _read_chain(text: bytes, what: str, cure: str) -> list[x509.Certificate]:
    blocks = _BLOCK.findall(text)
    if any(label.endswith(b"PRIVATE KEY") for label, _ in blocks):
        # Whoever may read the certificate would read the key.
        reason = f"{what} contains a private key."
        raise CertificateError(reason, "Set the key separately. Only certificates belong here, the site's own first.")
    bodies = [body for label, body in blocks if label in (b"CERTIFICATE", b"X509 CERTIFICATE")]
    if text.count(b"-----BEGIN ") != len(blocks):
        raise CertificateError(f"{what} is truncated or damaged.", cure)
    if not bodies:
        raise CertificateError(f"{what} contains no PEM certificate.", cure)
    try:
        return [x509.load_der_x509_certificate(_decode(body)) for body in bodies]
    except _UNREADABLE:
        raise CertificateError(f"{what} is damaged: it begins like PEM, but cannot be decoded.", cure) from None


def _read_key(text: bytes, what: str, cure: str) -> _Key:
    blocks = [(label, body) for label, body in _BLOCK.findall(text) if label.endswith(b"PRIVATE KEY")]
    if not blocks:
        problem = "is truncated or damaged" if b"PRIVATE KEY-----" in text else "contains no PEM private key"
        raise CertificateError(f"{what} {problem}.", cure)
    if len(blocks) > 1:
        raise CertificateError(f"{what} contains {len(blocks)} private keys.", "Keep only the key of the certificate.")
    label, body = blocks[0]
    if label.startswith(b"ENCRYPTED") or b"ENCRYPTED" in body:
        reason = f"{what} is protected by a passphrase, which nginx cannot enter."
        raise CertificateError(
            reason, "Remove the passphrase (openssl pkey -in FILE -out NEW), and keep the key in the vault."
        )
    try:
        key = serialization.load_pem_private_key(_block(label, _decode(body)), password=None)
    except _UNREADABLE:
        # Without the library's own words: who knows what of the key they repeat.
        raise CertificateError(f"{what} is damaged: it begins like PEM, but cannot be decoded.", cure) from None
    if not isinstance(key, _Key):
        raise CertificateError(f"{what} has a type that TLS does not support.", "Use an ECDSA or an RSA key.")
    return key


def _readable(text: bytes) -> list[x509.Certificate]:
    """The certificates of a bundle, without those that the library cannot read: they are not ours to judge."""
    found = []
    for label, body in _BLOCK.findall(text):
        try:
            if label == b"CERTIFICATE":
                found.append(x509.load_der_x509_certificate(_decode(body)))
        except _UNREADABLE:
            continue
    return found


def _decode(body: bytes) -> bytes:
    """What a PEM block holds. Its lines may be of any length, or have been joined by a YAML that folds them."""
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _block(label: bytes, der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN " + label + b"-----", *lines, b"-----END " + label + b"-----", b""])


# --- What the library's versions differ in ---------------------------------------------------------------------------


def _dates(certificate: x509.Certificate) -> tuple[float, float]:
    """The beginning and the end, in seconds since 1970."""
    if hasattr(certificate, "not_valid_after_utc"):  # since cryptography 42, which warns of the other two
        return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    first, last = certificate.not_valid_before, certificate.not_valid_after
    return first.replace(tzinfo=UTC).timestamp(), last.replace(tzinfo=UTC).timestamp()


def _hash(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    """What the signature hashes with; None where the algorithm has no choice, or the library does not know it."""
    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether one certificate is signed by the other's key, and names it as its issuer.

    By hand, as ``verify_directly_issued_by`` came with cryptography 40: both distributions run the same lines. A kind
    of signature that the library does not know (RSASSA-PSS before cryptography 41) is taken for good where the names
    agree: those who connect judge it anyway.
    """
    if certificate.issuer != issuer.subject:
        return False
    try:
        _verify(certificate, issuer.public_key())
    except InvalidSignature:
        return False
    except UnsupportedAlgorithm:
        return True
    return True


def _verify(certificate: x509.Certificate, key: Any) -> None:
    """Check a certificate's signature.

    Raises:
        InvalidSignature: another key made it.
        UnsupportedAlgorithm: the library does not know its kind.
    """
    signature, content = certificate.signature, certificate.tbs_certificate_bytes
    algorithm = certificate.signature_hash_algorithm
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, content)
    elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
        key.verify(signature, content, ec.ECDSA(algorithm))
    elif isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
        # Since cryptography 41 it is told whether it is RSASSA-PSS; before, PSS has no known hash.
        scheme: Any = getattr(certificate, "signature_algorithm_parameters", None) or padding.PKCS1v15()
        if not isinstance(scheme, padding.PKCS1v15 | padding.PSS):
            raise InvalidSignature
        key.verify(signature, content, scheme, algorithm)
    else:
        raise InvalidSignature


def _extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


# --- Small things ----------------------------------------------------------------------------------------------------


def _public_bytes(key: Any) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_bytes(key: _Key) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _normal(domain: str) -> str:
    """A name in lower case, or an IP address in the one way that all programs write it."""
    try:
        return str(ipaddress.ip_address(domain))
    except ValueError:
        return domain.lower().rstrip(".")


def _wildcard(domain: str) -> str:
    """The wildcard that stands for a name, a wildcard's own; empty for an IP address, which none stands for."""
    domain = _normal(domain)
    rest = domain.partition(".")[2]
    if ":" in domain or domain.replace(".", "").isdigit():
        return ""
    return f"*.{rest}"


def _general_name(domain: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(domain))
    except ValueError:
        return x509.DNSName(domain)


def _text(name: x509.Name) -> str:
    """A name for people: its common name, or else all of it; never a character that a terminal would obey."""
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(common[0].value) if common else name.rfc4514_string()
    return "".join(letter if letter.isprintable() else "?" for letter in text) or "an issuer without a name"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
