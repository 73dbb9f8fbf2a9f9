"""The verb ``check``: find certificates that are unreadable, expired, due for renewal, or not served by nginx."""

from __future__ import annotations

from flaskhost_certificates import serving
from flaskhost_certificates.config import Certificate, Config
from flaskhost_certificates.lineages import Run
from flaskhost_certificates.pairs import Pair
from flaskhost_certificates.result import Result
from flaskhost_certificates.state import State
from flaskhost_certificates.work import Work, installed, utc, variables

#: Seconds of lifetime under which certbot renews at half of it (renewal._default_renewal_time).
SHORT_LIVED = 10 * 86400
#: Seconds that a renewal may be late without a problem: the timer runs twice a day, with a random delay.
GRACE = 18 * 3600


def check(config: Config, run: Run, now: float) -> Result:
    """Check that each certificate is readable, valid for a while, and the one that nginx serves.

    Args:
        config: the configuration.
        run: runs a command.
        now: seconds since 1970.
    """
    work = Work(config, run, now, True)
    running = serving.is_running(run)
    for item in config.certificates:
        with work.failures_of(item.name):
            _check(work, item, running)
    return work.result()


def _check(work: Work, item: Certificate, running: bool) -> None:
    """Add what is wrong with one certificate to its outcome."""
    outcome, known = work.outcomes[item.name], work.recall(item)
    pair, trouble = installed(item)
    if trouble or pair is None:
        missing = f"There is no certificate in {item.certificate.parent}."
        outcome.problems.append(f"{trouble or missing} Run site.yml, which installs one.")
        return
    if item.mode == "acme" and known.source != "acme":
        outcome.problems.append(f"There is no certificate from the CA yet, so browsers warn. {_cure(item, known)}")
    if late := lateness(pair, work.now):
        outcome.problems.append(f"The certificate for {item.domains[0]} {late} {_cure(item, known)}")
    shown = serving.served(item.domains[0]) if running else serving.der(pair)
    if shown != serving.der(pair):
        what = "no certificate" if shown is None else "another certificate"
        outcome.problems.append(
            f"nginx serves {what} for {item.domains[0]} instead of the certificate in {item.certificate.parent}. "
            "Check 'sudo nginx -t' and 'sudo journalctl -u nginx', then run 'sudo flaskhost-certificates apply'."
        )
    elif not running:
        outcome.notes.append("nginx is not running.")


def lateness(pair: Pair, now: float) -> str:
    """Say that a certificate has expired or is overdue for renewal; empty if neither.

    certbot renews a certificate when a third of its lifetime is left, or half of it if the lifetime is under 10 days.
    A self-signed certificate is not renewed before it expires.
    """
    left = pair.not_after - now
    if left <= 0:
        return f"expired on {utc(pair.not_after)}."
    third = pair.lifetime / 3 - (GRACE if pair.lifetime >= SHORT_LIVED else 0)
    if pair.self_signed or left >= third:
        return ""
    amount = f"{left / 86400:.0f} days" if left >= 2 * 86400 else f"{left / 3600:.0f} hours"
    return f"expires in {amount}, at {utc(pair.not_after)}, and has not been renewed."


def _cure(item: Certificate, known: State) -> str:
    if item.mode == "acme":
        return known.error or "See 'sudo journalctl -u flaskhost-certificates-renew' for the reason."
    if known.source == "selfsigned":
        return "Run site.yml, which signs a new one."
    if known.source == "files":
        return f"Set a new one in {' and '.join(variables(item))}, then run site.yml."
    return f"Renew it yourself: it was installed in {item.certificate.parent} by hand."
