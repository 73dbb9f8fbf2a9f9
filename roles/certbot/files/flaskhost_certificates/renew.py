"""The verb ``renew``: renew certificates that are due, then do the same as ``apply``. A timer calls it twice a day."""

from __future__ import annotations

import contextlib

from flaskhost_certificates import authority, lineages
from flaskhost_certificates.activate import activate
from flaskhost_certificates.config import Certificate, CertificateError, Config
from flaskhost_certificates.dropped import delete_dropped
from flaskhost_certificates.lineages import Run
from flaskhost_certificates.order import differences, must_wait, obtain, record_failure, run_certbot
from flaskhost_certificates.result import Result
from flaskhost_certificates.work import Work


def renew(config: Config, run: Run, now: float, *, dry: bool = False) -> Result:
    """Renew certificates that are due, including certbot's own that no site here uses; then do the same as ``apply``.

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
        _renew_others(work)
        activate(work)
    return work.result()


def _renew(work: Work, item: Certificate) -> None:
    """Let certbot renew a certificate that is due. One that needs a new order anyway is not renewed first."""
    lineage = lineages.find(work.config, item.lineage)
    if item.mode != "acme" or work.dry or differences(work, item, lineage) or lineage.pair is None:
        return
    if must_wait(work, item):
        return
    version = work.version()
    lineages.keep_renewal_time(work.config, lineage, version)
    work.remember(item, asked=item.domains, directory=work.config.directory)
    command = [*authority.renewal(work.config), "--cert-name", item.lineage]
    code, out, err = run_certbot(work, command)
    lineage = lineages.find(work.config, item.lineage)
    lineages.keep_renewal_time(work.config, lineage, version)
    if code:
        failure = authority.explain(f"{out}\n{err}", work.now, work.config.directory)
        what = f"The certificate could not be renewed. {failure.reason} {failure.cure}".strip()
        record_failure(work, item, what, not_before=failure.not_before)
    else:
        work.remember(item, error="", error_at=0, not_before=0)


def _renew_others(work: Work) -> None:
    """Renew the certificates that somebody obtained with certbot for something else.

    The timer of Debian's package renewed them, and the timer that calls this program replaces it.
    """
    ours = {item.lineage for item in work.config.certificates}
    if work.dry or not work.config.others:
        return
    for name in lineages.foreign(work.config, ours):
        with work.failures_of(name):
            code, out, err = run_certbot(work, [*authority.renewal(work.config), "--cert-name", name])
            if code:
                failure = authority.explain(f"{out}\n{err}", work.now)
                reason = f"certbot's certificate {name}, which belongs to no site of this host, could not be renewed."
                cure = f"If you do not need it: {work.config.certbot} delete --cert-name {name}"
                raise CertificateError(f"{reason} {failure.reason} {failure.cure}".strip(), cure)
    for name in [name for name in work.outcomes if name not in work.before and not work.outcomes[name].problems]:
        del work.outcomes[name]
