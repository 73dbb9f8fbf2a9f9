"""What certbot keeps of a site's certificate: whether it is what is wanted, and how to be rid of it.

certbot's own layout (certbot/_internal/storage.py, the same from 2.1 to 5.8): ``live/<lineage>/`` holds links into
``archive/<lineage>/``, and ``renewal/<lineage>.conf`` says how it was had. ConfigObj reads it, as in certbot.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host import tree
from configobj import ConfigObj, ConfigObjError
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from flaskhost_certificates import pairs
from flaskhost_certificates.config import Certificate, CertificateError, Config
from flaskhost_certificates.pairs import Pair

#: Runs a command, and returns its status, output and errors; ``env`` adds variables to the environment.
Run = Callable[..., tuple[int, str, str]]
#: What a lineage consists of (storage.ALL_FOUR).
KINDS = ("cert", "privkey", "chain", "fullchain")

_CURVES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}


@dataclass(frozen=True)
class Lineage:
    """A certificate as certbot has it.

    Attributes:
        name: what certbot calls it.
        live: the folder of its files.
        pair: certificate and key; None where there are none, or none that can be used.
        trouble: why it cannot be used, as a sentence; empty where it can, and where there is none.
        broken: whether certbot cannot use it either, and would make another one beside it, of another name.
        settings: how it was had: the section renewalparams, in which a value with commas is a list.
    """

    name: str
    live: Path
    pair: Pair | None = None
    trouble: str = ""
    broken: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def find(config: Config, name: str) -> Lineage:
    """Read a lineage.

    Args:
        config: where certbot keeps it.
        name: the lineage's name, ``flask-shop``.
    """
    live, conf, archive = _places(config, name)
    if not conf.exists():
        # certbot was killed while it made it, or deleted it.
        left = _is_filled(live) or _is_filled(archive)
        trouble = f"certbot's files of {name} are incomplete: {conf} is missing." if left else ""
        return Lineage(name, live, trouble=trouble, broken=left)
    try:
        written = _read(conf)
    except CertificateError as error:
        return Lineage(name, live, trouble=error.reason, broken=True)
    pair = None
    # certbot keeps the links of before while it sets new ones, and goes back to them (storage._fix_symlinks).
    mended = all((live / f"previous_{kind}.pem").exists() for kind in KINDS)
    if missing := [kind for kind in KINDS if kind not in written.scalars]:
        trouble, mended = f"certbot's file {conf} does not name {missing[0]}.", False
    elif lost := [link for link in _links(live) if not (link.is_symlink() and link.exists())]:
        trouble = f"certbot's file {lost[0]} is missing."
    else:
        pair, trouble = _pair(live)
    settings = written["renewalparams"] if "renewalparams" in written.sections else {}
    return Lineage(name, live, pair, trouble, bool(trouble) and not mended, settings)


def _links(live: Path) -> list[Path]:
    return [live / f"{kind}.pem" for kind in KINDS]


def _pair(live: Path) -> tuple[Pair | None, str]:
    """The pair of a lineage, or why it is none."""
    try:
        pair = pairs.load(live / "fullchain.pem", live / "privkey.pem")
    except CertificateError as error:
        return None, f"certbot's {live} cannot be used: {error}"
    if pair is not None and not pair.fits:
        return None, f"certbot's {live} cannot be used: its key does not belong to its certificate."
    return pair, ""


def differences(config: Config, certificate: Certificate, lineage: Lineage, now: float) -> list[str]:
    """Say why the authority has to be asked for a certificate; nothing where the lineage is what is wanted.

    Args:
        config: authority, key type, profile and challenge's settings.
        certificate: what is wanted.
        lineage: what is there.
        now: seconds since 1970.

    Returns:
        Phrases, such as ``it lacks b.example.com``.
    """
    if lineage.trouble:
        return [lineage.trouble]
    if lineage.pair is None:
        return ["there is none yet"]
    pair, settings = lineage.pair, lineage.settings
    found = []
    wanted = normal(certificate.domains)
    if lacking := sorted(wanted - pair.names):
        found.append(f"it does not include {', '.join(lacking)}")
    if surplus := sorted(pair.names - wanted):
        found.append(f"it also includes {', '.join(surplus)}")
    if pair.not_after <= now:
        found.append("it has expired")
    if settings.get("server", "") != config.directory:
        found.append(f"it is from {settings.get('server') or 'an unknown authority'}, not from {config.directory}")
    if key_type(pair) != config.key_type:
        found.append(f"its key is {key_type(pair)}, not {config.key_type}")
    if not _same_challenge(config, certificate, settings):
        found.append(f"it was issued with {settings.get('authenticator') or 'an unknown challenge'}")
    if settings.get("preferred_profile", "") != config.profile:
        found.append(f"its profile is {settings.get('preferred_profile') or 'the default'}")
    return found


def _same_challenge(config: Config, certificate: Certificate, settings: Mapping[str, Any]) -> bool:
    authenticator = settings.get("authenticator", "")
    if certificate.challenge == "http":
        roots = settings.get("webroot_path", [])
        return authenticator == "webroot" and str(config.webroot) in ([roots] if isinstance(roots, str) else roots)
    # Plugins of others may be called by more: certbot-plugin-x:dns-x.
    return authenticator.replace("_", "-").endswith(f"dns-{config.dns_plugin}".replace("_", "-"))


def normal(domains: Iterable[str]) -> frozenset[str]:
    """Write names and addresses as a certificate's are read: lower case, and one form for each address."""
    found = set()
    for domain in domains:
        try:
            found.add(str(ipaddress.ip_address(domain)))
        except ValueError:
            found.add(domain.lower().rstrip("."))
    return frozenset(found)


