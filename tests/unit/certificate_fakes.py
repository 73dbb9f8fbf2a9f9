"""A host whose certbot, authority, nginx and DNS are made up, for the tests of the program flaskhost-certificates."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flaskhost_certificates import apply, authority, check, deployed, pairs, prepare, records, renew, serving, state
from flaskhost_certificates.commands import run_command
from flaskhost_certificates.config import Certificate, Config
from flaskhost_certificates.pairs import Pair
from flaskhost_certificates.result import Result
from flaskhost_certificates.store import Store

#: Some day in 2027.
NOW = 1_800_000_000.0
DAY = 86400
URL = "https://ca.test/dir"
CURVES = {"p256": ec.SECP256R1, "p384": ec.SECP384R1}
KINDS = ("cert", "privkey", "chain", "fullchain")


class Authority:
    """A certificate authority; one for all tests, as keys take time."""

    def __init__(self, name: str = "Test root") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.root = self._sign(self.name, self.key.public_key(), NOW - 400 * DAY, 4000)

    def _sign(
        self, name: x509.Name, key: Any, begins: float, days: float, domains: Sequence[str] = ()
    ) -> x509.Certificate:
        start = datetime.fromtimestamp(begins, UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start)
        builder = builder.not_valid_after(start + timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(not domains, None), True)
        if domains:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(item) for item in domains]), False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, domains: Sequence[str], begins: float = NOW, days: float = 90, key_type: str = "p256") -> Pair:
        """Sign a certificate."""
        key = ec.generate_private_key(CURVES[key_type]())
        leaf = self._sign(x509.Name([]), key.public_key(), begins, days, domains)
        pem = serialization.Encoding.PEM
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return pairs.parse(leaf.public_bytes(pem), secret)


def _name(domain: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(domain))
    except ValueError:
        return x509.DNSName(domain)


AUTHORITY = Authority()


def write_lineage(letsencrypt: Path, name: str, pair: Pair, params: Mapping[str, str]) -> Path:
    """Write a lineage as certbot does: the next version in archive/, links in live/, and the file in renewal/."""
    live, archive = letsencrypt / "live" / name, letsencrypt / "archive" / name
    for folder in (live, archive, letsencrypt / "renewal"):
        folder.mkdir(parents=True, exist_ok=True)
    number = len(list(archive.glob("cert*.pem"))) + 1
    leaf = pair.leaf.public_bytes(serialization.Encoding.PEM)
    contents = {
        "cert": leaf,
        "privkey": pair.key,
        "chain": AUTHORITY.root.public_bytes(serialization.Encoding.PEM),
        "fullchain": pair.chain,
    }
    for kind in KINDS:
        (archive / f"{kind}{number}.pem").write_bytes(contents[kind])
        (live / f"{kind}.pem").unlink(missing_ok=True)
        (live / f"{kind}.pem").symlink_to(f"../../archive/{name}/{kind}{number}.pem")
    lines = ["version = 5.8.0", f"archive_dir = {archive}", *(f"{kind} = {live}/{kind}.pem" for kind in KINDS)]
    lines += ["", "# Options used in the renewal process", "[renewalparams]", "account = abc"]
    lines += [f"{key} = {value}" for key, value in params.items()] + ["[[webroot_map]]", "a.test = /elsewhere", ""]
    (letsencrypt / "renewal" / f"{name}.conf").write_text("\n".join(lines), encoding="utf-8")
    return live


class Host:
    """A host in a folder.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = NOW
        self.calls: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.orders: list[tuple[str, ...]] = []
        self.asked_dns: list[tuple[str, ...]] = []
        #: What the authority, DNS and nginx say instead of their usual.
        self.refusals: dict[str, str] = {}
        self.directory_down = ""
        self.missing_records: dict[str, str] = {}
        self.nginx_refuses = ""
        self.nginx_names = ""
        self.running = True
        self.due: set[str] = set()
        self.hook_works = True
        self.days = 90.0
        #: Before which command the program is killed.
        self.kill_at = ""
        #: What nginx has loaded: the leaf for each name.
        self.loaded: dict[str, bytes] = {}
        self.certbot = root / "certbot/bin/certbot"
        self.certbot.parent.mkdir(parents=True)
        self.certbot.touch(mode=0o755)
        (root / "hooks").mkdir()
        self.config = self.configure()

    def configure(self, *certificates: Certificate, **settings: Any) -> Config:
        """Write what is wanted."""
        places = {
            "certbot": self.certbot,
            "webroot": self.root / "webroot",
            "settings": self.root / "settings",
            "letsencrypt": self.root / "letsencrypt",
            "state": self.root / "state",
            "hooks": self.root / "hooks",
        }
        self.config = Config(certificates=certificates, **{"directory": URL, **places, **settings})
        return self.config

    def site(self, name: str, *domains: str, mode: str = "acme", challenge: str = "http") -> Certificate:
        """A site's certificate."""
        folder = self.root / "tls" / name
        places = (folder / "fullchain.pem", folder / "privkey.pem")
        return Certificate(name, domains or (f"{name}.test",), mode, challenge, *places, variable=f"flask_apps.{name}")

    # --- The program's verbs, with this host's clock -------------------------------------------------------------

    def prepare(self, own: Mapping[str, Mapping[str, str]] | None = None, dry: bool = False) -> Result:
        return prepare.prepare(self.config, self.run, own or {}, self.now, dry=dry)

    def apply(self, dry: bool = False) -> Result:
        return apply.apply(self.config, self.run, self.now, dry=dry)

    def renew(self) -> Result:
        return renew.renew(self.config, self.run, self.now)

    def check(self) -> Result:
        return check.check(self.config, self.run, self.now)

    def first_run(self) -> Result:
        """What the playbook does: the self-signed certificates, nginx, the authority's."""
        self.prepare()
        self.load()
        return self.apply()

    # --- What the tests look at ----------------------------------------------------------------------------------

    def installed(self, name: str) -> Pair:
        folder = self.root / "tls" / name
        pair = Store(folder / "fullchain.pem", folder / "privkey.pem").installed()
        if pair is None or not pair.fits:
            raise AssertionError(f"no pair of {name}")
        return pair

    def serves(self, domain: str) -> bytes | None:
        return self.loaded.get(domain) if self.running else None

    def is_trusted(self, domain: str) -> bool:
        der = self.serves(domain)
        return der is not None and x509.load_der_x509_certificate(der).issuer == AUTHORITY.name

    def state(self, name: str) -> state.State:
        return state.load(self.config.state, name)

    def hsts(self, name: str) -> str:
        return (self.root / "tls" / name / "hsts.map").read_text(encoding="utf-8").partition('default "')[2][:-3]

    def ran(self, word: str) -> list[list[str]]:
        return [call for call in self.calls if word in call]

    # --- The commands --------------------------------------------------------------------------------------------

    def run(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        command = list(command)
        self.calls.append(command)
        self.environments.append(dict(env or {}))
        if self.kill_at and self.kill_at in command:
            raise KeyboardInterrupt
        if command[0] == str(self.certbot):
            return self._certbot(command[1:])
        if command[:2] == ["systemctl", "is-active"]:
            return (0 if self.running else 3), "", ""
        if command[:2] == ["systemctl", "reload"]:
            self.load()
            return 0, "", ""
        if command[0].endswith("nginx"):
            return self._nginx(command)
        if command[0].startswith(str(self.root / "hooks")):
            return run_command(command, env)
        if command[0] == "ip":
            return 0, json.dumps([{"addr_info": [{"local": "192.0.2.1"}]}]), ""
        raise AssertionError(command)

    def _nginx(self, command: list[str]) -> tuple[int, str, str]:
        if self.nginx_refuses:
            return 1, "", self.nginx_refuses
        return 0, self.nginx_names if "-T" in command else "", ""

    def load(self) -> None:
        """Have nginx read what is installed; it never reads half a pair."""
        for item in self.config.certificates:
            if item.certificate.exists():
                for domain in item.domains:
                    self.loaded[domain] = serving.der(self.installed(item.name))

    def _certbot(self, arguments: list[str]) -> tuple[int, str, str]:
        name = arguments[arguments.index("--cert-name") + 1]
        if arguments[0] == "delete":
            for place in ("live", "archive"):
                _erase(self.config.letsencrypt / place / name)
            (self.config.letsencrypt / "renewal" / f"{name}.conf").unlink()
            return 0, "", ""
        if name in self.refusals:
            return 1, "", self.refusals[name]
        if arguments[0] == "renew":
            return self._renew(name)
        pairwise = list(itertools.pairwise(arguments))
        domains = tuple(value for key, value in pairwise if key in ("-d", "--ip-address"))
        self.orders.append(domains)
        options = dict(pairwise)
        params = {"server": self.config.directory, "authenticator": "webroot", "key_type": "ecdsa"}
        if "--authenticator" in options:
            params["authenticator"] = options["--authenticator"]
        else:
            params["webroot_path"] = f"{options['-w']},"
        if "--preferred-profile" in options:
            params["preferred_profile"] = options["--preferred-profile"]
        pair = AUTHORITY.issue(domains, self.now, self.days, self.config.key_type)
        return self._deploy(name, pair, params)

    def _renew(self, name: str) -> tuple[int, str, str]:
        if name not in self.due:
            return 0, "not due", ""
        self.due.discard(name)
        live = self.config.letsencrypt / "live" / name
        old = pairs.load(live / "fullchain.pem", live / "privkey.pem")
        if old is None:
            return 1, "", "Nothing to renew"
        self.orders.append(tuple(sorted(old.names)))
        params = {"server": self.config.directory, "authenticator": "webroot"}
        params["webroot_path"] = f"{self.config.webroot},"
        return self._deploy(name, AUTHORITY.issue(sorted(old.names), self.now, self.days), params)

    def _deploy(self, name: str, pair: Pair, params: Mapping[str, str]) -> tuple[int, str, str]:
        live = write_lineage(self.config.letsencrypt, name, pair, params)
        if self.kill_at == "after the order":
            raise KeyboardInterrupt
        if self.hook_works:
            deployed.deployed(self.config, self.run, str(live), self.now, within=True)
        return 0, "", ""


def own(pair: Pair) -> dict[str, str]:
    """The options of a site that brings its own pair."""
    return {"certificate": pair.chain.decode(), "key": pair.key.decode()}


def put_plain(host: Host, name: str, pair: Pair) -> None:
    """Put plain files where the pair belongs, as an operator or an earlier release of the role did."""
    folder = host.root / "tls" / name
    folder.mkdir(parents=True)
    (folder / "fullchain.pem").write_bytes(pair.chain)
    (folder / "privkey.pem").write_bytes(pair.key)


def _erase(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def make_host(root: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose network is made up."""
    host = Host(root)

    def directory(url: str, _root: Path | None = None) -> dict[str, Any]:
        if host.directory_down:
            raise authority.CertificateError(host.directory_down, "The next run asks again.")
        return {"meta": {"caaIdentities": ["ca.test"]}}

    def missing(domains: Sequence[str], _own: Sequence[str], _probe: Any) -> list[str]:
        host.asked_dns.append(tuple(domains))
        return [host.missing_records[item] for item in domains if item in host.missing_records]

    @contextlib.contextmanager
    def probing(_webroot: Path) -> Iterator[Any]:
        yield lambda _address, _domain: ""

    def prove(domains: Sequence[str], pair: Pair) -> None:
        for domain in domains:
            if host.serves(domain) != serving.der(pair):
                raise serving.CertificateError(f"{domain} is served with another certificate.")

    # Nothing here outlives a power cut, and it takes most of the time.
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setattr(authority, "directory", directory)
    monkeypatch.setattr(records, "problems", missing)
    monkeypatch.setattr(records, "probing", probing)
    monkeypatch.setattr(serving, "served", host.serves)
    monkeypatch.setattr(serving, "prove", prove)
    monkeypatch.setattr(serving, "trusted", lambda domain, _root: host.is_trusted(domain))
    return host
