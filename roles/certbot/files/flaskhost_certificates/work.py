"""One run over all certificates: what every verb needs to read, install and remember, and to collect the outcomes.

The verbs are in modules of their own: :mod:`prepare`, :mod:`apply`, :mod:`renew`, :mod:`deployed` and :mod:`check`.
Their shared steps are in :mod:`order`, :mod:`dropped` and :mod:`activate`.

Each certificate is handled separately: a failure becomes one of its problems and does not stop the others. No served
certificate is removed before its successor is in place. Each step checks the disk instead of trusting the step before,
so the next run completes a run that was killed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ansible.module_utils.flaskhost.host.failures import defect, system_error

from flaskhost_certificates import authority, state
from flaskhost_certificates.config import Certificate, CertificateError, Config
from flaskhost_certificates.lineages import Run
from flaskhost_certificates.pairs import Pair
from flaskhost_certificates.result import Outcome, Result
from flaskhost_certificates.state import State
from flaskhost_certificates.store import Store


class Work:
    """One run of a verb.

    Args:
        config: the configuration.
        run: runs a command.
        now: seconds since 1970.
        dry: whether the run must change nothing and contact no CA.
        stack: closes at the end what the run has opened.

    Attributes:
        outcomes: the outcome of each certificate, by name.
        before: the pair and the state of each certificate at the start of the run, by name.
        deleted: names of the sites whose lineage or pair was deleted.
        reloaded: whether nginx was reloaded.
    """

    def __init__(
        self, config: Config, run: Run, now: float, dry: bool, stack: contextlib.ExitStack | None = None
    ) -> None:
        self.config, self.run, self.now, self.dry = config, run, now, dry
        self.stack = stack or contextlib.ExitStack()
        self.outcomes: dict[str, Outcome] = {item.name: Outcome(item.name) for item in config.certificates}
        self.before: dict[str, tuple[Pair | None, State]] = {}
        self.deleted: list[str] = []
        self.reloaded = False
        self._cache: dict[str, Any] = {}
        for item in config.certificates:
            self.before[item.name] = (installed(item)[0], self.recall(item))

    def result(self) -> Result:
        """Return the outcomes, completed by what is installed now."""
        for item in self.config.certificates:
            outcome, pair = self.outcomes[item.name], installed(item)[0]
            outcome.source = self.recall(item).source if pair else ""
            if pair:
                outcome.serial, outcome.not_after = serial(pair), int(pair.not_after)
        return Result(list(self.outcomes.values()), self.deleted, self.reloaded)

    @contextlib.contextmanager
    def failures_of(self, name: str) -> Iterator[None]:
        """Turn an exception into a problem of this certificate, so that the run goes on with the others."""
        outcome = self.outcomes.setdefault(name, Outcome(name))
        try:
            yield
        except CertificateError as error:
            outcome.problems.append(str(error))
        except OSError as error:
            outcome.problems.append(f"A file or connection failed: {system_error(error)}.")
        except Exception as error:  # a defect too must not stop the others; its text may hold anything
            outcome.problems.append(defect(error, "flaskhost-certificates", secret=True))

    def recall(self, item: Certificate) -> State:
        """Read the state of a certificate."""
        return state.load(self.config.state, item.name)

    def remember(self, item: Certificate, **changes: Any) -> State:
        """Change the state of a certificate."""
        known = replace(self.recall(item), folder=str(item.certificate.parent), **changes)
        if not self.dry:
            state.save(self.config.state, item.name, known)
        return known

    def install(self, item: Certificate, pair: Pair, source: str, note: str) -> None:
        """Install a pair, unless it is installed already."""
        outcome = self.outcomes[item.name]
        if installed(item)[0] != pair:
            outcome.changed = True
            outcome.notes.append(note)
            if not self.dry:
                store_of(item).install(pair)
        self.remember(item, source=source)

    def once(self, key: str, ask: Callable[[], Any]) -> Any:
        """Call a function once for all certificates; if it fails, raise the same error for each of them."""
        if key not in self._cache:
            try:
                self._cache[key] = ask()
            except CertificateError as error:
                self._cache[key] = error
        if isinstance(self._cache[key], CertificateError):
            raise self._cache[key]
        return self._cache[key]

    def directory(self) -> dict[str, Any]:
        """Return the CA's directory."""
        return self.once("directory", lambda: authority.directory(self.config.directory, self.config.root))

    def caa_identity(self) -> str:
        """Return the name of the CA in CAA records; empty if its directory has none, or cannot be fetched."""
        try:
            return next(iter(self.directory()["meta"]["caaIdentities"]), "")
        except CertificateError:
            return ""


def store_of(item: Certificate) -> Store:
    """Return the store of a certificate's pair."""
    return Store(item.certificate, item.key)


def installed(item: Certificate) -> tuple[Pair | None, str]:
    """Return the installed pair, or None and the reason why it cannot be used; empty if no pair is installed."""
    try:
        pair = store_of(item).installed()
    except CertificateError as error:
        return None, str(error)
    if pair and not pair.fits:
        return None, f"The key in {item.certificate.parent} does not belong to the certificate."
    return pair, ""


def serial(pair: Pair) -> str:
    """Return the serial number as ``openssl x509 -serial`` prints it."""
    text = f"{pair.serial:X}"
    return text.zfill(len(text) + len(text) % 2)


def variables(item: Certificate) -> tuple[str, str]:
    """Name the variables in which the operator sets the site's own certificate and its key."""
    return f"{item.variable}.tls.certificate", f"{item.variable}.tls.key"


def utc(seconds: float) -> str:
    """Format a time, given in seconds since 1970."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def sentence(text: str) -> str:
    """End a text with a period, if it has none."""
    return text if text.endswith(".") else f"{text}."