def key_type(pair: Pair) -> str:
    """The type of a pair's key as the settings call it: p256, p384, rsa2048, rsa4096; another's own name."""
    key = pair.leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name, key.curve.name)
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa{key.key_size}"
    return type(key).__name__.removesuffix("PublicKey").lower()


def exists(config: Config, name: str) -> bool:
    """Whether certbot has anything of a lineage."""
    return any(os.path.lexists(place) for place in _places(config, name))


def set_aside(config: Config, name: str) -> list[Path]:
    """Put what is left of a broken lineage out of certbot's way, under other names; nothing is deleted.

    certbot would otherwise refuse ("live directory exists"), or call the next one ``flask-shop-0001``.

    Returns:
        Where it was put.
    """
    moved = []
    for place in _places(config, name):
        if os.path.lexists(place):
            # Not *.conf, which certbot would go on reading.
            aside = place.with_name(f"{place.name}.broken")
            tree.remove_path(aside)
            place.rename(aside)
            moved.append(aside)
    return moved


def delete(run: Run, config: Config, name: str) -> None:
    """Delete a lineage; one that is not there is fine, and so is one of which only a part is left.

    Args:
        run: runs certbot.
        config: where certbot and its folders are.
        name: the lineage's name.

    Raises:
        CertificateError: certbot refused.
    """
    _live, conf, _archive = _places(config, name)
    # certbot deletes an unreadable file of its own and then fails (storage.delete_files).
    if not find(config, name).broken and conf.exists() and config.certbot.exists():
        command = [str(config.certbot), "delete", "--non-interactive", "--cert-name", name]
        command += ["--config-dir", str(config.letsencrypt)]
        if (config.settings / "cli.ini").exists():
            command += ["--config", str(config.settings / "cli.ini")]
        code, out, err = run(command)
        if code and conf.exists():
            reason = f"certbot could not delete {name}: {last_line(err) or last_line(out) or f'status {code}'}."
            raise CertificateError(reason, "Run the same command again to continue.")
    # What certbot leaves when it is killed, and what it leaves of a lineage that it cannot read.
    for place in _places(config, name):
        tree.remove_path(place)


def _read(conf: Path) -> ConfigObj:
    """Read a lineage's file of settings.

    Raises:
        CertificateError: it is empty, cut off, or no such file.
    """
    try:
        # As certbot reads it, except that a percent sign has no meaning.
        written = ConfigObj(str(conf), encoding="utf-8", file_error=True, interpolation=False)
    except (ConfigObjError, OSError, ValueError):
        written = ConfigObj()
    if not written.scalars:
        raise CertificateError(f"certbot's file {conf} is damaged.", "Move it away, then run the same command again.")
    return written


def last_line(text: str) -> str:
    """The last line that says something, without its full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""


def _places(config: Config, name: str) -> tuple[Path, Path, Path]:
    base = config.letsencrypt
    return base / "live" / name, base / "renewal" / f"{name}.conf", base / "archive" / name


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
