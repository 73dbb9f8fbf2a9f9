"""The verb ``renew``: renew certificates that are due, then do the same as ``apply``. A timer calls it twice a day."""

from __future__ import annotations

import contextlib

from flaskhost_certificates import authority, lineages
from flaskhost_certificates.activate import activate
from flaskhost_certificates.config import Certificate, Config
from flaskhost_certificates.dropped import delete_dropped
from flaskhost_certificates.lineages import Run
from flaskhost_certificates.order import must_wait, obtain, record_failure, run_certbot
from flaskhost_certificates.result import Result
from flaskhost_certificates.work import Work


def renew(config: Config, run: Run, now: float, *, dry: bool = False) -> Result:
    """Renew certificates that are due, then do the same as ``apply``.

    Args:
        config: the configuration.
        run: runs a command.
        now: seconds since 1970.
        dry: report what ``apply`` would do; change nothing, and contact no CA.
    """
    with contextlib.ExitStack() as stack:
        work = Work(config, run, now, dry, stack)
        delete_dropped(work)
        for item in config.certificates:
            with work.failures_of(item.name):
                _renew(work, item)
                obtain(work, item)
        activate(work)
    return work.result()


def _renew(work: Work, item: Certificate) -> None:
    """Let certbot renew a certificate that is due. One that needs a new order anyway is not renewed first."""
    lineage = lineages.find(work.config, item.lineage)
    if item.mode != "acme" or work.dry or lineage.pair is None:
        return
    if lineages.differences(work.config, item, lineage, work.now):
        return
    if must_wait(work, item):
        return
    work.remember(item, asked=item.domains, directory=work.config.directory)
    command = [*authority.renewal(work.config), "--cert-name", item.lineage]
    code, out, err = run_certbot(work, command)
    if code:
        failure = authority.explain(f"{out}\n{err}", work.now, work.config.directory, work.caa_identity)
        what = f"The certificate could not be renewed. {failure.reason} {failure.cure}".strip()
        record_failure(work, item, what, not_before=failure.not_before)
    else:
        work.remember(item, error="", error_at=0, not_before=0)
