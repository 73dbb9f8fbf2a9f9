"""A host's own key and certificate, and the certificates of the hosts that it trusts.

The certificate is self-signed and cannot sign others: a host trusts exactly the certificates that it was given. The
private key never leaves the host.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import tail

#: Runs a command and returns its status, output and error output.
Run = Callable[..., tuple[int, str, str]]

KEY, CERTIFICATE, TRUSTED, PEERS = "own.key", "own.crt", "trusted.pem", "peers.json"
#: Days for which a certificate is valid. It is trusted because the other hosts were given it, not for its date.
DAYS = 7300
#: Seconds before its end from which a certificate is replaced.
LEFT = 30 * 86400
PEM = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n")
_SETTINGS = """\
[req]
distinguished_name = subject
prompt = no
x509_extensions = extensions
[subject]
CN = {name}
[extensions]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:{dns_name}
"""


class IdentityError(Exception):
    """The host has no certificate, or does not know one of another host."""


class Identity:
    """The files of a host's identity.

    Args:
        folder: the folder; only root can enter it.
        run: runs a command.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run

    def certificate(self) -> str:
        """Return the host's own certificate; empty if it has none that can be used."""
        certificate, key = self.folder / CERTIFICATE, self.folder / KEY
        if not certificate.is_file() or not key.is_file():
            return ""
        public = self._openssl("x509", "-in", str(certificate), "-noout", "-pubkey", "-checkend", str(LEFT))
        # A killed run can leave a new key beside the former certificate.
        if not public or self._openssl("pkey", "-in", str(key), "-pubout") not in public:
            return ""
        return certificate.read_text(encoding="utf-8")

    def create(self, name: str, dns_name: str) -> str:
        """Generate a key and a self-signed certificate, and return the certificate.

        Args:
            name: the host's name, for people.
            dns_name: the name that the other hosts verify.

        Raises:
            IdentityError: openssl failed.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            settings, key, certificate = (Path(scratch) / file for file in ("settings", KEY, CERTIFICATE))
            # At most 64 characters (RFC 5280), and nothing that is special in the settings.
            shown = re.sub(r"[^A-Za-z0-9.-]", "-", name)[:64]
            settings.write_text(_SETTINGS.format(name=shown, dns_name=dns_name), encoding="utf-8")
            command = ["openssl", "req", "-x509", "-config", str(settings), "-newkey", "ec", "-nodes"]
            command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-sha256", "-days", str(DAYS)]
            status, out, err = self.run([*command, "-keyout", str(key), "-out", str(certificate)])
            if status:
                raise IdentityError(f"openssl did not create a certificate:\n{tail(err or out, 5)}")
            atomic.write(self.folder / KEY, key.read_bytes(), mode=0o600)
            atomic.write(self.folder / CERTIFICATE, certificate.read_bytes(), mode=0o644)
        return (self.folder / CERTIFICATE).read_text(encoding="utf-8")

    def trusts(self, peers: Mapping[str, str]) -> tuple[dict[str, str], str]:
        """Return the certificates that the host should trust, by the hosts' names, and their file's text.

        Args:
            peers: the certificate of each other host; empty if this run does not know it, and the one that the host
                has stays.

        Raises:
            IdentityError: a certificate is unknown, or is none.
        """
        known = self._known()
        wanted = {name: given or known.get(name, "") for name, given in peers.items()}
        if missing := sorted(name for name, text in wanted.items() if not text):
            raise IdentityError(
                f"The certificate of {', '.join(missing)} is not known yet. Run site.yml without --limit and --tags, "
                "so that the hosts exchange their certificates."
            )
        for name, text in wanted.items():
            if not PEM.fullmatch(text):
                raise IdentityError(f"What {name} returned is not a certificate. Run site.yml again.")
        return wanted, "".join(wanted[name] for name in sorted(wanted))

    def trust(self, wanted: Mapping[str, str], text: str) -> None:
        """Write the result of :meth:`trusts`."""
        atomic.write(self.folder / TRUSTED, text, mode=0o644)
        atomic.write(self.folder / PEERS, json.dumps(dict(wanted), indent=1, sort_keys=True) + "\n", mode=0o644)

    def is_trusting(self, wanted: Mapping[str, str], text: str) -> bool:
        """Check whether the files have the result of :meth:`trusts`."""
        file = self.folder / TRUSTED
        return self._known() == wanted and file.is_file() and file.read_text(encoding="utf-8") == text

    def _known(self) -> dict[str, str]:
        try:
            found = json.loads((self.folder / PEERS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}

    def _openssl(self, *arguments: str) -> str:
        """Return what openssl prints; empty if it failed."""
        status, out, _err = self.run(["openssl", *arguments])
        return "" if status else str(out).strip()
