"""The verb ``apply``: order missing or changed certificates, delete dropped ones, and make nginx serve the result."""

from __future__ import annotations

import contextlib

from flaskhost_certificates.activate import activate
from flaskhost_certificates.config import Config
from flaskhost_certificates.dropped import delete_dropped
from flaskhost_certificates.lineages import Run
from flaskhost_certificates.order import obtain
from flaskhost_certificates.result import Result
from flaskhost_certificates.work import Work


def apply(config: Config, run: Run, now: float, *, dry: bool = False) -> Result:
    """Order certificates that are missing or have other names, delete dropped ones, and make nginx serve the result.

    Args:
        config: the configuration.
        run: runs a command.
        now: seconds since 1970.
        dry: report what would be done; change nothing, and contact no CA.
    """
    with contextlib.ExitStack() as stack:
        work = Work(config, run, now, dry, stack)
        delete_dropped(work)
        for item in config.certificates:
            with work.failures_of(item.name):
                obtain(work, item)
        activate(work)
    return work.result()
