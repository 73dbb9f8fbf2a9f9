"""How long browsers are told to come by HTTPS only (RFC 6797): short at first, and longer while all goes well.

What a browser has been told cannot be taken back by the host before it visits again over a certificate that it trusts.
So nothing is said before one has been served, and a mistake of the first days costs minutes, not years.
"""

from __future__ import annotations

from pathlib import Path

from flaskhost_certificates import store
from flaskhost_certificates.config import Hsts

DAY = 86400
#: For so many seconds after the first trusted certificate, no more than so many seconds are said. The steps are those
#: that hstspreload.org recommends (five minutes, a week, a month), with a day in place of the week.
RAMP = ((DAY, 300), (7 * DAY, DAY), (30 * DAY, 30 * DAY))


def value(hsts: Hsts, trusted_since: float, now: float) -> str:
    """What the header Strict-Transport-Security says.

    Args:
        hsts: what is wanted at the end.
        trusted_since: since when a trusted certificate has been served, in seconds since 1970; 0 for not at all.
        now: seconds since 1970.

    Returns:
        The header's value; empty for no header. ``max-age=0`` takes back what has been said (RFC 6797, 6.1.1).
    """
    if not trusted_since:
        return ""
    age = now - trusted_since
    seconds = min([hsts.max_age, *(limit for until, limit in RAMP if age < until)])
    # The other two are for good, or reach further than this site: only with the time that is for good as well.
    whole = seconds == hsts.max_age and seconds > 0
    words = [f"max-age={seconds}", *["includeSubDomains"] * (whole and hsts.subdomains)]
    return "; ".join([*words, *["preload"] * (whole and hsts.preload)])


def map_text(value: str) -> str:
    """The lines of a ``map`` of nginx whose result is the header's value; an empty result sends no header."""
    return f'# Written by flaskhost-certificates, which lengthens it by and by.\ndefault "{value}";\n'


def write(path: Path, text: str) -> bool:
    """Write a map's lines, so that nginx never reads half of them.

    Returns:
        Whether the file was another before: nginx has to load it.

    Raises:
        CertificateError: the disk refuses.
    """
    return store.write_file(path, text.encode(), 0o644)
