"""Order a certificate from the CA through certbot, and install the one that certbot has."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from flaskhost_certificates import authority, lineages, records
from flaskhost_certificates.config import Certificate, CertificateError
from flaskhost_certificates.lineages import Lineage
from flaskhost_certificates.pairs import Pair
from flaskhost_certificates.state import LOCKED
from flaskhost_certificates.work import Work, sentence, utc

#: Seconds to wait after the CA issued something else than was ordered. It would issue the same again, and Let's Encrypt
#: issues five certificates a week for a set of names (letsencrypt.org/docs/rate-limits).
ODD_SECONDS = 86400


def obtain(work: Work, item: Certificate) -> None:
    """Install the certificate that certbot has, or order one from the CA."""
    if item.mode != "acme":
        return
    outcome = work.outcomes[item.name]
    lineage = lineages.find(work.config, item.lineage)
    why = lineages.differences(work.config, item, lineage, work.now)
    if not why and lineage.pair:
        install_issued(work, item, lineage.pair)
        return
    if work.dry:
        # If the last order failed, the next one may fail too.
        outcome.changed = not work.recall(item).error
        what = f"{', '.join(item.domains)} would be requested from {work.config.directory}: {'; '.join(why)}"
        outcome.notes.append(sentence(what))
        return
    if must_wait(work, item):
        return
    try:
        _order(work, item, lineage)
    except CertificateError as error:
        record_failure(work, item, str(error))


def must_wait(work: Work, item: Certificate) -> bool:
    """Return whether the CA named a time for the next request that has not come yet."""
    known = work.recall(item)
    if known.not_before <= work.now or known.asked != item.domains or known.directory != work.config.directory:
        return False
    # Until then, the last failure is the reason.
    work.outcomes[item.name].problems.append(
        f"The CA is not contacted again before {utc(known.not_before)}. {known.error}".strip()
    )
    return True


def _order(work: Work, item: Certificate, lineage: Lineage) -> None:
    """Order a certificate from the CA, if the site's DNS records allow it.

    Raises:
        CertificateError: the CA cannot be contacted.
    """
    config, outcome = work.config, work.outcomes[item.name]
    work.directory()
    if item.challenge == "http":
        own = work.once("addresses", lambda: records.own_addresses(work.run))
        probe = work.once("probe", lambda: work.stack.enter_context(records.probing(config.webroot)))
        if missing := records.problems(item.domains, own, probe):
            record_failure(work, item, *missing)
            return
    # certbot keeps a certificate with the same names, whatever else is new (main._handle_identical_cert_request).
    same = lineage.pair is not None and lineage.pair.names == lineages.normal(item.domains)
    command = authority.certonly(config, item, force=same)
    if lineage.broken:
        moved = lineages.set_aside(config, item.lineage)
        outcome.notes.append(f"{lineage.trouble} Its files were renamed: {', '.join(map(str, moved))}.")
    work.remember(item, asked=item.domains, directory=config.directory)
    code, out, err = run_certbot(work, command)
    lineage = lineages.find(config, item.lineage)
    why = lineages.differences(config, item, lineage, work.now)
    if code:
        failure = authority.explain(f"{out}\n{err}", work.now, config.directory, work.caa_identity)
        record_failure(work, item, f"{failure.reason} {failure.cure}".strip(), not_before=failure.not_before)
    elif why:
        odd = sentence(f"certbot succeeded, but its certificate is not the requested one: {'; '.join(why)}")
        record_failure(work, item, f"{odd} See /var/log/letsencrypt.", not_before=work.now + ODD_SECONDS)
    else:
        work.remember(item, error="", error_at=0, not_before=0)
    if lineage.pair and not why:
        install_issued(work, item, lineage.pair)


def run_certbot(work: Work, command: Sequence[str]) -> tuple[int, str, str]:
    """Run certbot, whose deploy hook calls this program again while this run holds the lock."""
    work.once("bundle", lambda: authority.ca_bundle(work.config))
    return work.run(command, env={**authority.environment(work.config), LOCKED: str(os.getpid())})


def record_failure(work: Work, item: Certificate, *problems: str, not_before: float = 0) -> None:
    """Record why the CA issued no certificate, and when to order again."""
    work.outcomes[item.name].problems += problems
    work.remember(item, error=" ".join(problems), error_at=int(work.now), not_before=math.ceil(not_before))


def install_issued(work: Work, item: Certificate, pair: Pair) -> None:
    """Install the CA's certificate. One that certbot's hook has installed during this run counts as a change too."""
    if not pair.fits or pair.not_after <= work.now:
        raise CertificateError(
            f"certbot's certificate for {item.name} cannot be used: "
            + ("it has expired." if pair.fits else "its key does not belong to it.")
        )
    note = f"The certificate from {pair.issuer_name}, valid until {utc(pair.not_after)}, is installed."
    work.install(item, pair, "acme", note)
    outcome = work.outcomes[item.name]
    if not outcome.changed and work.before[item.name][0] != pair:
        outcome.changed = True
        outcome.notes.append(note)
    work.remember(item, asked=item.domains)
