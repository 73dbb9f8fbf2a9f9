"""What nginx serves: told to load what is on the disk, and asked by real handshakes whether it has."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from flaskhost_certificates.config import CertificateError
from flaskhost_certificates.pairs import Pair

#: Runs a command without a shell; returns its status, output and errors.
Run = Callable[[Sequence[str]], tuple[int, str, str]]

#: What a wildcard is asked for with: a name that it stands for, and nobody uses.
PROBE = "flaskhost-probe"
#: So many handshakes in a row have to show the new certificate: for a moment after a reload old workers accept too.
HANDSHAKES = 3
#: How long nginx gets to serve the new certificate, in seconds.
PATIENCE = 10.0
#: How long to wait between two looks, in seconds.
PAUSE = 0.1
_NGINX, _LINES = "/usr/sbin/nginx", 10


def reload(run: Run) -> None:
    """Have nginx load what is on the disk, if it finds no fault with it.

    A reload that fails counts as a change of nginx's state: whoever tells by the files' age whether one is due has to
    make them younger then.

    Raises:
        CertificateError: nginx refuses its settings, or cannot be reloaded; it serves what it served before.
    """
    test = [_NGINX, "-t", "-q"]
    status, out, err = run(test)
    if status:
        reason = f"nginx was not reloaded: {' '.join(test)} reported: {_tail(out + err)}"
        raise CertificateError(reason, "Correct the error, then run the same command again.")
    command = ["systemctl", "reload", "nginx.service"]
    status, out, err = run(command)
    if status:
        reason = f"nginx was not reloaded: {' '.join(command)} failed: {_tail(out + err)}"
        raise CertificateError(reason, "See sudo journalctl -u nginx.service, then run the same command again.")


def is_running(run: Run) -> bool:
    """Whether nginx runs."""
    return run(["systemctl", "is-active", "--quiet", "nginx.service"])[0] == 0


def served(domain: str, port: int = 443, address: str = "127.0.0.1", timeout: float = 5.0) -> bytes | None:
    """The certificate that a visitor of a domain is shown, whoever signed it.

    Args:
        domain: a name, a wildcard (asked for by a name that it stands for), or an IP address (whose visitors name
            nothing: RFC 6066, section 3, allows no addresses there).
        port: where nginx listens.
        address: of this host.
        timeout: how long to wait for each step, in seconds.

    Returns:
        The leaf in DER form; None where no handshake succeeds.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, port), timeout) as connection,
            # The library names no address to the server.
            context.wrap_socket(connection, server_hostname=_visited(domain)) as tls,
        ):
            return tls.getpeercert(binary_form=True)
    except (OSError, ValueError):
        return None


def der(pair: Pair) -> bytes:
    """Return the leaf of a pair in DER form, to compare with what :func:`served` returns."""
    return pair.leaf.public_bytes(Encoding.DER)


def prove(
    domains: Sequence[str],
    pair: Pair,
    *,
    port: int = 443,
    address: str = "127.0.0.1",
    patience: float = PATIENCE,
    ask: Callable[..., bytes | None] = served,
) -> None:
    """See that all domains are served with a pair's certificate, and wait for it if need be.

    Args:
        domains: names, wildcards and IP addresses.
        pair: what has been installed, and loaded.
        port: where nginx listens.
        address: of this host.
        patience: how long it may take for all of them, in seconds.
        ask: looks once; as :func:`served`.

    Raises:
        CertificateError: a domain is served with another certificate, or with none.
    """
    deadline = time.monotonic() + patience
    wanted = der(pair)
    for domain in domains:
        in_a_row = 0
        while in_a_row < HANDSHAKES:
            shown = ask(domain, port=port, address=address)
            in_a_row = in_a_row + 1 if shown == wanted else 0
            if in_a_row:
                continue
            if time.monotonic() >= deadline:
                raise _unproven(domain, shown, pair, port)
            time.sleep(PAUSE)


def trusted(domain: str, root: Path | None, port: int = 443, address: str = "127.0.0.1", timeout: float = 5.0) -> bool:
    """Whether a visitor who trusts what this host trusts could open a domain without a warning.

    Args:
        domain: a name, a wildcard or an IP address, as for :func:`served`.
        root: the root of a private authority, trusted beside the system's; None for those alone.
        port: where nginx listens.
        address: of this host.
        timeout: how long to wait for each step, in seconds.

    Raises:
        CertificateError: the private authority's root cannot be read.
    """
    context = ssl.create_default_context()
    # Python 3.13 checks more than browsers do, and more than 3.11: the same certificate is judged the same everywhere.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if root is not None:
        try:
            context.load_verify_locations(cafile=root)
        except OSError as error:  # an SSLError too: what is there is no certificate
            why = "it is not a PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
            reason = f"The CA's root certificate {root} cannot be read: {why}."
            raise CertificateError(reason, "Set acme.root to the root certificate, then run site.yml again.") from None
    try:
        with (
            socket.create_connection((address, port), timeout) as connection,
            # For an address the library compares it with the certificate's, and names nothing to the server.
            context.wrap_socket(connection, server_hostname=_visited(domain)),
        ):
            return True
    except (OSError, ValueError):
        return False


def _unproven(domain: str, shown: bytes | None, pair: Pair, port: int) -> CertificateError:
    if shown is None:
        reason = f"{domain} is served without a certificate: no TLS handshake succeeds on port {port} of this host"
    else:
        serial = x509.load_der_x509_certificate(shown).serial_number
        reason = f"{domain} is still served with another certificate (serial number {serial:x})"
    return CertificateError(
        f"{reason}; the installed one has {pair.serial:x}.",
        "See sudo journalctl -u nginx.service and /var/log/nginx/error.log, then run the same command again.",
    )


def _visited(domain: str) -> str:
    """What a visitor writes into the address bar."""
    return f"{PROBE}{domain[1:]}" if domain.startswith("*.") else domain


def _tail(text: str) -> str:
    """The last lines of what a program said, without what a terminal would obey."""
    lines = [line.strip() for line in text.splitlines() if line.strip()][-_LINES:]
    return "".join(letter if letter.isprintable() else "?" for letter in "; ".join(lines)) or "nothing"
