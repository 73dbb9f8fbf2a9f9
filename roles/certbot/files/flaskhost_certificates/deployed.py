"""The verb ``deployed``, certbot's deploy hook: install the certificate that certbot has just obtained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flaskhost_certificates import lineages
from flaskhost_certificates.activate import activate
from flaskhost_certificates.config import CertificateError, Config
from flaskhost_certificates.lineages import Run
from flaskhost_certificates.order import install_issued
from flaskhost_certificates.result import Result
from flaskhost_certificates.work import Work


def deployed(config: Config, run: Run, live: str, now: float, *, dry: bool = False, within: bool = False) -> Result:
    """Install the certificate that certbot has just obtained, and make nginx serve it.

    Args:
        config: the configuration.
        run: runs a command.
        live: the lineage's folder, from the environment variable RENEWED_LINEAGE.
        now: seconds since 1970.
        dry: report what would be done, and change nothing.
        within: whether a run of this program is waiting for certbot. That run reloads nginx once for all certificates,
            because each reload closes the clients' keep-alive connections.

    Returns:
        One certificate; none if the lineage belongs to no site here.

    Raises:
        CertificateError: ``live`` is empty.
    """
    if not live:
        reason = "The environment variable RENEWED_LINEAGE is not set."
        raise CertificateError(
            reason, "certbot runs this command. To install certificates by hand: sudo flaskhost-certificates apply"
        )
    path = Path(live)
    ours = [
        item
        for item in config.certificates
        if item.mode == "acme" and path.name == item.lineage and path.parent == config.letsencrypt / "live"
    ]
    work = Work(replace(config, certificates=tuple(ours)), run, now, dry)
    for item in ours:
        with work.failures_of(item.name):
            lineage = lineages.find(config, item.lineage)
            if lineage.pair is None:
                raise CertificateError(lineage.trouble or f"certbot has no certificate in {live}.")
            install_issued(work, item, lineage.pair)
    if not within:
        activate(work)
    return work.result()
